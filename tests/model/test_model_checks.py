"""Damaged models, and models with files that would fetch or run something, are refused in one line that names them."""

import json
import logging
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSeq2SeqLM, BartConfig, BartForConditionalGeneration, pipeline

import fuzz_models
from conftest import build_config, build_model, build_processor
from enclap_hf import DEFAULT_MODEL, EnClapForConditionalGeneration, EnClapProcessor
from enclap_hf.cli import main
from enclap_hf.model.configuration_enclap import EnClapConfig
from enclap_hf.model.encodec_frames import EncodecFrames
from enclap_hf.model.model_checks import TooLarge, limited_building
from enclap_hf.model.model_fields import check_config_fields
from enclap_hf.model.model_files import ModelFileError, make_line, read_header, read_index, read_json_object
from enclap_hf.model.repository import save_repository
from enclap_hf.model.repository_checks import check_repository


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "model"
    model = build_model()
    model.generation_config.max_length = 12
    save_repository(model, build_processor(), str(folder))
    return folder


@pytest.fixture
def folder(saved, tmp_path) -> Path:
    """A copy of a tiny captioner, to be damaged."""
    return Path(shutil.copytree(saved, tmp_path / "model"))


@pytest.fixture
def calls(monkeypatch) -> list:
    """What transformers downloads, or imports of a repository, while a test runs; none of it happens."""
    seen = []

    def record(name):
        def call(*args, **kwargs):
            seen.append(name)
            raise RuntimeError(f"{name} was called")

        return call

    for module, names in {
        "huggingface_hub.file_download": ("http_get", "get_hf_file_metadata"),
        "transformers.dynamic_module_utils": ("get_class_in_module", "get_cached_module_file"),
        "transformers.models.auto.auto_factory": ("get_class_from_dynamic_module",),
        "transformers.models.auto.configuration_auto": ("get_class_from_dynamic_module",),
        "transformers.models.auto.tokenization_auto": ("get_class_from_dynamic_module",),
        "transformers.modeling_utils": ("lazy_import_flash_attention",),
        "transformers.quantizers.auto.AutoHfQuantizer": ("from_config", "merge_quantization_configs"),
        "socket.socket": ("connect",),
    }.items():
        for name in names:
            monkeypatch.setattr(f"{module}.{name}", record(name), raising=False)
    return seen


def edit(path: Path, **fields) -> None:
    """Set fields of a JSON file; None removes one."""
    content = {**json.loads(path.read_text()), **fields}
    path.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))


def edit_weights(path: Path, change) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def refusal(call) -> str:
    with pytest.raises(ModelFileError) as caught:
        call()
    message = str(caught.value)
    assert message.isprintable() and len(message) <= 600
    return message


# A repository is data

