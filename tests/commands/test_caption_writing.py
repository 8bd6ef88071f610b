"""What `enclap caption` writes is not lost: one writer, rows as they are done, full disks, unwritable places."""

import errno
import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile

import caption_runs
from caption_runs import RATE, names_in, read_rows, run
from conftest import make_clip
from enclap_hf.commands import caption as caption_command
from enclap_hf.commands import caption_output, output_lock
from enclap_hf.commands.output_lock import OutputLockedError, lock_output

resource = pytest.importorskip("resource")
captioner, load_once, recordings = caption_runs.captioner, caption_runs.load_once, caption_runs.recordings
ROOT = str(Path(__file__).parents[2])
HOLD = """
import os, sys, time
from enclap_hf.commands.output_lock import lock_output
with lock_output(sys.argv[1]):
    if "fork" in sys.argv and os.fork() == 0:
        os.close(1)
        time.sleep(60)
    print("held", flush=True)
    time.sleep(60)
"""


def hold_elsewhere(output, *words: str) -> subprocess.Popen:
    """A process that holds the lock of an output."""
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(output), *words], stdout=subprocess.PIPE, cwd=ROOT)
    assert holder.stdout.readline() == b"held\n"
    return holder


def refuse_loading(args, model):
    raise AssertionError("a refusal comes before the model is loaded")


# One writer


def test_a_second_writer_is_refused_and_the_lock_goes_with_its_process(capsys, recordings, tmp_path, monkeypatch):
    """Two runs used to report success, and the rows of one were gone."""
    output = tmp_path / "captions.csv"
    link = tmp_path / "link.csv"
    link.symlink_to(output)
    holder = hold_elsewhere(output)
    try:
        with monkeypatch.context() as patched:
            patched.setattr(caption_command, "load_pipeline", refuse_loading)
            for name, arguments in ((output, []), (output, ["--resume"]), (output, ["--overwrite"]), (link, [])):
                status, _, err = run(capsys, recordings, "--output", str(name), *arguments)
                assert status == 2 and len(err) == 1 and f"being written by another run (process {holder.pid}" in err[0]
        assert run(capsys, recordings, "--output", str(tmp_path / "other.csv"))[0] == 0
    finally:
        holder.kill()
        holder.wait()
    assert Path(f"{output}.lock").exists(), "a killed process clears nothing away"
    assert run(capsys, recordings, "--output", str(output))[0] == 0 and len(read_rows(output)) == 3
    assert not Path(f"{output}.lock").exists()


def test_a_worker_that_outlives_a_killed_run_does_not_keep_its_lock(tmp_path):
    holder = hold_elsewhere(tmp_path / "captions.csv", "fork")
    children = Path(f"/proc/{holder.pid}/task/{holder.pid}/children")
    workers = [int(word) for word in children.read_text().split()] if children.exists() else []
    holder.kill()
    holder.wait()
    try:
        with lock_output(str(tmp_path / "captions.csv")) as is_locked:
            assert is_locked
    finally:
        for worker in workers:
            os.kill(worker, signal.SIGKILL)


def test_one_process_does_not_write_an_output_twice_at_once(tmp_path):
    output = str(tmp_path / "captions.csv")
    with lock_output(output), pytest.raises(OutputLockedError, match=f"process {os.getpid()}"), lock_output(output):
        pass
    with lock_output(output):
        assert os.path.exists(f"{output}.lock")
    assert os.listdir(tmp_path) == []


def test_a_lock_file_that_its_holder_has_just_removed_is_not_taken_for_a_lock(tmp_path, monkeypatch):
    """Between opening and locking, the holder may end: what was opened then is a file without a name."""
    output, lock = str(tmp_path / "captions.csv"), output_lock.lock_file
    removed = []

    def lock_late(file):
        if not removed:
            removed.append(os.remove(f"{output}.lock"))
        lock(file)

    monkeypatch.setattr(output_lock, "lock_file", lock_late)
    with lock_output(output):
        assert removed and os.path.exists(f"{output}.lock")


class WindowsLocks:
    """`msvcrt` as far as it is used, over locks that the test knows."""

    LK_NBLCK = 2

    def __init__(self):
        self.held, self.places = set(), []

    def locking(self, file: int, mode: int, num_bytes: int) -> None:
        assert mode == self.LK_NBLCK and num_bytes == 1
        self.places.append(os.lseek(file, 0, os.SEEK_CUR))
        key = os.fstat(file).st_ino
        if key in self.held:
            raise OSError(errno.EACCES, "Permission denied")
        self.held.add(key)


