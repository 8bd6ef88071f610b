"""A processor's arguments work as in transformers or are refused in one line; what it made, it decodes."""

import numpy as np
import pytest
import torch
from transformers.utils import PaddingStrategy, TensorType

from conftest import SAMPLING_RATE, build_model, make_clip
from enclap_hf import DataCollatorForEnClap, EnClapProcessor

SHORT, LONG = make_clip(0.3, seed=1), make_clip(0.8, seed=2)
CAPTIONS = ["rain", "a dog barks twice"]


@pytest.fixture(scope="module")
def unlike(tiny_processor: EnClapProcessor) -> dict:
    """Two recordings and captions of unlike lengths, as they are made without any argument."""
    return dict(tiny_processor(audio=[SHORT, LONG], sampling_rate=SAMPLING_RATE, text=CAPTIONS))


def assert_same(found: dict, expected: dict) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=0, msg=name)


def assert_refused(call, *said: str, error: type = ValueError) -> None:
    with pytest.raises(error) as caught:
        call()
    (line,) = str(caught.value).splitlines()
    for phrase in said:
        assert phrase in line


# Padding


@pytest.mark.parametrize("padding", [True, "longest", None, PaddingStrategy.LONGEST])
@pytest.mark.parametrize("group", [None, "common_kwargs", "audio_kwargs", "text_kwargs"])
def test_batches_are_padded_to_their_longest(tiny_processor, unlike, padding, group):
    arguments = {"padding": padding} if group is None else {group: {"padding": padding}}
    found = tiny_processor(audio=[SHORT, LONG], sampling_rate=SAMPLING_RATE, text=CAPTIONS, **arguments)
    assert_same(found, unlike)


@pytest.mark.parametrize("padding", [False, "do_not_pad", PaddingStrategy.DO_NOT_PAD])
def test_batches_of_unlike_lengths_are_not_left_unpadded(tiny_processor, padding):
    audio = {"audio": [SHORT, LONG], "sampling_rate": SAMPLING_RATE}
    assert_refused(lambda: tiny_processor(**audio, padding=padding), "23 to 60 frames", "`padding=True`")
    assert_refused(lambda: tiny_processor(**audio, audio_kwargs={"padding": padding}), "23 to 60 frames")
    assert_refused(lambda: tiny_processor(text=CAPTIONS, padding=padding), "tokens", "`padding=True`")
    assert_refused(lambda: tiny_processor(text=CAPTIONS, text_kwargs={"padding": padding}), "tokens")
    mixed = tiny_processor(**audio, text=["rain", "rain"], text_kwargs={"padding": padding})
    assert mixed["labels"].shape[0] == 2
    for clips in ([SHORT], [LONG, LONG]):
        given = {"audio": clips, "sampling_rate": SAMPLING_RATE, "text": ["rain"] * len(clips)}
        assert_same(tiny_processor(**given, padding=padding), tiny_processor(**given))


@pytest.mark.parametrize("max_length", [3, 12, 30])
@pytest.mark.parametrize("group", [None, "common_kwargs", "text_kwargs"])
@pytest.mark.parametrize("truncation", [True, False])
def test_captions_are_padded_to_a_length(tiny_processor, max_length, group, truncation):
    arguments = {"padding": "max_length", "max_length": max_length, "truncation": truncation}
    arguments = arguments if group is None else {group: arguments}
    labels = tiny_processor(audio=[SHORT, LONG], sampling_rate=SAMPLING_RATE, text=CAPTIONS, **arguments)["labels"]
    made = tiny_processor.tokenizer(
        CAPTIONS, padding="max_length", max_length=max_length, truncation=truncation, return_attention_mask=True
    )
    width = labels.shape[1]
    assert width == max(map(len, made["input_ids"])) and width >= max_length
    for row, ids, own in zip(labels.tolist(), made["input_ids"], made["attention_mask"], strict=True):
        expected = [token if is_own else -100 for token, is_own in zip(ids, own, strict=True)]
        assert row == expected + [-100] * (width - len(expected))


def test_paddings_that_there_are_none_of(tiny_processor):
    audio = {"audio": [SHORT], "sampling_rate": SAMPLING_RATE}
    for padding in ("shortest", 5, "max", 1.0):
        assert_refused(lambda padding=padding: tiny_processor(**audio, padding=padding), repr(padding), "longest")
    assert_refused(lambda: tiny_processor(**audio, audio_kwargs={"padding": "max_length"}), "`text_kwargs`")
    unlimited = EnClapProcessor(tiny_processor.feature_extractor, tiny_processor.tokenizer)
    assert unlimited.tokenizer.model_max_length > 1 << 20
    assert_refused(lambda: unlimited(text=CAPTIONS, padding="max_length"), "without `max_length`")


# The other arguments of a processor


