"""The frozen encoders of a processor: the frame encoder, the CLAP tower if the captioner reads its vector, and perhaps
the text tower of that CLAP, which tells how well a caption fits.

Where they are is known at once, what they are from their configurations, and weights are read with the first recording.
Threads that ask at the same time wait for the one that loads. Pickled, they are references to where they are.
"""

import json
import logging
import os
from collections.abc import Callable

import torch

from .clap_encoder import ClapEncoder
from .clap_text import ClapTextEncoder
from .encoder_sources import ACCESS_ARGUMENTS, PLACES_FILE, EncoderFolder, check_source, find_folder
from .frame_encoder import FrameEncoder
from .model_checks import LOADING

logger = logging.getLogger(__name__)

# Parts of a repository that hold encoders, by their folders.
PARTS = ("codec", "clap", "clap_text")


class FrozenEncoders:
    """Finds, loads and saves the encoders of a processor.

    Args:
        sources: entry of each part, as in processor_config.json; None for a text tower that is not there.
        location: `repo_id`, and how it is reached, of the processor's own repository; empty for one made in memory.
        find_family: from the type of a frame encoder, or None, and its folder, to its class.
        frame_encoder_type: as in processor_config.json; None is told by the folder's own configuration.
        reads_clap: whether the captioner reads CLAP's vector.
        frame_encoder, clap_encoder, clap_text: those that are in memory.
    """

    def __init__(
        self,
        sources: dict[str, dict | None],
        location: dict,
        find_family: Callable[[str | None, str | None], type],
        frame_encoder_type: str | None = None,
        reads_clap: bool = True,
        frame_encoder: FrameEncoder | None = None,
        clap_encoder: ClapEncoder | None = None,
        clap_text: ClapTextEncoder | None = None,
    ):
        self.sources, self.location, self.find_family = sources, location, find_family
        self.frame_encoder_type, self.reads_clap = frame_encoder_type, reads_clap
        self._frame, self._clap, self._clap_text = self._given = (frame_encoder, clap_encoder, clap_text)
        self._is_bound = frame_encoder is not None  # by who made it
        self._fingerprints: dict[str, str] = {}
        self.device = torch.device("cpu")

    def __deepcopy__(self, memo) -> "FrozenEncoders":
        return self  # frozen: a copied processor shares them

    def __getstate__(self) -> dict:
        read_again = dict(zip(("_frame", "_clap", "_clap_text"), self._given, strict=True))
        return {**self.__dict__, **read_again, "_is_bound": self._given[0] is not None, "_fingerprints": {}}

    def load_frame_encoder(self, processor=None) -> FrameEncoder:
        """The frame encoder; its weights follow on first use. To encode, it has to know the processor."""
        with LOADING:
            if self._frame is None:
                family = self._find_family()
                folder = self.find_folder(getattr(family, "part", "codec"))
                loaded = family.load(folder if issubclass(family, FrameEncoder) else folder.complete_all())
                self._check_fingerprint(getattr(family, "part", "codec"), loaded)
                self._frame = move(loaded, self.device)
            if processor is not None and not self._is_bound:
                if hasattr(self._frame, "bind"):
                    self._frame.bind(processor)
                self._is_bound = True
            return self._frame

    def _load_part(self, part: str):
        """The encoder whose files are in a sub-folder of a repository."""
        if part == self.part_of_frames:
            return self.load_frame_encoder()
        return self.load_clap_encoder() if part == "clap" else self.load_clap_text()

    def load_clap_encoder(self) -> ClapEncoder | None:
        """The CLAP tower; its weights follow on first use. None where the captioner reads no CLAP vector."""
        with LOADING:
            if self._clap is None and self.reads_clap:
                loaded = ClapEncoder(self.find_folder("clap"))
                self._check_fingerprint("clap", loaded)
                self._clap = loaded.to(self.device)
            return self._clap

    def load_clap_text(self) -> ClapTextEncoder | None:
        """CLAP's text tower; its weights follow on first use. None where there is none."""
        with LOADING:
            if self._clap_text is None and self.has_clap_text:
                loaded = ClapTextEncoder(self.find_folder("clap_text"))
                self._check_fingerprint("clap_text", loaded)
                self._clap_text = loaded.to(self.device)
            return self._clap_text

    @property
    def has_clap_text(self) -> bool:
        """Whether there is a text tower, and an audio tower that it belongs to."""
        return self.reads_clap and (self._clap_text is not None or self.sources.get("clap_text") is not None)

    def _find_family(self) -> type:
        """The class of the frame encoder."""
        if self.frame_encoder_type is not None:
            return self.find_family(self.frame_encoder_type, None)
        return self.find_family(None, self.find_folder("codec"))

    @property
    def part_of_frames(self) -> str:
        """Folder of a repository that holds the frame encoder."""
        if self._frame is None and self.frame_encoder_type is None:
            return "codec"  # the families that are elsewhere are always named
        family = type(self._frame) if self._frame is not None else self._find_family()
        return getattr(family, "part", "codec")

    def to(self, device: str | torch.device) -> None:
        """Run the encoders on `device`, those not loaded yet as soon as they are."""
        self.device = torch.device(device)
        for encoder in (self._frame, self._clap, self._clap_text):
            if encoder is not None:
                move(encoder, self.device)

    # Places

    def resolve_source(self, part: str) -> dict:
        """Where an encoder is, as seen from outside of the processor's own repository.

        Raises:
            ValueError: it is nowhere, or its entry says what none may say.
        """
        source = check_source(self.sources[part], f"{part}_source")
        if "repo_id" in source:
            return source
        if not self.location:
            raise ValueError(
                f"This processor was built in memory and has no `{part}`; build it with "
                "`EnClapProcessor.from_encoders(...)` or load it with `EnClapProcessor.from_pretrained(...)`."
            )
        if "fingerprint" in source:
            return {"repo_id": self._find_place(part, source["fingerprint"])}
        own = {key: self.location[key] for key in ("repo_id", "revision") if key in self.location}
        return {**own, "subfolder": part, **source}

    def find_folder(self, part: str) -> EncoderFolder:
        """The folder of an encoder, see [`~encoder_sources.find_folder`]."""
        access = {key: self.location[key] for key in ACCESS_ARGUMENTS if key in self.location}
        return find_folder(self.resolve_source(part), access, part, self.location.get("use_safetensors", True))

    def _find_place(self, part: str, fingerprint: str) -> str:
        """Folder of an encoder of a checkpoint, on the machine that wrote it.

        Raises:
            FileNotFoundError: this is another machine, or the encoder was in memory alone.
        """
        checkpoint = self.location["repo_id"]
        path, places = os.path.join(checkpoint, PLACES_FILE), {}
        if os.path.isfile(path):
            with open(path, encoding="utf-8") as file:
                places = json.load(file)
        if part not in places:
            raise FileNotFoundError(
                f"{checkpoint} is a checkpoint, which refers to its {part} by a fingerprint ({fingerprint[:12]}), and "
                "this machine has no such place; load the processor that the training was given."
            )
        return places[part]

    def has_folder(self, part: str) -> bool:
        """Whether an encoder can be read again from somewhere."""
        frame_encoder, clap_encoder, clap_text = self._given
        if frame_encoder is not None and part == self.part_of_frames:
            return False
        return {"clap": clap_encoder, "clap_text": clap_text}.get(part) is None

    def is_elsewhere(self, part: str) -> bool:
        """Whether an encoder is in a repository of its own on the Hub."""
        place = self.sources[part].get("repo_id")
        return self.has_folder(part) and place is not None and not os.path.isabs(place)

    # Saving

    def list_parts(self) -> list[str]:
        """Parts that the encoders are in."""
        is_there = {self.part_of_frames: True, "clap_text": self.has_clap_text}
        return [part for part in PARTS if is_there.get(part, part == "clap" and self.reads_clap)]

    def refer_to(self, part: str, places: dict) -> dict:
        """A reference to an encoder that says nothing of this machine; its place here is added to `places`."""
        if self.is_elsewhere(part):
            return self.resolve_source(part)
        try:
            place = {}
            if self.has_folder(part):
                source = self.resolve_source(part)
                if not os.path.isabs(source["repo_id"]):
                    return source
                place[part] = os.path.normpath(os.path.join(source["repo_id"], source.get("subfolder", "")))
            reference = {"fingerprint": self.fingerprint(part)}
            places.update(place)
            return reference
        except Exception as error:  # whatever befell them: a checkpoint never ends a run
            logger.warning("The %s of this processor is no longer to be found: %s", part, error)
            return {"subfolder": part}

    def check_savable(self, part: str) -> None:
        """Raise OSError where an encoder's weights are neither in memory nor in their folder."""
        if not self._is_in_memory(part):
            self.find_folder(part)

    def _is_in_memory(self, part: str) -> bool:
        others = {"clap": self._clap, "clap_text": self._clap_text}
        encoder = self._frame if part == self.part_of_frames else others[part]
        return encoder is not None and getattr(encoder, "is_loaded", True)

    def save_part(self, part: str, folder: str) -> None:
        """Write an encoder, unless the folder is where it is read from."""
        self.check_savable(part)
        if os.path.isdir(folder) and self.has_folder(part):
            try:
                if os.path.samefile(self.find_folder(part), folder):
                    return
            except OSError:  # its folder is gone
                pass
        self._load_part(part).save(folder)

    def fingerprint(self, part: str) -> str:
        """SHA-256 of what an encoder's output depends on; computed once."""
        if part not in self._fingerprints:
            self._fingerprints[part] = compute_fingerprint(self._load_part(part))
        return self._fingerprints[part]

    def _check_fingerprint(self, part: str, encoder) -> None:
        """Refuse an encoder that is no longer the one that a checkpoint was trained on."""
        expected = self.sources[part].get("fingerprint")
        if expected is not None and compute_fingerprint(encoder) != expected:
            raise ValueError(
                f"{self.location['repo_id']} was trained on another {part} than the one that is in "
                f"{self.find_folder(part)}: its fingerprint differs. Put that one back, or load the processor that the "
                "training was given."
            )


def compute_fingerprint(encoder) -> str:
    """An encoder's fingerprint, which is a property or a method."""
    value = encoder.fingerprint
    return value() if callable(value) else value


def move(encoder, device: torch.device):
    """Run an encoder on a device, where it can be."""
    if hasattr(encoder, "to"):
        encoder.to(device)
    return encoder
