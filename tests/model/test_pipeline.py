"""`pipeline("audio-captioning")` captions recordings in any form and number, as the model and processor do by hand."""

import io

import numpy as np
import pytest
import soundfile
import torch
from transformers import pipeline
from transformers.pipelines.pt_utils import KeyDataset

import enclap_hf
from conftest import build_model, build_processor, make_clip
from enclap_hf import AudioCaptioningPipeline, AudioLoadError

RATE = 24_000
CLIPS = [make_clip(duration_s, seed) for seed, duration_s in enumerate((0.5, 1.4, 0.9, 2.6, 0.2))]


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> str:
    folder = str(tmp_path_factory.mktemp("repository"))
    model = build_model()
    model.generation_config.max_length = 16
    model.save_pretrained(folder)
    build_processor().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def captioner(repository) -> AudioCaptioningPipeline:
    return pipeline("audio-captioning", model=repository, device="cpu")


@pytest.fixture(scope="module")
def expected(captioner) -> list[dict]:
    """By hand, one clip after another."""
    texts = []
    for clip in CLIPS:
        inputs = captioner.processor(audio=clip, sampling_rate=RATE)
        texts += captioner.processor.batch_decode(captioner.model.generate(**inputs, max_length=16))
    assert len(set(texts)) >= 3, "clips must differ for these tests to tell anything"
    return [{"text": text} for text in texts]


def wav(clip: np.ndarray) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, clip, RATE, format="WAV", subtype="FLOAT")
    return file.getvalue()


def test_the_task_name_gives_the_pipeline(captioner):
    assert type(captioner) is AudioCaptioningPipeline
    assert captioner.task == "audio-captioning"


def test_without_a_model_the_packages_own_is_loaded():
    """It used to end in KeyError: 'default'."""
    captioner = pipeline("audio-captioning", device="cpu")
    assert type(captioner) is AudioCaptioningPipeline
    assert captioner.model.name_or_path == enclap_hf.DEFAULT_MODEL


@pytest.mark.parametrize("batch_size", [1, 2, 5, 16])
def test_a_list_gives_the_same_captions_in_any_batch_size(captioner, expected, batch_size):
    assert captioner(CLIPS, sampling_rate=RATE, batch_size=batch_size) == expected


def test_one_recording_in_any_form_gives_one_caption(captioner, expected, tmp_path):
    clip, path = CLIPS[0], str(tmp_path / "clip.wav")
    (tmp_path / "clip.wav").write_bytes(wav(clip))
    for form in (path, tmp_path / "clip.wav", wav(clip), io.BytesIO(wav(clip))):
        assert captioner(form) == expected[0]
    for form in (clip, torch.from_numpy(clip), np.stack([clip, clip]), clip.tolist()):
        assert captioner(form, sampling_rate=RATE) == expected[0]
    assert captioner({"array": clip, "sampling_rate": RATE}) == expected[0]
    assert captioner({"path": None, "bytes": wav(clip)}) == expected[0]


def test_one_recording_in_a_list_gives_a_list(captioner, expected):
    assert captioner([CLIPS[0]], sampling_rate=RATE) == expected[:1]
    assert captioner([]) == []


def test_the_given_dict_stays_as_it_was(captioner):
    clip = {"array": CLIPS[0], "sampling_rate": RATE}
    captioner(clip)
    assert set(clip) == {"array", "sampling_rate"}


@pytest.mark.parametrize("batch_size", [1, 2])
def test_a_generator_gives_captions_one_by_one(captioner, expected, batch_size):
    taken = []

    def clips():
        for clip in CLIPS:
            taken.append(len(clip))
            yield {"array": clip, "sampling_rate": RATE}

    captions = captioner(clips(), batch_size=batch_size)
    assert next(iter(captions)) == expected[0]
    # The oldest transformers takes all clips out of a generator first, and returns a list.
    assert len(taken) < len(CLIPS) or isinstance(captions, list), "later clips wait until they are asked for"
    assert list(captioner(clips(), batch_size=batch_size)) == expected


def test_a_dataset_column_gives_a_list(captioner, expected):
    datasets = pytest.importorskip("datasets")
    rows = {"audio": [{"array": clip.tolist(), "sampling_rate": RATE} for clip in CLIPS]}
    dataset = datasets.Dataset.from_dict(rows)
    assert captioner(dataset["audio"], batch_size=2) == expected
    assert list(captioner(KeyDataset(dataset, "audio"), batch_size=2)) == expected


@pytest.mark.slow
def test_worker_processes_read_ahead(captioner, expected, tmp_path):
    paths = []
    for i, clip in enumerate(CLIPS):
        paths.append(str(tmp_path / f"{i}.wav"))
        soundfile.write(paths[-1], clip, RATE, subtype="FLOAT")
    assert captioner(paths, batch_size=2, num_workers=2) == expected