def test_windows_locks_a_byte_behind_the_text(tmp_path, monkeypatch):
    locks, output = WindowsLocks(), str(tmp_path / "captions.csv")
    monkeypatch.setattr(output_lock, "fcntl", None)
    monkeypatch.setattr(output_lock, "msvcrt", locks, raising=False)
    with lock_output(output) as is_locked:
        assert is_locked and locks.places == [output_lock.LOCKED_BYTE]
        assert Path(f"{output}.lock").read_text().startswith(f"process {os.getpid()} on ")
        monkeypatch.setattr(output_lock, "_held", set())  # as another process sees it
        with pytest.raises(OutputLockedError, match=f"process {os.getpid()} on"), lock_output(output):
            pass
    assert os.listdir(tmp_path) == []


def test_a_file_system_without_locks_is_said(capsys, recordings, tmp_path, monkeypatch):
    def refuse(*arguments):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(output_lock.fcntl, "lockf", refuse)
    status, _, err = run(capsys, recordings, "--output", str(tmp_path / "captions.csv"))
    assert status == 0 and "file system without locks" in err[0]


# Rows as they are done


@pytest.mark.parametrize("extension", ["csv", "jsonl"])
@pytest.mark.parametrize("n_best", [1, 2])
def test_rows_are_in_the_file_as_soon_as_a_batch_is_done(
    capsys, recordings, tmp_path, captioner, monkeypatch, extension, n_best
):
    """They used to come every 64 recordings, and a kill lost as many."""
    output, forward, seen = tmp_path / f"captions.{extension}", captioner.forward, []

    def watch(batch, **options):
        seen.append(names_in(output))
        return forward(batch, **options)

    monkeypatch.setattr(captioner, "forward", watch)
    options = ["--batch-size", "1", "--num-return-sequences", str(n_best), "--num-beams", "2"]
    assert run(capsys, recordings, "--output", str(output), *options)[0] == 0
    one, two, three = (["clip1.wav"] * n_best, ["clip2.wav"] * n_best, ["clip0.wav"] * n_best)
    assert seen == [[], one, one + two] and names_in(output) == one + two + three


# Full disks and places that take nothing


def assert_rows_are_safe(output: Path, recordings: str) -> None:
    """What is in the output are whole rows, and nothing unfinished lies beside it."""
    assert not [name for name in os.listdir(output.parent) if name.endswith((".part", ".lock"))]
    if output.exists() and output.stat().st_size:
        content = output.read_bytes()
        assert content.endswith(b"\n")
        assert set(names_in(output)) <= set(os.listdir(recordings)), content


@pytest.mark.parametrize("extension", ["csv", "jsonl"])
@pytest.mark.parametrize("limit", [0, 30, 200, 500, 700, 900])
def test_a_disk_that_is_full_is_one_line_and_rows_stay(capsys, recordings, tmp_path, extension, limit):
    """A limit on the size of files stands in for the disk: it, too, cuts a write in the middle."""
    out = tmp_path / "out"
    out.mkdir()
    output = out / f"captions.{extension}"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        status, _, err = run(capsys, recordings, "--output", str(output), "--batch-size", "1")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert status == 2 and len(err) == 1 and "cannot be written: File too large." in err[0]
    assert_rows_are_safe(output, recordings)
    if output.exists():
        assert run(capsys, recordings, "--output", str(output), "--resume")[0] == 0
    else:
        assert run(capsys, recordings, "--output", str(output))[0] == 0
    assert sorted(names_in(output)) == ["clip0.wav", "clip1.wav", "clip2.wav"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO])
