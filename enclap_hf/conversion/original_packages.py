"""A second opinion: the original `encodec` and `laion-clap` packages on recordings, beside the converted models.

The packages run as they are, on the published files and on the very samples that the converted models get. What is
changed around them:

* LAION-CLAP's three tokenizers and its text tower are left out: it would fetch them from the network at import, and
  audio never needs them;
* its random choices take the middle of what they choose from, as the feature extractor of this package does;
* its spectrograms are shrunk without antialiasing, as by the torchvision 0.14 that the published captioners used.

Only `enclap convert --verify` and this module import the packages: pip install "enclap-hf[original]".
"""

import contextlib
import functools
import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np
import torch
from transformers import BartTokenizer, BertTokenizer, RobertaConfig, RobertaModel, RobertaTokenizer

from ..model.audio_loading import load_audio, resample_audio
from ..model.model_files import ModelFileError
from ..model.modeling_enclap import EnClapForConditionalGeneration
from ..model.processing_enclap import EnClapProcessor
from .published_files import ConversionError, read_state_dict, shorten_error

CLAP_SAMPLING_RATE = 48_000
# What each package imports that its own requirements leave out.
ALSO_NEEDED = {"encodec": ("torchaudio",), "laion_clap": ("torchaudio", "torchvision")}
# Width of the first stage of HTSAT -> LAION-CLAP's name for it.
HTSAT_NAMES = {96: "HTSAT-tiny", 128: "HTSAT-base", 256: "HTSAT-large"}
TEXT_TENSORS = ("text_branch.", "text_transform.", "text_projection.")
# Least cosine of two embeddings that count as the same: float32 sums in another order stay far above it.
SAME_COSINE = 0.999999


@dataclass
class ClipComparison:
    """One recording through both front ends.

    Args:
        codes_equal: share of EnCodec codes that are equal, 0 to 1.
        embedding_cosine: cosine of the two CLAP embeddings.
        embedding_difference: largest difference of an element.
        caption: from the converted encoders.
        original_caption: from the original packages, by the same captioner.
    """

    codes_equal: float
    embedding_cosine: float
    embedding_difference: float
    caption: str
    original_caption: str

    @property
    def agrees(self) -> bool:
        """Whether codes and caption are equal and the embeddings the same but for rounding."""
        same_inputs = self.codes_equal == 1 and self.embedding_cosine >= SAME_COSINE
        return same_inputs and self.caption == self.original_caption


def import_original(name: str) -> Any:
    """Import an original package.

    Raises:
        ConversionError: it, or something that it imports, is missing or broken; the message names it.
    """
    try:
        return importlib.import_module(name)
    except (ImportError, OSError) as error:  # OSError: torchaudio built for another torch
        missing = [module for module in (name, *ALSO_NEEDED[name]) if importlib.util.find_spec(module) is None]
        not_installed = f" Not installed: {', '.join(missing)}." if missing else ""
        raise ConversionError(
            f"The original package `{name}` cannot be imported: {shorten_error(error)}.{not_installed} Install what is "
            f'missing with: pip install "enclap-hf[original]". torchaudio and torchvision have to be built for this '
            f"torch ({torch.__version__})."
        ) from error


def import_packages() -> None:
    """Import both original packages, to know before long work that they are there; raises as [`import_original`]."""
    import_original("encodec")
    with text_models_left_out():
        import_original("laion_clap")


