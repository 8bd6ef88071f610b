"""Processors, feature extractors and collators travel to other processes as references, without weights."""

import copy
import io
import pickle

import datasets
import dill
import pytest
import soundfile
import torch
from datasets.fingerprint import Hasher
from transformers import pipeline

from conftest import SAMPLING_RATE, build_model, build_processor, make_clip
from enclap_hf import DataCollatorForEnClap, EnClapProcessor
from enclap_hf.model.repository import save_repository
from frame_encoder_models import CODECS, FEATURES, build_frame_encoder, build_frame_processor

NUM_CLIPS = 4
SMALL_BYTES = 60_000  # the tokenizer; the encoders alone are several times that


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    folder = str(tmp_path_factory.mktemp("repository"))
    model = build_model()
    model.generation_config.max_length = 10
    save_repository(model, build_processor(), folder)
    return folder


@pytest.fixture(scope="module")
def sounds(tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp("sounds")
    paths = [str(folder / f"{i}.wav") for i in range(NUM_CLIPS)]
    for i, path in enumerate(paths):
        soundfile.write(path, make_clip(0.3 + 0.1 * i, seed=i), SAMPLING_RATE, subtype="FLOAT")
    return paths


def make(kind: str, folder: str):
    if kind == "processor":
        return EnClapProcessor.from_pretrained(folder)
    if kind == "feature extractor":
        return EnClapProcessor.from_pretrained(folder).feature_extractor
    if kind == "collator":
        return DataCollatorForEnClap(EnClapProcessor.from_pretrained(folder), mcm_probability=0.0)
    return pipeline("audio-captioning", model=folder, device="cpu")


def use(kind: str, made, sound: str) -> dict[str, torch.Tensor]:
    """What one of a kind makes of a recording, in all the ways that could leave something behind in it."""
    if kind == "feature extractor":
        prepared = made(sound)
        return {"input_values": prepared["input_values"][0], "input_features": prepared["input_features"]}
    if kind == "collator":
        return made([{"audio": sound, "caption": "a dog barks twice"}])
    if kind == "pipeline":
        result = made(sound, num_beams=2)
        return {
            "score": torch.tensor(result["score"]),
            "text": torch.tensor([ord(letter) for letter in result["text"]]),
        }
    inputs = dict(made(audio=sound, text="a dog barks"))
    made.encoders.fingerprint("codec"), made.encoders.fingerprint("clap")
    made.batch_decode(made(text=["rain", "a dog barks"], padding=True)["labels"])
    made(text=["rain", "a dog barks twice"], truncation=True, max_length=5)
    return inputs


def assert_same(found: dict, expected: dict) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=0, msg=name)


WAYS = {"pickle": (pickle.dumps, pickle.loads), "dill": (dill.dumps, dill.loads)}
KINDS = ["processor", "feature extractor", "collator", "pipeline"]