STRANGER = "someone/kernels"
COMMANDS = {
    "config.json": [
        {"attn_implementation": STRANGER},
        {"_attn_implementation": STRANGER},
        {"attn_implementation": {"encoder": STRANGER}},
        {"attn_implementation": "flash_attention_2"},
        {"experts_implementation": STRANGER},
        {"use_kernels": True},
        {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}},
        {"fusion_config": {"patch_embeddings": True}},
        {"transformers_weights": "../other.safetensors"},
        {"auto_map": {"AutoConfig": f"{STRANGER}--evil.Config"}},
        {"auto_map": {"AutoModelForSeq2SeqLM": "evil.Model"}},
        {"custom_generate": STRANGER},
        {"to_dict": 1},
    ],
    "generation_config.json": [
        {"custom_generate": STRANGER},
        {"trust_remote_code": True},
        {"num_beam_groups": 2},
        {"penalty_alpha": 0.6},
        {"constraints": [1]},
        {"compile_config": {"backend": "inductor"}},
        {"cache_implementation": "quantized"},
        {"assistant_model": STRANGER},
        {"validate": 1},
    ],
    "processor_config.json": [
        {"auto_map": {"AutoProcessor": f"{STRANGER}--evil.Processor"}},
        {"processor_class": "AutoProcessor"},
        {"use_kernels": True},
        {"codec_source": {"subfolder": "codec", "attn_implementation": STRANGER, "allow_all_kernels": True}},
        {"codec_source": {"subfolder": "codec", "use_safetensors": False, "weights_only": False}},
        {"clap_source": {"subfolder": "clap", "cache_dir": "/tmp/x", "force_download": True}},
        {"clap_source": {"subfolder": "clap", "output_loading_info": True}},
        {"feature_extractor": {"feature_extractor_type": "WhisperFeatureExtractor"}},
    ],
    "tokenizer_config.json": [
        {"auto_map": {"AutoTokenizer": [f"{STRANGER}--evil.Tokenizer", None]}},
        {"tokenizer_class": "EvilTokenizer"},
        {"tokenizer_class": "AutoModel"},
        {"chat_template": "{{ x }}"},
        {"tokenizer_file": "/etc/passwd"},
        {"vocab_file": "/etc/passwd"},
    ],
    "codec/config.json": [
        {"attn_implementation": STRANGER},
        {"auto_map": {"AutoModel": f"{STRANGER}--evil.Codec"}},
        {"quantization_config": {"quant_method": "quanto"}},
        {"transformers_weights": "/etc/passwd"},
    ],
    "clap/config.json": [
        {"_attn_implementation": STRANGER},
        {"audio_config": {"attn_implementation": STRANGER}},
        {"use_kernels": True},
    ],
}