@pytest.mark.parametrize(
    "arguments",
    [
        {"audio_kwargs": {"sampling_rate": SAMPLING_RATE}},
        {"common_kwargs": {"sampling_rate": SAMPLING_RATE}},
        {"sampling_rate": SAMPLING_RATE, "audio_kwargs": {"sampling_rate": SAMPLING_RATE}},
        {"sampling_rate": SAMPLING_RATE, "audio_kwargs": {}, "text_kwargs": None, "common_kwargs": {}},
        {"sampling_rate": SAMPLING_RATE, "return_tensors": "pt"},
        {"sampling_rate": SAMPLING_RATE, "return_tensors": TensorType.PYTORCH},
        {"sampling_rate": SAMPLING_RATE, "return_tensors": None, "padding": True},
        {"sampling_rate": SAMPLING_RATE, "common_kwargs": {"return_tensors": "pt", "padding": True}},
        {"sampling_rate": SAMPLING_RATE, "text_kwargs": {"truncation": False}, "truncation": False},
        {"sampling_rate": SAMPLING_RATE, "text_kwargs": {"add_special_tokens": True}},
    ],
)
def test_arguments_by_themselves_and_in_groups(tiny_processor, unlike, arguments):
    assert_same(tiny_processor(audio=[SHORT, LONG], text=CAPTIONS, **arguments), unlike)


@pytest.mark.parametrize("group", [None, "text_kwargs", "common_kwargs"])
def test_captions_are_cut_and_stripped_of_special_tokens_on_request(tiny_processor, group):
    def ask(**arguments):
        return tiny_processor(text=CAPTIONS[1], **(arguments if group is None else {group: arguments}))["labels"][0]

    whole = tiny_processor.tokenizer(CAPTIONS[1])["input_ids"]
    assert ask().tolist() == whole
    assert ask(truncation=True, max_length=4).tolist() == [*whole[:3], whole[-1]]
    assert ask(add_special_tokens=False).tolist() == whole[1:-1]
    assert ask(truncation=True, max_length=4, add_special_tokens=False).tolist() == whole[1:5]
    assert tiny_processor(text="", add_special_tokens=False)["labels"].dtype == torch.int64


UNKNOWN = {
    "images": [None],
    "videos": None,
    "raw_speech": SHORT,
    "audios": [SHORT],
    "max_lenght": 5,
    "return_attention_mask": True,
    "stride": 2,
    "device": "cpu",
}


@pytest.mark.parametrize("name", list(UNKNOWN))
@pytest.mark.parametrize("group", [None, "common_kwargs", "audio_kwargs", "text_kwargs"])
def test_arguments_that_it_does_not_know(tiny_processor, name, group):
    arguments = {name: UNKNOWN[name]} if group is None else {group: {name: UNKNOWN[name]}}

    def ask():
        tiny_processor(audio=[SHORT], sampling_rate=SAMPLING_RATE, text="rain", **arguments)

    assert_refused(ask, f"`{name}`", "does not know", error=TypeError)


@pytest.mark.parametrize("arguments", [{"max_length": 9}, {"truncation": True}, {"text_kwargs": {"max_length": 9}}])
def test_arguments_of_captions_without_captions(tiny_processor, arguments):
    """Processors of other models cut recordings so; this one would pass the argument over."""
    audio = {"audio": [SHORT], "sampling_rate": SAMPLING_RATE}
    assert_refused(lambda: tiny_processor(**audio, **arguments), "which is for captions, and no `text`")


@pytest.mark.parametrize("kind", ["np", "tf", "mlx", TensorType.NUMPY])
@pytest.mark.parametrize("group", [None, "common_kwargs", "audio_kwargs", "text_kwargs"])
def test_tensors_of_another_kind(tiny_processor, kind, group):
    arguments = {"return_tensors": kind} if group is None else {group: {"return_tensors": kind}}
    assert_refused(lambda: tiny_processor(text="rain", **arguments), "torch tensors")


@pytest.mark.parametrize(
    "arguments",
    [
        {"sampling_rate": SAMPLING_RATE, "audio_kwargs": {"sampling_rate": 8000}},
        {"sampling_rate": SAMPLING_RATE, "common_kwargs": {"sampling_rate": 8000}},
        {"max_length": 5, "text_kwargs": {"max_length": 6}},
        {"padding": True, "common_kwargs": {"padding": False}},
        {"padding": True, "text_kwargs": {"padding": "max_length"}},
    ],
)
def test_arguments_given_twice(tiny_processor, arguments):
    """One of them was swallowed."""
    assert_refused(lambda: tiny_processor(audio=SHORT, text="rain", **arguments), "twice", "pass it once")


STRANGE = [5, None, ["rain", None], [["rain", "hail"]], {"caption": "rain"}, b"rain", ["rain", 3.5], [b"rain"]]


@pytest.mark.parametrize("text", STRANGE[:1] + STRANGE[2:])
def test_captions_that_are_no_text(tiny_processor, text):
    """A list in a list was read as a caption and a second text, which the tokenizer joined."""
    assert_refused(lambda: tiny_processor(text=text), "string", error=TypeError)
    if isinstance(text, list):
        clips = [{"audio_codes": np.ones((5, 4)), "caption": caption} for caption in text]
        collator = DataCollatorForEnClap(tiny_processor, mcm_probability=0.0)
        if any(not isinstance(caption, str) and caption is not None for caption in text):
            assert_refused(lambda: collator(clips), "string", error=TypeError)


