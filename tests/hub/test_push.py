"""What is pushed to the Hub loads from it: with the package and without, at any revision, and offline."""

import os
import shutil
import subprocess
import sys

import pytest
import soundfile
import torch
from huggingface_hub import HfApi, constants
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError
from test_trainer import Clips
from transformers import AutoModelForSeq2SeqLM, AutoProcessor, Seq2SeqTrainingArguments, pipeline

from conftest import build_model, build_processor, make_clip
from enclap_hf import DataCollatorForEnClap, EnClapForConditionalGeneration, EnClapProcessor
from enclap_hf.cli import main
from enclap_hf.commands.terminal_text import escape_controls
from enclap_hf.hub.export import find_missing_parts, push_repository
from enclap_hf.model.encoder_sources import PLACES_FILE
from enclap_hf.model.repository import list_code_files, save_repository
from enclap_hf.training.trainer import EnClapTrainer

RATE = 24_000
MODEL_FILES = {"config.json", "generation_config.json", "model.safetensors"}
PROCESSOR_FILES = {"processor_config.json", "tokenizer.json", "tokenizer_config.json"}
ENCODER_FILES = {f"{name}/{file}" for name in ("codec", "clap") for file in ("config.json", "model.safetensors")}
SHARED_FILES = {*list_code_files(), "requirements.txt", "README.md", ".gitattributes"}
ALL_FILES = MODEL_FILES | PROCESSOR_FILES | ENCODER_FILES | SHARED_FILES


@pytest.fixture(scope="module")
def clip_path(tmp_path_factory) -> str:
    path = str(tmp_path_factory.mktemp("clip") / "clip.wav")
    soundfile.write(path, make_clip(0.8), RATE, subtype="FLOAT")
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    """A model and its processor, saved without the package's code."""
    folder = str(tmp_path_factory.mktemp("saved"))
    make_model().save_pretrained(folder)
    build_processor().save_pretrained(folder)
    return folder


def make_model(seed: int = 0) -> EnClapForConditionalGeneration:
    model = build_model(seed)
    model.generation_config.max_length = 14
    return model


def caption_of(place: str, clip: str, **kwargs) -> str:
    return pipeline("audio-captioning", model=place, device="cpu", **kwargs)(clip)["text"]


# What is uploaded


def test_model_and_processor_pushed_one_after_the_other_are_a_complete_repository(hub, folder, clip_path):
    model, processor = make_model(), EnClapProcessor.from_pretrained(folder)
    commit = model.push_to_hub("captioner", private=True, tags=["rain"])
    assert commit == f"{hub.endpoint}/me/captioner/commit/{commit.oid}"
    assert set(hub.files("me/captioner")) == MODEL_FILES | SHARED_FILES
    processor.push_to_hub("captioner")
    files = hub.files("me/captioner")
    assert set(files) == ALL_FILES
    assert b"- rain\n" in files["README.md"]
    assert hub.repositories["me/captioner"].private
    messages = list(hub.repositories["me/captioner"].messages.values())
    assert messages == ["initial commit", "Upload model", "Upload processor"]

    inputs = AutoProcessor.from_pretrained("me/captioner")(audio=clip_path)
    loaded = AutoModelForSeq2SeqLM.from_pretrained("me/captioner")
    assert type(loaded) is EnClapForConditionalGeneration
    expected = model.generate(**processor(audio=clip_path))
    assert torch.equal(loaded.generate(**inputs), expected)
    assert caption_of("me/captioner", clip_path) == processor.batch_decode(expected)[0]


def test_a_model_with_its_processor_and_a_pipeline_push_the_same_in_one_commit(hub, folder, clip_path):
    make_model().push_to_hub("lab/together", processor=EnClapProcessor.from_pretrained(folder))
    captioner = pipeline("audio-captioning", model=folder, device="cpu")
    captioner.push_to_hub("lab/from-pipeline", commit_message="From a pipeline")
    together, from_pipeline = hub.files("lab/together"), hub.files("lab/from-pipeline")
    assert set(together) == ALL_FILES
    for files in (together, from_pipeline):
        del files["README.md"]  # a card names its own repository
        del files["tokenizer_config.json"]  # transformers' pipeline notes a number type in it
    assert together == from_pipeline
    assert list(hub.repositories["lab/from-pipeline"].messages.values())[1:] == ["From a pipeline"]
    assert caption_of("lab/together", clip_path) == captioner(clip_path)["text"]


