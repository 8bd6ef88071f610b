"""`enclap completion`: what a shell needs to complete commands, options and files."""

import argparse

from .terminal_text import print_problem

SHELLS = ("bash", "zsh", "fish")
INSTALL_LINE = 'pip install "enclap-hf[completion]"'
EXAMPLES = """examples:
  enclap completion bash >> ~/.bash_completion
  enclap completion zsh > "${fpath[1]}/_enclap"
  enclap completion fish > ~/.config/fish/completions/enclap.fish

Start a new shell afterwards.
"""


def add_completion_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `enclap completion`."""
    parser.add_argument("shell", choices=SHELLS, help="the shell")


def run_completion(args: argparse.Namespace) -> int:
    """Print the code for a shell; returns 2 where argcomplete is not installed."""
    try:
        import argcomplete
    except ModuleNotFoundError:
        print_problem("enclap completion", f"completion needs argcomplete, which is not installed. Run: {INSTALL_LINE}")
        return 2
    print(argcomplete.shellcode(["enclap"], shell=args.shell))
    return 0
