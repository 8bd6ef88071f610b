"""Damages copies of the default model in every way that files are damaged, captions with each, and counts what happens.

    python tests/fuzz_models.py --count 500 --seed 3

Each copy goes through `enclap caption` in a forked process of its own, with limits of time and memory. What may happen:

    refused     one line that names a file or field, before any captioning
    same        the caption of the whole model: the damage concerns nothing that captioning reads
    other value another caption, by weights that are finite and of the same names and shapes, or by a field's value of
                the same kind: without checksums these are just other models
    different   another caption by files that tell of their damage: must not happen
    recording   the recording's own error, after loading: must not happen
    many lines, traceback, crash, timeout: must not happen
"""

import argparse
import contextlib
import io
import json
import os
import random
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

# Of the processor, and of the clock for what waits without working.
CPU_LIMIT_S, TIME_LIMIT_S = 40, 240
MEMORY_LIMIT_BYTES = 12 << 30
WEIGHTS = ("model.safetensors", "codec/model.safetensors", "clap/model.safetensors")
JSONS = (
    *("config.json", "generation_config.json", "processor_config.json", "tokenizer.json", "tokenizer_config.json"),
    *("codec/config.json", "clap/config.json"),
)
# numpy's types of those in the default model.
FLOATS = {"F32": "<f4", "F16": "<f2"}
FINE = ("refused", "same", "other value")
ODD_VALUES = (None, True, False, -1, 0, 1, 3, 10**9, 10**400, -0.5, 1e999, "", "x" * 20_000, "owner/name", [], [[]], {})
ODD_VALUES += ({"a": {"b": 1}}, "\ud800", "../..", 2**31, [10**9], 1e-300)


# Files, taken apart


