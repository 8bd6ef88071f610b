"""`enclap caption --resume`: settings are never mixed, and a recording that has changed is captioned again."""

import json
import os
import shutil
from pathlib import Path

import pytest
import soundfile

import caption_runs
from caption_runs import RATE, caption_of, names_in, read_rows, run
from conftest import build_clap, build_model, make_clip
from enclap_hf.commands import caption as caption_command
from enclap_hf.commands import caption_manifest
from enclap_hf.commands.captioner_loading import ModelIdentity, fingerprint_folder
from enclap_hf.model.recordings import RecordingState

captioner, load_once, recordings = caption_runs.captioner, caption_runs.load_once, caption_runs.recordings


def read_manifest(output) -> dict:
    return json.loads(Path(f"{output}.manifest.json").read_text(encoding="utf-8"))


def snapshot(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).iterdir() if path.is_file()}


def use_model(monkeypatch, **identity) -> None:
    monkeypatch.setattr(caption_command, "find_model", lambda args, **options: ModelIdentity(**identity))


def refuse_loading(args, model):
    raise AssertionError("a refusal comes before the model is loaded")


@pytest.mark.parametrize("extension", ["csv", "jsonl"])
@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ([], ["--num-beams", "1"], "--num-beams was left to the model and is 1"),
        (["--num-beams", "2"], ["--num-beams", "3"], "--num-beams was 2 and is 3"),
        (["--max-new-tokens", "4"], [], "--max-new-tokens was 4 and is left to the model"),
        ([], ["--num-return-sequences", "2"], "--num-return-sequences was 1 and is 2"),
        (["--dtype", "float32"], ["--dtype", "bfloat16"], "--dtype was float32 and is bfloat16"),
        ([], ["--silence-dbfs", "none"], "--silence-dbfs was -70.0 and is none"),
        (["--num-beams", "2", "--dtype", "float32"], [], "--num-beams was 2 and is left to the model; --dtype was"),
    ],
)
def test_other_settings_are_refused_with_both_values(
    capsys, recordings, tmp_path, monkeypatch, extension, first, second, said
):
    """Half of a table had beams of 4 in float32, the other half greedy search in bfloat16, and nothing told."""
    output = tmp_path / f"captions.{extension}"
    assert run(capsys, recordings, "--output", str(output), *first)[0] == 0
    before = snapshot(tmp_path)
    monkeypatch.setattr(caption_command, "load_pipeline", refuse_loading)
    status, _, err = run(capsys, recordings, "--output", str(output), "--resume", *second)
    assert status == 2 and len(err) == 1 and said in err[0] and "--overwrite" in err[0]
    assert snapshot(tmp_path) == before


def test_settings_that_change_no_caption_may_change(capsys, recordings, tmp_path):
    output = tmp_path / "captions.csv"
    run(capsys, recordings, "--output", str(output))
    status, _, err = run(
        capsys, recordings, "-o", str(output), "--resume", "--batch-size", "1", "--num-workers", "1", "--device", "cpu"
    )
    assert status == 0 and "3 of 3" in err[0]


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        (
            {"name": "a", "fingerprint": "1" * 64},
            {"name": "a", "fingerprint": "2" * 64},
            "a (weights 1111",
        ),
        ({"name": "a/b", "commit": "1" * 40}, {"name": "a/b", "commit": "2" * 40}, "is a/b (commit 222222222222)"),
        ({"name": "a/b", "commit": "1" * 40}, {"name": "c/b", "commit": "1" * 40}, "is c/b (commit 111111111111)"),
        (
            {"name": "a/b", "revision": "v1"},
            {"name": "a/b", "revision": "v2"},
            "was a/b (commit v1) and is a/b",
        ),
        ({"name": "a/b", "commit": "1" * 40}, {"name": "a", "fingerprint": "1" * 64}, "is a (weights 1"),
        ({"name": "default"}, {"name": "a/b"}, "was default and is a/b"),
    ],
)
def test_another_model_is_refused_with_both_names(capsys, recordings, tmp_path, monkeypatch, first, second, said):
    output = tmp_path / "captions.csv"
    use_model(monkeypatch, **first)
    assert run(capsys, recordings, "--output", str(output))[0] == 0
    before = snapshot(tmp_path)
    use_model(monkeypatch, **second)
    status, _, err = run(capsys, recordings, "--output", str(output), "--resume")
    assert status == 2 and len(err) == 1 and "--model was" in err[0] and said in err[0]
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"name": "a", "fingerprint": "1" * 64}, {"name": "moved/b", "fingerprint": "1" * 64}),
        ({"name": "a/b", "commit": "1" * 40}, {"name": "a/b", "commit": "1" * 40, "revision": "v1"}),
    ],
)
def test_the_same_weights_by_another_name_go_on(capsys, recordings, tmp_path, monkeypatch, first, second):
    use_model(monkeypatch, **first)
    run(capsys, recordings, "--output", str(tmp_path / "captions.csv"))
    use_model(monkeypatch, **second)
    assert run(capsys, recordings, "--output", str(tmp_path / "captions.csv"), "--resume")[0] == 0


