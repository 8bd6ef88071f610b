"""`enclap demo`: a page in the browser that captions uploads, the microphone and examples."""

import argparse
import socket
import sys

INSTALL_LINE = 'pip install "enclap-hf[demo]"'


def add_demo_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `enclap demo`."""
    parser.add_argument("--model", help="directory or Hub repository; left out, the small model of the package")
    parser.add_argument("--port", type=port_number, help="of the local address (default: a free one from 7860 on)")
    parser.add_argument("--share", action="store_true", help="also make a public address, through Gradio's servers")


def port_number(text: str) -> int:
    """A port that a page may have."""
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"got {text!r}; expected a port from 1 to 65535")
    return int(text)


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
        launch_demo(args.model, choose_model=not args.share, port=args.port, share=args.share)
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
    print(f"enclap demo: {' '.join(str(problem).split())}", file=sys.stderr)
    return 2
