"""Threads that make the first call together get what one gets, and leave the process as it was."""

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from transformers import BartConfig, BartForConditionalGeneration, pipeline

from conftest import CAPTIONS, SAMPLING_RATE, build_model, build_processor, make_clip
from enclap_hf import DataCollatorForEnClap, EnClapForConditionalGeneration, EnClapProcessor
from enclap_hf.model import frame_encoder
from enclap_hf.model.repository import save_repository

NUM_THREADS = 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    folder = str(tmp_path_factory.mktemp("repository"))
    model = build_model()
    model.generation_config.max_length = 10
    save_repository(model, build_processor(), folder)
    return folder


@pytest.fixture(autouse=True)
def a_healthy_process_afterwards(tmp_path):
    """Two loads at once left the process with "meta" as its default device, and no model could be loaded any more."""
    yield
    assert torch.empty(1).device == torch.device("cpu") and torch.get_default_dtype() == torch.float32
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 8, "decoder_ffn_dim": 8}
    config = BartConfig(vocab_size=20, encoder_attention_heads=2, decoder_attention_heads=2, **sizes)
    BartForConditionalGeneration(config).save_pretrained(tmp_path / "another")
    loaded = BartForConditionalGeneration.from_pretrained(tmp_path / "another")
    assert {parameter.device.type for parameter in loaded.parameters()} == {"cpu"}


def call_together(call, num_threads: int = NUM_THREADS) -> list:
    """What a call of (thread's number) returns in threads that begin at one moment; its errors are raised."""
    barrier = threading.Barrier(num_threads)

    def begin(number: int):
        barrier.wait()
        return call(number)

    with ThreadPoolExecutor(num_threads) as pool:
        return [future.result(timeout=120) for future in [pool.submit(begin, i) for i in range(num_threads)]]


def make_sounds() -> list[dict]:
    return [{"array": make_clip(0.3 + 0.1 * i, seed=i), "sampling_rate": SAMPLING_RATE} for i in range(NUM_THREADS)]


@pytest.fixture
def slow_loading(monkeypatch):
    """Loads last long enough for all threads to meet in them; returns the folders that were read."""
    load, read = frame_encoder.load_checked, []

    def load_slowly(*args, **kwargs):
        read.append(str(args[2]))
        threading.Event().wait(0.05)
        return load(*args, **kwargs)

    monkeypatch.setattr(frame_encoder, "load_checked", load_slowly)
    return read


@pytest.mark.parametrize("as_list", [False, True])
def test_first_calls_of_one_pipeline(folder, slow_loading, as_list):
    sounds = make_sounds()
    alone = pipeline("audio-captioning", model=folder, device="cpu")
    expected = [alone(sound)["text"] for sound in sounds]
    assert len(set(expected)) > 1
    slow_loading.clear()
    shared = pipeline("audio-captioning", model=folder, device="cpu")
    if as_list:
        captions = call_together(lambda i: shared([sounds[i]] * 2, batch_size=2)[1]["text"])
    else:
        captions = call_together(lambda i: shared(sounds[i])["text"])
    assert captions == expected
    assert sorted(slow_loading) == [f"{folder}/clap", f"{folder}/codec"], "each encoder is read once"


@pytest.mark.parametrize("use", ["recordings", "captions", "both", "collator", "fingerprints"])
def test_first_calls_of_one_processor(folder, slow_loading, use):
    sounds, captions = make_sounds(), [" ".join(CAPTIONS[: 1 + i % 4]) for i in range(NUM_THREADS)]

    def ask(processor, i: int) -> list:
        if use == "fingerprints":
            return [processor.encoders.fingerprint("codec"), processor.encoders.fingerprint("clap")]
        if use == "collator":
            clips = [{"audio": sounds[i], "caption": captions[i]}]
            return list(DataCollatorForEnClap(processor, mcm_probability=0.0)(clips).values())
        made = {} if use == "captions" else {"audio": sounds[i]}
        if use != "recordings":
            made |= {"text": captions[i], "truncation": True, "max_length": 8 + i}
        return list(processor(**made).values())

    alone = EnClapProcessor.from_pretrained(folder)
    expected = [ask(alone, i) for i in range(NUM_THREADS)]
    slow_loading.clear()
    shared = EnClapProcessor.from_pretrained(folder)
    for found, wanted in zip(call_together(lambda i: ask(shared, i)), expected, strict=True):
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other
    assert len(slow_loading) == (0 if use == "captions" else 2)