@pytest.mark.parametrize(("file", "fields"), [(file, fields) for file, many in COMMANDS.items() for fields in many])
def test_a_field_that_fetches_or_runs_something_is_refused_and_nothing_is_fetched(folder, calls, capsys, file, fields):
    edit(folder / file, **fields)
    clip = str(Path(DEFAULT_MODEL) / "sounds/knocking.mp3")
    assert main(["caption", clip, "--model", str(folder)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("enclap: ") and (Path(file).name in line or "_source`" in line), line
    with pytest.raises((ModelFileError, ValueError)) as caught:
        model = EnClapForConditionalGeneration.from_pretrained(folder)
        processor = EnClapProcessor.from_pretrained(folder)
        assert model and processor.codec and processor.clap
    assert len(str(caught.value).splitlines()) == 1
    assert calls == []


def test_files_that_transformers_would_read_besides_are_refused(folder, calls):
    for name, content in (
        ("adapter_config.json", json.dumps({"base_model_name_or_path": STRANGER, "peft_type": "LORA"})),
        ("chat_template.jinja", "{{ x }}"),
        ("preprocessor_config.json", json.dumps({"auto_map": {"AutoFeatureExtractor": f"{STRANGER}--evil.X"}})),
    ):
        (folder / name).write_text(content)
        assert name in refusal(lambda: check_repository(str(folder)))
        (folder / name).unlink()
    check_repository(str(folder))
    assert calls == []


def test_a_caller_may_choose_an_attention_and_a_configuration_may_name_a_stock_one(folder):
    edit(folder / "config.json", attn_implementation="eager")
    assert EnClapForConditionalGeneration.from_pretrained(folder).config._attn_implementation == "eager"
    model = EnClapForConditionalGeneration.from_pretrained(folder, attn_implementation="sdpa")
    assert model.config._attn_implementation == "sdpa"


def test_code_of_other_repositories_is_refused_even_by_whoever_trusts_this_one(folder):
    own = json.loads((folder / "config.json").read_text())["auto_map"]
    edit(folder / "config.json", auto_map={name: f"someone/else--{value}" for name, value in own.items()})
    check_repository(str(folder))  # nothing of it is fetched where the package is installed
    assert "auto_map" in refusal(lambda: check_repository(str(folder), own_code_only=True))


def test_encoders_are_read_from_safetensors_alone(folder):
    torch.save(load_file(folder / "codec/model.safetensors"), folder / "codec/pytorch_model.bin")
    (folder / "codec/model.safetensors").unlink()
    processor = EnClapProcessor.from_pretrained(folder)
    assert "codec/model.safetensors: there is no such file" in refusal(lambda: processor.codec)


# Weights


def test_whole_models_load_with_their_info_from_one_file_and_from_several(folder, tmp_path):
    model, info = EnClapForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["mismatched_keys"]
    model.save_pretrained(tmp_path / "shards", max_shard_size="40KB")
    assert (tmp_path / "shards/model.safetensors.index.json").exists()
    again = EnClapForConditionalGeneration.from_pretrained(tmp_path / "shards")
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in model.state_dict().items())


CHANGES = {
    "missing": (
        lambda t: t.pop("model.encoder.layers.1.fc1.weight"),
        "lack tensor 'model.encoder.layers.1.fc1.weight'",
    ),
    "renamed": (
        lambda t: t.update({"model.clap.weight": t.pop("mcm_heads.0.weight")}),
        "lack tensor 'mcm_heads.0.weig",
    ),
    "other size": (lambda t: t.update({"mcm_heads.0.bias": torch.zeros(5)}), "has shape (5,), and config.json calls"),
    "added": (lambda t: t.update({"model.more": torch.zeros(5)}), "hold tensor 'model.more' that the model has no"),
    "NaN": (lambda t: t["mcm_heads.1.bias"].__setitem__(3, float("nan")), "'mcm_heads.1.bias' holds numbers that are"),
    "infinite": (lambda t: t["model.shared.weight"][9].fill_(float("inf")), "holds numbers that are NaN or infinite"),
    "whole numbers": (lambda t: t.update({"mcm_heads.1.bias": t["mcm_heads.1.bias"].int()}), "holds I32; expected flo"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_weights_that_do_not_fit_are_refused_and_never_made_up(folder, change):
    edit_weights(folder / "model.safetensors", CHANGES[change][0])
    said = refusal(lambda: EnClapForConditionalGeneration.from_pretrained(folder))
    assert CHANGES[change][1] in said and said.startswith(str(folder))
    assert refusal(lambda: pipeline("audio-captioning", model=str(folder))) == said  # not folded into a traceback


@pytest.mark.parametrize("part", ["codec", "clap"])
def test_encoders_weights_are_checked_alike(folder, part):
    name = {"codec": "encoder.layers.0.conv.bias", "clap": "audio_projection.linear1.bias"}[part]
    for change, said in (
        (lambda t: t.pop(name), f"lack tensor '{name}'"),
        (lambda t: t.update({name: torch.full_like(t[name], float("nan"))}), f"tensor '{name}' holds numbers that are"),
        (lambda t: t.update({name: torch.zeros(3)}), "has shape (3,)"),
    ):
        whole = (folder / part / "model.safetensors").read_bytes()
        edit_weights(folder / part / "model.safetensors", change)
        processor = EnClapProcessor.from_pretrained(folder)
        assert said in refusal(lambda processor=processor: getattr(processor, part))
        (folder / part / "model.safetensors").write_bytes(whole)


@pytest.mark.parametrize("number", [-1, 1 << 40, 10_000])
def test_indices_that_are_no_rows_of_their_table_are_refused(folder, number):
    """They are in the file beside the weights, and would end each recording in an IndexError of its own."""

    def change(tensors):
        name = next(name for name in tensors if name.endswith("relative_position_index"))
        tensors[name].view(-1)[7] = number

    edit_weights(folder / "clap" / "model.safetensors", change)
    said = refusal(lambda: EnClapProcessor.from_pretrained(folder).clap)
    assert said.startswith(f"{folder}/clap: tensor ") and str(number) in said and " rows" in said


def test_a_caller_may_ask_for_tensors_of_other_sizes(folder):
    config = EnClapConfig.from_pretrained(folder, num_codebooks=4, codec_vocab_size=100)
    options = {"config": config, "ignore_mismatched_sizes": True}
    assert EnClapForConditionalGeneration.from_pretrained(folder, **options).mcm_heads[0].out_features == 100
    with pytest.raises(ModelFileError, match="has shape"):
        EnClapForConditionalGeneration.from_pretrained(folder, config=config)


def test_a_bart_starts_a_captioner_and_only_what_is_new_is_untrained(tmp_path, caplog):
    ours = build_config()
    names = ("vocab_size", "d_model", "encoder_layers", "decoder_layers", "encoder_attention_heads", "encoder_ffn_dim")
    names += ("decoder_attention_heads", "decoder_ffn_dim", "max_position_embeddings")
    bart = BartForConditionalGeneration(BartConfig(**{name: getattr(ours, name) for name in names}))
    bart.save_pretrained(tmp_path / "bart")
    with caplog.at_level(logging.WARNING):
        model = EnClapForConditionalGeneration.from_pretrained(tmp_path / "bart", config=ours)
    assert torch.equal(model.model.shared.weight, bart.model.shared.weight)
    (said,) = [record.getMessage() for record in caplog.records if "is a BART" in record.getMessage()]
    assert "mcm_heads" in said and "model.encoder.clap_projection" in said and "fc1" not in said
    edit_weights(tmp_path / "bart/model.safetensors", lambda t: t.pop("model.decoder.layers.0.fc1.weight"))
    said = refusal(lambda: EnClapForConditionalGeneration.from_pretrained(tmp_path / "bart", config=ours))
    assert "lack tensor 'model.decoder.layers.0.fc1.weight'" in said


HUGE = [
    ("config.json", {"num_codebooks": 10**9}),
    ("config.json", {"num_codebooks": 10**6}),
    ("config.json", {"encoder_layers": 10**6}),
    ("config.json", {"vocab_size": 10**6}),
    ("config.json", {"d_model": 1024}),
    ("codec/config.json", {"num_lstm_layers": 10**6}),
    ("codec/config.json", {"target_bandwidths": [1e6]}),
    ("codec/config.json", {"num_residual_layers": 10**6}),
    ("codec/config.json", {"codebook_size": 2**20}),
    ("clap/config.json", {"depths": [10**6, 1]}),
    ("clap/config.json", {"hidden_size": 10**6, "patch_embeds_hidden_size": 10**6}),
]
LOAD_ALL = """
import resource, sys, time
import torch
from enclap_hf import EnClapForConditionalGeneration, EnClapProcessor
from enclap_hf.model.model_files import ModelFileError
used = int(open("/proc/self/statm").read().split()[0]) * 4096
resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30), used + (1 << 30)))
for folder in sys.argv[1:]:
    start = time.process_time()
    try:
        EnClapForConditionalGeneration.from_pretrained(folder)
        processor = EnClapProcessor.from_pretrained(folder)
        processor.codec, processor.clap
    except (ModelFileError, ValueError) as error:
        print(len(str(error).splitlines()), time.process_time() - start, error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of address space, and /proc, are Linux's")
def test_sizes_are_bounded_before_memory_is_taken(saved, tmp_path):
    """In a process that may take 1 GB more: none of these models would fit."""
    folders = []
    for number, (file, fields) in enumerate(HUGE):
        folders.append(shutil.copytree(saved, tmp_path / str(number)))
        edit(folders[-1] / file, **fields)
    command = [sys.executable, "-c", LOAD_ALL, *map(str, folders)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    lines = done.stdout.splitlines()
    assert len(lines) == len(HUGE), done.stdout + done.stderr[-2000:]
    for line, (_, fields) in zip(lines, HUGE, strict=True):
        assert line.startswith("1 ") and float(line.split()[1]) < 5, f"{fields}: {line}"


def test_building_stops_at_the_limit_in_this_thread_alone():
    with pytest.raises(TooLarge, match="more than 4 tensors"), limited_building(4, 10**9):
        torch.nn.Sequential(*(torch.nn.Linear(2, 2) for _ in range(3)))
    with pytest.raises(TooLarge, match="more than 100 numbers"), limited_building(10, 100), torch.device("meta"):
        torch.nn.Linear(20, 20)
    with limited_building(0, 0):
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(torch.nn.Linear, 2, 2).result().weight.shape == (2, 2)
    torch.nn.Linear(20, 20)  # no hook is left


# Files


def write_header(path: Path, header: object, data: bytes = b"", length: int | None = None) -> None:
    content = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(content) if length is None else length) + content + data)


A = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    ("header", "data", "length", "said"),
    [
        ({"a": A}, b"", None, "cut off: 8 of 8 bytes of its tensors are missing"),
        ({"a": A}, bytes(9), None, "1 bytes follow its last tensor"),
        ({"a": A}, bytes(8), 2**63, "its header would take 9223372036854775808"),
        ({"a": A}, bytes(8), 5, "not JSON that can be read"),
        ({"a": {**A, "dtype": "F31"}}, bytes(8), None, "describes tensor 'a'"),
        ({"a": {**A, "shape": [-2]}}, bytes(8), None, "describes tensor 'a'"),
        ({"a": {**A, "shape": [2**62, 8]}}, bytes(8), None, "needs 147573952589676412928 bytes"),
        ({"a": {**A, "data_offsets": [8, 0]}}, bytes(8), None, "not those at [8, 0]"),
        ({"a": A, "b": A}, bytes(8), None, "begin at 0, not 8"),
        ({"a": {**A, "data_offsets": [4, 12]}}, bytes(12), None, "begin at 4, not 0"),
        (b'{"a": 1, "a": 2}', b"", None, "'a' stands there twice"),
        (b"[" * 100_000, b"", None, "not JSON that can be read"),
        (b'{"\\ud800\\n": 1}', b"", None, "damaged"),
        ({"__metadata__": {"format": 4}}, b"", None, "metadata"),
        ([], b"", None, "expected a JSON object"),
    ],
)
def test_a_header_that_does_not_fit_its_file_is_refused(tmp_path, header, data, length, said):
    write_header(tmp_path / "model.safetensors", header, data, length)
    message = refusal(lambda: read_header(str(tmp_path / "model.safetensors")))
    assert said in message and message.startswith(str(tmp_path))


def test_a_whole_header_is_read(tmp_path):
    write_header(tmp_path / "x.safetensors", {"__metadata__": {"format": "pt"}, "a": A}, bytes(8))
    assert read_header(str(tmp_path / "x.safetensors")) == {"a": ("F32", (2,))}


@pytest.mark.parametrize("file", ["../a.safetensors", "/etc/passwd", "a/b.safetensors", "a\\b.safetensors", 5, "a.bin"])
def test_an_index_names_files_beside_it_alone(tmp_path, file):
    (tmp_path / "i.json").write_text(json.dumps({"weight_map": {"a": file}}))
    assert "expected .safetensors files beside it" in refusal(lambda: read_index(str(tmp_path / "i.json")))


def test_what_is_no_file_is_said_without_waiting_for_it(folder):
    for make, said in ((Path.mkdir, "it is a folder"), (lambda p: __import__("os").mkfifo(p), "not a regular file")):
        path = folder / "config.json"
        path.unlink()
        make(path)
        assert said in refusal(lambda path=path: read_json_object(str(path)))
        path.rmdir() if path.is_dir() else path.unlink()
        path.write_text("{}")


def test_messages_are_one_printable_line():
    assert make_line("a\nb\x1b[31m\ud800" + "c" * 5000) == "a b\\x1b[31m\\ud800" + "c" * 579 + " ..."
    assert len(make_line("d" * 5000)) == 600


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"d_model": "160"}, "field d_model is '160'; expected a whole number"),
        ({"dropout": 1.5}, "field dropout is 1.5; expected a number from 0 to 1"),
        ({"use_cache": 1}, "field use_cache is 1; expected true or false"),
        ({"vocab_size": 10**9}, "expected a whole number from 0 to"),
        ({"activation_function": None}, "expected text"),
        ({"dtype": "float31"}, "field dtype is 'float31'; expected auto, float32"),
        ({"id2label": [1]}, "expected an object"),
        ({"model_type": "enclap", "decoder_attention_heads_": 2}, "it lacks `decoder_attention_heads` and has"),
    ],
)
def test_fields_of_other_types_and_sizes_are_refused(fields, said):
    assert said in refusal(lambda: check_config_fields(fields, "config.json", EnClapConfig))


def test_a_configuration_is_checked_however_it_is_loaded(folder):
    edit(folder / "config.json", label_smoothing="much")
    for load in (EnClapConfig, transformers.AutoConfig, AutoModelForSeq2SeqLM, EnClapForConditionalGeneration):
        assert "label_smoothing is 'much'" in refusal(lambda load=load: load.from_pretrained(folder))


@pytest.mark.parametrize(
    ("file", "fields", "said"),
    [
        ("processor_config.json", {"num_codebooks": -1}, "num_codebooks is -1"),
        ("processor_config.json", {"feature_extractor": None}, "lacks the field `feature_extractor`"),
        ("generation_config.json", {"max_length": 10**9}, "max_length is 1000000000"),
        ("generation_config.json", {"max_length": 300}, "at most 256, the positions of the decoder"),
        ("generation_config.json", {"num_beams": 10**6}, "num_beams is 1000000; expected a whole number from 1 to"),
        ("generation_config.json", {"forced_eos_token_id": 320}, "expected ids of the vocabulary, 0 to 319"),
        ("generation_config.json", {"num_beems": 4, "num_beams": None}, "lacks `num_beams` and has the unknown"),
        ("tokenizer_config.json", {"pad_token": "<pda>"}, "it has no token '<pda>', the `pad_token`"),
        ("tokenizer_config.json", {"pad_token": None}, "lacks the field `pad_token`"),
        ("tokenizer_config.json", {"eos_token": "<s>"}, "its `eos_token` '<s>' has id 0, the model's 2"),
        ("config.json", {"vocab_size": 300}, "vocab"),
        ("codec/config.json", {"sampling_rate": "fast"}, "sampling_rate"),
        ("clap/config.json", {"depths": 4}, "depths"),
    ],
)
def test_damage_in_any_json_file_is_told_before_captioning(folder, capsys, file, fields, said):
    edit(folder / file, **fields)
    assert main(["caption", str(Path(DEFAULT_MODEL) / "sounds/knocking.mp3"), "--model", str(folder)]) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert said in line and captured.out == ""


def test_a_tokenizer_with_gaps_in_its_ids_is_refused(folder):
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["vocab"]["a"] = 5000
    (folder / "tokenizer.json").write_text(json.dumps(content))
    assert "ids have gaps" in refusal(lambda: EnClapProcessor.from_pretrained(folder))


def test_an_encoders_configuration_is_checked_where_it_is_read(folder):
    edit(folder / "codec/config.json", upsampling_ratios=["8"])
    assert "upsampling_ratios" in refusal(lambda: EncodecFrames(str(folder / "codec")))


# The fuzzer


def test_fuzzed_models_caption_the_same_or_are_refused_in_one_line():
    script = str(Path(__file__).parents[1] / "fuzz_models.py")  # it forks, which a test process with threads must not
    command = [sys.executable, script, "--count", "14", "--seed", str(11)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_five_hundred_fuzzed_models_caption_the_same_or_are_refused_in_one_line():
    script = str(Path(__file__).parents[1] / "fuzz_models.py")
    command = [sys.executable, script, "--count", "500", "--seed", "29"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3600)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_fuzzer_tells_what_must_not_happen():
    judge = fuzz_models.judge
    assert judge(2, "", "enclap: config.json: it is damaged.\n", "caption", False) == "refused"
    assert judge(2, "", "enclap: a\nb\n", "caption", False) == "many lines"
    assert judge(70, "", "Traceback (most recent call last)", "caption", False) == "traceback"
    assert judge(0, "other", "", "caption", False) == "different"
    assert judge(0, "other", "", "caption", True) == "other value"
    assert judge(None, "", "", "caption", True) == "timeout" and judge(-9, "", "", "caption", True) == "crash"


def test_the_default_model_is_checked_in_a_moment():
    check_repository(DEFAULT_MODEL)
    start = time.perf_counter()
    check_repository(DEFAULT_MODEL)
    assert time.perf_counter() - start < 2  # a few milliseconds on an idle machine
