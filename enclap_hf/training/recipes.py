"""Command lines of the training scripts: recipes, and a help that shows the script's header."""

import argparse
import json
from collections.abc import Collection, Sequence

import yaml
from transformers import HfArgumentParser, TrainingArguments

from ..data.caption_clips import CaptionDataError

RECIPE_EXTENSIONS = (".json", ".yaml", ".yml")


def parse_json_object(text: str, argument: str) -> dict:
    """Parse an argument that is a JSON object.

    Raises:
        CaptionDataError: it is none.
    """
    try:
        value = json.loads(text)
    except ValueError as error:
        raise CaptionDataError(f"Got `{argument}` {text}, which is not JSON ({error}).") from None
    if not isinstance(value, dict):
        raise CaptionDataError(f'Got `{argument}` {text}; expected an object of names and values: {{"name": 1}}.')
    return value


def expand_recipe(arguments: list[str], names: Collection[str] | None = None) -> list[str]:
    """Replace a recipe at the head of a command line by the arguments that it holds; those behind it override them.

    Args:
        arguments: a command line without the program's name.
        names: take these of the recipe and pass over the others; None takes all.
    Returns:
        a command line without a recipe.
    Raises:
        CaptionDataError: the recipe cannot be read, or holds no mapping of names to values.
    """
    if not arguments or not arguments[0].endswith(RECIPE_EXTENSIONS):
        return arguments
    recipe = read_recipe(arguments[0])
    expanded = []
    for name, value in recipe.items():
        if name == "description" or value is None or value == [] or (names is not None and name not in names):
            continue
        if name == "train_sampling_strategy" and name not in TrainingArguments.__dataclass_fields__:
            name, value = "group_by_length", value == "group_by_length"  # transformers 5.0
        values = value if isinstance(value, list) else [value]
        expanded += [f"--{name}", *(json.dumps(v) if isinstance(v, dict) else str(v) for v in values)]
    return expanded + arguments[1:]


def read_recipe(path: str) -> dict:
    """Read a recipe, JSON or YAML by the end of its name.

    Raises:
        CaptionDataError: there is no such file, it is not UTF-8, not well-formed, or no mapping.
    """
    kind = "JSON" if path.endswith(".json") else "YAML"
    try:
        with open(path, encoding="utf-8-sig") as file:  # passes a byte order mark over
            recipe = json.load(file) if kind == "JSON" else yaml.safe_load(file)
    except OSError as error:
        raise CaptionDataError(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise CaptionDataError(f"{path} is not UTF-8 (byte {error.start}); save it as UTF-8.") from None
    except json.JSONDecodeError as error:
        raise CaptionDataError(f"{path}, line {error.lineno}: no valid JSON, {error.msg}; correct it there.") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = "" if mark is None else f", line {mark.line + 1}"
        problem = " ".join((getattr(error, "problem", None) or str(error)).split())
        raise CaptionDataError(f"{path}{line}: no valid YAML, {problem}; correct it there.") from None
    if not isinstance(recipe, dict):
        raise CaptionDataError(f"{path} holds no arguments; expected a mapping of their names to values.")
    return recipe


class _HelpFormatter(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """The header as it is written, and the default of each argument."""


def parse_script_arguments(dataclass_types: Sequence[type], header: str, usage: str, arguments: Sequence[str]) -> tuple:
    """Parse a script's command line.

    Args:
        dataclass_types: of the arguments.
        header: what `--help` prints first.
        usage: the same for the line of usage, without the program's name.
        arguments: the command line, with any recipe expanded.
    Returns:
        an instance of each type.
    Raises:
        ValueError: an argument that nothing takes, or a value that its type refuses.
    """
    parser = HfArgumentParser(
        tuple(dataclass_types), description=header, formatter_class=_HelpFormatter, usage=f"%(prog)s {usage}"
    )
    *parsed, unused = parser.parse_args_into_dataclasses(list(arguments), return_remaining_strings=True)
    if unused:
        raise ValueError(
            f"Got {' '.join(unused)}, which nothing takes; expected: {parser.prog} {usage}. --help lists the arguments."
        )
    return tuple(parsed)
