"""What users try beside the documented way works, or says in one line what to do."""

import itertools
import json

import numpy as np
import pytest
import torch
from transformers import AutomaticSpeechRecognitionPipeline, GenerationConfig, StoppingCriteriaList, pipeline

from conftest import SAMPLING_RATE, build_model, build_processor, make_clip, make_inputs
from enclap_hf import EnClapConfig, EnClapForConditionalGeneration, EnClapModel
from enclap_hf.model.repository import save_repository

CLIPS = [make_clip(0.3 + 0.2 * i, seed=i) for i in range(5)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    folder = str(tmp_path_factory.mktemp("repository"))
    model = build_model()
    model.generation_config.max_length = 12
    save_repository(model, build_processor(), folder)
    return folder


@pytest.fixture
def captioner(folder):
    return pipeline("audio-captioning", model=folder, device="cpu")


# A limit of the caption's length

OF_THE_MODEL = [{}, {"max_length": 9}, {"max_length": 50}, {"max_new_tokens": 7}]
OF_A_CONFIGURATION = [None, {}, {"max_length": 6}, {"max_new_tokens": 5}]
OF_THE_CALL = [{}, {"max_length": 8}, {"max_new_tokens": 4}]


@pytest.mark.parametrize("of_model", OF_THE_MODEL)
@pytest.mark.parametrize("num_prompt_tokens", [1, 3])
def test_a_caption_ends_at_the_nearest_limit_that_is_given(of_model, num_prompt_tokens):
    """Without any, at the published 50 tokens; transformers has 20 of its own, to which 5.0 adds the prompt."""
    audio, model = make_inputs(lengths=(40,), targets=False), build_model()
    model.generation_config.update(max_length=None, num_beams=1)
    model.generation_config.update(**of_model)
    prompt = {} if num_prompt_tokens == 1 else {"decoder_input_ids": torch.tensor([[2, 0, 9]])}
    for of_config, of_call in itertools.product(OF_A_CONFIGURATION, OF_THE_CALL):
        arguments = {**prompt, **of_call}
        if of_config is not None:
            arguments["generation_config"] = GenerationConfig(num_beams=1, **of_config)
        given = [of_call, of_config or {}, of_model]
        new_tokens = next((limits["max_new_tokens"] for limits in given if "max_new_tokens" in limits), None)
        length = next((limits["max_length"] for limits in given if "max_length" in limits), 50)
        expected = length if new_tokens is None else new_tokens + num_prompt_tokens
        assert model.generate(**audio, **arguments).shape == (1, expected), (of_config, of_call)
        assert model.find_decoding(**arguments).max_length == expected


@pytest.mark.parametrize("limits", [{"max_length": None}, {"max_length": None, "max_new_tokens": 49}])
def test_a_captioner_without_a_length_captions_to_the_published_one(captioner, limits):
    audio = {"inputs": CLIPS[0], "sampling_rate": SAMPLING_RATE}
    expected = captioner(**audio, max_length=50)
    assert captioner(**audio) != expected
    captioner.model.generation_config.update(**limits)
    assert captioner(**audio) == captioner(**audio, generate_kwargs={"num_beams": 4}) == expected
    config = GenerationConfig(num_beams=4, no_repeat_ngram_size=3, early_stopping=True)
    assert captioner(**audio, generation_config=config) == expected


# Numbers in JSON


def list_floats(fields: dict) -> list[str]:
    return [name for name, value in fields.items() if isinstance(value, float)]


@pytest.mark.parametrize("number", [0, 1])
def test_whole_numbers_in_the_configuration_are_numbers(folder, tmp_path, number):
    """JSON knows one 0; newer transformers refused it where BART's configuration has 0.0."""
    save_repository(build_model(), build_processor(), str(tmp_path))
    path = tmp_path / "config.json"
    fields = json.loads(path.read_text())
    names = list_floats(fields)
    assert {"dropout", "decoder_layerdrop", "encoder_layerdrop", "init_std", "mcm_loss_weight"} <= set(names)
    for name in names:
        if name == "label_smoothing" and number == 1:
            continue  # it ends below 1
        path.write_text(json.dumps({**fields, name: number}))
        assert getattr(EnClapConfig.from_pretrained(tmp_path), name) == number
        for model_class in (EnClapForConditionalGeneration, EnClapModel):
            assert getattr(model_class.from_pretrained(tmp_path).config, name) == number
        assert getattr(EnClapConfig(**{name: number}), name) == number
    path.write_text(json.dumps({**fields, **dict.fromkeys(names, 0)}))
    assert pipeline("audio-captioning", model=str(tmp_path), device="cpu")(CLIPS[0], sampling_rate=SAMPLING_RATE)[
        "text"
    ]


@pytest.mark.parametrize("value", [True, "0.1", [0.1]])
def test_what_is_no_number_stays_refused(folder, tmp_path, value):
    save_repository(build_model(), build_processor(), str(tmp_path))
    path = tmp_path / "config.json"
    fields = json.loads(path.read_text())
    path.write_text(json.dumps({**fields, "decoder_layerdrop": value}))
    with pytest.raises(Exception, match="decoder_layerdrop"):
        EnClapForConditionalGeneration.from_pretrained(tmp_path)


# Pipelines of other tasks, feature extractors alone


@pytest.mark.parametrize(
    "sound", [CLIPS[0], {"raw": CLIPS[1], "sampling_rate": SAMPLING_RATE}, CLIPS[2].astype(np.float64)]
)
def test_speech_recognition_says_what_to_use_instead(folder, sound):
    """It said `KeyError: 'audio_codes'`."""
    recognizer = pipeline("automatic-speech-recognition", model=folder, device="cpu")
    assert type(recognizer) is AutomaticSpeechRecognitionPipeline
    with pytest.raises(TypeError, match=r'Caption with `pipeline\("audio-captioning", model=...\)`') as error:
        recognizer(sound)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("arguments", [{"padding": True}, {"truncation": True}, {"return_attention_mask": False}])
def test_a_feature_extractor_swallows_nothing(tiny_processor, arguments):
    extractor, (name,) = tiny_processor.feature_extractor, arguments
    with pytest.raises(TypeError, match=f"`{name}`"):
        extractor(CLIPS[0], sampling_rate=SAMPLING_RATE, **arguments)
    with pytest.raises(ValueError, match="torch tensors"):
        extractor(CLIPS[0], sampling_rate=SAMPLING_RATE, return_tensors="np")
    expected = extractor(CLIPS[0], sampling_rate=SAMPLING_RATE)["input_features"]
    found = extractor(CLIPS[0], sampling_rate=SAMPLING_RATE, return_tensors="pt")["input_features"]
    assert torch.equal(found, expected)


# Arguments of `generate` in a pipeline


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_one_prompt_serves_all_recordings(captioner, batch_size):
    prompt = torch.tensor([[2, 0, *captioner.tokenizer("a dog", add_special_tokens=False)["input_ids"]]])
    expected = []
    for clip in CLIPS:
        inputs = captioner.processor(audio=clip, sampling_rate=SAMPLING_RATE)
        expected.append(captioner.processor.decode(captioner.model.generate(**inputs, decoder_input_ids=prompt)[0]))
    assert all(text.startswith("a dog") for text in expected) and len(set(expected)) > 1
    found = captioner(CLIPS, sampling_rate=SAMPLING_RATE, batch_size=batch_size, decoder_input_ids=prompt)
    assert [result["text"] for result in found] == expected
    two = {"decoder_input_ids": prompt.expand(2, -1), "sampling_rate": SAMPLING_RATE}
    assert captioner(CLIPS[:2], batch_size=2, **two)[1]["text"] == expected[1]
    with pytest.raises(ValueError, match="for 3 recordings; expected one row for each"):
        captioner(CLIPS[:3], batch_size=3, **two)


@pytest.mark.parametrize("name", ["output_scores", "return_dict_in_generate", "output_attentions"])
def test_outputs_beside_texts_are_refused_in_a_configuration_too(captioner, name):
    config = GenerationConfig(num_beams=1, max_length=8)
    setattr(config, name, True)
    for arguments in ({"generation_config": config}, {"generate_kwargs": {"generation_config": config}}):
        with pytest.raises(TypeError, match=f"`{name}`, and a pipeline returns texts and scores alone"):
            captioner(CLIPS[0], sampling_rate=SAMPLING_RATE, **arguments)


def test_a_model_whose_own_decoding_returns_more_is_captioned_with(captioner):
    expected = captioner(CLIPS[:2], sampling_rate=SAMPLING_RATE)
    captioner.model.generation_config.return_dict_in_generate = True
    captioner.model.generation_config.output_scores = True
    assert captioner(CLIPS[:2], sampling_rate=SAMPLING_RATE) == expected


@pytest.mark.parametrize("name", ["num_beams", "max_new_tokens", "do_sample"])
def test_an_argument_given_twice_is_refused(captioner, name):
    with pytest.raises(ValueError, match=f"`{name}` twice"):
        captioner(CLIPS[0], sampling_rate=SAMPLING_RATE, generate_kwargs={name: 2}, **{name: 1})


def test_criteria_and_allowed_tokens_reach_the_search(captioner):
    audio = {"inputs": CLIPS[0], "sampling_rate": SAMPLING_RATE, "num_beams": 1}
    stops = StoppingCriteriaList([lambda ids, scores: torch.full((len(ids),), ids.shape[1] >= 5)])
    inputs = captioner.processor(audio=CLIPS[0], sampling_rate=SAMPLING_RATE)
    ids = captioner.model.generate(**inputs, num_beams=1, stopping_criteria=stops)
    assert ids.shape == (1, 5)
    assert captioner(**audio, stopping_criteria=stops)["text"] == captioner.processor.decode(ids[0])
    letter = captioner.tokenizer("a", add_special_tokens=False)["input_ids"][0]
    allowed = captioner(**audio, prefix_allowed_tokens_fn=lambda batch, ids: [letter], no_repeat_ngram_size=0)
    assert set(allowed["text"]) == {"a"}