@pytest.mark.parametrize("text", [[], (), iter([])])
def test_no_caption_at_all(tiny_processor, text):
    assert_refused(lambda: tiny_processor(text=text), "no caption")


@pytest.mark.parametrize("form", [tuple, iter, np.array, lambda captions: (caption for caption in captions)])
def test_captions_in_every_form(tiny_processor, form):
    assert torch.equal(tiny_processor(text=form(CAPTIONS))["labels"], tiny_processor(text=CAPTIONS)["labels"])


# Decoding


def numpy_of(labels: torch.Tensor) -> np.ndarray:
    return labels.numpy()


FORMS = {
    "tensor": lambda labels: labels,
    "int32 tensor": lambda labels: labels.int(),
    "array": numpy_of,
    "int16 array": lambda labels: labels.numpy().astype(np.int16),
    "list": lambda labels: labels.tolist(),
    "tuple of lists": lambda labels: tuple(labels.tolist()),
    "list of tensors": list,
    "list of arrays": lambda labels: list(labels.numpy()),
    "ragged lists": lambda labels: [[token for token in row if token != -100] for row in labels.tolist()],
    "ragged tensors": lambda labels: [row[row != -100] for row in labels],
    "array of lists": lambda labels: np.array([*labels.tolist(), [0, 2]], dtype=object)[:-1],
    "padded with the pad token": lambda labels: labels.masked_fill(labels == -100, 1),
}


@pytest.mark.parametrize("form", list(FORMS))
@pytest.mark.parametrize("captions", [CAPTIONS, ["it doesn't stop, then a bell rings.", "", "rain"], ["rain"]])
def test_labels_are_decoded_in_every_form(tiny_processor, form, captions):
    labels = tiny_processor(text=captions)["labels"]
    given = FORMS[form](labels)
    assert tiny_processor.batch_decode(given) == captions
    assert tiny_processor.decode(given) == captions, "a batch"
    assert [tiny_processor.decode(row) for row in given] == captions
    with_special = [f"<s>{caption}</s>" for caption in captions]
    if "pad token" not in form:
        assert tiny_processor.batch_decode(given, skip_special_tokens=False) == with_special


def test_labels_padded_to_a_length_and_on_the_left_are_decoded(tiny_processor):
    labels = tiny_processor(text=CAPTIONS, padding="max_length", max_length=40)["labels"]
    assert tiny_processor.batch_decode(labels) == CAPTIONS
    left = torch.nn.functional.pad(labels, (5, 0), value=-100)
    assert tiny_processor.batch_decode(left) == CAPTIONS


@pytest.mark.parametrize("empty", [[], (), torch.tensor([], dtype=torch.long), np.array([], dtype=np.int64)])
def test_no_ids_are_no_caption(tiny_processor, empty):
    assert tiny_processor.decode(empty) == ""
    assert tiny_processor.batch_decode(empty) == []
    assert tiny_processor.batch_decode([empty, [-100, -100]]) == ["", ""]
    assert tiny_processor.decode(torch.full((2, 3), -100)) == ["", ""]


@pytest.mark.parametrize("token", [9, torch.tensor(9), np.int64(9), np.array(9)])
def test_one_id_alone(tiny_processor, token):
    assert tiny_processor.decode(token) == tiny_processor.decode([9]) == tiny_processor.tokenizer.decode([9])


def test_several_captions_of_each_recording_are_decoded(tiny_processor):
    labels = tiny_processor(text=CAPTIONS * 2)["labels"].unflatten(0, (2, 2))
    assert tiny_processor.batch_decode(labels) == tiny_processor.decode(labels) == [CAPTIONS, CAPTIONS]


@pytest.mark.parametrize(
    "given",
    [
        torch.randn(2, 5),
        torch.randn(2, 5, 7),
        np.random.default_rng(0).standard_normal((2, 5)),
        [[0.5, 2.0]],
        ["rain"],
        [[0, "rain"]],
        [[0, None]],
    ],
)
def test_what_is_no_ids_is_refused(tiny_processor, given):
    """Logits became words."""
    assert_refused(lambda: tiny_processor.batch_decode(given), "whole numbers", error=TypeError)
    assert_refused(lambda: tiny_processor.decode(given), "whole numbers", error=TypeError)


def test_what_generate_returns_is_decoded(tiny_processor):
    model = build_model()
    model.generation_config.max_length = 10
    inputs = tiny_processor(audio=[SHORT, LONG], sampling_rate=SAMPLING_RATE)
    sequences = model.generate(**inputs)
    expected = [tiny_processor.tokenizer.decode(row, skip_special_tokens=True) for row in sequences]
    assert tiny_processor.batch_decode(sequences) == expected == tiny_processor.decode(sequences)
    output = model.generate(**inputs, return_dict_in_generate=True)
    assert tiny_processor.batch_decode(output.sequences) == expected
    assert_refused(lambda: tiny_processor.batch_decode(output), "whole numbers", error=TypeError)
