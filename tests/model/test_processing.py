"""Recordings and captions go in, model inputs come out; saved processors find their encoders again."""

import copy
import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from conftest import build_clap, build_codec, build_feature_extractor, build_processor, build_tokenizer, make_clip
from enclap_hf import AudioLoadError, EnClapFeatureExtractor, EnClapProcessor
from enclap_hf.hub.export import find_missing_parts
from enclap_hf.model.caption_text import clean_up_text
from enclap_hf.model.encoder_sources import PLACES_FILE

RATE = 24_000


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> str:
    folder = str(tmp_path_factory.mktemp("repository"))
    build_processor().save_pretrained(folder)
    return folder


def is_loaded(processor: EnClapProcessor) -> list[str]:
    loaded = {"codec": processor.encoders._frame, "clap": processor.encoders._clap}
    return [name for name, encoder in loaded.items() if encoder is not None and encoder._model is not None]


def assert_same_inputs(ours, expected):
    assert set(ours) == set(expected)
    for name in expected:
        assert torch.equal(ours[name], expected[name]), name


# What comes out


def test_inputs_equal_the_stock_encoders_step_by_step(tiny_processor):
    clip = make_clip(1.3)
    inputs = tiny_processor(audio=clip, sampling_rate=RATE)
    prepared = tiny_processor.feature_extractor(clip, RATE)
    with torch.no_grad():
        codes = tiny_processor.codec.encode(prepared["input_values"][0][None, None], bandwidth=1.5).audio_codes
        vector = tiny_processor.clap(prepared["input_features"], is_longer=prepared["is_longer"]).audio_embeds
    assert torch.equal(inputs["audio_codes"], codes[0].transpose(1, 2))  # (1, B, K, T) -> (B, T, K)
    torch.testing.assert_close(inputs["clap_embedding"], vector / vector.norm(), atol=1e-6, rtol=0)
    assert inputs["attention_mask"].tolist() == [[1] * 98]  # 1.3 s at 75 frames a second, the last one partial


def test_mels_are_computed_where_the_encoders_are(monkeypatch):
    processor, asked = build_processor(), []
    extract = EnClapFeatureExtractor.__call__

    def listen(self, *args, device="cpu", **kwargs):
        asked.append(torch.device(device))
        return extract(self, *args, **kwargs)

    monkeypatch.setattr(EnClapFeatureExtractor, "__call__", listen)
    monkeypatch.setattr(processor, "encode_prepared", dict)  # the encoders themselves stay
    for device in ("cpu", "meta"):
        processor.encoders.device = torch.device(device)
        processor(audio=make_clip(0.3), sampling_rate=RATE)
    assert [device.type for device in asked] == ["cpu", "meta"]


@pytest.mark.parametrize("kind", ["tiny_processor", "fusion_processor"])
def test_a_batch_of_unequal_clips_gives_what_each_gives_alone(request, kind):
    processor = request.getfixturevalue(kind)
    clips = [make_clip(duration_s, seed) for seed, duration_s in enumerate((0.7, 5.0, 1 / RATE, 2.0, 0.1234))]
    batch = processor(audio=clips, sampling_rate=RATE)
    order = [3, 0, 4, 2, 1]
    shuffled = processor(audio=[clips[i] for i in order], sampling_rate=RATE)
    for i, clip in enumerate(clips):
        alone = processor(audio=clip, sampling_rate=RATE)
        length = alone["audio_codes"].shape[1]
        for inputs, place in ((batch, i), (shuffled, order.index(i))):
            assert int(inputs["attention_mask"][place].sum()) == length
            assert torch.equal(inputs["audio_codes"][place, :length], alone["audio_codes"][0])
            assert (inputs["audio_codes"][place, length:] == 32).all()
            # Sums of a batched matrix product run in another order.
            torch.testing.assert_close(inputs["clap_embedding"][place], alone["clap_embedding"][0], atol=1e-6, rtol=0)


def test_every_form_of_a_clip_gives_the_same_inputs(tiny_processor, tmp_path):
    clip = (make_clip(0.6) * 32767).astype(np.int16)
    path = str(tmp_path / "clip.wav")
    soundfile.write(path, clip, RATE)
    expected = tiny_processor(audio=path)
    content = Path(path).read_bytes()
    floats = clip.astype(np.float32) / 32768
    with open(path, "rb") as file:
        forms = [content, file, clip, floats, torch.from_numpy(floats), np.stack([floats, floats]), floats.tolist()]
        for form in forms:
            assert_same_inputs(tiny_processor(audio=form, sampling_rate=RATE), expected)
    for form in (
        {"array": floats, "sampling_rate": RATE},
        {"path": path, "bytes": None},
        {"path": None, "bytes": content},
    ):
        assert_same_inputs(tiny_processor(audio=form), expected)


