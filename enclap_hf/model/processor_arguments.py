"""Arguments of a processor's call, as transformers names them, and the clean-up of what it decodes."""

# The clean-up that transformers applied to BART's text before version 5, in its order.
PUNCTUATION_CLEAN_UP = (
    *((" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'")),
    *((" n't", "n't"), (" 'm", "'m"), (" 's", "'s"), (" 've", "'ve"), (" 're", "'re")),
)


def sort_arguments(arguments: dict) -> tuple[dict, dict]:
    """Arguments of a processor's call, as transformers names them, for recordings and for captions.

    Raises:
        TypeError: an argument that no processor takes.
        ValueError: tensors of another kind.
    """
    arguments = {**arguments, **(arguments.pop("common_kwargs", None) or {})}
    of_audio = dict(arguments.pop("audio_kwargs", None) or {})
    of_text = dict(arguments.pop("text_kwargs", None) or {})
    for name in ("truncation", "max_length", "add_special_tokens"):
        if name in arguments:
            of_text[name] = arguments.pop(name)
    for group in (arguments, of_audio, of_text):
        group.pop("padding", None)  # batches are always padded to their longest, which is what it asks for
        if group.pop("return_tensors", "pt") not in ("pt", None):
            raise ValueError('The processor returns torch tensors; leave `return_tensors` out or pass "pt".')
    unknown = [*arguments, *(name for name in of_audio if name != "sampling_rate")]
    unknown += [name for name in of_text if name not in ("truncation", "max_length", "add_special_tokens")]
    if unknown:
        raise TypeError(f"Got {', '.join(f'`{name}`' for name in unknown)}, which this processor does not know.")
    return of_audio, of_text


def clean_up_text(text: str) -> str:
    """Join punctuation to its word, as transformers 4 did for BART: "it does n't stop ." -> "it doesn't stop."."""
    for apart, joined in PUNCTUATION_CLEAN_UP:
        text = text.replace(apart, joined)
    return text
