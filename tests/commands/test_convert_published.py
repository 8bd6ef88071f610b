"""`enclap convert --published` against the stand-in Hub: one step, resumed, offline, and how it fails."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
from huggingface_hub import constants

from conftest import make_clip
from enclap_hf.cli import main
from enclap_hf.conversion.convert_published import convert_checkpoints
from enclap_hf.hub import published_weights
from enclap_hf.hub.hub_addresses import HubAddress
from enclap_hf.hub.hub_downloads import hash_file
from original_formats import build_tiny_codec, save_original_sources

FACTS = json.loads(Path(published_weights.FACTS_FILE).read_text())
SPACE = "spaces/enclap-team/enclap"


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> dict[str, str]:
    """Tiny sources; the codec as a folder of transformers, as it is on the Hub."""
    folder = tmp_path_factory.mktemp("original")
    build_tiny_codec().save_pretrained(folder / "codec")
    return {**save_original_sources(folder), "encodec": str(folder / "codec")}


@pytest.fixture
def filled_hub(hub, sources):
    """The stand-in with tiny weights in the places of the published ones, at the revisions that are asked for."""
    hub.add(SPACE, {f"ckpt/{path.name}": path.read_bytes() for path in Path(sources["enclap"]).iterdir()})
    clap, encodec = (HubAddress.parse(FACTS[name]) for name in ("clap", "encodec"))
    tokenizer = HubAddress.parse(FACTS["tokenizers"]["facebook/bart-base"])
    hub.add(clap.repo_id, {clap.path: Path(sources["clap"]).read_bytes(), "other.pt": b"x"}, commit=clap.revision)
    for address, name in ((encodec, "encodec"), (tokenizer, "tokenizer")):
        files = {path.name: path.read_bytes() for path in Path(sources[name]).iterdir()}
        hub.add(address.repo_id, {**files, "flax_model.msgpack": b"x" * 50_000}, commit=address.revision)
    return hub


def convert(capsys, *arguments: str) -> tuple[int, str]:
    """Exit status, and what is on the error stream."""
    status = main(["convert", *arguments])
    return status, capsys.readouterr().err


def refuse(capsys, output: Path, *arguments: str) -> str:
    """The one line of a command that fails, which leaves no output."""
    status, said = convert(capsys, *(arguments or ("--published", "both-base")), "--output", str(output), "--quiet")
    assert status == 2 and said.count("\n") == 1 and said.startswith("enclap convert: ")
    assert not output.exists() and not list(output.parent.glob(f".{output.name}*"))
    return said


def list_files(folder: Path, *without: str) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in without
    }


def test_one_step_gives_what_the_local_files_give_and_captions(filled_hub, sources, tmp_path, capsys):
    output = tmp_path / "enclap-base"
    status, said = convert(capsys, "--published", "both-base", "--output", str(output))
    assert status == 0, said
    convert_checkpoints(output=str(tmp_path / "local"), **sources)
    cards = ("README.md", "model_card.json")
    assert list_files(output, *cards) == list_files(tmp_path / "local", *cards)
    lines = said.splitlines()
    assert lines[0].startswith("Downloading ") and "MB into " in lines[0]
    for place in (f"hf://{SPACE}/ckpt  ", *(f"{FACTS[name]}  " for name in ("clap", "encodec"))):
        assert any(place in line and line.endswith(("kB", "MB")) for line in lines)
    assert f"Caption:   enclap caption recordings/ --model {output}" in lines
    assert any("captioner MIT; codec/ CC-BY-NC 4.0" in line and "clap/ CC0; tokenizer Apache" in line for line in lines)
    assert "Scores:    none of this checkpoint is reported." in lines
    soundfile.write(tmp_path / "dog.wav", make_clip(1.0), 24_000)
    commands = [line.removeprefix("Caption:   enclap ") for line in lines if line.startswith("Caption:")]
    assert main([*commands[0].replace("recordings/", str(tmp_path / "dog.wav")).split(), "--device", "cpu"]) == 0
    assert capsys.readouterr().out.startswith(f"{tmp_path / 'dog.wav'}\t")


def test_no_more_is_fetched_than_needed_and_nothing_twice(filled_hub, tmp_path, capsys):
    assert convert(capsys, "--published", "both-base", "--output", str(tmp_path / "a"))[0] == 0
    asked = [request for request in filled_hub.requests if "/resolve/" in request]
    assert not any(name in request for name in ("flax_model", "other.pt") for request in asked)
    assert all(not transfer.has_token for transfer in filled_hub.transfers), "the token went to another host"
    hashes = [transfer.sha256 for transfer in filled_hub.transfers]
    assert len(hashes) == len(set(hashes)) >= 2
    status, said = convert(capsys, "--published", "both-base", "--output", str(tmp_path / "b"))
    assert status == 0 and "Downloading" not in said and len(filled_hub.transfers) == len(hashes)


def test_what_is_in_the_cache_is_enough_offline(filled_hub, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    said = refuse(capsys, tmp_path / "a")
    assert f"hf://{SPACE}/ckpt is not in the cache" in said and "HF_HUB_OFFLINE is set" in said
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert convert(capsys, "--published", "both-base", "--output", str(tmp_path / "a"))[0] == 0
    num_requests = len(filled_hub.requests)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert convert(capsys, "--published", "both-base", "--output", str(tmp_path / "b"))[0] == 0
    assert len(filled_hub.requests) == num_requests
    assert list_files(tmp_path / "a", "README.md", "model_card.json") == list_files(
        tmp_path / "b", "README.md", "model_card.json"
    )


@pytest.mark.slow
def test_killed_half_way_and_started_again_downloads_only_the_rest(filled_hub, sources, tmp_path, capsys):
    """`huggingface_hub` 2 would start the file over. Its pieces are made small, as the file is."""
    script = (
        "import sys; from huggingface_hub import constants; constants.DOWNLOAD_CHUNK_SIZE = 4096; "
        "from enclap_hf.cli import main; main(['convert', '--published', 'both-base', '--output', sys.argv[1]])"
    )
    environment = {**os.environ, "HF_ENDPOINT": filled_hub.endpoint, "HF_HUB_OFFLINE": "0"}
    environment |= {
        "HF_HUB_CACHE": str(constants.HF_HUB_CACHE),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HOME": str(tmp_path / "home"),
    }
    output, size = tmp_path / "out", os.path.getsize(sources["clap"])
    sha256 = hash_file(sources["clap"])
    filled_hub.break_after = size * 3 // 4
    filled_hub.may_close.clear()
    with subprocess.Popen(
        [sys.executable, "-c", script, str(output)], env=environment, stderr=subprocess.DEVNULL
    ) as process:
        assert filled_hub.is_broken_off.wait(timeout=200)
        incomplete = Path(constants.HF_HUB_CACHE)
        while not any(path.stat().st_size for path in incomplete.rglob(f"{sha256}.incomplete")):
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
    filled_hub.may_close.set()
    filled_hub.break_after = None
    assert not output.exists() and os.listdir(tmp_path).count("out") == 0
    (first,) = [transfer for transfer in filled_hub.transfers if transfer.sha256 == sha256]
    already = [transfer.sha256 for transfer in filled_hub.transfers if transfer.sha256 != sha256]
    kept = next(incomplete.rglob(f"{sha256}.incomplete")).stat().st_size
    assert 0 < kept <= first.num_bytes
    status, said = convert(capsys, "--published", "both-base", "--output", str(output))
    assert status == 0 and "of it are there already" in said
    _, second = (transfer for transfer in filled_hub.transfers if transfer.sha256 == sha256)
    assert (second.start, second.start + second.num_bytes) == (kept, size)
    later = [transfer.sha256 for transfer in filled_hub.transfers[len(already) + 1 :]]
    assert not set(later) & set(already)


def test_a_transfer_that_breaks_off_goes_on_by_itself(filled_hub, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 4096)
    filled_hub.break_after = 200_000
    status, said = convert(capsys, "--published", "both-base", "--output", str(tmp_path / "out"), "--quiet")
    assert status == 0, said
    assert any(transfer.start > 0 for transfer in filled_hub.transfers)


def test_a_wrong_hash_is_one_line_and_leaves_nothing_in_the_cache(filled_hub, sources, tmp_path, capsys):
    sha256 = hash_file(sources["clap"])
    filled_hub.damaged.add(sha256)
    said = refuse(capsys, tmp_path / "out")
    assert "630k-audioset-fusion-best.pt of lukewys/laion_clap arrived damaged" in said and sha256 in said
    assert not list(Path(constants.HF_HUB_CACHE).rglob(f"{sha256}*[!k]"))
    filled_hub.damaged.clear()
    assert convert(capsys, "--published", "both-base", "--output", str(tmp_path / "out"))[0] == 0


def test_no_network_is_one_line(filled_hub, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    said = refuse(capsys, tmp_path / "out")
    assert f"hf://{SPACE}/ckpt: the Hub cannot be reached" in said and "Check the connection." in said


def test_a_private_space_is_one_line_until_its_owner_is_logged_in(filled_hub, tmp_path, capsys, monkeypatch):
    space = filled_hub.repositories.pop(SPACE)
    space.private = True
    filled_hub.repositories["spaces/lab/secret"] = space
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no_token"))
    arguments = ("--enclap", "hf://spaces/lab/secret/ckpt", "--tokenizer", FACTS["tokenizers"]["facebook/bart-base"])
    said = refuse(capsys, tmp_path / "out", *arguments)
    assert "the Hub has no spaces/lab/secret, or it is private" in said and "hf auth login" in said
    monkeypatch.setenv("HF_TOKEN", "hf_writer")
    assert convert(capsys, *arguments, "--output", str(tmp_path / "out"))[0] == 0


def test_a_disk_without_room_is_said_before_anything_is_downloaded(filled_hub, tmp_path, capsys, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=12_345))
    said = refuse(capsys, tmp_path / "out")
    assert "have to be downloaded" in said and "12.3 kB left" in said and "HF_HUB_CACHE" in said
    assert filled_hub.transfers == []


def test_a_disk_that_fills_up_is_one_line(filled_hub, tmp_path, capsys, monkeypatch):
    def fail(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("huggingface_hub.file_download.http_get", fail)
    said = refuse(capsys, tmp_path / "out")
    assert f"The disk of {constants.HF_HUB_CACHE} is full" in said and "what has arrived is kept" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--published", "both-huge"], "No published checkpoint is called both-huge; there are audiocaps-base,"),
        (["--enclap", "hf://spaces/enclap-team"], "expected hf://OWNER/NAME"),
        (["--enclap", f"hf://{SPACE}/nowhere"], "has no such file or folder with config.json and pytorch_model.bin or"),
        (["--enclap", f"hf://{SPACE}@v9/ckpt"], "spaces/enclap-team/enclap has no revision v9"),
        (
            ["--published", "both-base", "--clap", "no/such"],
            "there is no file or folder no/such here. On the Hub: hf://no/such",
        ),
        (["--published", "both-base", "--clap", "hf://lukewys/laion_clap/x.pt"], "has no such file or folder"),
    ],
)
def test_what_is_not_on_the_hub_is_said_in_one_line(filled_hub, tmp_path, capsys, arguments, message):
    assert message in refuse(capsys, tmp_path / "out", *arguments)
    assert filled_hub.transfers == []


def test_a_checkpoint_that_is_elsewhere_says_what_to_download_and_what_to_pass(filled_hub, sources, tmp_path, capsys):
    output = tmp_path / "out"
    said = refuse(capsys, output, "--published", "audiocaps-then-clotho-base")
    assert "Google Drive" in said and "clotho_finetune/base" in said and FACTS["source"] in said
    command = said.split("run: enclap ")[1].split(". The rest")[0].replace("clotho_finetune/base", sources["enclap"])
    assert main(command.split()) == 0
    said = capsys.readouterr().err
    assert (
        "Scores:    Clotho evaluation, 1045 clips: METEOR 1.5 0.179" in said
        and "SPIDEr 0.295 (reported by the EnCLAP" in said
    )
    assert "enclap score captions.csv --references clotho_evaluation.csv" in said
    card = json.loads((output / "model_card.json").read_text())
    assert card["base_models"] == ["facebook/bart-base", "facebook/encodec_24khz", "lukewys/laion_clap"]


def test_every_published_checkpoint_is_found_by_all_its_names():
    for name, entry in FACTS["checkpoints"].items():
        found = {published_weights.find_published(text).folder for text in (name, name[7:], entry["folder"])}
        assert found == {entry["folder"]}