def test_a_dataset_column_is_a_batch(tiny_processor):
    datasets = pytest.importorskip("datasets")
    clips = [make_clip(0.4, 1), make_clip(0.6, 2)]
    rows = {"audio": [{"array": clip.tolist(), "sampling_rate": RATE} for clip in clips]}
    column = datasets.Dataset.from_dict(rows)["audio"]
    assert_same_inputs(tiny_processor(audio=column), tiny_processor(audio=clips, sampling_rate=RATE))


@pytest.mark.parametrize("rate", [8000, 22_050, 44_100, 192_000])
def test_any_sampling_rate_gives_its_number_of_frames(tiny_processor, rate):
    inputs = tiny_processor(audio=make_clip(0.5, sampling_rate=rate), sampling_rate=rate)
    assert inputs["audio_codes"].shape == (1, 38, 4)  # ceil(0.5 s x 75)
    assert torch.isfinite(inputs["clap_embedding"]).all()


def test_a_long_clip_fills_the_window_with_its_beginning(tiny_processor):
    clip = make_clip(9.0)
    inputs = tiny_processor(audio=clip, sampling_rate=RATE)
    assert inputs["audio_codes"].shape == (1, 253, 4)
    beginning = tiny_processor(audio=clip[: 253 * 320], sampling_rate=RATE)
    assert torch.equal(inputs["audio_codes"], beginning["audio_codes"])


def test_captions_become_labels_that_decode_to_themselves(tiny_processor):
    captions = ["a dog barks twice", "rain falls on a roof and people's voices"]
    inputs = tiny_processor(audio=[make_clip(0.2), make_clip(0.3)], sampling_rate=RATE, text=captions)
    labels = inputs["labels"]
    for row, caption in zip(labels, captions, strict=True):
        ids = row[row != -100].tolist()
        assert ids == tiny_processor.tokenizer(caption)["input_ids"]
        assert tiny_processor.decode(ids) == caption
    assert set(tiny_processor(text="rain")) == {"labels"}
    cut = tiny_processor(text=captions, truncation=True, max_length=5)["labels"]
    assert cut.shape == (2, 5) and (cut[:, -1] == 2).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "neither `audio` nor `text`"),
        ({"text": ["a", "b"], "audio": [make_clip(0.1)], "sampling_rate": RATE}, "2 captions for 1 recordings"),
        ({"text": "a", "return_tensors": "np"}, "torch tensors"),
        ({"audio": []}, "empty list"),
    ],
)
def test_calls_that_cannot_work_are_refused(tiny_processor, arguments, message):
    with pytest.raises(ValueError, match=message):
        tiny_processor(**arguments)


def test_an_unreadable_clip_is_named(tiny_processor):
    with pytest.raises(AudioLoadError, match="missing.wav"):
        tiny_processor(audio=["missing.wav"])
    with pytest.raises(AudioLoadError, match="sampling"):
        tiny_processor(audio=make_clip(0.1))


def test_more_codebooks_than_the_codec_has_are_refused():
    with pytest.raises(ValueError, match="Asked for 5 codebooks"):
        EnClapProcessor.from_encoders(
            build_feature_extractor(), build_tokenizer(), build_codec(), build_clap(), num_codebooks=5
        )


@pytest.mark.parametrize(
    ("apart", "joined"),
    [
        ("it does n't stop .", "it doesn't stop."),
        ("people 's voices , then rain ?", "people's voices, then rain?"),
        ("they 've gone ; we 're here !", "they've gone ; we're here!"),
        ("i 'm a ' quoted ' word", "i'm a'quoted'word"),
        ("already written, isn't it?", "already written, isn't it?"),
    ],
)
def test_text_is_cleaned_up_as_transformers_4_did(apart, joined):
    assert clean_up_text(apart) == joined


def test_decoding_a_batch_leaves_special_tokens_out(tiny_processor):
    ids = torch.tensor([[2, *tiny_processor.tokenizer("rain falls")["input_ids"], 1, 1]])
    assert tiny_processor.batch_decode(ids) == ["rain falls"]
    assert tiny_processor.batch_decode(ids, skip_special_tokens=False)[0].startswith("</s><s>rain")


# Saving and loading