def test_n_best_come_with_their_scores_best_first(captioner):
    results = captioner(CLIPS[:3], sampling_rate=RATE, num_return_sequences=3, batch_size=2)
    for clip, captions in zip(CLIPS, results, strict=False):
        inputs = captioner.processor(audio=clip, sampling_rate=RATE)
        out = captioner.model.generate(
            **inputs, max_length=16, num_return_sequences=3, output_scores=True, return_dict_in_generate=True
        )
        assert [caption["text"] for caption in captions] == captioner.processor.batch_decode(out.sequences)
        scores = [caption["score"] for caption in captions]
        assert scores == pytest.approx(out.sequences_scores.tolist(), abs=1e-5)
        assert scores == sorted(scores, reverse=True)
    assert isinstance(captioner(CLIPS[0], sampling_rate=RATE, num_return_sequences=2), list)


def test_sampled_captions_score_the_mean_log_probability_of_their_tokens_best_first(captioner):
    captions = captioner(
        CLIPS[0], sampling_rate=RATE, num_return_sequences=6, num_beams=1, do_sample=True, no_repeat_ngram_size=0
    )
    scores = [caption["score"] for caption in captions]
    assert scores == sorted(scores, reverse=True) and len(set(scores)) == 6 and scores[0] < 0


def test_a_greedy_score_equals_that_of_a_second_pass(captioner):
    model, inputs = captioner.model, captioner.processor(audio=CLIPS[1], sampling_rate=RATE)
    plain = {"num_beams": 1, "no_repeat_ngram_size": 0, "max_new_tokens": 8}
    out = model.generate(**inputs, **plain, output_scores=True, return_dict_in_generate=True)
    with torch.no_grad():
        logits = model(**inputs, decoder_input_ids=out.sequences[:, :-1]).logits.log_softmax(-1)
    log_probs = logits.gather(2, out.sequences[:, 1:, None])[0, :, 0]
    log_probs[0] = 0  # <s> is forced
    if out.sequences.shape[1] == 9:
        log_probs[-1] = 0  # and so is </s> where the length ends
    assert captioner._sequence_scores(out).item() == pytest.approx(log_probs.mean().item(), abs=1e-4)


def test_decoding_is_the_models_own_unless_told_otherwise(captioner, expected):
    inputs = captioner.processor(audio=CLIPS[0], sampling_rate=RATE)
    ids = captioner.model.generate(**inputs, num_beams=1, max_new_tokens=5)
    greedy = {"text": captioner.processor.decode(ids[0])}
    assert captioner(CLIPS[0], sampling_rate=RATE, num_beams=1, max_new_tokens=5) == greedy
    assert captioner(CLIPS[0], sampling_rate=RATE, generate_kwargs={"num_beams": 1, "max_new_tokens": 5}) == greedy
    assert captioner(CLIPS[0], sampling_rate=RATE) == expected[0]


def test_arguments_of_construction_hold_for_every_call(repository, expected):
    captioner = pipeline("audio-captioning", model=repository, sampling_rate=RATE, batch_size=2, device="cpu")
    assert captioner(CLIPS) == expected


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"num_beems": 2}, TypeError, "num_beems"),
        ({"errors": "ignore"}, ValueError, "errors"),
    ],
)
def test_arguments_that_nothing_knows_are_refused(captioner, arguments, error, message):
    with pytest.raises(error, match=message):
        captioner(CLIPS[0], sampling_rate=RATE, **arguments)


def test_an_unreadable_recording_stops_or_is_reported_while_the_rest_go_on(captioner, expected):
    clips = [{"array": CLIPS[0], "sampling_rate": RATE}, "missing.wav", {"array": CLIPS[1], "sampling_rate": RATE}]
    with pytest.raises(AudioLoadError, match="missing.wav"):
        captioner(clips)
    for batch_size in (1, 2, 3):
        first, bad, second = captioner(clips, errors="return", batch_size=batch_size)
        assert [first, second] == expected[:2]
        assert bad["text"] is None and "missing.wav" in bad["error"]
    only_bad = captioner(["missing.wav"] * 2, errors="return", batch_size=2)
    assert [result["text"] for result in only_bad] == [None, None]
    n_best = captioner(clips, errors="return", batch_size=3, num_return_sequences=2)
    assert len(n_best[0]) == len(n_best[2]) == 2 and n_best[1]["text"] is None


def test_half_precision_weights_caption_and_leave_the_encoders_alone(repository):
    captioner = pipeline("audio-captioning", model=repository, dtype=torch.bfloat16, device="cpu")
    assert captioner(CLIPS[0], sampling_rate=RATE)["text"]
    assert captioner.model.dtype == torch.bfloat16
    assert captioner.processor.codec.dtype == torch.float32


def test_a_saved_pipeline_is_self_contained(captioner, expected, tmp_path):
    captioner.save_pretrained(str(tmp_path))
    assert (tmp_path / "codec/model.safetensors").is_file() and (tmp_path / "clap/model.safetensors").is_file()
    again = pipeline("audio-captioning", model=str(tmp_path), device="cpu")
    assert again(CLIPS, sampling_rate=RATE) == expected


def test_parts_may_be_passed_as_objects(captioner, expected):
    built = pipeline("audio-captioning", model=captioner.model, processor=captioner.processor, device="cpu")
    assert built(CLIPS[0], sampling_rate=RATE) == expected[0]