class OriginalEncodec:
    """The `encodec` package's 24 kHz model.

    Args:
        source: the published .th file, or "default" for the one that the package downloads.
    Raises:
        ConversionError: the package or the file is missing, or the file does not fit.
    """

    def __init__(self, source: str = "default"):
        build = import_original("encodec").EncodecModel.encodec_model_24khz
        if source == "default":
            try:
                self.model = build(pretrained=True)
            except OSError as error:
                raise ConversionError(
                    f"The `encodec` package cannot fetch its weights ({shorten_error(error)}); pass --encodec FILE.th."
                ) from error
            return
        check_is_file(source, "--encodec", "EnCodec's .th file")
        self.model = build(pretrained=False)
        load_into_original(self.model, read_state_dict(source), source)

    @torch.no_grad()
    def encode(self, samples: torch.Tensor, num_codebooks: int) -> torch.Tensor:
        """Codes of mono samples at 24 kHz: (num_samples,) -> int64 (T, K)."""
        bits_per_s = num_codebooks * self.model.bits_per_codebook * self.model.frame_rate
        self.model.bandwidth = bits_per_s / 1000
        return self.model.encode(samples[None, None])[0][0][0].T


class OriginalClap:
    """The `laion-clap` package's audio tower.

    Args:
        source: the published .pt file, fused or not.
    Raises:
        ConversionError: the package or the file is missing, or the file does not fit.
    """

    def __init__(self, source: str):
        check_is_file(source, "--clap", "LAION-CLAP's .pt file")
        tensors = {name.removeprefix("module."): tensor for name, tensor in read_state_dict(source).items()}
        width = len(tensors.get("audio_branch.patch_embed.proj.weight", ()))
        if width not in HTSAT_NAMES:
            raise ConversionError(
                f"{source} has no audio encoder of LAION-CLAP's sizes (width {width}; expected {sorted(HTSAT_NAMES)})."
            )
        self.fusion = "audio_branch.patch_embed.mel_conv2d.weight" in tensors
        with text_models_left_out():
            package = import_original("laion_clap")
            self.module = package.CLAP_Module(
                enable_fusion=self.fusion, device="cpu", amodel=HTSAT_NAMES[width], tmodel="roberta"
            )
        audio = {name: tensor for name, tensor in tensors.items() if not name.startswith(TEXT_TENSORS)}
        load_into_original(self.module.model, audio, source, left_out=TEXT_TENSORS)
        self.module.eval()

    @torch.no_grad()
    def embed(self, samples: np.ndarray) -> torch.Tensor:
        """Embedding of mono samples at 48 kHz: (num_samples,) -> float32 (C,), of length 1."""
        with choices_in_the_middle():
            return torch.from_numpy(self.module.get_audio_embedding_from_data([samples], use_tensor=False)[0])


def check_is_file(source: str | None, option: str, expected: str) -> None:
    """The original packages read published files only.

    Raises:
        ConversionError: it is not a file.
    """
    if source is None or not os.path.isfile(source):
        raise ConversionError(
            f"Got {option} {source}; the original package reads {expected}. Pass it to compare with the original."
        )


def load_into_original(model, tensors: dict[str, torch.Tensor], path: str, left_out: tuple[str, ...] = ()) -> None:
    """Load published tensors into an original package's model; only those `left_out` may be missing.

    Raises:
        ConversionError: the tensors do not fit.
    """
    try:
        result = model.load_state_dict(tensors, strict=False)
    except RuntimeError as error:
        raise ConversionError(f"{path} does not fit the original package: {shorten_error(error)}") from error
    wrong = [name for name in result.missing_keys if not name.startswith(left_out or "\0")] + result.unexpected_keys
    if wrong:
        raise ConversionError(f"{path} does not fit the original package: tensor `{wrong[0]}`.")


