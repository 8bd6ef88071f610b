"""One run of SPICE's program: captions go in, parses come back one by one, then the scores of all clips."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .corenlp_files import FILE_NAMES, get_anew_line
from .java_runtime import (
    EXIT_WHEN_OUT_OF_MEMORY,
    JavaError,
    JavaMemoryError,
    JavaProcess,
    JavaTimeoutError,
)
from .long_captions import CaptionNames, count_words, describe_time, estimate_parse_s, is_long
from .parse_store import ParseStore
from .progress_bar import open_bar
from .spice_classes import write_classes
from .working_folder import working_folder

logger = logging.getLogger(__name__)

FOLDER_PREFIX = "enclap-spice-"
_REPORT_FILE = "last-failure.txt"
_LONGER_LIMIT = "give a longer time limit (`timeout_s`, --timeout)"


@dataclass
class SpiceRun:
    """What one call of SPICE's program is given.

    Args:
        items: clips to score, as the program reads them: image_id, test and refs.
        parses: tuples of captions that need no parsing; those that are parsed are added.
        names: of the captions, for messages.
        store: keeps the parses.
        jars: the class path.
        heap: memory limit, as Java's option -Xmx takes it.
        java: path of the Java program; found when left out.
        num_threads: parser threads.
        timeout_s: limit for all of it.
        show_progress: whether to show a bar; on a terminal when left out.
    """

    items: list[dict]
    parses: dict[str, list[list[str]]]
    names: CaptionNames
    store: ParseStore
    jars: Sequence[Path]
    heap: str
    java: str | None
    num_threads: int
    timeout_s: float
    show_progress: bool | None
    _started: list[str] = field(default_factory=list)
    _failed: list[str] = field(default_factory=list)

    def captions_to_parse(self) -> list[str]:
        """List what has no parse yet, in the order of work.

        Returns:
            each caption once; long ones last, the longest at the end.
        """
        captions = dict.fromkeys(caption for item in self.items for caption in (item["test"], *item["refs"]))
        missing = [caption for caption in captions if caption not in self.parses]
        return sorted(missing, key=lambda caption: count_words(caption) if is_long(caption) else 0)

    def compute_scores(self) -> dict[str, float]:
        """Parse and score.

        Returns:
            F scores by image_id.
        Raises:
            JavaError: a caption could not be parsed, the time was over, or the process failed. Parses are kept.
        """
        end_time = time.monotonic() + self.timeout_s
        num_threads = self.num_threads
        while True:
            try:
                return self._run_process(end_time - time.monotonic(), num_threads)
            except JavaTimeoutError:
                raise JavaTimeoutError(self._explain_timeout()) from None
            except JavaMemoryError as error:
                running = [caption for caption in self._started if caption not in self.parses]
                if len(running) < 2:
                    raise self._explain_memory(running, error) from None
            logger.warning("SPICE: the heap of %s is too small for %d captions at once", self.heap, len(running))
            # Some threads fewer: each time all parses but those of the running captions are kept.
            num_threads = max(1, len(running) // 2)

    def _run_process(self, timeout_s: float, num_threads: int) -> dict[str, float]:
        """Run the program once."""
        self._started.clear()
        unparsed = self.captions_to_parse()
        # Without captions to parse all is done in a second or two.
        bar_options = {"total": len(unparsed), "unit": "caption", "desc": "SPICE: loading the parser"}
        show = self.show_progress if unparsed else False
        with self._input_folder(unparsed) as folder, open_bar(show, **bar_options) as bar:
            class_path = os.pathsep.join(map(str, [folder, *self.jars]))
            arguments = [f"-Xmx{self.heap}", EXIT_WHEN_OUT_OF_MEMORY, "-cp", class_path, "edu.anu.spice.SpiceRunner"]
            arguments += [str(folder / "clips.json"), str(folder / "captions.json"), str(num_threads)]
            with JavaProcess(arguments, timeout_s, java=self.java, explain=self._explain_failure) as process:
                while True:
                    word, _, rest = process.read_line(while_waiting=bar.refresh).partition(" ")
                    if word == "scores":
                        return self._parse_scores(rest)
                    if word == "unscored":
                        raise JavaError(self._explain_failed_captions())
                    self._take_answer(word, rest, unparsed, bar)

    def _take_answer(self, word: str, rest: str, unparsed: list[str], bar: Any) -> None:
        """Take one line of the program's output in; lines that are none of its own are passed over."""
        if word == "ready":
            bar.set_description("SPICE: parsing")
        number, _, text = rest.partition(" ")
        if word not in ("start", "parse", "failed") or not number.isdecimal() or int(number) >= len(unparsed):
            return
        caption = unparsed[int(number)]
        if word == "start":
            self._started.append(caption)
        elif word == "failed":
            self._failed.append(caption)
        else:
            try:
                self.parses[caption] = json.loads(text)
            except ValueError:
                raise JavaError(f"SPICE wrote {text[:60]!r} where a parse should be") from None
            self.store.add_parse(caption, self.parses[caption])
            bar.update()

    @contextlib.contextmanager
    def _input_folder(self, unparsed: list[str]) -> Iterator[Path]:
        """A folder with the program's classes and input."""
        used = dict.fromkeys(caption for item in self.items for caption in (item["test"], *item["refs"]))
        parsed = [[caption, self.parses[caption]] for caption in used if caption in self.parses]
        with contextlib.ExitStack() as stack:
            try:
                folder = stack.enter_context(working_folder(FOLDER_PREFIX))
                write_classes(folder)
                (folder / "clips.json").write_text(json.dumps(self.items), encoding="ascii")
                captions = {"parsed": parsed, "unparsed": unparsed}
                (folder / "captions.json").write_text(json.dumps(captions), encoding="ascii")
            except OSError as error:
                raise JavaError(
                    f"the folder for temporary files cannot be written: {error}; `TMPDIR` names another"
                ) from error
            yield folder

    def _parse_scores(self, text: str) -> dict[str, float]:
        """Read the F score of every clip from the program's JSON."""
        try:
            scores = {item["image_id"]: float(item["scores"]["All"]["f"]) for item in json.loads(text)}
        except (ValueError, TypeError, KeyError):
            raise JavaError(f"SPICE wrote {text[:60]!r} where its scores should be") from None
        if sorted(scores) != sorted(item["image_id"] for item in self.items) or any(map(math.isnan, scores.values())):
            raise JavaError(f"SPICE scored {len(scores)} of {len(self.items)} clips")
        return scores

    def _explain_timeout(self) -> str:
        """What to do when the time is over."""
        left = self.captions_to_parse()
        message = f"not done within the time limit of {self.timeout_s:g} s"
        if left:
            message += f"; still to parse: {len(left):,} caption{'s' * (len(left) > 1)}"
        long = [caption for caption in left if is_long(caption)]
        if long:
            others = f" (and {len(long) - 1} more long ones)" if len(long) > 1 else ""
            message += (
                f", {'among them' if len(left) > 1 else 'that is'} {self.names.describe(long[0])}{others}, which takes "
                f"about {describe_time(estimate_parse_s(long[0]))}; shorten it, or {_LONGER_LIMIT}"
            )
        else:
            message += f"; {_LONGER_LIMIT}"
        return f"{message}. {self._say_what_is_kept()}"

    def _explain_memory(self, running: list[str], error: JavaMemoryError) -> JavaMemoryError:
        """Name the caption that the heap is too small for."""
        if not running:
            return error
        return JavaMemoryError(
            f"the heap of {self.heap} is too small to parse {self.names.describe(running[0])}; shorten it, or give a "
            f"larger heap (`java_heap`, --java-heap). {self._say_what_is_kept()}"
        )

    def _explain_failed_captions(self) -> str:
        """Name the captions that the parser could not take."""
        others = f" and {len(self._failed) - 1} more captions" if len(self._failed) > 1 else ""
        return f"the parser failed at {self.names.describe(self._failed[0])}{others}. {self._say_what_is_kept()}"

    def _say_what_is_kept(self) -> str:
        """Whether the next run has less to do."""
        return "What was parsed is kept for the next run" if self.store.works else "Parses could not be kept"

    def _explain_failure(self, complaints: str, reason: str) -> str:
        """Why the program ended early, in terms of the files it was given; its own report goes to a file."""
        reason = self._find_culprit(complaints) or reason
        if not complaints.strip():
            return reason
        report = self.store.folder.parent / _REPORT_FILE
        with contextlib.suppress(OSError):
            report.parent.mkdir(parents=True, exist_ok=True)
            report.write_text(complaints, encoding="utf-8", errors="replace")
            return f"{reason} (Java's report: {report})"
        return reason

    def _find_culprit(self, complaints: str) -> str | None:
        """The file that an early end points to, where it can be known."""
        program, models = (next((jar for jar in self.jars if jar.name == name), None) for name in FILE_NAMES)
        if "UnsupportedClassVersionError" in complaints or "Unrecognized VM option" in complaints:
            return "this Java is too old; SPICE needs Java 8u92 or a later one (`ENCLAP_JAVA` names another)"
        lacking = re.search(
            r"(?:NoClassDefFoundError|ClassNotFoundException|NoSuchMethodError|NoSuchFieldError)\W+(?:\w+ )?([\w./$]+)",
            complaints,
        )
        if lacking:
            name = lacking.group(1).replace(".", "/")
            if name.startswith("edu/stanford/nlp/") and "/scenegraph/" not in name and program is not None:
                return f"{program} lacks a part that SPICE needs; {get_anew_line(program)}"
            return f"pycocoevalcap lacks a part that SPICE needs; {get_anew_line(Path())}"
        if re.search(
            r"as (either )?class path, filename or URL|StreamCorrupted|InvalidClass|OptionalData|loading .*model",
            complaints,
        ):
            return f"{models} cannot be loaded by {program}; {get_anew_line(models or Path())}"
        return None
