"""The pipeline's best of several captions: the same alone, in a batch and in another process, and as by hand."""

import json
import subprocess
import sys

import numpy as np
import pytest
from transformers import pipeline

from clap_text_models import build_processor_with_text
from conftest import build_model, build_processor, make_clip
from enclap_hf.model.candidates import compute_clip_seed, generate_candidates
from enclap_hf.model.caption_choice import CandidateSearch, read_choice
from enclap_hf.model.reranking import SCORERS, gather_candidates, rank_candidates, read_mixture

RATE = 24_000
DURATIONS_S = (0.5, 1.4, 0.9)
CLIPS = [{"array": make_clip(length_s, seed), "sampling_rate": RATE} for seed, length_s in enumerate(DURATIONS_S)]
MIXTURE = {"clap": 0.5, "consensus": 0.3, "likelihood": 0.2}
OPTIONS = {"num_candidates": 8, "candidates": "both", "rerank": MIXTURE, "seed": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    folder = str(tmp_path_factory.mktemp("repository"))
    model = build_model()
    model.generation_config.max_length = 10
    model.save_pretrained(folder)
    build_processor_with_text().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def captioner(folder):
    return pipeline("audio-captioning", model=folder, device="cpu")


@pytest.fixture(scope="module")
def without_text(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("without"))
    build_model().save_pretrained(folder)
    build_processor().save_pretrained(folder)
    return pipeline("audio-captioning", model=folder, device="cpu")


def test_every_caption_has_a_confidence_where_there_is_a_text_tower(captioner, without_text):
    for options in ({}, {"num_beams": 1}, OPTIONS):
        for clip, result in zip(CLIPS, captioner(CLIPS, batch_size=3, **options), strict=True):
            assert result.keys() == {"text", "score", "confidence"}
            expected = captioner.processor.score_captions(clip, result["text"])
            assert result["confidence"] == pytest.approx(expected, abs=2e-6)
    assert without_text(CLIPS[0]).keys() == {"text", "score"}
    assert without_text(CLIPS[0], rerank="consensus", num_candidates=4).keys() == {"text", "score"}


@pytest.mark.parametrize("rerank", [*SCORERS, MIXTURE], ids=[*SCORERS, "mixture"])
def test_the_best_are_those_of_its_parts_by_hand(captioner, rerank):
    results = captioner(CLIPS[1], num_candidates=8, rerank=rerank, seed=3, num_return_sequences=5)
    model, processor = captioner.model, captioner.processor
    prepared = processor.prepare(CLIPS[1])
    inputs = processor.encode_prepared(prepared)
    states = model.model.encoder(**inputs)[0]
    seeds = [compute_clip_seed(prepared["input_values"][0])]
    search = CandidateSearch(num_candidates=8, seed=3)
    ids = generate_candidates(model, states, inputs["attention_mask"], search, seeds)[0]
    texts = processor.batch_decode(ids)
    by_text = {
        result["text"]: result["score"]
        for result in captioner(CLIPS[1], num_candidates=8, rerank="likelihood", seed=3, num_return_sequences=8)
    }
    candidates, _ = gather_candidates(texts, [by_text[text] for text in texts])
    cosines = processor.score_captions(CLIPS[1], candidates.texts)
    candidates = type(candidates)(candidates.texts, candidates.counts, candidates.likelihoods, cosines)
    order = rank_candidates(candidates, read_mixture(rerank))[:5]
    assert [result["text"] for result in results] == [candidates.texts[i] for i in order]
    assert len(set(texts)) > 3, "candidates must differ to tell anything"


def strip(results: list) -> list:
    """Numbers to the digits that sums in another order leave."""
    return [{**result, **{name: round(result[name], 4) for name in ("score", "confidence")}} for result in results]


def test_alone_in_a_batch_and_in_another_process_the_choice_is_the_same(captioner, folder, tmp_path):
    alone = strip([captioner(clip, **OPTIONS) for clip in CLIPS])
    assert strip(captioner(CLIPS, batch_size=3, **OPTIONS)) == alone
    assert strip(captioner(CLIPS[::-1], batch_size=2, **OPTIONS))[::-1] == alone
    np.savez(tmp_path / "clips.npz", *(clip["array"] for clip in CLIPS))
    script = (
        "import json, sys, numpy, enclap_hf; from transformers import pipeline\n"
        "clips = numpy.load(sys.argv[2]); caption = pipeline('audio-captioning', model=sys.argv[1], device='cpu')\n"
        "clips = [{'array': clips[name], 'sampling_rate': 24000} for name in clips.files]\n"
        "print(json.dumps(caption(clips[::-1], batch_size=2, **json.loads(sys.argv[3]))))"
    )
    arguments = [sys.executable, "-c", script, folder, str(tmp_path / "clips.npz"), json.dumps(OPTIONS)]
    output = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout
    assert strip(json.loads(output.splitlines()[-1]))[::-1] == alone


def test_several_captions_are_different_and_best_first(captioner):
    results = captioner(CLIPS[0], num_candidates=8, rerank="likelihood", num_return_sequences=8)
    scores = [result["score"] for result in results]
    assert len({result["text"] for result in results}) == len(results) <= 8
    assert scores == sorted(scores, reverse=True)


def test_arguments_of_the_pipeline_and_of_a_call_go_together(folder, captioner):
    made = pipeline("audio-captioning", model=folder, device="cpu", num_candidates=8, rerank="likelihood", seed=3)
    results = made(CLIPS[0], num_return_sequences=3)
    assert results == captioner(CLIPS[0], num_candidates=8, rerank="likelihood", seed=3, num_return_sequences=3)
    assert made(CLIPS[0])["text"] == results[0]["text"]


def test_what_is_asked_for_alone_brings_the_rest_along():
    choice, left = read_choice({"candidates": "both", "max_new_tokens": 9})
    assert choice.weights == {"consensus": 1.0} and choice.search.num_candidates == 30 and left == {"max_new_tokens": 9}
    choice, left = read_choice({"rerank": "likelihood", "top_p": 0.5, "temperature": 2.0, "num_return_sequences": 4})
    assert (choice.search.kind, choice.search.top_p, choice.search.temperature) == ("nucleus", 0.5, 2.0)
    assert choice.num_captions == 4 and left == {}
    assert read_choice({"num_beams": 2, "rerank": None}) == (None, {"num_beams": 2})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_candidates": 1}, "Got `num_candidates`=1; expected a whole number of at least 2."),
        ({"num_candidates": 4, "num_beams": 4}, "Got `num_beams` beside candidates"),
        ({"rerank": "consensus", "do_sample": True}, "Got `do_sample` beside candidates"),
        ({"rerank": {"clap": 0}}, "without a weight above 0"),
        ({"num_candidates": 4, "num_return_sequences": 5}, "Got `num_return_sequences`=5 of `num_candidates`=4"),
    ],
)
def test_arguments_that_do_not_go_together_are_refused_in_one_line(captioner, arguments, message):
    with pytest.raises(ValueError, match="Got") as raised:
        captioner(CLIPS[0], **arguments)
    assert message in str(raised.value) and "\n" not in str(raised.value)