@pytest.mark.parametrize("way", list(WAYS))
@pytest.mark.parametrize("kind", KINDS)
def test_pickled_before_and_after_use(folder, sounds, kind, way):
    """After its first recording nothing could be pickled: parametrised modules cannot."""
    dump, load = WAYS[way]
    made = make(kind, folder)
    before = dump(made)
    expected = use(kind, made, sounds[1])
    after = dump(made)
    for content in (before, after):
        assert kind == "pipeline" or len(content) < SMALL_BYTES
        again = load(content)
        assert_same(use(kind, again, sounds[1]), expected)
        assert_same(use(kind, load(dump(again)), sounds[1]), expected)
    assert_same(use(kind, made, sounds[1]), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_copied_before_and_after_use(folder, sounds, kind):
    made = make(kind, folder)
    before = copy.deepcopy(made)
    expected = use(kind, made, sounds[2])
    for copied in (before, copy.deepcopy(made), copy.copy(made)):
        assert_same(use(kind, copied, sounds[2]), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_the_hash_of_a_map_is_stable(folder, sounds, kind):
    """`datasets` finds what it cached by the hash of the function that is mapped, with all that it refers to."""
    made = make(kind, folder)

    def mapped(row):
        return made(row)

    tokenizer = getattr(made, "tokenizer", None)
    before, bare, tokenizing = Hasher.hash(mapped), Hasher.hash(made), pickle.dumps(tokenizer)
    for sound in sounds[:2]:
        use(kind, made, sound)
        assert Hasher.hash(mapped) == before and Hasher.hash(made) == bare
        assert pickle.dumps(tokenizer) == tokenizing, (
            "older versions of `datasets` hash what a tokenizer was asked last"
        )
    if kind != "pipeline":
        assert Hasher.hash(make(kind, folder)) == bare, "another of the same"


def test_processors_of_unlike_settings_have_unlike_hashes(folder):
    processor = EnClapProcessor.from_pretrained(folder)
    hashes = {Hasher.hash(processor)}
    processor.num_codebooks = 2
    hashes.add(Hasher.hash(processor))
    processor.feature_extractor.max_codec_frames = 50
    hashes.add(Hasher.hash(processor))
    assert len(hashes) == 3


@pytest.mark.parametrize("num_proc", [None, 2])
def test_a_map_gives_what_the_processor_gives(folder, sounds, num_proc):
    processor = EnClapProcessor.from_pretrained(folder)
    expected = [processor(audio=sound)["audio_codes"].tolist() for sound in sounds]
    data = datasets.Dataset.from_dict({"path": sounds})
    mapped = data.map(lambda row: dict(processor(audio=row["path"])), num_proc=num_proc)
    assert mapped["audio_codes"][:] == expected


def test_a_second_map_is_read_from_the_cache(folder, sounds, tmp_path):
    processor, calls = EnClapProcessor.from_pretrained(folder), []
    datasets.Dataset.from_dict({"path": sounds}).save_to_disk(tmp_path / "data")
    written = []
    for _ in range(3):
        data = datasets.load_from_disk(tmp_path / "data")
        mapped = data.map(processor.encode_captions, input_columns="path") if calls else data
        mapped = data.map(lambda row: {"frames": len(processor(audio=row["path"])["audio_codes"][0])})
        written.append(mapped.cache_files[0]["filename"])
    assert len(set(written)) == 1


@pytest.mark.parametrize("after_use", [False, True])
@pytest.mark.parametrize("kind", ["processor", "collator"])
def test_a_data_loader_with_workers_that_start_anew(folder, sounds, kind, after_use):
    made = make(kind, folder)
    if after_use:
        use(kind, made, sounds[0])
    clips = sounds if kind == "processor" else [{"audio": sound, "caption": "rain"} for sound in sounds]
    loader = torch.utils.data.DataLoader(
        clips, batch_size=2, num_workers=2, multiprocessing_context="spawn", collate_fn=made
    )
    for i, batch in enumerate(loader):
        assert_same(dict(batch), dict(make(kind, folder)(clips[2 * i : 2 * i + 2])))


def test_a_processor_in_memory_is_pickled_with_its_encoders(sounds):
    """It has nowhere to read them from again."""
    processor = build_processor()
    before = pickle.dumps(processor)
    expected = use("processor", processor, sounds[0])
    for content in (before, pickle.dumps(processor), dill.dumps(processor)):
        assert len(content) > SMALL_BYTES
        state = torch.get_rng_state()
        again = pickle.loads(content)
        assert torch.equal(torch.get_rng_state(), state)
        assert_same(use("processor", again, sounds[0]), expected)
    copied = copy.deepcopy(processor)
    assert copied.codec is processor.codec, "frozen encoders are shared"
    assert_same(use("processor", copied, sounds[0]), expected)


@pytest.mark.parametrize("source", ["folder", "memory"])
def test_a_pickled_processor_is_saved_and_told_apart_as_the_one_it_was(folder, sounds, tmp_path, source):
    """Before it has read a recording, too."""
    processor = EnClapProcessor.from_pretrained(folder) if source == "folder" else build_processor()
    again = pickle.loads(pickle.dumps(processor))
    for part in ("codec", "clap"):
        assert again.encoders.fingerprint(part) == processor.encoders.fingerprint(part)
    pickle.loads(pickle.dumps(processor)).save_pretrained(tmp_path / "full")
    pickle.loads(pickle.dumps(processor)).save_pretrained(tmp_path / "checkpoint-1")
    expected = processor(audio=sounds[0])["audio_codes"]
    saved = [tmp_path / "full"] + ([tmp_path / "checkpoint-1"] if source == "folder" else [])
    for place in saved:
        assert torch.equal(EnClapProcessor.from_pretrained(place)(audio=sounds[0])["audio_codes"], expected)
    assert again.to("cpu").window_s == processor.window_s


@pytest.mark.parametrize("family", [*CODECS, *FEATURES])
def test_processors_of_every_family_travel(family, sounds, tmp_path):
    in_memory = build_frame_processor(build_frame_encoder(family))
    in_memory.save_pretrained(tmp_path / "saved")
    loaded = EnClapProcessor.from_pretrained(tmp_path / "saved")
    expected = dict(in_memory(audio=sounds[1]))
    for processor, is_small in ((in_memory, False), (loaded, True)):
        hashed = Hasher.hash(processor)
        assert_same(dict(pickle.loads(pickle.dumps(processor))(audio=sounds[1])), expected)
        assert_same(dict(processor(audio=sounds[1])), expected)
        assert Hasher.hash(processor) == hashed
        content = pickle.dumps(processor)
        assert not is_small or len(content) < SMALL_BYTES
        assert_same(dict(pickle.loads(content)(audio=sounds[1])), expected)


def test_pickled_weights_are_none_of_those_read(folder, sounds):
    """A pickle of a used processor holds no tensor."""
    processor = EnClapProcessor.from_pretrained(folder)
    processor(audio=sounds[0])

    class Finder(pickle.Unpickler):
        def find_class(self, module, name):
            assert not (module.startswith("torch") and name.startswith(("_rebuild", "Parameter"))), (module, name)
            return super().find_class(module, name)

    assert type(Finder(io.BytesIO(pickle.dumps(processor))).load()) is EnClapProcessor
