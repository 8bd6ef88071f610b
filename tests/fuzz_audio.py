"""Damages audio files at random and reads them: each must be read or refused in one line that names it.

    python tests/fuzz_audio.py --count 10000 --seed 3

prints how many files ended how, and exits with 1 where one ended in anything but samples or an `AudioLoadError`. The
files are made in a process of its own, which is replaced when it crashes or takes longer than the limit for one file;
`--only INDEX --keep FILE` writes a file of a run again.
"""

import argparse
import collections
import io
import multiprocessing
import os
import random
import re
import struct
import sys
import tempfile

import numpy as np

RATE = 16_000
LIMIT_S = 30.0
# Address space of the reading process beyond what it has at its start.
MEMORY_BYTES = 3 << 30
SOUNDFILE_KINDS = (
    *("WAV/PCM_16", "WAV/PCM_U8", "WAV/PCM_24", "WAV/FLOAT", "WAV/IMA_ADPCM", "WAV/ULAW", "WAV/GSM610"),
    *("WAVEX/PCM_16", "AIFF/PCM_16", "AIFF/FLOAT", "AU/PCM_16", "CAF/PCM_16", "CAF/ALAC_16", "W64/PCM_16"),
    *("RF64/PCM_16", "FLAC/PCM_16", "FLAC/PCM_24", "OGG/VORBIS", "OGG/OPUS", "MP3/MPEG_LAYER_III", "VOC/PCM_16"),
    *("NIST/PCM_16", "SVX/PCM_16", "IRCAM/PCM_16", "PAF/PCM_16", "PVF/PCM_16", "MAT4/PCM_16", "MAT5/PCM_16"),
    *("AVR/PCM_16", "HTK/PCM_16", "SDS/PCM_16"),
)
AV_KINDS = (
    *("mp4/aac", "ipod/alac", "webm/libopus", "matroska/pcm_s16le", "matroska/aac", "adts/aac", "asf/wmav2"),
    *("mov/pcm_s16le", "avi/pcm_s16le", "mpegts/mp2", "ac3/ac3", "w64/pcm_s16le", "caf/pcm_s16le", "wv/wavpack"),
    *("tta/tta", "flv/aac"),
)
SIZES = (0, 1, 2, 7, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x40, 64, 3, 0xFFFE)


def make_sound(num_samples: int, num_channels: int) -> np.ndarray:
    """Float32 (num_samples, num_channels)."""
    rng = np.random.default_rng(num_samples)
    tone = np.sin(np.arange(num_samples) / 7)[:, None]
    return (0.3 * tone + 0.1 * rng.uniform(-1, 1, (num_samples, num_channels))).astype(np.float32)


def write_with_soundfile(kind: str, samples: np.ndarray) -> bytes:
    """One file, empty where this libsndfile does not write the kind."""
    import soundfile

    container, subtype = kind.split("/")
    file = io.BytesIO()
    try:
        soundfile.write(file, samples, RATE, format=container, subtype=subtype)
    except (soundfile.SoundFileError, ValueError):
        return b""
    return file.getvalue()


def write_with_av(kind: str, samples: np.ndarray) -> bytes:
    """One file, empty where PyAV is missing or does not write the kind."""
    try:
        import av
    except ImportError:
        return b""
    container, codec = kind.split("/")
    file = io.BytesIO()
    try:
        with av.open(file, "w", format=container) as output:
            rate = {"libopus": 48_000, "ac3": 48_000, "wmav2": 44_100}.get(codec, RATE)
            stream = output.add_stream(codec, rate=rate)
            stream.layout = "stereo" if samples.shape[1] == 2 else "mono"
            sample_format = stream.format.name if stream.format else "s16"
            resampler = av.AudioResampler(sample_format, stream.layout, rate, stream.frame_size or None)
            frame = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(samples.T), format="fltp", layout=stream.layout.name
            )
            frame.sample_rate = RATE
            frames = [part for given in (frame, None) for part in resampler.resample(given)]
            for packet in [packet for one in (*frames, None) for packet in stream.encode(one)]:
                output.mux(packet)
    except (av.error.FFmpegError, ValueError, TypeError, OSError):
        return b""
    return file.getvalue()


