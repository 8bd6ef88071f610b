"""`enclap push`: upload a folder with a complete repository to the Hub."""

import argparse
import sys
from typing import TYPE_CHECKING, Any, cast

from .terminal_text import add_quiet_argument, print_problem

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo
    from huggingface_hub.errors import HfHubHTTPError

# Names that are listed of what is left out.
MAX_NAMES = 20

EXAMPLES = """examples:
  enclap push enclap-base-audiocaps owner/enclap-base-audiocaps --private
  enclap push runs/clotho owner/enclap-clotho --revision epoch-15 --message "After 15 epochs"

The folder is what the Trainer, `enclap convert`, `pipe.save_pretrained` or `save_repository` wrote. What a repository
consists of is uploaded; all else in the folder is left out and named, and no link is followed out of it.
"""


def add_push_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `enclap push`."""
    parser.add_argument("folder", metavar="FOLDER", help="model, processor and both encoders, as they were saved")
    parser.add_argument("repo_id", metavar="OWNER/NAME", help="repository on the Hub, made when missing")
    parser.add_argument("--private", action="store_true", help="make the repository private, if it is new")
    parser.add_argument("--revision", metavar="BRANCH", help="branch to upload to, made when missing (default: main)")
    parser.add_argument("--message", metavar="TEXT", help="the commit's message")
    parser.add_argument("--create-pr", action="store_true", help="open a pull request instead of committing")
    parser.add_argument("--token", help="access token (default: HF_TOKEN, or that of `hf auth login`)")
    add_quiet_argument(parser)


def run_push(args: argparse.Namespace) -> int:
    """Upload; returns 0 when all is on the Hub, 2 with the reason when it is not."""
    try:
        commit = push_folder(
            args.folder,
            args.repo_id,
            private=args.private or None,
            token=args.token,
            revision=args.revision,
            commit_message=args.message,
            create_pr=args.create_pr,
            quiet=args.quiet,
        )
    except PushError as error:
        print_problem("enclap push", error)
        return 2
    print(commit.pr_url or commit.commit_url)
    return 0


def describe_interruption(args: argparse.Namespace) -> str:
    """What Ctrl-C has left."""
    return (
        f"the Hub had confirmed no commit, so {args.repo_id} is as it was unless one had just arrived there. Run it "
        "again: what was uploaded already is not sent twice."
    )


class PushError(Exception):
    """Why nothing was uploaded, and what to do."""


def push_folder(folder: str, repo_id: str, quiet: bool = False, **options: Any) -> "CommitInfo":
    """[`~enclap_hf.hub.export.push_repository`] for the terminal, which is told what of the folder is left out.

    Args:
        folder: what is uploaded.
        repo_id: to which repository.
        quiet: show no progress, and do not tell what is left out.
        options: of `push_repository`.

    Raises:
        PushError: nothing was uploaded; the message says why in words.
    """
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils import disable_progress_bars

    from ..hub.export import find_missing_parts, plan_upload, push_repository
    from ..model.model_files import ModelFileError

    if quiet or not sys.stderr.isatty():
        disable_progress_bars()
    # Of httpx or httpx2, whichever this huggingface_hub uses.
    http_error = cast(type[Exception], HfHubHTTPError.__mro__[1])
    try:
        if not quiet and not find_missing_parts(folder):
            say_left_out(plan_upload(folder).left_out)
        return push_repository(folder, repo_id, **options)
    except HfHubHTTPError as error:
        raise PushError(explain_refusal(error, repo_id)) from error
    except http_error as error:
        raise PushError(f"The Hub cannot be reached: {error}.") from error
    except (ValueError, OSError, ModelFileError) as error:
        raise PushError(error) from error


def say_left_out(left_out: dict[str, str]) -> None:
    """Name what is not uploaded, and why."""
    from ..model.model_files import make_line

    for reason in sorted(set(left_out.values())):
        names = [make_line(name, 60) for name, why in left_out.items() if why == reason]
        more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
        print(f"Left out, {reason}: {', '.join(names[:MAX_NAMES])}{more}", file=sys.stderr)


def explain_refusal(error: "HfHubHTTPError", repo_id: str) -> str:
    """What the Hub's answer means, and what to do."""
    if error.response.status_code == 401:
        return (
            "The Hub wants an access token and got none that it knows. Log in with `hf auth login`, or pass a token "
            "with write permission as --token or HF_TOKEN."
        )
    if error.response.status_code == 403:
        return (
            f"The Hub does not let this token write to {repo_id}. Pass a token with write permission there, push to a "
            "name of your own, or pass --create-pr if the repository exists."
        )
    return str(error)