def test_a_self_contained_repository_loads_and_can_be_moved(repository, tmp_path):
    assert {"processor_config.json", "codec", "clap"} <= set(os.listdir(repository))
    expected = build_processor()(audio=make_clip(0.5), sampling_rate=RATE)
    assert_same_inputs(EnClapProcessor.from_pretrained(repository)(audio=make_clip(0.5), sampling_rate=RATE), expected)
    moved = str(tmp_path / "moved")
    shutil.copytree(repository, moved)
    processor = EnClapProcessor.from_pretrained(moved)
    assert_same_inputs(processor(audio=make_clip(0.5), sampling_rate=RATE), expected)
    assert repository not in (tmp_path / "moved/processor_config.json").read_text()


def test_encoders_are_loaded_with_the_first_recording(repository):
    processor = EnClapProcessor.from_pretrained(repository)
    processor(text="rain")
    processor.batch_decode(torch.tensor([[0, 9, 2]]))
    processor.to("cpu")
    assert is_loaded(processor) == []
    processor(audio=make_clip(0.1), sampling_rate=RATE)
    assert is_loaded(processor) == ["codec", "clap"]


def test_references_are_small_and_stay_valid_through_generations(repository, tmp_path):
    """As Trainer saves its processing_class, checkpoint after checkpoint."""
    first, second = str(tmp_path / "checkpoint-1"), str(tmp_path / "checkpoint-2")
    EnClapProcessor.from_pretrained(repository).save_pretrained(first)
    EnClapProcessor.from_pretrained(first).save_pretrained(second)
    for folder in (first, second):
        assert not {"codec", "clap"} & set(os.listdir(folder))
        fields = json.loads(Path(folder, "processor_config.json").read_text())
        assert list(fields["codec_source"]) == ["fingerprint"] and repository not in json.dumps(fields)
        assert json.loads(Path(folder, PLACES_FILE).read_text())["codec"] == f"{repository}/codec"
    expected = build_processor()(audio=make_clip(0.5), sampling_rate=RATE)
    assert_same_inputs(EnClapProcessor.from_pretrained(second)(audio=make_clip(0.5), sampling_rate=RATE), expected)


@pytest.mark.parametrize("through_link", [False, True])
def test_saving_into_its_own_folder_leaves_it_self_contained(repository, tmp_path, through_link):
    """It used to refer to its own absolute path, and could not be moved or uploaded any more."""
    own, light = tmp_path / "own", tmp_path / "light"
    shutil.copytree(repository, own)
    (tmp_path / "link").symlink_to(own)
    place = tmp_path / "link" if through_link else own
    processor = EnClapProcessor.from_pretrained(str(own))
    processor.save_pretrained(light, include_encoders=False)
    for saved in (processor, EnClapProcessor.from_pretrained(str(light))):  # of the folder, and one that refers to it
        saved.save_pretrained(place)
        fields = json.loads((own / "processor_config.json").read_text())
        assert fields["codec_source"] == {"subfolder": "codec"} and fields["clap_source"] == {"subfolder": "clap"}
    assert find_missing_parts(str(own)) == ["the model (config.json, model.safetensors)"]
    os.rename(own, tmp_path / "moved")
    expected = build_processor()(audio=make_clip(0.3), sampling_rate=RATE)
    moved = EnClapProcessor.from_pretrained(str(tmp_path / "moved"))
    assert_same_inputs(moved(audio=make_clip(0.3), sampling_rate=RATE), expected)


def test_a_name_of_the_hub_is_no_folder_of_the_same_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = {"repo_id": "owner/name", "subfolder": "codec"}
    processor = EnClapProcessor(build_feature_extractor(), build_tokenizer(), codec_source=source, clap_source=source)
    processor.save_pretrained("owner/name")
    assert json.loads(Path("owner/name/processor_config.json").read_text())["codec_source"] == source


def test_references_become_self_contained_again(repository, tmp_path):
    light, full = str(tmp_path / "light"), str(tmp_path / "full")
    EnClapProcessor.from_pretrained(repository).save_pretrained(light, include_encoders=False)
    processor = EnClapProcessor.from_pretrained(light)
    processor.save_pretrained(full)
    assert "fingerprint" in processor.codec_source, "saving does not change the processor"
    assert repository not in Path(full, "processor_config.json").read_text()
    expected = build_processor()(audio=make_clip(0.5), sampling_rate=RATE)
    assert_same_inputs(EnClapProcessor.from_pretrained(full)(audio=make_clip(0.5), sampling_rate=RATE), expected)


