"""`enclap demo`: a page in the browser that captions uploads, the microphone and examples."""

import argparse
import socket

from .argument_types import add_backend_argument, port_number
from .terminal_text import print_problem

INSTALL_LINE = 'pip install "enclap-hf[demo]"'
EXAMPLES = """examples:
  enclap demo                                              the bundled small model, on this machine alone
  enclap demo --model owner/name --port 7870
  enclap demo --model enclap-base-audiocaps --share        also under a public address, for some days

The page needs gradio: pip install "enclap-hf[demo]". Ctrl-C closes it.
"""


def add_demo_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `enclap demo`."""
    parser.add_argument(
        "--model", metavar="DIR|OWNER/NAME", help="folder or Hub repository (default: the bundled small model)"
    )
    parser.add_argument(
        "--port", type=port_number, help="port of the local address (default: the first free one from 7860 on)"
    )
    add_backend_argument(parser)
    parser.add_argument("--share", action="store_true", help="also make a public address, through Gradio's servers")


def run_demo(args: argparse.Namespace) -> int:
    """Serve the page until interrupted; returns 2 where it cannot start."""
    if args.port is not None and not is_free(args.port):
        return complain(f"port {args.port} is taken; pass another --port, or leave it out for a free one.")
    try:
        from ..demo.app import launch_demo
    except ModuleNotFoundError as error:
        if error.name != "gradio":
            raise
        return complain(f"the demo needs gradio, which is not installed. Run: {INSTALL_LINE}")
    import transformers

    transformers.utils.logging.disable_progress_bar()
    try:
        # Whoever opens a shared page could have this machine load any model: there, the field for it is left out.
        launch_demo(args.model, choose_model=not args.share, port=args.port, share=args.share, backend=args.backend)
    except (OSError, ValueError) as error:
        return complain(error)
    return 0


def is_free(port: int) -> bool:
    """Whether a page could be served at this port of the local address."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one that was just left counts as free
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def complain(problem: object) -> int:
    """Say in one line why it did not start."""
    print_problem("enclap demo", problem)
    return 2