def test_pushing_again_uploads_what_changed_and_keeps_the_card(hub, folder):
    push_repository(folder, "me/captioner")
    HfApi().upload_file(path_or_fileobj=b"# Mine\n", path_in_repo="README.md", repo_id="me/captioner")
    hub.requests.clear()
    commit = push_repository(folder, "me/captioner")
    assert commit.oid == hub.repositories["me/captioner"].branches["main"]
    assert not [request for request in hub.requests if request.startswith("PUT") or "/commit/" in request]
    make_model(seed=1).push_to_hub("me/captioner")
    assert sum(request.startswith("PUT /large-files") for request in hub.requests) == 1
    assert hub.files("me/captioner")["README.md"] == b"# Mine\n"


def test_a_branch_and_a_pull_request_leave_main_alone(hub, folder, clip_path):
    first = push_repository(folder, "me/captioner")
    make_model(seed=1).push_to_hub("me/captioner", revision="second")
    request = make_model(seed=2).push_to_hub("me/captioner", create_pr=True)
    assert request.pr_url == f"{hub.endpoint}/me/captioner/discussions/1"
    assert hub.repositories["me/captioner"].branches["main"] == first.oid
    weights = {hub.files("me/captioner", name)["model.safetensors"] for name in ("main", "second", "refs/pr/1")}
    assert len(weights) == 3
    captions = [caption_of("me/captioner", clip_path, revision=name) for name in (None, "second", "refs/pr/1")]
    assert len(set(captions)) == 3


def test_a_folder_is_pushed_with_code_and_without_what_training_left(hub, folder, tmp_path):
    run = tmp_path / "run"
    save_repository(make_model(), EnClapProcessor.from_pretrained(folder), str(run))
    for name in list_code_files():
        (run / name).unlink()
    (run / "evaluation.json").write_text("{}")
    for name in ("checkpoint-3/model.safetensors", "optimizer.pt", "training_args.bin", "_notes", "rng_state_0.pth"):
        (run / name).parent.mkdir(exist_ok=True)
        (run / name).write_text("of training")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    push_repository(str(run), "me/captioner")
    assert set(hub.files("me/captioner")) == ALL_FILES | {"evaluation.json"}
    assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


SECRETS = (".env", "weights.pkl", "pytorch_model.bin", ".git/config", "codec/notes.txt", "runs/events", "more/a.json")


def test_what_belongs_to_no_repository_stays_and_is_named(hub, folder, tmp_path, capsys):
    shutil.copytree(folder, tmp_path / "run")
    outside = tmp_path / "outside"
    outside.mkdir()
    for path in (*(tmp_path / "run" / name for name in SECRETS), outside / "key.json", outside / "a.wav"):
        path.parent.mkdir(exist_ok=True)
        path.write_text("hf_secret")
    (tmp_path / "run/vocab.json").symlink_to(outside / "key.json")
    (tmp_path / "run/sounds").symlink_to(outside)
    (tmp_path / "run/LICENSE").write_text("Apache-2.0")
    (tmp_path / "run/LICENSE.txt").symlink_to("LICENSE")
    assert main(["push", str(tmp_path / "run"), "me/captioner"]) == 0
    files = hub.files("me/captioner")
    assert set(files) == ALL_FILES | {"LICENSE", "LICENSE.txt"}
    assert not any(b"hf_secret" in content for content in files.values())
    said = capsys.readouterr().err.splitlines()
    assert said == [
        "Left out, a link out of the folder: sounds, vocab.json",
        "Left out, no part of a repository: .env, .git/, codec/notes.txt, more/, pytorch_model.bin, runs/, weights.pkl",
    ]


