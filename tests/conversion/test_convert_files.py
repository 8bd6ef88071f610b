"""Checkpoint files are read whole and unharmed or refused by name; nothing that they bring is run."""

import io
import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from enclap_hf.conversion.convert_published import convert_checkpoints
from enclap_hf.conversion.published_files import ConversionError, read_state_dict, rewrite_in_protocol_2
from original_formats import (
    PUBLISHED,
    build_tiny_codec,
    build_tiny_tower,
    make_clap_checkpoint,
    name_clap_tensors,
    name_encodec_tensors,
)

# Names of `name_clap_tensors` that a conversion leaves out: what is done to them does no harm.
UNNEEDED = ("logit_", "text_", "audio_transform", "audio_branch.tscam", "audio_branch.logmel")


class CallsSystem:
    """Runs a command when it is unpickled."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


class CallsEval:
    """Runs code when it is unpickled."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return eval, (f"open({str(self.mark)!r}, 'w')",)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_training_checkpoint_with_numpy_numbers_is_read(tmp_path, protocol):
    tensors = {"module.a": torch.randn(3), "b": torch.nn.Parameter(torch.ones(2, 2).half()), "c": torch.arange(4)}
    checkpoint = {
        **{"epoch": 7, "name": "state_dict", "note": b"\x00\xff", "state_dict": tensors},
        "optimizer": {"lr": np.float64(0.1), "again": np.float64(0.2), "flags": (True, None, 1.5)},
    }
    torch.save(checkpoint, tmp_path / "checkpoint.pt", pickle_protocol=protocol)
    read = read_state_dict(str(tmp_path / "checkpoint.pt"))
    assert list(read) == list(tensors)
    assert all(read[name].dtype == tensor.dtype and torch.equal(read[name], tensor) for name, tensor in tensors.items())


@pytest.mark.parametrize("old", ["numpy.core.multiarray", "numpy._core.multiarray"])
@pytest.mark.parametrize("protocol", [2, 4])
def test_numpy_numbers_of_numpy_1_and_2_are_read(tmp_path, old, protocol):
    """The two versions name the same function differently; files of either are read under either."""
    path = tmp_path / "checkpoint.pt"
    torch.save({"state_dict": {"a": torch.ones(1)}, "lr": np.float64(0.1)}, path, pickle_protocol=protocol)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = next(name for name in members if name.endswith("data.pkl"))
    text = next(text for text in (b"numpy._core.multiarray", b"numpy.core.multiarray") if text in members[name])
    if protocol == 2:
        members[name] = members[name].replace(text, old.encode())
    else:  # a length stands before the text
        members[name] = members[name].replace(bytes([len(text)]) + text, bytes([len(old)]) + old.encode())
        members[name] = members[name][:2] + members[name][11:]  # without the frame, whose length has changed
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    assert torch.equal(read_state_dict(str(path))["a"], torch.ones(1))


def test_the_format_before_zip_is_read(tmp_path):
    tensors = {"a": torch.randn(3, 2)}
    torch.save(tensors, tmp_path / "old.th", _use_new_zipfile_serialization=False)
    assert torch.equal(read_state_dict(str(tmp_path / "old.th"))["a"], tensors["a"])


def test_safetensors_are_read(tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "a.safetensors")
    assert torch.equal(read_state_dict(str(tmp_path / "a.safetensors"))["a"], torch.ones(2))
    (tmp_path / "b.safetensors").write_bytes(b"\x10" * 100)
    with pytest.raises(ConversionError, match="damaged"):
        read_state_dict(str(tmp_path / "b.safetensors"))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(("attack", "name"), [(CallsSystem, "system"), (CallsEval, "eval")])
def test_a_file_that_wants_to_run_code_is_refused_with_the_name(tmp_path, attack, name, protocol, zipped):
    mark, path = tmp_path / "was_run", tmp_path / "evil.pt"
    content = {"state_dict": {"a": torch.ones(1)}, "optimizer": attack(mark)}
    torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ConversionError, match=f"asks to run `.*{name}`"):
        read_state_dict(str(path))
    assert not mark.exists()


