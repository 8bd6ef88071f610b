"""Names of the ONNX graphs of a repository, and of what goes into them.

onnx/front_end_model.onnx                   samples to codes and CLAP vector; float32 alone, so that codes stay
onnx/encoder_model.onnx                     and decoder_model_merged.onnx: the captioner in float32
onnx/encoder_model_quint8_avx2.onnx         ... its weights in 8 bits for one kind of processor
"""

from collections.abc import Iterator

FOLDER = "onnx"
FILES = {"front_end": "front_end_model", "encoder": "encoder_model", "decoder": "decoder_model_merged"}
# Kinds of quantised graphs, and the ends of their files' names.
SUFFIXES = {"avx2": "quint8_avx2", "avx512_vnni": "qint8_avx512_vnni", "arm64": "qint8_arm64"}


def name_cache(num_layers: int, prefix: str) -> Iterator[tuple[str, str]]:
    """Names of a decoder's keys and values, layer by layer, and whose they are: the "decoder"'s or the "encoder"'s."""
    for layer in range(num_layers):
        for owner in ("decoder", "encoder"):
            for kind in ("key", "value"):
                yield f"{prefix}.{layer}.{owner}.{kind}", owner