def test_an_output_without_any_caption_binds_nobody(capsys, recordings, tmp_path):
    output = tmp_path / "captions.csv"
    content = {path.name: path.read_bytes() for path in Path(recordings).iterdir()}
    for name in content:
        Path(recordings, name).write_bytes(b"")
    assert run(capsys, recordings, "--output", str(output), "--num-beams", "1")[0] == 1
    for name, whole in content.items():
        Path(recordings, name).write_bytes(whole)
    assert run(capsys, recordings, "--output", str(output), "--resume", "--num-beams", "2")[0] == 0
    assert len(read_rows(output)) == 3 and read_manifest(output)["settings"]["num_beams"] == 2


def test_other_versions_are_said_and_remembered(capsys, recordings, tmp_path, monkeypatch):
    output = tmp_path / "captions.csv"
    old = {"enclap-hf": "0.1.0", "transformers": "5.0.0", "torch": "2.6.0"}
    with monkeypatch.context() as patched:
        patched.setattr(caption_manifest, "read_versions", lambda: dict(old))
        run(capsys, recordings, "--output", str(output))
    for _ in range(2):
        status, _, err = run(capsys, recordings, "--output", str(output), "--resume")
        assert status == 0
    new = read_manifest(output)
    assert new["versions"] == caption_manifest.read_versions() != old and new["earlier_versions"] == [old]
    assert not any("begun with" in line for line in err), "said once"
    output.unlink()
    with monkeypatch.context() as patched:
        patched.setattr(caption_manifest, "read_versions", lambda: dict(old))
        run(capsys, recordings, "--output", str(output))
    said = run(capsys, recordings, "--output", str(output), "--resume")[2]
    assert any("torch 2.6.0 (here " in line for line in said)


# Recordings that change


def test_a_recording_that_changed_in_place_is_captioned_again(capsys, recordings, tmp_path, captioner):
    """It kept the caption of the sound that it was before."""
    output = tmp_path / "captions.csv"
    run(capsys, recordings, "--output", str(output))
    before = {row["file_name"]: row for row in read_rows(output)}
    longer, touched, same = (os.path.join(recordings, f"clip{i}.wav") for i in range(3))
    soundfile.write(longer, make_clip(1.4, 7), RATE, subtype="FLOAT")
    os.utime(touched, ns=(1, 1))
    status, _, err = run(capsys, recordings, "--output", str(output), "--resume")
    assert status == 0 and "1 of 3" in err[0] and "2 recordings have changed since" in err[1]
    after = {row["file_name"]: row for row in read_rows(output)}
    assert len(read_rows(output)) == 3 and after[same] == before[same]
    assert after[touched]["caption"] == before[touched]["caption"]
    assert after[longer]["caption"] == caption_of(captioner, longer) != before[longer]["caption"]
    assert "3 of 3" in run(capsys, recordings, "--output", str(output), "--resume")[2][0]


