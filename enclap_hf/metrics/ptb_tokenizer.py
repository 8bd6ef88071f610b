"""Penn Treebank tokenisation of captions in Python, equal to the Java tokenizer of the COCO caption evaluation.

The published pipeline runs Stanford's PTBTokenizer (CoreNLP 3.4.1) with lower-casing and then removes a list of
punctuation tokens. Two of its properties are kept because the published scores contain them:

* the list is upper case and the tokens are lower case, so brackets stay, as the words `-lrb-`, `-rrb-`, ...;
* a blank inside a token (a fraction, a telephone number) becomes a no-break space.

Each caption is read alone. The Java pipeline reads a whole set as one stream, where an abbreviation at the end of one
caption can look at the next caption's first character.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence

from .ptb_characters import mark_characters
from .ptb_rules import ABBREVIATION, COMPOUND_WORDS, RULES, Action

PUNCTUATION = frozenset(["''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"])

# Plain captions, letters and commas with a full stop at the end, need no rules: words are tokens.
_PLAIN_CAPTION = re.compile(r"[A-Za-z]+(?:-[A-Za-z]+)*(?:,? +[A-Za-z]+(?:-[A-Za-z]+)*)* *([.,]?) *")
_APOSTROPHES = re.compile("&apos;|[\x92’‛›]")
_QUOTES = str.maketrans({"’": "'", "›": "'", "\x92": "'", "‘": "`", "‛": "`", "‹": "`", "\x91": "`"}) | str.maketrans(
    {"“": "``", "«": "``", "\x93": "``", "”": "''", "»": "''", "\x94": "''"}
)
_INSIDE_TOKENS = str.maketrans({"(": "-lrb-", ")": "-rrb-", " ": "\xa0"})


def tokenize_ptb(captions: Sequence[str]) -> list[str]:
    """Tokenise captions as the captioning papers do.

    Args:
        captions: sentences, in any case, with any characters.
    Returns:
        one string a caption: its tokens in lower case, without punctuation, joined by single blanks. An empty caption
        gives an empty string.
    Raises:
        TypeError: `captions` is one string, or holds something that is not a string.
    Source: the COCO caption evaluation (Chen et al., arXiv 1504.00325) around Stanford's PTBTokenizer 3.4.1.
    """
    if isinstance(captions, str):
        raise TypeError(f"Got one string, {captions[:40]!r}; expected a list of captions. Put it in brackets.")
    for index, caption in enumerate(captions):
        if not isinstance(caption, str):
            raise TypeError(
                f"Got {caption!r} for caption {index}; expected a string. Use an empty string for an empty caption."
            )
    return [_tokenize_caption(caption) for caption in captions]


@functools.lru_cache(maxsize=1 << 16)  # the references of a set come again at every evaluation
def _tokenize_caption(caption: str) -> str:
    """Tokens of one caption, joined by blanks."""
    plain = _PLAIN_CAPTION.fullmatch(caption)
    if plain:
        words = caption.lower().replace(",", " ").replace(".", " ").split()
        ends_with_abbreviation = plain[1] == "." and ABBREVIATION.fullmatch(words[-1])
        if not ends_with_abbreviation and COMPOUND_WORDS.isdisjoint(words):
            return " ".join(words)
    tokens = " ".join(filter(None, _lex(caption))).rstrip().split(" ")
    return " ".join(token for token in tokens if token not in PUNCTUATION)


def _lex(caption: str) -> list[str]:
    """Apply the token rules from left to right."""
    # Characters beyond the Basic Multilingual Plane count as two, as they do in Java.
    text = caption if caption.isascii() else _to_code_units(caption)
    marks = mark_characters(text) + "\n\n"
    text += "\n\n"
    tokens: list[str] = []
    position = 0
    while position < len(text):
        if marks[position] == "\n":
            position += 1
            continue
        longest, end = 0, position + 1
        action: Action | str = Action.DROP
        for pattern, rule_action in RULES:
            match = pattern.match(marks, position)
            if match and match.end() - position > longest:
                longest, action = match.end() - position, rule_action
                end = match.end(match.lastindex) if match.lastindex else match.end()
        if isinstance(action, str):
            tokens.append(action)
        elif action is not Action.DROP:
            tokens.append(_token_text(text[position:end], action))
        position = end
    return tokens


def _token_text(text: str, action: Action) -> str:
    """The form in which a rule's token leaves the tokeniser."""
    if action is Action.QUOTES:
        return text.replace("&apos;", "'").translate(_QUOTES)
    if action is Action.CLITIC:
        text = _APOSTROPHES.sub("'", text)
    if action in (Action.WORD, Action.CLITIC):
        text = text.replace("\xad", "").replace("&amp;", "&")
    if not text.isascii():
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text.translate(_INSIDE_TOKENS).lower()


def _to_code_units(text: str) -> str:
    """Write characters beyond the Basic Multilingual Plane as two surrogates."""
    units = text.encode("utf-16-le", "surrogatepass")
    return "".join(chr(units[index] | units[index + 1] << 8) for index in range(0, len(units), 2))
