"""Both frozen encoders on ONNX Runtime: samples to codes and CLAP vectors, without weights of torch.

The graph takes samples at the codec's rate; and for CLAP samples at its rate, or the windows of log-mel spectrograms.
Here it gets windows, so that recordings of any length are prepared in blocks, as for torch; others, such as a page in a
browser, pass samples.
"""

import json
import os

import torch

from .model_files import file_error
from .onnx_files import EXPORT_AGAIN, digest_weights, has_weights
from .onnx_sessions import GraphSession

# Fields of the feature extractor that the graph was made for.
EXTRACTOR_FIELDS = (
    *("clap_sampling_rate", "clap_window_s", "n_fft", "hop_length", "num_mel_bins", "frequency_min", "frequency_max"),
    *("long_clips", "int16_round_trip", "mel_scale"),
)


class OnnxFrontEnd:
    """What a processor encodes recordings with in the place of its encoders.

    Args:
        graph: the session of `onnx/front_end_model.onnx`.
    """

    def __init__(self, graph: GraphSession):
        self.graph = graph

    def check_processor(self, processor) -> None:
        """Refuse a processor that the graph was not exported for.

        Raises:
            ModelFileError: a setting that differs, or other encoders beside the graph.
        """
        found = self.graph.session.get_modelmeta().custom_metadata_map
        exported = json.loads(found.get("enclap_front_end", "{}"))
        for name, value in list_settings(processor).items():
            if exported.get(name) != value:
                raise file_error(
                    self.graph.path,
                    f"it was exported with `{name}` {exported.get(name)}, and the processor has {value}.",
                    EXPORT_AGAIN,
                )
        for part, digest in digest_encoders(self.graph.folder).items():
            if digest and found.get(f"enclap_{part}", "") not in ("", digest):
                raise file_error(self.graph.path, f"it was exported with another {part} than {part}/.", EXPORT_AGAIN)

    def encode(
        self,
        input_values: list[torch.Tensor],
        input_features: torch.Tensor | None = None,
        is_longer: torch.Tensor | None = None,
        **others,
    ) -> tuple[list[torch.Tensor], torch.Tensor | None]:
        """Encode what the feature extractor prepared, each clip as it is alone.

        Args:
            input_values: float32 (n,) of each clip, at the codec's rate.
            input_features, is_longer: CLAP's windows of all clips, see [`EnClapFeatureExtractor.__call__`]; None for a
                captioner that reads no CLAP vector.
            others: what else it prepared.
        Returns:
            int64 (T, K) of each clip, and float32 (B, C), each row of length 1, or None.
        """
        codes, embeddings = [], []
        for row, clip in enumerate(input_values):
            feeds, wanted = {"input_values": clip[None]}, ["audio_codes"]
            if input_features is not None:
                feeds["clap_values"] = torch.zeros(0, 1)  # no samples: the windows are there already
                feeds["input_features"] = input_features[row : row + 1]
                wanted.append("clap_embedding")
                if self.reads_longer:
                    feeds["is_longer"] = is_longer[row : row + 1]
            encoded = self.graph.run_tensors(feeds, wanted)
            codes.append(encoded[0][0])
            embeddings += encoded[1:]
        return codes, torch.cat(embeddings) if embeddings else None

    @property
    def reads_longer(self) -> bool:
        """Whether the graph asks which clips are longer than a window: those of towers with fusion do."""
        return "is_longer" in [value.name for value in self.graph.session.get_inputs()]


def list_settings(processor) -> dict:
    """What of a processor a front end's graph is made for."""
    extractor = processor.feature_extractor
    settings = {name: getattr(extractor, name) for name in EXTRACTOR_FIELDS} if processor.clap_encoder else {}
    frame_encoder = processor.frame_encoder
    return {**settings, "num_codebooks": processor.num_codebooks, "sampling_rate": frame_encoder.sampling_rate}


def digest_encoders(folder: str) -> dict[str, str]:
    """A digest of each encoder whose weights are in a repository's folder, "" of one that is elsewhere."""
    places = {part: os.path.join(folder, part) for part in ("codec", "clap")}
    return {part: digest_weights(place) if has_weights(place) else "" for part, place in places.items()}


def describe_front_end(processor, folder: str) -> dict[str, str]:
    """What the metadata of a front end's graph says of the processor and of the encoders in a folder."""
    digests = {f"enclap_{part}": digest for part, digest in digest_encoders(folder).items()}
    return {"enclap_front_end": json.dumps(list_settings(processor), sort_keys=True), **digests}