def test_a_pickle_that_hides_a_name_in_its_memo_is_refused(tmp_path):
    """Names may come from the memo instead of standing before their use, as protocol 4 writes repeated texts."""
    mark, path = tmp_path / "was_run", tmp_path / "evil.pt"
    command = f"touch {mark}".encode()
    pickled = b"\x80\x04(\x8c\x05posix\x94\x8c\x06system\x941h\x00h\x01\x93\x8c" + bytes([len(command)]) + command
    pickled += b"\x85R."
    torch.save({"a": torch.ones(1)}, path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, pickled if name.endswith("data.pkl") else content)
    with pytest.raises(ConversionError, match="asks to run `posix.system`"):
        read_state_dict(str(path))
    assert not mark.exists()


def test_rewriting_keeps_the_content():
    """Repeated texts, long texts and bytes: what pickle itself reads is the same before and after."""
    import pickle

    content = {"a": ["text", "text", "é" * 300], "b": (b"\x00\xff" * 200, b"x"), "c": {"text": 2**70, "d": -1.5}}
    for protocol in (3, 4, 5):
        assert pickle.loads(rewrite_in_protocol_2(pickle.dumps(content, protocol))) == content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.ones(1)], "holds list"),
        ({"a": 1}, "'a' is a int"),
        ({1: torch.ones(1)}, "entry 1 is"),
        ({}, "expected tensors by name"),
        ({"a": torch.ones(3).to_sparse()}, "_rebuild_sparse_tensor"),
    ],
)
def test_other_content_is_refused(tmp_path, content, message):
    torch.save(content, tmp_path / "file.pt")
    with pytest.raises(ConversionError, match=message):
        read_state_dict(str(tmp_path / "file.pt"))


@pytest.fixture(scope="module")
def originals(tmp_path_factory) -> Path:
    """A folder with all three original sources."""
    folder = tmp_path_factory.mktemp("originals")
    shutil.copytree(PUBLISHED / "ckpt", folder / "enclap")
    torch.save(make_clap_checkpoint(name_clap_tensors(build_tiny_tower())), folder / "clap.pt")
    torch.save(name_encodec_tensors(build_tiny_codec()), folder / "encodec.th")
    return folder


def read_members(content: bytes) -> dict[str, bytes] | None:
    """A zip archive's members; None where it cannot be read."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return {name: archive.read(name) for name in archive.namelist()}
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError, OSError, KeyError):
        return None


def flip_bit(path: Path, rng: np.random.Generator) -> str:
    """Flip one bit, anywhere but where it changes nothing: in the padding or a time stamp of the archive."""
    original = path.read_bytes()
    while True:
        content = bytearray(original)
        place = int(rng.integers(len(content)))
        content[place] ^= 1 << int(rng.integers(8))
        if read_members(bytes(content)) != read_members(original):
            path.write_bytes(content)
            return f"bit flipped at byte {place}"


def test_one_flipped_bit_in_a_tensor_is_refused(tmp_path):
    """The file loads all the same and the number is a plausible one; only the archive's checksum tells."""
    path = tmp_path / "a.pt"
    torch.save({"a": torch.full((1000,), 0.123456)}, path)
    content = bytearray(path.read_bytes())
    content[content.index(torch.tensor([0.123456]).numpy().tobytes()) + 400] ^= 1
    path.write_bytes(content)
    with pytest.raises(ConversionError, match="checksum of its member .*data/0 is wrong"):
        read_state_dict(str(path))


def truncate(path: Path, rng: np.random.Generator) -> str:
    """Cut a file off."""
    length = int(rng.integers(path.stat().st_size))
    path.write_bytes(path.read_bytes()[:length])
    return f"cut to {length} bytes"