def test_a_reference_whose_target_is_gone_says_so_with_the_first_recording(repository, tmp_path):
    gone, light = str(tmp_path / "gone"), str(tmp_path / "light")
    shutil.copytree(repository, gone)
    EnClapProcessor.from_pretrained(gone).save_pretrained(light, include_encoders=False)
    shutil.rmtree(gone)
    processor = EnClapProcessor.from_pretrained(light)
    assert processor(text="rain")["labels"].shape[0] == 1
    with pytest.raises(FileNotFoundError, match="gone.*codec"):
        processor(audio=make_clip(0.1), sampling_rate=RATE)


def test_references_to_the_hub_keep_their_revision(tmp_path):
    source = {"repo_id": "owner/encoders", "revision": "abc", "subfolder": "codec"}
    processor = EnClapProcessor(
        build_feature_extractor(), build_tokenizer(), codec_source=source, clap_source={"repo_id": "owner/clap"}
    )
    processor.save_pretrained(tmp_path)
    loaded = EnClapProcessor.from_pretrained(tmp_path)
    assert loaded.codec_source == source and loaded.clap_source == {"repo_id": "owner/clap"}
    assert loaded.encoders.resolve_source("codec") == source
    assert loaded.encoders.resolve_source("clap") == {"repo_id": "owner/clap"}


def test_a_processor_without_encoders_says_how_to_get_some(tmp_path):
    processor = EnClapProcessor(build_feature_extractor(), build_tokenizer())
    with pytest.raises(ValueError, match="from_encoders"):
        processor(audio=make_clip(0.1), sampling_rate=RATE)
    with pytest.raises(ValueError, match="from_encoders"):
        processor.save_pretrained(tmp_path)


def test_a_checkpoint_refers_to_encoders_in_memory_alone_by_their_fingerprint(tmp_path):
    build_processor().save_pretrained(tmp_path / "checkpoint-7")
    assert (
        not (tmp_path / "checkpoint-7/codec").exists() and not (tmp_path / "checkpoint-7/modeling_enclap.py").exists()
    )
    loaded = EnClapProcessor.from_pretrained(tmp_path / "checkpoint-7")
    assert loaded.batch_decode(loaded(text="rain falls")["labels"]) == ["rain falls"]
    with pytest.raises(FileNotFoundError, match="checkpoint.*fingerprint"):
        loaded(audio=make_clip(0.1), sampling_rate=RATE)


def test_saving_keeps_every_field(repository):
    loaded, built = EnClapProcessor.from_pretrained(repository), build_processor()
    assert built.feature_extractor.to_dict().items() <= loaded.feature_extractor.to_dict().items()
    assert loaded.num_codebooks == 4 and len(loaded.tokenizer) == len(built.tokenizer)
    fields = json.loads(Path(repository, "processor_config.json").read_text())
    assert not [name for name in fields if name.startswith("_")]


# In use


def test_encoders_stay_in_float32_under_autocast_and_another_default_type(repository):
    expected = EnClapProcessor.from_pretrained(repository)(audio=make_clip(0.5), sampling_rate=RATE)
    with torch.autocast("cpu", torch.bfloat16):
        inputs = EnClapProcessor.from_pretrained(repository)(audio=make_clip(0.5), sampling_rate=RATE)
    assert_same_inputs(inputs, expected)
    processor = EnClapProcessor.from_pretrained(repository)
    torch.set_default_dtype(torch.bfloat16)
    try:
        codec, clap = processor.codec, processor.clap
    finally:
        torch.set_default_dtype(torch.float32)
    assert codec.dtype == clap.dtype == torch.float32


def test_no_gradient_reaches_the_encoders(tiny_processor):
    inputs = tiny_processor(audio=make_clip(0.3), sampling_rate=RATE)
    assert not inputs["clap_embedding"].requires_grad
    parameters = [*tiny_processor.codec.parameters(), *tiny_processor.clap.parameters()]
    assert not any(parameter.requires_grad for parameter in parameters)


def test_a_copy_shares_the_frozen_encoders(tiny_processor):
    copied = copy.deepcopy(tiny_processor)
    assert copied.codec is tiny_processor.codec
    assert copied.feature_extractor is not tiny_processor.feature_extractor


def test_a_loaded_processor_reaches_a_worker_process(repository):
    processor = pickle.loads(pickle.dumps(EnClapProcessor.from_pretrained(repository)))
    expected = build_processor()(audio=make_clip(0.3), sampling_rate=RATE)
    assert_same_inputs(processor(audio=make_clip(0.3), sampling_rate=RATE), expected)


def test_the_processor_names_what_the_model_takes(tiny_processor):
    inputs = tiny_processor(audio=make_clip(0.1), sampling_rate=RATE)
    assert set(tiny_processor.model_input_names) == set(inputs)