def read_safetensors(path: Path) -> tuple[dict, bytearray]:
    """Header and tensors' bytes."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), bytearray(content[8 + length :])


def write_safetensors(path: Path, header: dict, data: bytes) -> None:
    encoded = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + data)


def pick_tensor(rng: random.Random, header: dict) -> str:
    return rng.choice([name for name in header if name != "__metadata__"])


def pick_float(rng: random.Random, header: dict) -> str:
    return rng.choice([name for name, entry in header.items() if entry.get("dtype") in FLOATS and entry["shape"]])


def flip_bits(rng: random.Random, content: bytearray, first: int, end: int, count: int) -> None:
    for _ in range(count):
        content[rng.randrange(first, end)] ^= 1 << rng.randrange(8)


# Damage of any file


def cut(rng, path):
    content = path.read_bytes()
    path.write_bytes(content[: rng.randrange(len(content))])


def empty(rng, path):
    path.write_bytes(b"")


def zero(rng, path):
    path.write_bytes(bytes(path.stat().st_size))


def remove(rng, path):
    path.unlink()


def make_folder(rng, path):
    path.unlink()
    path.mkdir()


def make_pipe(rng, path):
    path.unlink()
    os.mkfifo(path)


def make_dangling_link(rng, path):
    path.unlink()
    path.symlink_to("nowhere")


def make_pointer(rng, path):
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 5153064\n")


def append(rng, path):
    with path.open("ab") as file:
        file.write(rng.randbytes(rng.randint(1, 500)))


def drop_block(rng, path):
    content = path.read_bytes()
    first = rng.randrange(len(content))
    path.write_bytes(content[:first] + content[first + rng.randint(1, 4096) :])


def scramble_block(rng, path):
    content = bytearray(path.read_bytes())
    first = rng.randrange(len(content))
    end = min(len(content), first + rng.randint(1, 4096))
    content[first:end] = rng.randbytes(end - first)
    path.write_bytes(content)


def make_web_page(rng, path):
    path.write_bytes(b"<!DOCTYPE html><html><body>429 Too Many Requests</body></html>")


# Damage of weights


def flip_in_header(rng, path):
    content = bytearray(path.read_bytes())
    (length,) = struct.unpack("<Q", content[:8])
    flip_bits(rng, content, 8, 8 + length, rng.choice((1, 1, 2, 8)))
    path.write_bytes(content)


def flip_in_tensors(rng, path):
    content = bytearray(path.read_bytes())
    (length,) = struct.unpack("<Q", content[:8])
    flip_bits(rng, content, 8 + length, len(content), rng.choice((1, 4, 64)))
    path.write_bytes(content)


def change_header_length(rng, path):
    content = bytearray(path.read_bytes())
    (length,) = struct.unpack("<Q", content[:8])
    lengths = (0, 1, length - 1, length + 1, length * 2, 2**63, 2**64 - 1, len(content), 99_999_999)
    content[:8] = struct.pack("<Q", rng.choice(lengths))
    path.write_bytes(content)


def edit_header(change):
    """A damage that changes an entry of the header, given (rng, header, data)."""

    def damage(rng, path):
        header, data = read_safetensors(path)
        change(rng, header, data)
        write_safetensors(path, header, bytes(data))

    damage.__name__ = change.__name__
    return damage


@edit_header
def write_nan(rng, header, data):
    entry = header[pick_float(rng, header)]
    numbers = np.frombuffer(data, FLOATS[entry["dtype"]], int(np.prod(entry["shape"])), entry["data_offsets"][0])
    numbers[rng.randrange(len(numbers))] = rng.choice((np.nan, np.inf, -np.inf))


@edit_header
def drop_tensor(rng, header, data):
    del header[pick_tensor(rng, header)]


@edit_header
def drop_tensor_and_its_bytes(rng, header, data):
    gone = header.pop(pick_tensor(rng, header))["data_offsets"]
    del data[gone[0] : gone[1]]
    for name, entry in header.items():
        if name != "__metadata__" and entry["data_offsets"][0] >= gone[1]:
            entry["data_offsets"] = [offset - gone[1] + gone[0] for offset in entry["data_offsets"]]


@edit_header
def rename_tensor(rng, header, data):
    name = pick_tensor(rng, header)
    header[name + rng.choice(("_", ".weight", "\n"))] = header.pop(name)


@edit_header
def add_tensor(rng, header, data):
    header["model.more.weight"] = {"dtype": "F32", "shape": [4], "data_offsets": [len(data), len(data) + 16]}
    data += bytes(16)


@edit_header
def reshape_tensor(rng, header, data):
    entry = header[pick_float(rng, header)]
    size = int(np.prod(entry["shape"]))
    entry["shape"] = rng.choice(([size], [1, *entry["shape"]], entry["shape"][::-1], [size, 1], [size // 2, 2]))


@edit_header
def change_dtype(rng, header, data):
    header[pick_tensor(rng, header)]["dtype"] = rng.choice(("I32", "F16", "F64", "U32", "BF16", "C64", "", 4, None))


@edit_header
def change_offsets(rng, header, data):
    entry = header[pick_tensor(rng, header)]
    first, end = entry["data_offsets"]
    shift = rng.choice((4, -4, 1, len(data), 10**15, -(10**15)))
    entry["data_offsets"] = rng.choice(
        ([first + shift, end + shift], [end, first], [first], None, [first, end, end], ["0", "4"], [first, end + 4])
    )


@edit_header
def share_bytes(rng, header, data):
    names = [name for name in header if name != "__metadata__"]
    for name in names:
        twins = [n for n in names if n != name and header[n]["shape"] == header[name]["shape"]]
        if twins:
            header[name]["data_offsets"] = header[rng.choice(twins)]["data_offsets"]
            return


@edit_header
def huge_shape(rng, header, data):
    header[pick_tensor(rng, header)]["shape"] = rng.choice(([10**12], [2**62, 4], [-1], [0], ["8"], [1] * 100, None))


@edit_header
def odd_entry(rng, header, data):
    header[pick_tensor(rng, header)] = rng.choice((None, 1, "F32", [], {}, {"dtype": "F32"}))


@edit_header
def odd_metadata(rng, header, data):
    header["__metadata__"] = rng.choice((None, 1, [], {"format": "tf"}, {"format": 4}, {}))


def make_shards(rng, path):
    """Several files of weights, of which one is gone, or whose index is wrong."""
    header, data = read_safetensors(path)
    names = [name for name in header if name != "__metadata__"]
    index, shards = {}, ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    for part, shard in enumerate(shards):
        part_header, part_data = {"__metadata__": {"format": "pt"}}, b""
        for name in names[part::2]:
            first, end = header[name]["data_offsets"]
            offsets = [len(part_data), len(part_data) + end - first]
            part_header[name] = {**header[name], "data_offsets": offsets}
            part_data += bytes(data[first:end])
            index[name] = shard
        write_safetensors(path.parent / shard, part_header, part_data)
    path.unlink()
    kind, name = rng.randrange(7), rng.choice(names)
    if kind == 0:
        (path.parent / rng.choice(shards)).unlink()
    elif kind == 1:
        index[name] = "../model.safetensors"
    elif kind == 2:
        index[name] = next(shard for shard in shards if shard != index[name])
    elif kind == 3:
        del index[name]
    elif kind == 4:
        cut(rng, path.parent / rng.choice(shards))
    elif kind == 5:
        index[name] = rng.choice((None, 4, "/etc/passwd", "model.bin", ["a"]))
    content = json.dumps({"metadata": {}, "weight_map": index})
    Path(f"{path}.index.json").write_text(content[: len(content) // 2] if kind == 6 else content)


# Damage of JSON


def flip_in_json(rng, path):
    content = bytearray(path.read_bytes())
    flip_bits(rng, content, 0, len(content), rng.choice((1, 1, 1, 3)))
    path.write_bytes(content)


def list_places(content, prefix=()) -> list[tuple]:
    """Every place in JSON, as the keys that lead there; of long lists the first entries."""
    if isinstance(content, dict):
        entries = list(content.items())
    elif isinstance(content, list):
        entries = list(enumerate(content[:5]))
    else:
        return []
    return [place for key, value in entries for place in ((*prefix, key), *list_places(value, (*prefix, key)))]


def edit_json(change):
    """A damage of one place in JSON, given (rng, object that holds it, its key)."""

    def damage(rng, path):
        content = json.loads(path.read_bytes())
        *above, key = rng.choice(list_places(content)[:400])
        holder = content
        for step in above:
            holder = holder[step]
        change(rng, holder, key)
        path.write_text(json.dumps(content, indent=2))

    damage.__name__ = change.__name__
    return damage


@edit_json
def odd_value(rng, holder, key):
    holder[key] = rng.choice(ODD_VALUES)


@edit_json
def lose_field(rng, holder, key):
    del holder[key]


@edit_json
def misspell_field(rng, holder, key):
    if isinstance(holder, dict):
        at = rng.randrange(len(key) + 1)
        holder[key[:at] + rng.choice("aeiou_ \n") + key[at + 1 :]] = holder.pop(key)


@edit_json
def scale_number(rng, holder, key):
    if isinstance(holder[key], (int, float)) and not isinstance(holder[key], bool):
        holder[key] = holder[key] * rng.choice((2, 10, 1000, 10**6, -1)) + rng.choice((0, 1, 10**6))


def not_an_object(rng, path):
    path.write_text(rng.choice(("[]", "1", "null", '"text"', "NaN", "[" * 100_000, '{"a": ' * 50_000, "{}")))


def bad_text(rng, path):
    content = path.read_bytes()
    path.write_bytes(rng.choice((b"\xff\xfe" + content, content.replace(b"e", b"\xe9", 3), b"\x00" + content)))


def repeat_field(rng, path):
    content = json.loads(path.read_bytes())
    key = rng.choice(list(content))
    path.write_text(json.dumps(content)[:-1] + f", {json.dumps(key)}: {json.dumps(rng.choice((1, 'a', None)))}}}")


ANY = (cut, empty, zero, remove, make_folder, make_pipe, make_dangling_link, make_pointer, append, drop_block)
ANY += (scramble_block, make_web_page)
OF_WEIGHTS = (flip_in_header, flip_in_tensors, change_header_length, write_nan, drop_tensor, drop_tensor_and_its_bytes)
OF_WEIGHTS += (rename_tensor, add_tensor, reshape_tensor, change_dtype, change_offsets, share_bytes, huge_shape)
OF_WEIGHTS += (odd_entry, odd_metadata, make_shards)
OF_JSON = (flip_in_json, odd_value, odd_value, odd_value, lose_field, misspell_field, scale_number, not_an_object)
OF_JSON += (bad_text, repeat_field)


def damage_copy(rng: random.Random, source: Path, folder: Path) -> tuple[str, str]:
    """Copy a model, damage one of its files, and return the damage and the file."""
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("sounds", "README.md"))
    is_weights = rng.random() < 0.5
    name = rng.choice(WEIGHTS if is_weights else JSONS)
    damage = rng.choice((*ANY, *(OF_WEIGHTS if is_weights else OF_JSON)))
    damage(rng, folder / name)
    return damage.__name__, name


# What happens


def is_other_value(source: Path, damaged: Path) -> bool:
    """Whether a damaged file is as whole as the one that it was made of: other numbers, the same names and kinds."""
    if not damaged.is_file():
        return False
    try:
        if damaged.suffix == ".safetensors":
            (header, _), (other, data) = read_safetensors(source), read_safetensors(damaged)
            tensors = [entry for name, entry in header.items() if name != "__metadata__"]
            kinds = [(entry["data_offsets"], FLOATS.get(entry["dtype"])) for entry in tensors]
            return header == other and all(
                np.isfinite(np.frombuffer(data[first:end], kind)).all() for (first, end), kind in kinds if kind
            )
        whole, other = json.loads(source.read_bytes()), json.loads(damaged.read_bytes())
        if source.name == "generation_config.json" and isinstance(
            other, dict
        ):  # which may leave out any field, for its default
            whole = {name: value for name, value in whole.items() if name in other}
        return is_like(whole, other)
    except (OSError, ValueError, KeyError, RecursionError, struct.error):
        return False


def is_like(one: object, other: object) -> bool:
    """Whether two JSON values have the same names and kinds."""
    if isinstance(one, dict) and isinstance(other, dict):
        # Names inside of a tokenizer's vocabulary are its tokens: values as good as others.
        names_are_free = len(one) > 100 and len(one) == len(other)
        return names_are_free or (set(one) == set(other) and all(is_like(one[key], other[key]) for key in one))
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(is_like, one, other))
    is_number = [isinstance(value, (int, float)) and not isinstance(value, bool) for value in (one, other)]
    return all(is_number) or type(one) is type(other) or one is None or other is None


def run_in_fork(folder: Path, clip: str, output: Path) -> tuple[int | None, str, str]:
    """Exit status, standard output and error of `enclap caption`; None when it ran out of time."""
    process = os.fork()
    if process == 0:
        status = 70
        try:
            spent_s = int(time.process_time())
            resource.setrlimit(resource.RLIMIT_CPU, (spent_s + CPU_LIMIT_S, spent_s + CPU_LIMIT_S + 5))
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))
            for number, name in ((1, "out"), (2, "err")):
                os.dup2(os.open(output / name, os.O_CREAT | os.O_WRONLY | os.O_TRUNC), number)
            sys.stdout, sys.stderr = (io.TextIOWrapper(io.FileIO(number, "w", closefd=False)) for number in (1, 2))
            from enclap_hf.cli import main

            try:
                status = main(["caption", clip, "--model", str(folder)])
            except BaseException:
                import traceback

                traceback.print_exc()
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(status)
    deadline = time.monotonic() + TIME_LIMIT_S
    while (done := os.waitpid(process, os.WNOHANG))[0] == 0:
        if time.monotonic() > deadline:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            break
        time.sleep(0.01)
    texts = ((output / name).read_text(errors="replace") for name in ("out", "err"))
    return (os.waitstatus_to_exitcode(done[1]) if done[0] else None, *texts)


def judge(status: int | None, out: str, err: str, expected: str, is_whole: bool) -> str:
    """The name of what happened."""
    if status in (None, -signal.SIGXCPU):
        return "timeout"
    if status < 0:
        return "crash"
    if "Traceback" in err or status == 70:
        return "traceback"
    if status == 2:
        return "refused" if len(err.splitlines()) == 1 and err.startswith("enclap") else "many lines"
    if status == 1:
        return "recording"
    if out == expected:
        return "same"
    return "other value" if is_whole else "different"


def fuzz(count: int, seed: int, source: Path, clip: str, show: set[str]) -> Counter:
    """Damage `count` copies; counts by (damage, outcome)."""
    rng, outcomes = random.Random(seed), Counter()
    with tempfile.TemporaryDirectory() as work:
        work = Path(work)
        status, expected, err = run_in_fork(source, clip, work)
        assert status == 0, err
        for number in range(count):
            folder = work / "model"
            damage, name = damage_copy(rng, source, folder)
            status, out, err = run_in_fork(folder, clip, work)
            outcome = judge(status, out, err, expected, is_other_value(source / name, folder / name))
            outcomes[damage, outcome] += 1
            if outcome not in FINE or outcome in show:
                print(f"{number}: {damage} of {name}: {outcome}: {(err or out)[-700:].strip()}", flush=True)
            shutil.rmtree(folder)
    return outcomes


def print_table(outcomes: Counter) -> None:
    """A line for each kind of damage, and one for all."""
    columns = [*FINE, *sorted({outcome for _, outcome in outcomes} - set(FINE))]
    print(f"{'damage':28}" + "".join(f"{name:>13}" for name in columns))
    for damage in sorted({damage for damage, _ in outcomes}):
        print(f"{damage:28}" + "".join(f"{outcomes[damage, name]:13}" for name in columns))
    totals = [sum(n for (_, o), n in outcomes.items() if o == name) for name in columns]
    print(f"{'all':28}" + "".join(f"{total:13}" for total in totals))


def prepare() -> Path:
    """Import what every fork needs, once, on one thread, and return the default model's folder."""
    import torch

    torch.set_num_threads(1)  # threads do not survive a fork
    import enclap_hf
    from enclap_hf import EnClapForConditionalGeneration, EnClapProcessor  # noqa: F401
    from enclap_hf.commands import caption, captioner_loading  # noqa: F401

    with contextlib.redirect_stderr(io.StringIO()):
        from transformers import pipeline  # noqa: F401
    return Path(enclap_hf.DEFAULT_MODEL)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", action="append", default=[], help="also print the cases of this outcome")
    args = parser.parse_args(argv)
    os.environ["HF_HUB_OFFLINE"] = "1"
    source = prepare()
    outcomes = fuzz(args.count, args.seed, source, str(source / "sounds" / "knocking.mp3"), set(args.show))
    print_table(outcomes)
    bad = sum(number for (_, outcome), number in outcomes.items() if outcome not in FINE)
    print(json.dumps({"count": args.count, "seed": args.seed, "bad": bad}))
    return min(bad, 1)


if __name__ == "__main__":
    sys.exit(main())
