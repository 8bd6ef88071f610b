"""The families of frame encoders that are known; another is a line here, or a call of `register_frame_encoder`."""

import json
import os

from .clap_frames import ClapFrames
from .dac_frames import DacFrames
from .encodec_frames import EncodecFrames, EncodecLatents
from .log_mel_frames import LogMelFrames
from .mimi_frames import MimiFrames
from .xcodec_frames import XcodecFrames

# Families of frame encoders by their names in processor_config.json; `register_frame_encoder` adds to them.
FRAME_ENCODERS: dict[str, type] = {
    "encodec": EncodecFrames,
    "encodec_latents": EncodecLatents,
    "dac": DacFrames,
    "mimi": MimiFrames,
    "xcodec": XcodecFrames,
    "log_mel": LogMelFrames,
    "clap_frames": ClapFrames,
}


def register_frame_encoder(name: str, family: type) -> None:
    """Make a family of frame encoders known by a name in `processor_config.json`.

    Args:
        name: what `frame_encoder_type` says.
        family: a class with the interface of [`FrameEncoder`]; it need not be derived from it.
    Raises:
        TypeError: the class lacks a part of the interface.
        ValueError: the name is taken by another class.
    """
    methods = ("prepare", "encode", "load", "save")
    missing = [part for part in methods if not callable(getattr(family, part, None))]
    missing += [part for part in ("fingerprint",) if not hasattr(family, part)]
    if missing:
        raise TypeError(f"Got {family!r} as a frame encoder, which lacks {', '.join(missing)}; see `FrameEncoder`.")
    known = FRAME_ENCODERS.get(name)
    if known is not None and (known.__module__, known.__qualname__) != (family.__module__, family.__qualname__):
        raise ValueError(f"Got the frame encoder {name!r}, which is {known.__name__} already; choose another name.")
    FRAME_ENCODERS[name] = family


def find_family(name: str | None, folder: str | None = None) -> type:
    """The class of a family of frame encoders, by its name or by the `model_type` of the codec in a folder."""
    if name is None:
        path = os.path.join(folder, "config.json")
        if not os.path.isfile(path):
            raise FileNotFoundError(f"{folder} has no config.json, which says what frame encoder it is.")
        with open(path, encoding="utf-8") as file:
            name = json.load(file).get("model_type")
    if name not in FRAME_ENCODERS:
        raise ValueError(
            f"Got the frame encoder {name!r}; expected one of {', '.join(FRAME_ENCODERS)}, or one that was registered "
            "with `enclap_hf.register_frame_encoder` before."
        )
    return FRAME_ENCODERS[name]


def find_family_name(encoder) -> str:
    """The name that the class of a frame encoder is known by.

    Raises:
        ValueError: it was not registered.
    """
    for name, family in FRAME_ENCODERS.items():
        if family is type(encoder):
            return name
    raise ValueError(
        f"Got a {type(encoder).__name__}, which is not a known frame encoder; register its class with "
        "`enclap_hf.register_frame_encoder(NAME, CLASS)`."
    )
