"""`enclap export`: a repository with ONNX graphs, which caption without the weights of torch."""

import argparse
import os

from ..model.onnx_names import SUFFIXES
from .argument_types import positive_int
from .captioner_loading import find_folder
from .terminal_text import add_quiet_argument, print_notice, print_problem

DESCRIPTION = (
    "Write a model's repository with ONNX graphs beside its weights: from recordings to codes and CLAP vectors, the "
    "encoder, and the decoder with its key-value cache."
)
EXAMPLES = """examples:
  enclap export owner/name --output enclap-onnx --quantize int8
  enclap caption rain.wav --model enclap-onnx --backend onnx
  enclap caption rain.wav --model enclap-onnx --backend onnx-int8
  enclap push enclap-onnx owner/name

Exporting needs onnx and onnxscript, captioning onnxruntime: pip install "enclap-hf[onnx]"
"""


def add_export_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `enclap export`."""
    parser.add_argument(
        "model", nargs="?", metavar="MODEL", help="folder or Hub repository (default: the bundled small model)"
    )
    parser.add_argument("--revision", help="branch, tag or commit of a Hub repository")
    parser.add_argument(
        "--output", metavar="DIR", required=True, help="new folder, or MODEL itself, which the graphs are added to"
    )
    parser.add_argument(
        "--quantize",
        choices=(*SUFFIXES, "int8"),
        help="also write graphs with weights in 8 bits for this kind of processor; int8 is this machine's kind",
    )
    parser.add_argument("--opset", type=positive_int, metavar="N", help="of ONNX (default: 18)")
    add_quiet_argument(parser)


def run_export(args: argparse.Namespace) -> int:
    """Export; returns 0 when the repository is complete, 2 with the reason when nothing was written."""
    import transformers

    from ..model.model_files import ModelFileError
    from ..onnx.export import export_repository
    from ..onnx.graph_files import DEFAULT_OPSET

    transformers.utils.logging.disable_progress_bar()
    try:
        paths = export_repository(
            find_folder(args.model), args.output, args.quantize, args.opset or DEFAULT_OPSET, args.revision
        )
    except (ImportError, ModelFileError, OSError, ValueError) as error:
        print_problem("enclap export", error)
        return 2
    for path in paths:
        print_notice(args, f"{path}  {os.path.getsize(path) / 1e6:.0f} MB")
    return 0


def describe_interruption(args: argparse.Namespace) -> str:
    """What Ctrl-C has left."""
    return "nothing was written."