def test_clap_without_a_text_tower_is_refused(without_text):
    with pytest.raises(ValueError, match="no CLAP text tower") as raised:
        without_text(CLIPS[0], rerank="clap", num_candidates=4)
    assert "\n" not in str(raised.value)


def test_a_fluency_filter_puts_what_it_refuses_last(captioner):
    options = {"num_candidates": 8, "rerank": "likelihood"}
    first = captioner(CLIPS[0], **options)["text"]
    second = captioner(CLIPS[0], is_fluent=lambda texts: [text != first for text in texts], **options)["text"]
    assert second != first


def test_captions_below_the_least_confidence_are_left_out(captioner):
    captions = captioner(CLIPS[0], num_candidates=8, rerank="likelihood", num_return_sequences=8)
    confidences = sorted(caption["confidence"] for caption in captions)
    least = (confidences[0] + confidences[1]) / 2
    options = {"num_candidates": 8, "rerank": "likelihood", "num_return_sequences": 8}
    kept = captioner(CLIPS[0], min_confidence=least, **options)
    assert kept == [caption for caption in captions if caption["confidence"] >= least]
    nothing = captioner(CLIPS[0], min_confidence=1.0, **options)
    assert nothing == {"text": "", "confidence": confidences[-1]}


@pytest.mark.parametrize("value", [2, float("nan"), "0.5", True])
def test_a_least_confidence_that_is_no_cosine_is_refused(captioner, without_text, value):
    with pytest.raises(ValueError, match="expected a number from -1 to 1"):
        captioner(CLIPS[0], min_confidence=value)
    with pytest.raises(ValueError, match="no CLAP text tower"):
        without_text(CLIPS[0], min_confidence=0.1)