def test_another_sound_of_the_same_size_is_captioned_again(capsys, recordings, tmp_path, captioner):
    output, path = tmp_path / "captions.jsonl", os.path.join(recordings, "clip1.wav")
    run(capsys, recordings, "--output", str(output))
    size = os.path.getsize(path)
    soundfile.write(path, make_clip(0.9, 8), RATE, subtype="FLOAT")
    assert os.path.getsize(path) == size
    assert run(capsys, path, "--output", str(output), "--resume")[0] == 0
    assert next(row for row in read_rows(output) if row["file_name"] == path)["caption"] == caption_of(captioner, path)
    assert len(read_rows(output)) == 3, "recordings of other runs stay"


def test_a_recording_that_has_gone_keeps_its_row(capsys, recordings, tmp_path):
    output, path = tmp_path / "captions.csv", os.path.join(recordings, "clip1.wav")
    run(capsys, recordings, "--output", str(output))
    whole = output.read_bytes()
    os.remove(path)
    assert run(capsys, recordings, path, "--output", str(output), "--resume")[0] == 0
    assert output.read_bytes() == whole


def test_a_recording_that_changes_while_it_is_read_is_captioned_again(
    capsys, recordings, tmp_path, captioner, monkeypatch
):
    """What is remembered is its state before it was read: the caption may be of either sound."""
    output, path = tmp_path / "captions.csv", os.path.join(recordings, "clip0.wav")
    prepare = captioner.preprocess

    def change_after_reading(inputs, **options):
        prepared = prepare(inputs, **options)
        if inputs.name == f"`{path}`":
            soundfile.write(path, make_clip(0.8, 9), RATE, subtype="FLOAT")
        return prepared

    with monkeypatch.context() as patched:
        patched.setattr(captioner, "preprocess", change_after_reading)
        run(capsys, recordings, "--output", str(output))
    status, _, err = run(capsys, recordings, "--output", str(output), "--resume")
    assert status == 0 and "2 of 3" in err[0]
    assert next(row for row in read_rows(output) if row["file_name"] == path)["caption"] == caption_of(captioner, path)


def test_states_of_an_interrupted_run_count(capsys, recordings, tmp_path, captioner, monkeypatch):
    output, changed = tmp_path / "captions.csv", os.path.join(recordings, "clip1.wav")
    forward = captioner.forward

    def interrupt(batch, **options):
        if output.exists() and names_in(output):
            raise KeyboardInterrupt
        return forward(batch, **options)

    with monkeypatch.context() as patched:
        patched.setattr(captioner, "forward", interrupt)
        status, _, err = run(capsys, recordings, "--output", str(output), "--batch-size", "1")
    assert status == 130 and err[-1] == f"enclap: interrupted; the rows in {output} are kept; --resume goes on with it."
    assert names_in(output) == ["clip1.wav"] and Path(f"{output}.recordings.jsonl").exists()
    assert not Path(f"{output}.lock").exists() and read_manifest(output)["counts"] == {}
    assert "1 of 3" in run(capsys, changed, recordings, "--output", str(output), "--resume")[2][0]
    os.utime(changed, ns=(5, 5))
    assert "2 of 3" in run(capsys, recordings, "--output", str(output), "--resume")[2][0]
    assert sorted(names_in(output)) == ["clip0.wav", "clip1.wav", "clip2.wav"]
    assert sorted(snapshot(tmp_path)) == [output.name, f"{output.name}.manifest.json"]