@pytest.mark.parametrize("fails_at", [1, 2, 3, 4, 5, 6, 7])
def test_a_write_that_fails_half_way_leaves_whole_rows(capsys, recordings, tmp_path, monkeypatch, code, fails_at):
    output, write, count = tmp_path / "captions.jsonl", os.write, []

    def fail(file, data):
        count.append(len(data))
        if len(count) == fails_at:
            return write(file, data[: len(data) // 2])
        if len(count) > fails_at:
            raise OSError(code, os.strerror(code))
        return write(file, data)

    with monkeypatch.context() as patched:
        patched.setattr(caption_output.os, "write", fail)
        status, _, err = run(capsys, recordings, "--output", str(output), "--batch-size", "1")
    assert status == (2 if len(count) > fails_at else 0)
    if status:
        assert len(err) == 1 and os.strerror(code) in err[0]
    assert_rows_are_safe(output, recordings)
    assert run(capsys, recordings, "--output", str(output), "--resume")[0] == 0
    assert sorted(names_in(output)) == ["clip0.wav", "clip1.wav", "clip2.wav"]


@pytest.mark.parametrize("word", ["--resume", "--overwrite"])
def test_an_output_survives_a_disk_that_is_full_from_the_start(capsys, recordings, tmp_path, monkeypatch, word):
    output = tmp_path / "captions.csv"
    run(capsys, recordings, "--output", str(output))
    soundfile.write(os.path.join(recordings, "new.wav"), make_clip(0.5), RATE)
    whole, real_open = output.read_bytes(), open

    def open_full(path, mode="r", *arguments, **options):
        if str(path).endswith(".part"):
            real_open(path, mode, *arguments, **options).close()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real_open(path, mode, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr("builtins.open", open_full)
        status, _, err = run(capsys, recordings, "--output", str(output), word)
    assert status == 2 and "No space left on device" in err[-1] and output.read_bytes() == whole
    assert_rows_are_safe(output, recordings)


@pytest.fixture
def tiny_disk(tmp_path):
    """A file system of 64 kB; only root may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a tmpfs")
@pytest.mark.parametrize("free_pages", [0, 1, 2])
def test_a_real_full_disk(capsys, recordings, tiny_disk, free_pages):
    filler, output = tiny_disk / "filler", tiny_disk / "captions.csv"
    with open(filler, "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            file.truncate(max(0, file.tell() - 4096 * free_pages))
    status, _, err = run(capsys, recordings, "--output", str(output), "--batch-size", "1")
    assert status == 2 and len(err) == 1 and "No space left on device" in err[0]
    assert_rows_are_safe(output, recordings)
    filler.unlink()
    arguments = ["--resume"] if output.exists() else []
    assert run(capsys, recordings, "--output", str(output), *arguments)[0] == 0 and len(read_rows(output)) == 3


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("folder.csv", "is a folder"),
        ("missing/captions.csv", "does not exist"),
        ("file/captions.csv", "does not exist"),
        ("n" * 300 + ".csv", "File name too long"),
        ("n" * 240 + ".csv", "File name too long"),
        ("/proc/captions.csv", "cannot be written"),
    ],
)
@pytest.mark.parametrize("word", ["--overwrite", "--resume", None])
def test_an_output_that_cannot_be_is_refused_before_the_model_loads(
    capsys, recordings, tmp_path, monkeypatch, place, said, word
):
    """It used to end in a traceback, after the model was loaded."""
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "file").touch()
    before = sorted(os.listdir(tmp_path))
    monkeypatch.setattr(caption_command, "load_pipeline", refuse_loading)
    status, out, err = run(capsys, recordings, "--output", str(tmp_path / place), *([word] if word else []))
    assert status == 2 and out == [] and len(err) == 1 and said in err[0]
    assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_files_and_folders_are_refused(capsys, recordings, tmp_path, monkeypatch):
    folder = tmp_path / "read_only"
    folder.mkdir()
    output = tmp_path / "captions.csv"
    output.touch(0o444)
    folder.chmod(0o555)
    monkeypatch.setattr(caption_command, "load_pipeline", refuse_loading)
    for place, word in ((folder / "captions.csv", []), (output, ["--overwrite"]), (output, ["--resume"])):
        status, _, err = run(capsys, recordings, "--output", str(place), *word)
        assert status == 2 and len(err) == 1 and "Permission denied" in err[0]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_disk_behind_the_terminal_is_one_line(capsys, recordings, monkeypatch):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        status, _, err = run(capsys, recordings)
    assert status == 2 and err == ["enclap: The captions cannot be printed: No space left on device."]


def test_captions_fit_any_encoding_of_the_terminal(capsys, recordings, tmp_path, monkeypatch):
    """`UnicodeEncodeError` used to end the run where a name had a letter that the terminal has not."""
    os.rename(os.path.join(recordings, "clip0.wav"), os.path.join(recordings, "Käuzchen 東.wav"))
    written = io.BytesIO()
    stream = io.TextIOWrapper(written, encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    assert run(capsys, recordings)[0] == 0
    stream.flush()
    assert b"K\\xe4uzchen \\u6771.wav\t" in written.getvalue() and written.getvalue().count(b"\n") == 3


def test_a_program_that_has_seen_enough_ends_the_run_in_silence(capsys, recordings, monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        assert run(capsys, recordings) == (0, [], [])