def make_originals() -> dict[str, bytes]:
    """A short undamaged file of every kind that can be written here."""
    files = {}
    for number, kind in enumerate((*SOUNDFILE_KINDS, *AV_KINDS)):
        samples = make_sound(9000 + 500 * number, 1 + number % 2)
        write = write_with_soundfile if kind in SOUNDFILE_KINDS else write_with_av
        files[kind] = write(kind, samples) or write(kind, samples[:, :1])
    return {kind: content for kind, content in files.items() if content}


def damage(content: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """The file with one to three faults."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        content = rng.choice(DAMAGES)(bytearray(content), others, rng)
    return bytes(content)


def cut_off(content: bytearray, others: list[bytes], rng: random.Random) -> bytes:
    """Truncated, more often near the start, where headers are."""
    return content[: int(len(content) * rng.random() ** rng.choice((1, 4)))]


def flip_bits(content: bytearray, others: list[bytes], rng: random.Random) -> bytes:
    """Single bits anywhere, or in the first bytes."""
    span = len(content) if rng.random() < 0.5 else min(len(content), 200)
    for _ in range(rng.choice((1, 4, 40)) if span else 0):
        content[rng.randrange(span)] ^= 1 << rng.randrange(8)
    return content


def replace_field(content: bytearray, others: list[bytes], rng: random.Random) -> bytes:
    """A number of a header set to one that programs stumble over."""
    width = rng.choice((1, 2, 4, 4, 4, 8))
    if len(content) > width + 4:
        offset = rng.randrange(min(len(content) - width, 512)) // 2 * 2
        value = rng.choice((*SIZES, rng.getrandbits(8 * width))) & ((1 << 8 * width) - 1)
        content[offset : offset + width] = value.to_bytes(width, rng.choice(("little", "big")))
    return content


def overwrite(content: bytearray, others: list[bytes], rng: random.Random) -> bytes:
    """A run of noise, zeros or ones."""
    start, length = rng.randrange(len(content) + 1), rng.choice((1, 16, 700, 5000))
    kind = rng.randrange(3)
    run = (rng.randbytes(length), bytes(length), b"\xff" * length)[kind]
    content[start : start + length] = run[: len(content) - start]
    return content


def splice(content: bytearray, others: list[bytes], rng: random.Random) -> bytes:
    """Its beginning, and the end of another file, or of itself."""
    other = rng.choice((*others, bytes(content)))
    return content[: rng.randrange(len(content) + 1)] + other[rng.randrange(len(other) + 1) :]


def leave_out(content: bytearray, others: list[bytes], rng: random.Random) -> bytes:
    """Without a piece from its middle."""
    start = rng.randrange(len(content) + 1)
    del content[start : start + rng.choice((1, 4, 100, 3000))]
    return content


def insert_floats(content: bytearray, others: list[bytes], rng: random.Random) -> bytes:
    """Numbers that are not samples: NaN, infinite, enormous."""
    start = rng.randrange(len(content) + 1) // 4 * 4
    values = struct.pack("<3f", float("nan"), float("inf"), 1e30)
    content[start : start + 12] = values[: len(content) - start]
    return content


DAMAGES = (cut_off, flip_bits, replace_field, overwrite, splice, leave_out, insert_floats)


class Stream(io.RawIOBase):
    """Bytes that come in order only."""

    def __init__(self, content: bytes):
        self._content = io.BytesIO(content)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        return self._content.readinto(buffer)


def describe_outcome(index: int, content: bytes, path: str) -> str:
    """Read one file and say how that ended; the words before a colon are its kind."""
    from enclap_hf.model.audio_loading import AudioLoadError, load_audio, open_audio

    try:
        if index % 4 == 3:  # as a stream, block by block
            with open_audio(Stream(content), name=path) as reader:
                parts = list(reader.blocks(0.5))
                samples = np.concatenate(parts, axis=1)[0] if parts else np.zeros(1, np.float32)
                is_partial = reader.is_partial
        else:
            with open(path, "wb") as file:
                file.write(content)
            loaded = load_audio(path if index % 4 else content, name=path)
            samples, is_partial = loaded.samples, loaded.is_partial
    except AudioLoadError as error:
        message = str(error)
        if path not in message or not message.isprintable() or len(message) > 1000:
            return f"FAULT, poor message: {message[:300]}"
        reason = message.split(f"`{path}`: ")[-1]
        return "refused, " + re.sub(r"\d\S*|\(.*|'.*", "*", reason.split(". ")[0])[:60]
    except Exception as error:  # what the program is there to find
        return f"FAULT, {type(error).__name__}: {error}"
    if samples.dtype != np.float32 or samples.ndim != 1 or not len(samples) or not np.isfinite(samples).all():
        return f"FAULT, unsound samples: {samples.dtype} {samples.shape}"
    return "read in part" if is_partial else "read"


def serve(connection, seed: int, folder: str) -> None:
    """In the reading process: take numbers of files, and send back how each ended."""
    import logging

    import enclap_hf.model.audio_loading  # noqa: F401 (before the limit on memory)

    logging.disable()
    originals = make_originals()
    limit_memory()
    connection.send("ready")
    printed = os.open(os.path.join(folder, "printed"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(printed, 1)
    os.dup2(printed, 2)
    while (index := connection.recv()) is not None:
        _, content = make_damaged(originals, seed, index)
        connection.send(describe_outcome(index, content, os.path.join(folder, f"clip {index}.bin")))
        if os.path.exists(path := os.path.join(folder, f"clip {index}.bin")):
            os.remove(path)


def limit_memory() -> None:
    """Where the system can, let no file take memory without end."""
    try:
        import resource

        with open("/proc/self/statm", encoding="ascii") as file:
            taken = int(file.read().split()[0]) * resource.getpagesize()
    except (ImportError, OSError):
        return
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY_BYTES, resource.RLIM_INFINITY))


def make_damaged(originals: dict[str, bytes], seed: int, index: int) -> tuple[str, bytes]:
    """Kind and content of a file, which follow from seed and number alone."""
    rng = random.Random(f"{seed}/{index}")
    kind = rng.choice(list(originals))
    return kind, damage(originals[kind], list(originals.values()), rng)


def run(count: int, seed: int, limit_s: float = LIMIT_S) -> tuple[collections.Counter, dict[int, str], int]:
    """Read `count` damaged files.

    Returns:
        how many ended in each way, those that are faults by their number, and bytes that C libraries printed.
    """
    context = multiprocessing.get_context("spawn")
    outcomes, faults, process = collections.Counter(), {}, None
    with tempfile.TemporaryDirectory() as folder:
        for index in range(count):
            if process is None:
                process, connection = start_process(context, seed, folder)
            connection.send(index)
            outcome = wait_for_outcome(connection, limit_s)
            if outcome.startswith(("HANG", "CRASH")):
                process.kill()
                process.join()
                process = None
            if not outcome.startswith(("read", "refused")):
                faults[index] = outcome
            outcomes[outcome.split(":")[0]] += 1
        if process is not None:
            connection.send(None)
            process.join()
        path = os.path.join(folder, "printed")
        printed = os.path.getsize(path) if os.path.exists(path) else 0
    return outcomes, faults, printed


def start_process(context, seed: int, folder: str) -> tuple:
    """A process that reads files, once it is ready, and the connection to it."""
    connection, other_end = context.Pipe()
    process = context.Process(target=serve, args=(other_end, seed, folder), daemon=True)
    process.start()
    other_end.close()
    if wait_for_outcome(connection, 120) != "ready":
        process.kill()
        raise RuntimeError("The reading process does not start.")
    return process, connection


def wait_for_outcome(connection, limit_s: float) -> str:
    """What the reading process sends, or how it failed to."""
    try:
        return connection.recv() if connection.poll(limit_s) else f"HANG, longer than {limit_s:g} s"
    except (EOFError, ConnectionError):
        return "CRASH of the process"


def main() -> int:
    """Parse, run, print; 1 where a file ended in a fault."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, metavar="INDEX", help="make this file alone")
    parser.add_argument("--keep", metavar="FILE", help="where --only writes it")
    args = parser.parse_args()
    if args.only is not None:
        kind, content = make_damaged(make_originals(), args.seed, args.only)
        if args.keep:
            with open(args.keep, "wb") as file:
                file.write(content)
        print(kind, describe_outcome(args.only, content, args.keep or os.devnull))
        return 0
    outcomes, faults, printed = run(args.count, args.seed)
    for outcome, number in outcomes.most_common():
        print(f"{number:7d}  {outcome}")
    print(f"{printed:7d}  bytes printed by C libraries")
    for index, outcome in faults.items():
        print(f"file {index}: {outcome}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
