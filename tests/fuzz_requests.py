"""Sends a handler random requests: damaged recordings, odd JSON, odd parameters; and counts what it does with them.

python tests/fuzz_requests.py --count 2000 --seed 7

answered    a caption, or a list of captions with scores
refused     a `RequestError`: one printable line of bounded length, with a status that fits
anything else, and memory that grows, must not happen
"""

import argparse
import base64
import contextlib
import io
import json
import logging
import os
import random
import sys
import tempfile
from collections import Counter

import numpy as np
import soundfile

from conftest import build_model, build_processor, make_clip
from enclap_hf.model.repository import save_repository
from endpoint_stand_in import load_handler

RATE = 24_000
FINE = ("answered", "refused")
STATUSES = (400, 403, 413, 415, 422)
# Growth over the second half of the requests: what allocators keep for themselves comes in the first.
MAX_GROWTH_MB = 25
FORMATS = (
    ("WAV", "PCM_16"),
    ("WAV", "FLOAT"),
    ("FLAC", "PCM_16"),
    ("OGG", "VORBIS"),
    ("MP3", None),
    ("AIFF", "PCM_24"),
)
TEXTS = (
    "",
    " ",
    "\n",
    "\x00",
    "\ud800",
    "\u202e\x1b[31m",
    "a" * 10**6,
    "http://127.0.0.1/a.wav",
    "https://[::1",
    "four",
)
TEXTS += ("file:///etc/passwd", "/etc/passwd", "data:audio/wav;base64,", "data:,x", "nan", "1e999", "ＡＡＡＡ")
NUMBERS = (0, 1, -1, 2, 3, 16, 17, 200, 10**400, 0.5, -0.5, 1e308, float("nan"), float("inf"), True, False, 24_000)
PARAMETERS = ("num_beams", "num_return_sequences", "max_new_tokens", "no_repeat_ngram_size", "length_penalty")
PARAMETERS += ("chunk_length_s", "stride_length_s", "segmentation", "return_timestamps", "stream")
PARAMETERS += ("do_sample", "temperature", "top_k", "top_p", "custom_generate", "trust_remote_code", "__class__")


def make_recording(rng: random.Random) -> bytes:
    """An encoded file, perhaps damaged."""
    kind, subtype = rng.choice(FORMATS)
    file = io.BytesIO()
    soundfile.write(
        file, make_clip(rng.choice((0.05, 0.3, 0.8)), rng.randrange(50)), RATE, format=kind, subtype=subtype
    )
    content = bytearray(file.getvalue())
    damage = rng.randrange(5)
    if damage == 1:
        del content[rng.randrange(len(content)) :]
    elif damage == 2:
        for _ in range(rng.choice((1, 10, 100))):
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    elif damage == 3:
        first = rng.randrange(len(content))
        content[first : first + 200] = rng.randbytes(rng.randrange(300))
    return bytes(content)


def make_value(rng: random.Random, depth: int = 0):
    """Any JSON value."""
    kind = rng.randrange(6 if depth < 3 else 4)
    if kind == 0:
        return rng.choice(NUMBERS)
    if kind == 1:
        return rng.choice(TEXTS)
    if kind == 2:
        return None
    if kind == 3:
        return base64.b64encode(rng.randbytes(rng.randrange(200))).decode()
    if kind == 4:
        return [make_value(rng, depth + 1) for _ in range(rng.randrange(4))]
    return {rng.choice((*TEXTS, "array", "path", "bytes", "url")): make_value(rng, depth + 1) for _ in range(3)}


def make_samples(rng: random.Random) -> dict:
    """Samples as JSON has them, perhaps odd ones."""
    clip = make_clip(0.2, rng.randrange(50)) * rng.choice((0.0, 1e-6, 0.5, 1.0, 1e20))
    forms = (
        lambda: clip.tolist(),
        lambda: (clip * 32767).clip(-40_000, 40_000).astype(int).tolist(),
        lambda: [clip.tolist()] * rng.randrange(1, 4),
        lambda: np.sign(clip).astype(int).tolist(),
        lambda: [*clip.tolist()[:50], rng.choice((None, "a", float("nan"), float("inf"), 10**400, [1], {}, True))],
        lambda: [make_value(rng) for _ in range(rng.randrange(4))],
        lambda: [clip.tolist(), clip.tolist()[1:]],
    )
    rate = RATE if rng.random() < 0.7 else make_value(rng)
    return {"array": rng.choice(forms)(), "sampling_rate": rate}


