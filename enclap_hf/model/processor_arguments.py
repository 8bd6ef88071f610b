"""The arguments of a processor's call, in the groups and under the names that transformers gives them."""

# Arguments of captions beside `padding`.
OF_TEXT = ("truncation", "max_length", "add_special_tokens")
PADDINGS = {True: "longest", None: "longest", False: "do_not_pad"}
GROUPS = ("common_kwargs", "audio_kwargs", "text_kwargs")


def sort_arguments(sampling_rate: int | None, arguments: dict) -> tuple[dict, dict]:
    """Tell arguments of recordings from those of captions.

    Args:
        sampling_rate: Hz, as it was passed by itself.
        arguments: the others, by themselves or in `common_kwargs`, `audio_kwargs` and `text_kwargs`.
    Returns:
        of recordings `sampling_rate` and `padding`; of captions `padding`, and those of `OF_TEXT` that were given.
    Raises:
        TypeError: an argument that no processor takes.
        ValueError: an argument given twice, tensors of another kind, or a padding that there is none of.
    """
    groups = {name: dict(arguments.get(name) or {}) for name in GROUPS}
    alone = {name: value for name, value in arguments.items() if name not in GROUPS}
    shared = merge(alone, groups["common_kwargs"])
    if sampling_rate is not None:
        shared = merge({"sampling_rate": sampling_rate}, shared)
    for_text = {name: shared.pop(name) for name in OF_TEXT if name in shared}
    for_audio = {name: shared.pop(name) for name in ("sampling_rate",) if name in shared}
    for_both = {name: shared.pop(name) for name in ("padding", "return_tensors") if name in shared}
    of_audio = merge({**for_audio, **for_both}, groups["audio_kwargs"])
    of_text = merge({**for_text, **for_both}, groups["text_kwargs"])
    for group in (of_audio, of_text):
        if group.pop("return_tensors", "pt") not in ("pt", None):
            raise ValueError('The processor returns torch tensors; leave `return_tensors` out or pass "pt".')
        group["padding"] = read_padding(group.get("padding"))
    if of_audio["padding"] == "max_length":
        if "padding" in groups["audio_kwargs"]:
            raise ValueError(
                'Got `padding="max_length"` in `audio_kwargs`; recordings are padded to the longest of their batch '
                "alone. Captions are padded so by `text_kwargs`."
            )
        of_audio["padding"] = "longest"  # it stands beside a `max_length`, which is one of captions
    unknown = [*shared, *(name for name in of_audio if name not in ("sampling_rate", "padding"))]
    unknown += [name for name in of_text if name not in (*OF_TEXT, "padding")]
    if unknown:
        raise TypeError(
            f"Got {', '.join(f'`{name}`' for name in unknown)}, which this processor does not know; it takes `audio`, "
            f"`sampling_rate`, `text`, `padding`, `return_tensors`, {', '.join(f'`{name}`' for name in OF_TEXT)}."
        )
    return of_audio, of_text


def merge(first: dict, second: dict) -> dict:
    """Both groups; ValueError where they differ in an argument."""
    for name in first.keys() & second.keys():
        if first[name] != second[name]:
            raise ValueError(f"Got `{name}` twice, {first[name]!r} and {second[name]!r}; pass it once.")
    return {**first, **second}


def read_padding(padding) -> str:
    """A padding by its name: "longest", "max_length" or "do_not_pad"."""
    name = PADDINGS.get(padding) if padding is None or isinstance(padding, bool) else getattr(padding, "value", padding)
    if name not in ("longest", "max_length", "do_not_pad"):
        raise ValueError(
            f'Got `padding`={padding!r}; expected True or "longest", False or "do_not_pad", or "max_length".'
        )
    return name


def check_unpadded(lengths: list[int]) -> None:
    """Refuse recordings of unlike lengths, which are not to be padded."""
    if len(set(lengths)) > 1:
        raise ValueError(
            f"Got recordings of {min(lengths)} to {max(lengths)} frames with `padding=False`; a tensor of them needs "
            "`padding=True`."
        )
