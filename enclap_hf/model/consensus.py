"""How much a caption says what the others of its clip say: a short CIDEr-D among the candidates.

The definition is that of CIDEr-D (vectors of 1- to 4-grams, clipped products, a Gaussian of the difference in length)
but for one thing: all n-grams weigh the same. Counted among the candidates of a clip, document frequencies would weigh
down what these agree on, which is what is looked for. It is written for dozens of short captions, with one matrix of
counts for each order.

Source: Vedantam et al., CVPR 2015, for CIDEr-D; Kumar and Byrne, NAACL 2004, for choosing what is most like the rest.
"""

import re
from collections.abc import Sequence

import numpy as np

MAX_ORDER = 4
LENGTH_SIGMA = 6.0
SCALE = 10.0
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")


def split_words(caption: str) -> list[str]:
    """Words of a caption in lower case, without punctuation."""
    return _WORD.findall(caption.lower())


def compare_captions(captions: Sequence[str]) -> np.ndarray:
    """CIDEr-D, with n-grams of equal weight, of every caption with every other as its only reference.

    Args:
        captions: N captions of one clip.
    Returns:
        float64 (N, N), from 0 to 10; row i is that of caption i.
    """
    words = [split_words(caption) for caption in captions]
    num_bigrams = np.array([max(len(row) - 1, 0) for row in words], dtype=float)
    total = np.zeros((len(words), len(words)))
    for order in range(1, MAX_ORDER + 1):
        counts = count_ngrams(words, order)
        norms = np.sqrt((counts**2).sum(1))
        products = (np.minimum(counts[:, None], counts[None]) * counts[None]).sum(2)
        total += np.divide(products, norms[:, None] * norms[None], out=np.zeros_like(products), where=products > 0)
    penalty = np.exp(-((num_bigrams[:, None] - num_bigrams[None]) ** 2) / (2 * LENGTH_SIGMA**2))
    return SCALE / MAX_ORDER * total * penalty


def count_ngrams(words: list[list[str]], order: int) -> np.ndarray:
    """How often each caption has each n-gram of any of them: (N, number of n-grams)."""
    grams = [list(zip(*(row[start:] for start in range(order)), strict=False)) for row in words]
    columns = {gram: column for column, gram in enumerate(dict.fromkeys(gram for row in grams for gram in row))}
    counts = np.zeros((len(words), max(len(columns), 1)))
    for row, found in enumerate(grams):
        for gram in found:
            counts[row, columns[gram]] += 1
    return counts
