"""Captions as text and as token ids: what a processor does beside its tokenizer."""

import numbers
import threading
from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from .losses_enclap import IGNORED_TARGET

# The clean-up that transformers applied to BART's text before version 5, in its order.
PUNCTUATION_CLEAN_UP = (
    *((" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'")),
    *((" n't", "n't"), (" 'm", "'m"), (" 's", "'s"), (" 've", "'ve"), (" 're", "'re")),
)
# Held while a tokenizer is asked.
_TOKENIZING = threading.Lock()
# What a tokenizer says of its longest text where it knows none is far above this.
LONGEST_TEXT = 1 << 20


def read_captions(text: str | Iterable[str]) -> list[str]:
    """One caption or several, as a list.

    Raises:
        TypeError: anything but text.
        ValueError: none.
    """
    if isinstance(text, str):
        return [text]
    captions = None if isinstance(text, Mapping) or not isinstance(text, Iterable) else list(text)
    strange = text if captions is None else next((item for item in captions if not isinstance(item, str)), None)
    if captions is None or strange is not None or any(item is None for item in captions):
        raise TypeError(
            f"Got a caption of type {type(strange).__name__}; expected `text` to be one caption or a list of captions, "
            "each a string."
        )
    if not captions:
        raise ValueError("Got no caption in `text`; expected one at least, or leave `text` out.")
    return captions


def tokenize_captions(tokenizer, captions: list[str], **kwargs) -> list[list[int]]:
    """Token ids of captions, <s> tokens </s>, without padding.

    A tokenizer remembers how it was last asked to pad and to truncate, so threads ask one at a time, and what was asked
    is forgotten behind them: its hash stays.
    """
    with _TOKENIZING:
        ids = tokenizer(captions, **kwargs)["input_ids"]
        if kwargs:
            tokenizer("")
    return ids


def pad_labels(rows: list[list[int]], padding: str, max_length: int | None) -> torch.LongTensor:
    """Token ids of each caption as `labels` (B, S), -100 on padding.

    Args:
        rows: ids of each.
        padding: "longest", "max_length", or "do_not_pad" for captions of one length.
        max_length: S of "max_length".
    Raises:
        ValueError: captions of unlike lengths that are not to be padded, or no length to pad them to.
    """
    lengths = {len(row) for row in rows}
    if padding == "do_not_pad" and len(lengths) > 1:
        raise ValueError(
            f"Got captions of {min(lengths)} to {max(lengths)} tokens with `padding=False`; a tensor of them needs "
            "`padding=True`."
        )
    if padding == "max_length" and (max_length is None or max_length > LONGEST_TEXT):
        raise ValueError('Got `padding="max_length"` without `max_length`; pass the number of tokens to pad to.')
    labels = pad_sequence(
        [torch.tensor(row, dtype=torch.long) for row in rows], batch_first=True, padding_value=IGNORED_TARGET
    )
    missing = max_length - labels.shape[1] if padding == "max_length" else 0
    return torch.nn.functional.pad(labels, (0, max(missing, 0)), value=IGNORED_TARGET)


def is_batch(token_ids) -> bool:
    """Whether token ids are those of several captions: (B, S), or a list of lists."""
    if isinstance(token_ids, (torch.Tensor, np.ndarray)):
        return token_ids.ndim > 1 or (token_ids.dtype == object and any(map(np.ndim, token_ids)))
    return isinstance(token_ids, (list, tuple)) and any(map(np.ndim, token_ids))


def read_token_ids(token_ids) -> list[int]:
    """Ids of one caption as a list, without those below 0, as `labels` have on padding.

    Raises:
        TypeError: anything but whole numbers.
    """
    if isinstance(token_ids, (torch.Tensor, np.ndarray)):
        token_ids = token_ids.tolist()
    ids = [token_ids] if isinstance(token_ids, numbers.Number) else list(token_ids)
    for token in ids:
        if not isinstance(token, numbers.Integral) and not (isinstance(token, torch.Tensor) and is_whole(token)):
            raise TypeError(
                f"Got a token id of type {type(token).__name__}; expected whole numbers, as `generate` returns "
                "them and `labels` holds them."
            )
    return [int(token) for token in ids if token >= 0]


def is_whole(token: torch.Tensor) -> bool:
    """Whether a tensor is one whole number."""
    return token.ndim == 0 and not token.is_floating_point()


def clean_up_text(text: str) -> str:
    """Join punctuation to its word, as transformers 4 did for BART: "it does n't stop ." -> "it doesn't stop."."""
    for apart, joined in PUNCTUATION_CLEAN_UP:
        text = text.replace(apart, joined)
    return text