def test_captions_are_cut_as_each_thread_asks(folder):
    """A tokenizer remembers how it was asked to truncate, and cut the captions of other threads so."""
    processor, caption = EnClapProcessor.from_pretrained(folder), " ".join(CAPTIONS)
    whole = processor(text=caption)["labels"].shape[1]

    def count_tokens(i: int) -> set:
        limits = {"truncation": True, "max_length": 4 + i} if i else {}
        return {processor(text=caption, **limits)["labels"].shape[1] for _ in range(300)}

    assert call_together(count_tokens) == [{whole}, *({4 + i} for i in range(1, NUM_THREADS))]


def test_several_pipelines_at_once(folder, slow_loading):
    """Each is loaded in its own thread, captioner and encoders, and captions as it does alone."""
    sounds = make_sounds()
    alone = pipeline("audio-captioning", model=folder, device="cpu")
    expected = [alone(sound)["text"] for sound in sounds[:4]]
    captions = call_together(lambda i: pipeline("audio-captioning", model=folder, device="cpu")(sounds[i])["text"], 4)
    assert captions == expected


def test_a_model_is_loaded_while_a_pipeline_makes_its_first_call(folder, slow_loading):
    sound = make_sounds()[0]
    expected = pipeline("audio-captioning", model=folder, device="cpu")(sound)["text"]
    captioner = pipeline("audio-captioning", model=folder, device="cpu")

    def work(i: int):
        if i % 2:
            model = EnClapForConditionalGeneration.from_pretrained(folder)
            return {parameter.device.type for parameter in model.parameters()}
        return captioner(sound)["text"]

    assert call_together(work, 4) == [expected, {"cpu"}] * 2


def test_threads_that_use_and_save_one_processor(folder, slow_loading, tmp_path):
    sounds = make_sounds()
    shared, expected = EnClapProcessor.from_pretrained(folder), EnClapProcessor.from_pretrained(folder)(audio=sounds[0])

    def work(i: int):
        if i % 2:
            shared.save_pretrained(tmp_path / f"copy-{i}")
            return EnClapProcessor.from_pretrained(tmp_path / f"copy-{i}")(audio=sounds[0])
        return shared(audio=sounds[0])

    for found in call_together(work, 4):
        assert all(torch.equal(found[name], expected[name]) for name in expected)


# The first look-up after the import

LOOK_UP = """
import sys, threading
import enclap_hf
import transformers
{prelude}
barrier, found = threading.Barrier(4), [None] * 4

def look_up(i):
    barrier.wait()
    try:
        found[i] = {expression}
    except BaseException as error:
        found[i] = f"{{type(error).__name__}}: {{error}}"

threads = [threading.Thread(target=look_up, args=[i]) for i in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(*found, sep="\\n")
"""
LOOK_UPS = {
    "AutoConfig": "type(transformers.AutoConfig.from_pretrained(sys.argv[1])).__name__",
    "AutoProcessor": "type(transformers.AutoProcessor.from_pretrained(sys.argv[1])).__name__",
    "AutoModelForSeq2SeqLM": "type(transformers.AutoModelForSeq2SeqLM.from_pretrained(sys.argv[1])).__name__",
    "pipeline": "type(transformers.pipeline('audio-captioning', model=sys.argv[1], device='cpu')).__name__",
    "each another": "[transformers.AutoConfig, transformers.AutoProcessor, transformers.AutoModel, "
    "transformers.AutoFeatureExtractor][i].from_pretrained(sys.argv[1]).__class__.__name__",
}
FOUND = {
    "AutoConfig": ["EnClapConfig"] * 4,
    "AutoProcessor": ["EnClapProcessor"] * 4,
    "AutoModelForSeq2SeqLM": ["EnClapForConditionalGeneration"] * 4,
    "pipeline": ["AudioCaptioningPipeline"] * 4,
    "each another": ["EnClapConfig", "EnClapProcessor", "EnClapModel", "EnClapFeatureExtractor"],
}


IMPORTED = "from transformers import AutoConfig, AutoProcessor, pipeline"


@pytest.mark.parametrize(("looked_up", "prelude"), [*zip(LOOK_UPS, [IMPORTED, "", "", "", IMPORTED], strict=True)])
def test_first_look_ups_right_after_the_import(folder, looked_up, prelude):
    """Three threads of four were told that `enclap` is unknown."""
    code = LOOK_UP.format(prelude=prelude, expression=LOOK_UPS[looked_up])
    done = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, timeout=300)
    assert done.stdout.splitlines() == FOUND[looked_up], done.stderr