@pytest.mark.parametrize("part", ["model.safetensors", "clap"])
def test_a_part_that_is_a_link_out_of_the_folder_is_not_followed(hub, folder, tmp_path, capsys, part):
    shutil.copytree(folder, tmp_path / "run")
    (tmp_path / "run" / part).rename(tmp_path / "elsewhere")
    (tmp_path / "run" / part).symlink_to(tmp_path / "elsewhere")
    assert main(["push", str(tmp_path / "run"), "me/captioner"]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert f"is not a complete repository without {part} (a link out of the folder); it lacks" in said
    assert hub.requests == []


def test_an_interrupted_push_says_what_is_on_the_hub(hub, folder, monkeypatch, capsys):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(HfApi, "upload_folder", interrupt)
    assert main(["push", folder, "me/captioner"]) == 130
    said = capsys.readouterr().err
    assert "interrupted; the Hub had confirmed no commit, so me/captioner is as it was" in said and "kept" not in said


def test_the_upload_that_huggingface_hub_prefers_carries_the_same_files(hub, folder, monkeypatch):
    """With Xet storage switched on, newer versions commit a folder by another way, in this process's background."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    monkeypatch.setattr("hub_server.LARGE_FILE_BYTES", 10**9)  # so that no file asks for that storage itself
    push_repository(folder, "me/captioner")
    assert set(hub.files("me/captioner")) == ALL_FILES


# Where the encoders are


def test_encoders_load_from_sub_folders_of_the_repository(hub, folder, clip_path):
    push_repository(folder, "me/captioner")
    processor = EnClapProcessor.from_pretrained("me/captioner")
    weights = [request for request in hub.requests if request.endswith(".safetensors")]
    assert not weights, "configurations are compared at once, weights follow with the first recording"
    for name, built in (("codec", build_processor().codec), ("clap", build_processor().clap)):
        loaded = getattr(processor, name).state_dict()
        assert all(torch.equal(tensor, loaded[key]) for key, tensor in built.state_dict().items())


def test_encoders_load_from_the_repository_and_revision_that_a_processor_refers_to(hub, folder, clip_path):
    first = build_processor().push_to_hub("lab/encoders")
    other = build_processor()
    for parameter in other.clap.parameters():
        parameter.data.mul_(0.5)
    other.push_to_hub("lab/encoders")
    pinned = EnClapProcessor.from_pretrained("lab/encoders", revision=first.oid)
    make_model().push_to_hub("me/captioner")
    pinned.push_to_hub("me/captioner", include_encoders=False)
    assert not {name for name in hub.files("me/captioner") if "/" in name}
    loaded = AutoProcessor.from_pretrained("me/captioner")
    assert loaded.clap_source == {"repo_id": "lab/encoders", "revision": first.oid, "subfolder": "clap"}
    embeddings = [processor(audio=clip_path)["clap_embedding"] for processor in (loaded, build_processor(), other)]
    torch.testing.assert_close(embeddings[0], embeddings[1], atol=1e-6, rtol=0)  # float32 sums in another order
    assert not torch.allclose(embeddings[0], embeddings[2], atol=1e-2)
    assert caption_of("me/captioner", clip_path) == caption_of(folder, clip_path)


# Training


class Training(EnClapTrainer):
    """Three steps of a tiny model, whose processor knows its encoders by their place on this machine."""

    def __init__(self, output_dir, folder: str, seed: int = 0, **arguments):
        super().__init__(
            model=make_model(seed),
            args=Seq2SeqTrainingArguments(
                output_dir=str(output_dir),
                max_steps=3,
                per_device_train_batch_size=4,
                learning_rate=1e-3,
                report_to="none",
                use_cpu=True,
                **{"save_strategy": "no", **arguments},
            ),
            data_collator=DataCollatorForEnClap(32, max_codec_frames=100, mcm_probability=0.3),
            train_dataset=Clips(),
            processing_class=EnClapProcessor.from_pretrained(folder),
        )


def test_a_training_that_pushes_each_checkpoint_pushes_complete_repositories(hub, folder, tmp_path, clip_path):
    arguments = {"push_to_hub": True, "hub_model_id": "lab/trained", "hub_always_push": True}
    training = Training(
        tmp_path / "run", folder, save_strategy="steps", save_steps=1, hub_token="hf_writer", **arguments
    )
    training.train()
    repository = hub.repositories["lab/trained"]
    progress = [commit for commit, message in repository.messages.items() if message.startswith("Training in progress")]
    assert progress
    for commit in progress:
        files = hub.files("lab/trained", commit)
        assert ALL_FILES - {"README.md"} <= set(files)
        assert folder.encode() not in files["processor_config.json"]
        assert not any(b"hf_writer" in content for content in files.values())
        assert caption_of("lab/trained", clip_path, revision=commit)
    checkpoint = tmp_path / "run/checkpoint-1"  # it stays small, and says nothing of this machine
    assert "fingerprint" in (checkpoint / "processor_config.json").read_text()
    assert folder not in (checkpoint / "processor_config.json").read_text()
    assert folder in (checkpoint / PLACES_FILE).read_text()
    assert not (tmp_path / "run/checkpoint-1/codec").exists()


def test_a_trainer_without_a_processor_says_that_the_captioner_goes_alone(hub, folder, tmp_path, caplog):
    training = Training(tmp_path / "run", folder, hub_model_id="me/alone")
    training.processing_class = None
    training.push_to_hub()
    assert "`processor.push_to_hub(...)`" in caplog.text
    assert "processor_config.json" not in hub.files("me/alone")


# The package is made impossible to import, wherever it may be installed.
STRANGER = """
import os, sys
sys.modules["enclap_hf"] = None
from transformers import AutoModelForSeq2SeqLM, AutoProcessor, pipeline
clip, repository, *revisions = sys.argv[1:]
for revision in revisions:
    options = {"revision": revision, "trust_remote_code": True}
    captioner = pipeline("audio-captioning", model=repository, **options)
    print("caption:", ascii(captioner(clip)["text"]))
    processor = AutoProcessor.from_pretrained(repository, **options)
    model = AutoModelForSeq2SeqLM.from_pretrained(repository, **options)
    assert type(model).__module__.startswith("transformers_modules.")
    print("caption:", ascii(processor.batch_decode(model.generate(**processor(audio=clip)))[0]))
if "HF_TOKEN" in os.environ:
    captioner.push_to_hub("me/passed-on")
    captioner = pipeline("audio-captioning", model="me/passed-on", trust_remote_code=True)
    print("passed on:", ascii(captioner(clip)["text"]))
assert "enclap_hf" not in [name for name, module in sys.modules.items() if module is not None]
"""


@pytest.mark.slow
def test_who_has_not_the_package_gets_the_trained_models_caption(hub, folder, tmp_path, clip_path):
    """Trained and pushed here; captioned there from the Hub at two revisions, and again when there is no network."""
    commits, expected = [], []
    for seed in (0, 1):
        training = Training(tmp_path / f"run-{seed}", folder, seed, hub_model_id="me/trained")
        training.train()
        commits.append(training.push_to_hub().oid)
        training.model.eval()
        sequences = training.model.generate(**training.processing_class(audio=clip_path))
        expected.append(training.processing_class.batch_decode(sequences)[0])
    assert expected[0] != expected[1]

    def ask_stranger(**variables) -> str:
        kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "HF_TOKEN")}
        done = subprocess.run(
            [sys.executable, "-c", STRANGER, clip_path, "me/trained", *commits, "main"],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**kept, "HF_HOME": str(tmp_path / "stranger"), "HF_ENDPOINT": hub.endpoint, **variables},
            timeout=600,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    captions = "".join(f"caption: {ascii(caption)}\n" * 2 for caption in (*expected, expected[1]))
    passed_on = f"passed on: {ascii(expected[1])}\n"
    online = {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": "hf_writer"}
    assert ask_stranger(**online) == captions + passed_on
    hub.requests.clear()
    assert ask_stranger(HF_HUB_OFFLINE="1") == captions
    assert hub.requests == []


# The commands


def test_enclap_push_then_enclap_caption(hub, folder, clip_path, capsys):
    assert main(["push", folder, "lab/captioner", "--private", "--message", "By hand"]) == 0
    repository = hub.repositories["lab/captioner"]
    assert capsys.readouterr().out == f"{hub.endpoint}/lab/captioner/commit/{repository.branches['main']}\n"
    assert repository.private and "By hand" in repository.messages.values()
    assert set(hub.files("lab/captioner")) == ALL_FILES
    assert main(["caption", clip_path, "--model", "lab/captioner"]) == 0
    assert capsys.readouterr().out == f"{clip_path}\t{escape_controls(caption_of(folder, clip_path))}\n"
    assert main(["push", folder, "lab/captioner", "--create-pr"]) == 0


@pytest.mark.parametrize(
    ("removed", "said"),
    [
        ("model.safetensors", "lacks the model (config.json, model.safetensors)"),
        ("tokenizer.json", "lacks the tokenizer (tokenizer.json)"),
        ("processor_config.json", "lacks the processor (processor_config.json)"),
        ("clap/model.safetensors", "lacks clap/ (config.json, model.safetensors)"),
        ("codec/config.json", "lacks codec/ (config.json, model.safetensors)"),
    ],
)
def test_an_incomplete_folder_is_refused_in_one_line(hub, folder, tmp_path, capsys, removed, said):
    save_repository(make_model(), build_processor(), str(tmp_path / "run"))
    (tmp_path / "run" / removed).unlink()
    capsys.readouterr()  # the bar of saving
    assert main(["push", str(tmp_path / "run"), "me/captioner"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("enclap push: ") and said in line and "save_pretrained" in line
    assert hub.requests == []


def test_a_checkpoint_that_refers_to_this_machine_is_refused(hub, folder, tmp_path, capsys):
    make_model().save_pretrained(tmp_path / "checkpoint-3")
    EnClapProcessor.from_pretrained(folder).save_pretrained(tmp_path / "checkpoint-3")
    assert main(["push", str(tmp_path / "checkpoint-3"), "me/captioner"]) == 2
    assert "codec/ (the folder is a checkpoint, which refers to encoders of its own machine)" in capsys.readouterr().err
    assert hub.requests == []
    assert find_missing_parts(str(tmp_path / "nowhere")) == ["everything: there is no such folder"]


@pytest.mark.parametrize(
    ("token", "repo_id", "said"),
    [
        (None, "me/captioner", "Log in with `hf auth login`"),
        ("hf_unknown", "me/captioner", "Log in with `hf auth login`"),
        ("hf_reader", "guest/captioner", "does not let this token write to guest/captioner"),
        ("hf_writer", "other/captioner", "does not let this token write to other/captioner"),
        ("hf_writer", "a/b/c", "a/b/c"),
    ],
)
def test_who_may_not_push_is_told_why_in_one_line(hub, folder, monkeypatch, capsys, token, repo_id, said):
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", os.devnull)
    options = ["--token", token] if token else []
    assert main(["push", folder, repo_id, *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("enclap push: ") and said in line
    assert repo_id not in hub.repositories


def test_without_a_network_pushing_says_so(hub, folder, monkeypatch, capsys):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert main(["push", folder, "me/captioner"]) == 2
    assert "The Hub cannot be reached" in capsys.readouterr().err
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert main(["push", folder, "me/captioner"]) == 2
    assert "offline mode" in capsys.readouterr().err


def test_errors_of_the_hub_reach_who_pushes_or_loads_from_python(hub, folder, clip_path, monkeypatch, capsys):
    make_model().push_to_hub("lab/secret", private=True)
    with pytest.raises(HfHubHTTPError, match="403"):
        make_model().push_to_hub("lab/secret", token="hf_reader")
    with pytest.raises(RepositoryNotFoundError):
        HfApi(token="hf_reader").model_info("lab/secret")
    with pytest.raises(OSError, match="me/nothing is not a local folder"):
        AutoModelForSeq2SeqLM.from_pretrained("me/nothing")
    with pytest.raises(OSError, match="nowhere is not a valid git identifier"):
        AutoModelForSeq2SeqLM.from_pretrained("lab/secret", revision="nowhere")
    assert main(["caption", clip_path, "--model", "me/nothing"]) == 2
    assert "me/nothing" in capsys.readouterr().err