@pytest.mark.parametrize("cut", ["", '["b.wa', '["b.wav", 3', "\x00\x00"])
def test_a_state_that_a_kill_cut_off_spoils_no_other(tmp_path, cut):
    output = str(tmp_path / "captions.csv")
    Path(caption_manifest.place_states(output)).write_text('["a.wav", 1, 2]\n["a.wav", 5, 6]\n' + cut)
    file = caption_manifest.open_states(output)
    caption_manifest.add_state(file, "c\n.wav", RecordingState(3, 4))
    file.close()
    states = caption_manifest.read_states(output)
    assert {name: (state.size, state.modified_ns) for name, state in states.items()} == {
        "a.wav": (5, 6),
        "c\n.wav": (3, 4),
    }


@pytest.mark.parametrize("extension", ["csv", "jsonl"])
def test_a_recording_that_lacks_some_of_its_n_best_is_captioned_again(capsys, recordings, tmp_path, extension):
    output = tmp_path / f"captions.{extension}"
    arguments = (recordings, "--output", str(output), "--num-return-sequences", "3", "--num-beams", "3")
    run(capsys, *arguments)
    whole, rows = output.read_bytes(), read_rows(output)
    output.write_bytes(whole[: whole[:-1].rfind(b"\n") + 1])
    status, _, err = run(capsys, *arguments, "--resume")
    assert status == 0 and "2 of 3" in err[0] and read_rows(output)[:6] == rows[:6]
    captions = [[(row["file_name"], row["caption"]) for row in some] for some in (read_rows(output), rows)]
    assert captions[0] == captions[1]


# The files beside the output


def test_the_manifest_says_what_was_done(capsys, recordings, tmp_path):
    output = tmp_path / "captions.csv"
    Path(recordings, "broken.wav").write_bytes(b"")
    run(capsys, recordings, "--output", str(output), "--num-beams", "2")
    manifest = read_manifest(output)
    assert manifest["model"]["name"] == "given" and manifest["settings"]["num_beams"] == 2
    assert manifest["settings"]["silence_dbfs"] == -70 and len(manifest["settings_hash"]) == 64
    assert set(manifest["versions"]) == {"enclap-hf", "transformers", "torch"}
    assert manifest["counts"] == {"captioned": 3, "silent": 0, "failed": 1}
    path = os.path.join(recordings, "clip0.wav")
    assert manifest["recordings"][path] == [os.path.getsize(path), os.stat(path).st_mtime_ns]
    assert sorted(snapshot(tmp_path)) == [output.name, f"{output.name}.manifest.json"]


@pytest.mark.parametrize("header", ["file_name,caption,score,error", "file_name,caption,score,silent,error"])
def test_a_table_from_before_there_were_manifests_is_resumed_with_a_word(capsys, recordings, tmp_path, header):
    output, path = tmp_path / "captions.csv", os.path.join(recordings, "clip1.wav")
    empty = "," * (header.count(",") - 1)
    output.write_text(f"{header}\n{path},a sound from before{empty}\n", encoding="utf-8")
    status, _, err = run(capsys, recordings, "--output", str(output), "--resume")
    assert status == 0 and "1 of 3" in err[0] and f"{output} has no manifest" in err[1]
    rows = read_rows(output)
    known = {name: value for name, value in rows[0].items() if value}
    assert known == {"file_name": path, "caption": "a sound from before"}
    assert names_in(output) == ["clip1.wav", "clip0.wav", "clip2.wav"]
    os.utime(path, ns=(5, 5))
    err = run(capsys, recordings, "--output", str(output), "--resume")[2]
    assert "2 of 3" in err[0] and not any("no manifest" in line for line in err)
    assert "a sound from before" not in output.read_text(encoding="utf-8")


