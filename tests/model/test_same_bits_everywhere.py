"""However recordings are captioned, each gets the caption and the score that it gets alone, to the last bit."""

import copy
import json

import pytest
import soundfile
import torch
from transformers import pipeline

import caption_runs
from bit_stages import RATE, make_clips
from enclap_hf.data.caption_clips import Clip
from enclap_hf.data.feature_shards import FeatureSettings, prepare_features
from enclap_hf.data.prepared_features import PreparedClips
from enclap_hf.model.frame_encoder import pad_frames
from enclap_hf.model.onednn_linear import use_onednn
from endpoint_stand_in import load_handler

captioner, load_once = caption_runs.captioner, caption_runs.load_once
CLIPS = make_clips(6, 4.0)


@pytest.fixture(scope="module")
def alone(captioner) -> list[dict]:
    return [captioner(clip, silence_dbfs=None, chunk_length_s=0) for clip in copy.deepcopy(CLIPS)]


@pytest.fixture(scope="module")
def paths(tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp("sounds")
    for i, clip in enumerate(CLIPS):
        soundfile.write(folder / f"{i}.wav", clip["array"], RATE, subtype="FLOAT")
    return [str(folder / f"{i}.wav") for i in range(len(CLIPS))]


@pytest.mark.parametrize("batch_size", [2, 6])
def test_the_pipeline_in_batches_and_in_another_order(captioner, alone, batch_size):
    clips = copy.deepcopy(CLIPS)
    assert captioner(clips, batch_size=batch_size, silence_dbfs=None, chunk_length_s=0) == alone
    assert captioner(clips[::-1], batch_size=batch_size, silence_dbfs=None, chunk_length_s=0) == alone[::-1]


def test_samples_of_a_seed(captioner):
    options = {"do_sample": True, "num_beams": 1, "num_return_sequences": 2, "seed": 7, "silence_dbfs": None}
    samples = [captioner(clip, **options) for clip in copy.deepcopy(CLIPS)]
    assert captioner(copy.deepcopy(CLIPS), batch_size=4, **options) == samples
    others = [captioner(clip, **{**options, "seed": 8}) for clip in copy.deepcopy(CLIPS)]
    assert others != samples


@pytest.mark.parametrize("is_plain", [False, True])
def test_candidates(captioner, is_plain):
    options = {"num_candidates": 4, "candidates": "nucleus", "silence_dbfs": None}
    use_onednn(captioner.model, not is_plain)
    try:
        alone = [captioner(clip, **options) for clip in copy.deepcopy(CLIPS)]
        assert captioner(copy.deepcopy(CLIPS), batch_size=4, **options) == alone
    finally:
        use_onednn(captioner.model)


@pytest.mark.parametrize("seed", [[1, 2], "7", [1, 2, 3.5]])
def test_a_seed_that_is_none_is_refused(captioner, seed):
    with pytest.raises(ValueError, match="`seed`"):
        captioner(copy.deepcopy(CLIPS[:3]), batch_size=3, do_sample=True, num_beams=1, seed=seed)


def test_the_command(capsys, tmp_path, alone, paths):
    rows = {}
    for batch_size in ("1", "4"):
        output = tmp_path / f"{batch_size}.jsonl"
        status, _, _ = caption_runs.run(
            capsys, *paths, "--batch-size", batch_size, "--output", str(output), "--chunk-length-s", "0"
        )
        assert status == 0
        lines = map(json.loads, output.read_text(encoding="utf-8").splitlines())
        rows[batch_size] = sorted(lines, key=lambda row: row["file_name"])
    assert rows["1"] == rows["4"]
    for row, result in zip(rows["4"], alone, strict=True):
        if not row["silent"]:
            assert (row["caption"], row["score"]) == (result["text"], pytest.approx(result["score"], abs=1e-6))


def test_the_endpoint(repository, alone, paths):
    handler = load_handler(repository)
    for path, result in zip(paths, alone, strict=True):
        with open(path, "rb") as file:
            answer = handler({"inputs": file.read(), "parameters": {"chunk_length_s": 0}})
        assert answer["text"] == (result["text"] if not answer.get("silent") else "")


def test_prepared_features(captioner, tmp_path, alone, paths):
    processor, model = captioner.processor, captioner.model
    clips = [Clip(path, path, ("a dog barks",)) for path in paths]
    settings = FeatureSettings(num_codebooks=processor.num_codebooks, batch_size=4, show_progress=False)
    prepare_features(clips, str(tmp_path), processor, settings)
    rows = list(PreparedClips(str(tmp_path), processor))
    codes = [torch.from_numpy(row["audio_codes"].astype("int64"))[:253] for row in rows]
    batch = pad_frames(codes, processor.frame_encoder.codebook_size)
    batch["clap_embedding"] = torch.stack([torch.tensor(row["clap_embedding"]) for row in rows])
    texts = processor.batch_decode(model.generate(**batch))
    assert texts == [result["text"] for result in alone]
    for row, path in zip(rows, paths, strict=True):
        assert torch.equal(torch.tensor(row["clap_embedding"]), processor(audio=path)["clap_embedding"][0])


def test_a_pipeline_in_bfloat16(repository):
    captioner = pipeline("audio-captioning", model=repository, dtype=torch.bfloat16, device="cpu")
    alone = [captioner(clip, silence_dbfs=None) for clip in copy.deepcopy(CLIPS)]
    assert captioner(copy.deepcopy(CLIPS), batch_size=5, silence_dbfs=None) == alone