def overwrite(path: Path, rng: np.random.Generator) -> str:
    """Replace a file by random bytes."""
    path.write_bytes(rng.bytes(int(rng.integers(1, 5000))))
    return "random bytes"


def change_tensors(path: Path, rng: np.random.Generator, kind: str) -> str:
    """Leave a tensor out, add one, or change a shape."""
    checkpoint = torch.load(path, weights_only=False)
    tensors = checkpoint.get("state_dict", checkpoint)
    needed = [name for name in tensors if not name.removeprefix("module.").startswith(UNNEEDED)]
    needed = [name for name in needed if not name.endswith("attn_mask")]
    name = needed[int(rng.integers(len(needed)))]
    if kind == "missing":
        del tensors[name]
    elif kind == "extra":
        tensors[f"{name}_{rng.integers(100)}"] = torch.zeros(2)
    else:
        tensor = tensors[name]
        tensors[name] = torch.cat([tensor, tensor[:1]]) if tensor.dim() else tensor.reshape(1)
    torch.save(checkpoint, path)
    return f"{kind} {name}"


def add_attack(path: Path, rng: np.random.Generator, mark: Path) -> str:
    """Put an object that calls os.system somewhere into a checkpoint."""
    checkpoint = torch.load(path, weights_only=False)
    place = [checkpoint, checkpoint.get("state_dict", checkpoint)][int(rng.integers(2))]
    place[f"surplus{rng.integers(100)}"] = CallsSystem(mark)
    protocol = int(rng.integers(2, 6))
    torch.save(checkpoint, path, pickle_protocol=protocol, _use_new_zipfile_serialization=bool(rng.integers(4)))
    return f"os.system in protocol {protocol}"


def damage(folder: Path, rng: np.random.Generator, mark: Path) -> str:
    """Damage one file of the sources in one way; returns which."""
    names = ["enclap/pytorch_model.bin", "clap.pt", "encodec.th"]
    path = folder / names[int(rng.integers(3))]
    kind = int(rng.integers(8))
    if kind == 7:
        path = folder / "enclap/config.json"
        return f"{path.name}: {[truncate, overwrite][int(rng.integers(2))](path, rng)}"
    if kind < 3:
        return f"{path.name}: {change_tensors(path, rng, ('missing', 'extra', 'shape')[kind])}"
    change = (flip_bit, truncate, overwrite)[kind - 3] if kind < 6 else None
    return f"{path.name}: {change(path, rng) if change else add_attack(path, rng, mark)}"


@pytest.mark.parametrize("num_folders", [16, pytest.param(200, marks=pytest.mark.slow)])
def test_damaged_folders_are_refused_and_leave_nothing(originals, tmp_path, num_folders):
    mark, kinds = tmp_path / "was_run", set()
    (tmp_path / "work").mkdir()
    for seed in range(num_folders):
        folder = tmp_path / "damaged"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(originals, folder)
        what = damage(folder, np.random.default_rng(seed), mark)
        kinds.add(" ".join(what.split()[1:3])[:8])
        with pytest.raises(ConversionError) as caught:
            convert_checkpoints(
                *(str(folder / name) for name in ("enclap", "clap.pt")),
                str(tmp_path / "work/out"),
                str(folder / "encodec.th"),
                str(PUBLISHED / "tokenizer"),
            )
            pytest.fail(f"seed {seed} was converted: {what}")
        message = str(caught.value)
        assert str(folder) in message and "\n" not in message, what
        assert not mark.exists() and os.listdir(tmp_path / "work") == [], what
    assert len(kinds) >= 5


def test_the_folder_before_the_damage_is_converted(originals, tmp_path):
    convert_checkpoints(
        *(str(originals / name) for name in ("enclap", "clap.pt")),
        str(tmp_path / "out"),
        str(originals / "encodec.th"),
        str(PUBLISHED / "tokenizer"),
    )
    assert (tmp_path / "out/model.safetensors").exists()