def make_request(rng: random.Random) -> tuple[str, object]:
    """A decoded body, and what kind it is."""
    kind = rng.choice(("file", "base64", "samples", "value", "body"))
    if kind == "body":
        return kind, rng.choice((make_value(rng), {"inputs": make_value(rng), make_text(rng): make_value(rng)}))
    inputs = {
        "file": lambda: rng.choice((bytes, bytearray, memoryview))(make_recording(rng)),
        "base64": lambda: rng.choice(("", "data:audio/wav;base64,")) + base64.b64encode(make_recording(rng)).decode(),
        "samples": lambda: make_samples(rng),
        "value": lambda: make_value(rng),
    }[kind]()
    request = {"inputs": inputs}
    if rng.random() < 0.5:
        names = [rng.choice((*PARAMETERS, make_text(rng))) for _ in range(rng.randrange(1, 3))]
        request["parameters"] = {name: rng.choice((make_value(rng), rng.choice(NUMBERS))) for name in names}
    return kind, request


def make_text(rng: random.Random) -> str:
    return rng.choice(TEXTS)


def judge(handler, request: object) -> str:
    """The name of what a handler does with a request."""
    try:
        answer = handler(request)
    except Exception as error:  # each kind is told apart
        message = str(error)
        is_line = message.isprintable() and 0 < len(message) <= 500
        if type(error).__name__ == "RequestError" and is_line and error.status_code in STATUSES:
            return "refused"
        return f"{type(error).__name__} {getattr(error, 'status_code', '')}: {message[:200]!r}"
    captions = answer if isinstance(answer, list) else [answer]
    is_answer = all(isinstance(caption["text"], str) for caption in captions) and json.dumps(answer)
    return "answered" if is_answer else f"answer {answer!r:.200}"


def fuzz(count: int, seed: int) -> Counter:
    """Send `count` requests to the handler of a tiny captioner; counts by (kind, outcome)."""
    rng, outcomes, memory_mb = random.Random(seed), Counter(), []
    path = list(sys.path)
    with tempfile.TemporaryDirectory() as folder:
        model = build_model()
        model.generation_config.max_length = 8
        save_repository(model, build_processor(), folder)
        handler = load_handler(folder)
        logging.getLogger("enclap_hf").setLevel(logging.CRITICAL)
        try:
            for number in range(count):
                kind, request = make_request(rng)
                outcomes[kind, judge(handler, request)] += 1
                if (number + 1) % max(1, count // 8) == 0:
                    memory_mb.append(resident_mb())
        finally:
            logging.getLogger("enclap_hf").setLevel(logging.NOTSET)
            sys.path[:] = path
    grown_mb = memory_mb[-1] - memory_mb[len(memory_mb) // 2 - 1]
    print(f"memory after each eighth of the requests, MB: {', '.join(f'{mb:.0f}' for mb in memory_mb)}")
    if grown_mb > MAX_GROWTH_MB and count >= 1000:
        outcomes["all", f"memory grew by {grown_mb:.0f} MB"] += 1
    return outcomes


def resident_mb() -> float:
    """Memory that this process holds, in MB; 0 where it is not told."""
    with contextlib.suppress(OSError), open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS")) / 1024
    return 0.0


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    outcomes = fuzz(args.count, args.seed)
    for (kind, outcome), number in sorted(outcomes.items()):
        print(f"{kind:8} {number:6}  {outcome}")
    bad = sum(number for (_, outcome), number in outcomes.items() if outcome not in FINE)
    print(json.dumps({"count": args.count, "seed": args.seed, "bad": bad}))
    return min(bad, 1)


if __name__ == "__main__":
    sys.exit(main())
