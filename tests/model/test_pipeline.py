"""`pipeline("audio-captioning")` captions recordings in any form and number, as the model and processor do by hand."""

import io

import numpy as np
import pytest
import soundfile
import torch
from transformers import GenerationConfig, LogitsProcessorList, pipeline
from transformers.generation.streamers import BaseStreamer
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


def only_texts(results: dict | list[dict]) -> dict | list[dict]:
    """Results without their scores, whose last digits differ between batches."""
    if isinstance(results, list):
        return [only_texts(result) for result in results]
    return {name: value for name, value in results.items() if name != "score"}


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
    assert only_texts(captioner(CLIPS, sampling_rate=RATE, batch_size=batch_size)) == expected


def test_one_recording_in_any_form_gives_one_caption(captioner, expected, tmp_path):
    clip, path = CLIPS[0], str(tmp_path / "clip.wav")
    (tmp_path / "clip.wav").write_bytes(wav(clip))
    for form in (path, tmp_path / "clip.wav", wav(clip), io.BytesIO(wav(clip))):
        assert only_texts(captioner(form)) == expected[0]
    for form in (clip, torch.from_numpy(clip), np.stack([clip, clip]), clip.tolist()):
        assert only_texts(captioner(form, sampling_rate=RATE)) == expected[0]
    assert only_texts(captioner({"array": clip, "sampling_rate": RATE})) == expected[0]
    assert only_texts(captioner({"path": None, "bytes": wav(clip)})) == expected[0]


def test_one_recording_in_a_list_gives_a_list(captioner, expected):
    assert only_texts(captioner([CLIPS[0]], sampling_rate=RATE)) == expected[:1]
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
    assert only_texts(next(iter(captions))) == expected[0]
    # The oldest transformers takes all clips out of a generator first, and returns a list.
    assert len(taken) < len(CLIPS) or isinstance(captions, list), "later clips wait until they are asked for"
    assert only_texts(list(captioner(clips(), batch_size=batch_size))) == expected


def test_a_dataset_column_gives_a_list(captioner, expected):
    datasets = pytest.importorskip("datasets")
    rows = {"audio": [{"array": clip.tolist(), "sampling_rate": RATE} for clip in CLIPS]}
    dataset = datasets.Dataset.from_dict(rows)
    assert only_texts(captioner(dataset["audio"], batch_size=2)) == expected
    assert only_texts(list(captioner(KeyDataset(dataset, "audio"), batch_size=2))) == expected


@pytest.mark.slow
def test_worker_processes_read_ahead(captioner, expected, tmp_path):
    paths = []
    for i, clip in enumerate(CLIPS):
        paths.append(str(tmp_path / f"{i}.wav"))
        soundfile.write(paths[-1], clip, RATE, subtype="FLOAT")
    assert only_texts(captioner(paths, batch_size=2, num_workers=2)) == expected


def score_by_hand(captioner, clip: np.ndarray, ids: list[int], max_length: int = 16) -> float:
    """Token after token, each from a pass of its own: <s> is forced, and so is </s> where the length ends."""
    inputs, log_probs = captioner.processor(audio=clip, sampling_rate=RATE), []
    for position in range(2, len(ids)):
        if ids[position] == 2 and position == max_length - 1:
            break
        with torch.no_grad():
            logits = captioner.model(**inputs, decoder_input_ids=torch.tensor([ids[:position]])).logits[0, -1]
        log_probs.append(logits.double().log_softmax(-1)[ids[position]].item())
        if ids[position] == 2:
            break
    return float(np.mean(log_probs))


@pytest.mark.parametrize(
    "decoding", [{"num_beams": 3}, {"num_beams": 3, "length_penalty": 3.0, "repetition_penalty": 1.5}]
)
def test_n_best_come_in_the_order_of_the_search_with_the_models_own_scores(captioner, decoding):
    results = captioner(CLIPS[:3], sampling_rate=RATE, num_return_sequences=3, batch_size=2, **decoding)
    for clip, captions in zip(CLIPS, results, strict=False):
        inputs = captioner.processor(audio=clip, sampling_rate=RATE)
        sequences = captioner.model.generate(**inputs, max_length=16, num_return_sequences=3, **decoding)
        assert [caption["text"] for caption in captions] == captioner.processor.batch_decode(sequences)
        wanted = [score_by_hand(captioner, clip, ids) for ids in sequences.tolist()]
        assert [caption["score"] for caption in captions] == pytest.approx(wanted, abs=1e-5)
    assert isinstance(captioner(CLIPS[0], sampling_rate=RATE, num_return_sequences=2), list)