@contextlib.contextmanager
def text_models_left_out() -> Iterator[None]:
    """Import and build LAION-CLAP without its tokenizers and with a tiny text tower; nothing is fetched."""
    tiny = RobertaConfig(vocab_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    path = list(sys.path)
    with contextlib.ExitStack() as stack:
        for tokenizer in {BartTokenizer, BertTokenizer, RobertaTokenizer}:
            stack.enter_context(mock.patch.object(tokenizer, "from_pretrained", lambda *args, **kwargs: None))
        stack.enter_context(
            mock.patch.object(RobertaModel, "from_pretrained", lambda *args, **kwargs: RobertaModel(tiny))
        )
        try:
            yield
        finally:
            sys.path[:] = path  # the package adds its own folder, whose `evaluate` would hide another package


@contextlib.contextmanager
def choices_in_the_middle() -> Iterator[None]:
    """Where LAION-CLAP draws windows of a long clip, take the middle; and shrink without antialiasing."""
    transforms = sys.modules["laion_clap.training.data"].torchvision.transforms
    with (
        mock.patch.object(np.random, "choice", lambda values: values[len(values) // 2]),
        mock.patch.object(np.random, "randint", lambda low, high: low + (high - low) // 2),
        mock.patch.object(transforms, "Resize", functools.partial(transforms.Resize, antialias=False)),
    ):
        yield


class OriginalPackages:
    """Both original packages, loaded.

    Args:
        clap: LAION-CLAP's .pt file.
        encodec: EnCodec's .th file, or "default" for the one that the package downloads.
    """

    def __init__(self, clap: str, encodec: str = "default"):
        self.clap = OriginalClap(clap)
        self.encodec = OriginalEncodec(encodec)


def load_converted(repository: str) -> tuple[EnClapForConditionalGeneration, EnClapProcessor]:
    """Load a converted folder or Hub repository.

    Raises:
        ConversionError: it cannot be loaded.
    """
    try:
        return (
            EnClapForConditionalGeneration.from_pretrained(repository).eval(),
            EnClapProcessor.from_pretrained(repository),
        )
    except (OSError, ValueError, ModelFileError) as error:
        raise ConversionError(f"{repository} cannot be loaded: {shorten_error(error)}") from error


def compare_recording(
    model: EnClapForConditionalGeneration, processor: EnClapProcessor, originals: OriginalPackages, path: str
) -> ClipComparison:
    """Run one recording through both front ends and the captioner.

    Args:
        model: the converted captioner.
        processor: the converted front end.
        originals: the original packages with the files that both were made from.
        path: an audio file.
    Raises:
        AudioLoadError: the file cannot be read.
    """
    prepared = processor.feature_extractor(path)
    loaded = load_audio(path)
    clap_samples = resample_audio(loaded.samples, loaded.sampling_rate, CLAP_SAMPLING_RATE)
    ours = {
        "audio_codes": processor.encode_frames(prepared["input_values"])[0],
        "clap_embedding": processor.clap_encoder.embed(prepared["input_features"], prepared["is_longer"])[0],
    }
    theirs = {
        "audio_codes": originals.encodec.encode(prepared["input_values"][0], processor.num_codebooks),
        "clap_embedding": originals.clap.embed(clap_samples),
    }
    captions = []
    for inputs in (ours, theirs):
        ids = model.generate(**{name: value.unsqueeze(0) for name, value in inputs.items()})
        captions.append(processor.decode(ids[0]))
    codes, embeddings = zip(
        *((inputs["audio_codes"], inputs["clap_embedding"]) for inputs in (ours, theirs)), strict=True
    )
    same_frames = codes[0].shape == codes[1].shape
    return ClipComparison(
        codes_equal=(codes[0] == codes[1]).double().mean().item() if same_frames else 0.0,
        embedding_cosine=torch.nn.functional.cosine_similarity(*(row.double() for row in embeddings), dim=0).item(),
        embedding_difference=(embeddings[0] - embeddings[1]).abs().max().item(),
        caption=captions[0],
        original_caption=captions[1],
    )


def describe_comparison(path: str, comparison: ClipComparison) -> str:
    """The lines that `enclap convert --verify` prints of a recording."""
    verdict = "same" if comparison.agrees else "DIFFERENT"
    return (
        f"{path}: {verdict}; codes equal {comparison.codes_equal:.2%}, embedding cosine "
        f"{comparison.embedding_cosine:.7f}, largest difference {comparison.embedding_difference:.1e}\n"
        f"  converted: {comparison.caption}\n"
        f"  original:  {comparison.original_caption}"
    )