def test_old_jsonl_rows_are_resumed(capsys, recordings, tmp_path):
    output, path = tmp_path / "captions.jsonl", os.path.join(recordings, "clip1.wav")
    row = {"file_name": path, "caption": "a sound from before", "score": -0.5}
    output.write_text(json.dumps(row) + "\n", encoding="utf-8")
    status, _, err = run(capsys, recordings, "--output", str(output), "--resume")
    assert status == 0 and "no manifest" in err[1] and read_rows(output)[0] == row and len(read_rows(output)) == 3


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 1}', '{"format": 99}', '{"format": 1, "model": 3}'])
def test_a_damaged_manifest_is_refused_in_one_line(capsys, recordings, tmp_path, content):
    output = tmp_path / "captions.csv"
    run(capsys, recordings, "--output", str(output))
    Path(f"{output}.manifest.json").write_text(content, encoding="utf-8")
    before = snapshot(tmp_path)
    status, _, err = run(capsys, recordings, "--output", str(output), "--resume")
    assert status == 2 and len(err) == 1 and "manifest.json is damaged" in err[0] and snapshot(tmp_path) == before
    assert run(capsys, recordings, "--output", str(output), "--overwrite")[0] == 0
    assert read_manifest(output)["counts"]["captioned"] == 3


def test_overwriting_forgets_the_earlier_run(capsys, recordings, tmp_path):
    output = tmp_path / "captions.csv"
    run(capsys, recordings, "--output", str(output), "--num-beams", "2")
    Path(f"{output}.recordings.jsonl").write_text("left by a kill", encoding="utf-8")
    assert run(capsys, os.path.join(recordings, "clip0.wav"), "--output", str(output), "--overwrite")[0] == 0
    manifest = read_manifest(output)
    assert manifest["settings"]["num_beams"] is None and len(manifest["recordings"]) == 1
    assert sorted(snapshot(tmp_path)) == [output.name, f"{output.name}.manifest.json"]


# What a model is known by


def test_a_fingerprint_changes_with_what_captions_depend_on_and_with_nothing_else(repository, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(repository, folder)
    first = fingerprint_folder(str(folder))
    for name in ("README.md", "trainer_state.json", "optimizer.pt", "captions.csv.manifest.json"):
        (folder / name).write_text("{}", encoding="utf-8")
    shutil.copytree(repository, folder / "checkpoint-3")
    assert fingerprint_folder(str(folder)) == first == fingerprint_folder(repository)
    seen = {first}
    for name in ("generation_config.json", "model.safetensors", "clap/model.safetensors", "codec/config.json"):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content + b" ")
        seen.add(fingerprint_folder(str(folder)))
        (folder / name).write_bytes(content)
    assert len(seen) == 5 and fingerprint_folder(str(folder)) == first


def test_encoders_in_another_folder_count_to_the_fingerprint(repository, tmp_path):
    folder, elsewhere = tmp_path / "model", tmp_path / "elsewhere"
    shutil.copytree(repository, folder)
    shutil.move(folder / "clap", elsewhere)
    processor = json.loads((folder / "processor_config.json").read_text())
    processor["clap_source"] = {"repo_id": str(elsewhere)}
    (folder / "processor_config.json").write_text(json.dumps(processor))
    first = fingerprint_folder(str(folder))
    build_clap(seed=5).save_pretrained(elsewhere)
    assert fingerprint_folder(str(folder)) != first


@pytest.mark.slow
def test_a_retrained_folder_is_another_model_to_the_real_command(capsys, repository, recordings, tmp_path, monkeypatch):
    from enclap_hf.commands import captioner_loading

    monkeypatch.setattr(caption_command, "find_model", captioner_loading.find_model)
    monkeypatch.setattr(caption_command, "load_pipeline", captioner_loading.load_pipeline)
    folder, output = str(tmp_path / "model"), str(tmp_path / "captions.csv")
    shutil.copytree(repository, folder)
    assert run(capsys, recordings, "--model", folder, "--device", "cpu", "--output", output)[0] == 0
    model = build_model(seed=3)
    model.generation_config.max_length = 12
    model.save_pretrained(folder)
    status, _, err = run(capsys, recordings, "--model", folder, "--device", "cpu", "--output", output, "--resume")
    assert status == 2 and f"--model was {folder} (weights " in err[-1]