def test_samples_come_best_first_with_the_models_own_scores(captioner):
    """Temperature and top-k change what is drawn, not what it scores."""
    sampling = {"num_beams": 1, "do_sample": True, "temperature": 3.0, "top_k": 40, "num_return_sequences": 6}
    torch.manual_seed(0)
    captions = captioner(CLIPS[0], sampling_rate=RATE, **sampling)
    scores = [caption["score"] for caption in captions]
    assert scores == sorted(scores, reverse=True) and len(set(scores)) == 6
    torch.manual_seed(0)
    inputs = captioner.processor(audio=CLIPS[0], sampling_rate=RATE)
    ids = captioner.model.generate(**inputs, max_length=16, **sampling).tolist()
    assert scores == pytest.approx(
        sorted((score_by_hand(captioner, CLIPS[0], row) for row in ids), reverse=True), abs=1e-5
    )


@pytest.mark.parametrize("max_new_tokens", [3, 8, 30])
def test_a_greedy_score_counts_neither_forced_tokens_nor_padding(captioner, max_new_tokens):
    decoding = {"num_beams": 1, "no_repeat_ngram_size": 0, "max_new_tokens": max_new_tokens}
    result = captioner(CLIPS[1], sampling_rate=RATE, **decoding)
    ids = captioner.model.generate(**captioner.processor(audio=CLIPS[1], sampling_rate=RATE), **decoding)[0].tolist()
    assert result["score"] == pytest.approx(score_by_hand(captioner, CLIPS[1], ids, max_new_tokens + 1), abs=1e-5)


def test_a_recording_without_sound_is_silent_and_gets_no_sentence(captioner, expected, tmp_path):
    silence, faint = np.zeros(RATE, np.float32), np.full(RATE, 10 ** (-71 / 20), np.float32)
    soundfile.write(tmp_path / "silence.flac", silence, RATE)
    silent = {"text": "", "silent": True}
    assert captioner(str(tmp_path / "silence.flac")) == silent
    assert captioner(faint, sampling_rate=RATE) == silent
    mixed = captioner([silence, CLIPS[0], faint], sampling_rate=RATE, batch_size=3)
    assert only_texts(mixed) == [silent, expected[0], silent]
    assert captioner([silence, faint], sampling_rate=RATE, batch_size=2) == [silent, silent]
    audible = (10 ** (-69 / 20) * CLIPS[0] / np.abs(CLIPS[0]).max()).astype(np.float32)
    assert "silent" not in captioner(audible, sampling_rate=RATE)
    assert captioner(audible, sampling_rate=RATE, silence_dbfs=-60) == silent
    assert captioner(silence, sampling_rate=RATE, silence_dbfs=None)["text"]
    with pytest.raises(ValueError, match="silence_dbfs"):
        captioner(silence, sampling_rate=RATE, silence_dbfs="low")


def test_arguments_of_generate_work_or_are_refused(captioner):
    """None is swallowed: what cannot be returned is said, and what generate takes reaches it."""
    config = GenerationConfig(num_beams=1, max_length=6, eos_token_id=2, decoder_start_token_id=2, pad_token_id=1)
    inputs = captioner.processor(audio=CLIPS[0], sampling_rate=RATE)
    ids = captioner.model.generate(**inputs, generation_config=config)
    short = captioner(CLIPS[0], sampling_rate=RATE, generation_config=config)
    assert short["text"] == captioner.processor.decode(ids[0])
    seen = []
    captioner(
        CLIPS[0],
        sampling_rate=RATE,
        logits_processor=LogitsProcessorList([lambda ids, scores: seen.append(1) or scores]),
    )
    assert seen

    class Streamer(BaseStreamer):
        def put(self, value):
            seen.append("token")

        def end(self):
            seen.append("end")

    captioner(CLIPS[0], sampling_rate=RATE, num_beams=1, streamer=Streamer())
    assert seen.count("token") > 1 and seen[-1] == "end"
    for name in ("output_scores", "return_dict_in_generate", "output_attentions"):
        with pytest.raises(TypeError, match=f"`{name}`, and a pipeline returns texts and scores alone"):
            captioner(CLIPS[0], sampling_rate=RATE, **{name: True})
        with pytest.raises(TypeError, match=name):
            captioner(CLIPS[0], sampling_rate=RATE, generate_kwargs={name: True})
    with pytest.raises(TypeError, match="num_beam`, which neither"):
        captioner(CLIPS[0], sampling_rate=RATE, generate_kwargs={"num_beam": 2})
    for name in ("num_beams", "num_return_sequences", "max_length", "max_new_tokens"):
        for value in (0, -1, True, "2", 1.5):
            with pytest.raises(ValueError, match=f"Got `{name}`={value!r}; expected a whole number from 1"):
                captioner(CLIPS[0], sampling_rate=RATE, **{name: value})
    with pytest.raises(TypeError, match="`generate_kwargs` of type list; expected a dict"):
        captioner(CLIPS[0], sampling_rate=RATE, generate_kwargs=[1])


def test_whole_tables_and_rows_say_what_to_pass(captioner):
    datasets, pandas = pytest.importorskip("datasets"), pytest.importorskip("pandas")
    table = datasets.Dataset.from_dict({"audio": ["a.wav"], "caption": ["rain"]})
    for whole in (table, table.to_iterable_dataset(), table.select_columns("audio"), pandas.DataFrame(table[:])):
        with pytest.raises(AudioLoadError, match=r'it is a whole table .*Pass the column .* such as table\["audio"\]'):
            captioner(whole)
    with pytest.raises(
        AudioLoadError, match=r'it is a whole row of a table. Pass its recording, such as row\["audio"\]'
    ):
        captioner(table[0])


def test_iterators_and_streamed_columns_are_captioned_one_by_one(captioner, expected, tmp_path):
    paths = []
    for i, clip in enumerate(CLIPS[:3]):
        paths.append(str(tmp_path / f"{i}.wav"))
        (tmp_path / f"{i}.wav").write_bytes(wav(clip))
    datasets = pytest.importorskip("datasets")
    table = datasets.Dataset.from_dict({"audio": paths})
    forms = [iter(paths), map(str, paths), (path for path in paths)]
    if int(datasets.__version__.split(".")[0]) >= 4:  # streams have columns
        forms.append(table.to_iterable_dataset()["audio"])
    for form in (*forms, np.array(paths), table["audio"], tuple(paths)):
        assert only_texts(list(captioner(form, batch_size=2))) == expected[:3], type(form)
    for pair in ((RATE, CLIPS[0]), (CLIPS[0], RATE)):
        assert only_texts(captioner(pair)) == expected[0]
    with pytest.raises(AudioLoadError, match="whole table"):
        captioner(table)


def test_decoding_is_the_models_own_unless_told_otherwise(captioner, expected):
    inputs = captioner.processor(audio=CLIPS[0], sampling_rate=RATE)
    ids = captioner.model.generate(**inputs, num_beams=1, max_new_tokens=5)
    greedy = {"text": captioner.processor.decode(ids[0])}
    assert only_texts(captioner(CLIPS[0], sampling_rate=RATE, num_beams=1, max_new_tokens=5)) == greedy
    assert (
        only_texts(captioner(CLIPS[0], sampling_rate=RATE, generate_kwargs={"num_beams": 1, "max_new_tokens": 5}))
        == greedy
    )
    assert only_texts(captioner(CLIPS[0], sampling_rate=RATE)) == expected[0]


def test_arguments_of_construction_hold_for_every_call(repository, expected):
    captioner = pipeline("audio-captioning", model=repository, sampling_rate=RATE, batch_size=2, device="cpu")
    assert only_texts(captioner(CLIPS)) == expected


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
        assert only_texts([first, second]) == expected[:2]
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
    assert only_texts(again(CLIPS, sampling_rate=RATE)) == expected


def test_parts_may_be_passed_as_objects(captioner, expected):
    built = pipeline("audio-captioning", model=captioner.model, processor=captioner.processor, device="cpu")
    assert only_texts(built(CLIPS[0], sampling_rate=RATE)) == expected[0]
