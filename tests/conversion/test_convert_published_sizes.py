"""Checkpoints of the published base sizes: ids in every decoding setting, the way back, time and memory.

Sizes: 1,024 codes, 16 codebooks, CLAP vectors of 512, a vocabulary of 50,265, BART base; random weights.
"""

import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from packaging.version import Version
from test_published_parity import SETTINGS, assert_same_ids
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    ClapAudioConfig,
    ClapAudioModelWithProjection,
    EncodecConfig,
    EncodecModel,
)
from transformers.modeling_outputs import BaseModelOutput

from conftest import make_clip
from enclap_hf import EnClapForConditionalGeneration, EnClapProcessor
from enclap_hf.conversion.convert_published import convert_checkpoints, write_published
from original_formats import (
    PUBLISHED,
    build_tiny_codec,
    build_tiny_tower,
    make_clap_checkpoint,
    name_clap_tensors,
    name_encodec_tensors,
    save_original_sources,
)

pytestmark = pytest.mark.slow
PUBLISHED_DECODING_OF_BART = {
    "num_beams": 4, "max_length": 50, "no_repeat_ngram_size": 3, "early_stopping": True, "length_penalty": 1.0,
    "forced_bos_token_id": 0, "forced_eos_token_id": 2, "decoder_start_token_id": 2,
}  # fmt: skip
NUM_TEXT_TOWER_NUMBERS = 125_000_000  # RoBERTa base, which LAION-CLAP's file holds beside the audio tower


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of several GB, gone after the tests."""
    folder = tmp_path_factory.mktemp("sizes")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def enclap(folder) -> str:
    """A random published folder of the base sizes, with a tokenizer of 50,265 entries.

    The decoder's positions weigh most. Where they do not, words in another order score alike but for rounding, and
    rounding then chooses among beams.
    """
    torch.manual_seed(0)
    config = BartConfig(
        vocab_size=50_265, d_model=768, encoder_layers=6, decoder_layers=6, encoder_attention_heads=12,
        decoder_attention_heads=12, encoder_ffn_dim=3072, decoder_ffn_dim=3072, max_position_embeddings=1024,
    )  # fmt: skip
    model = BartForConditionalGeneration(config)
    for name, parameter in model.named_parameters():  # larger than BART's start, so that clips do not look alike
        if parameter.dim() > 1 and ".decoder.layers." not in name:
            parameter.data.mul_(3.0)
    model.model.decoder.embed_positions.weight.data.mul_(10.0)
    tensors = dict(model.state_dict())
    for k in range(16):
        table = torch.randn(1088, 768) * 0.2
        table[1024] = 0
        tensors[f"model.encoder.embed_encodec.{k}.weight"] = table
        tensors[f"mcm_heads.{k}.weight"] = torch.randn(1024, 768) * 0.02
        tensors[f"mcm_heads.{k}.bias"] = torch.zeros(1024)
    tensors["model.encoder.clap_projection.weight"] = torch.randn(768, 512) * 4
    tensors["model.encoder.clap_projection.bias"] = torch.randn(768) * 0.1
    published = folder / "published"
    published.mkdir()
    torch.save(tensors, published / "pytorch_model.bin")
    fields = {**config.to_dict(), "model_type": "bart", "d_clap": 512, "num_rvq": 16, "encodec_vocab_size": 1024}
    fields |= {"encodec_pad_token_id": 1024, "mcm_loss_scale": 0.7, "label_smoothing": 0.2}
    (published / "config.json").write_text(json.dumps(fields))
    small = json.loads((PUBLISHED / "tokenizer/vocab.json").read_text())
    fillers = {f"Ġword{number}": number for number in range(len(small), 50_265)}
    (published / "vocab.json").write_text(json.dumps({**small, **fillers}))
    shutil.copy(PUBLISHED / "tokenizer/merges.txt", published)
    return str(published)


def encode_by_hand(tensors: dict, bart: BartForConditionalGeneration, codes, clap) -> torch.Tensor:
    """The encoder's output for one clip, written out with stock BART layers: (T, K), (C,) -> (1, T + 3, D)."""
    frames = sum(
        tensors[f"model.encoder.embed_encodec.{k}.weight"][codes[:, k]] for k in range(codes.shape[1])
    )  # (T, D)
    words = tensors["model.shared.weight"]
    weight, bias = (tensors[f"model.encoder.clap_projection.{name}"] for name in ("weight", "bias"))
    slots = torch.cat([(weight @ clap + bias)[None], words[0][None], frames, words[2][None]])
    positions = tensors["model.encoder.embed_positions.weight"][2 : 2 + len(slots) - 1]
    slots[1:] += positions
    encoder = bart.model.encoder
    states = encoder.layernorm_embedding(slots[None])
    for layer in encoder.layers:
        states = layer(states, None)
        states = states[0] if isinstance(states, tuple) else states
    return states


def test_ids_equal_those_of_stock_bart_on_the_published_tensors(folder, enclap):
    """The tokenizer lies in the published folder. The way back gives the same tensors."""
    torch.save(name_clap_tensors(build_tiny_tower(projection_dim=512)), folder / "clap.pt")
    torch.save(name_encodec_tensors(build_tiny_codec(1024, 16)), folder / "encodec.th")
    output = str(folder / "out")
    convert_checkpoints(enclap, str(folder / "clap.pt"), output, str(folder / "encodec.th"))
    model = EnClapForConditionalGeneration.from_pretrained(output)
    processor = EnClapProcessor.from_pretrained(output)
    tensors = torch.load(os.path.join(enclap, "pytorch_model.bin"), weights_only=True)
    fields = json.loads(Path(enclap, "config.json").read_text())
    bart = BartForConditionalGeneration(BartConfig(**fields)).eval()
    bart.load_state_dict({name: tensors[name] for name in bart.state_dict()})
    captions = set()
    for seed, duration_s in enumerate((0.5, 1.0, 1.5)):
        inputs = processor(audio=make_clip(duration_s, seed), sampling_rate=24_000)
        codes, clap = inputs["audio_codes"][0], inputs["clap_embedding"][0]
        assert codes.shape[1] == 16 and codes.max() > 255
        for setting in SETTINGS.values():
            decoding = {**PUBLISHED_DECODING_OF_BART, **setting}
            with torch.no_grad():
                encoded = BaseModelOutput(encode_by_hand(tensors, bart, codes, clap))
            expected = bart.generate(encoder_outputs=encoded, **decoding)
            ours = model.generate(**inputs, **setting)
            assert_same_ids(ours, expected)
            captions.add(tuple(ours[0].tolist()))
    assert len(captions) > 3 and max(len(set(caption)) for caption in captions) > 12
    write_published(output, str(folder / "back"))
    back = torch.load(folder / "back/pytorch_model.bin", weights_only=True)
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in tensors.items())


def save_published_encoders(folder: Path) -> list[str]:
    """LAION-CLAP's and EnCodec's files with all that the published ones hold, optimizer and text tower included."""
    tower = ClapAudioModelWithProjection(ClapAudioConfig(enable_fusion=True, fusion_type="aff_2d", projection_dim=512))
    tensors = name_clap_tensors(tower)
    tensors["text_branch.encoder.weight"] = torch.zeros(NUM_TEXT_TOWER_NUMBERS)
    checkpoint = make_clap_checkpoint(tensors)
    num_numbers = sum(tensor.numel() for tensor in tensors.values())
    checkpoint["optimizer"]["state"] = {
        0: {"exp_avg": torch.zeros(num_numbers), "exp_avg_sq": torch.zeros(num_numbers)}
    }
    torch.save(checkpoint, folder / "630k.pt", pickle_protocol=4)
    torch.save(name_encodec_tensors(EncodecModel(EncodecConfig())), folder / "encodec_24khz.th")
    return [str(folder / "630k.pt"), str(folder / "encodec_24khz.th")]


# Converts a tiny checkpoint first, so that all imports are done, then reports on the large one: seconds, processor
# seconds, and how far the resident memory rose above what it was before.
MEASURE_COST = """
import json, sys, time
from enclap_hf.conversion.convert_published import convert_checkpoints

def read_memory(name):
    with open("/proc/self/status") as file:
        return next(1024 * int(line.split()[1]) for line in file if line.startswith(name))

tiny, large = (json.loads(text) for text in sys.argv[1:])
convert_checkpoints(**tiny)
before = read_memory("VmRSS")
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # the peak starts anew
wall, processor = time.perf_counter(), time.process_time()
convert_checkpoints(**large)
wall, processor = time.perf_counter() - wall, time.process_time() - processor
print(json.dumps({"wall_s": wall, "processor_s": processor, "rise": read_memory("VmHWM") - before}))
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="memory is read from Linux's /proc")
@pytest.mark.skipif(
    Version(version("safetensors")) < Version("0.8"), reason="safetensors before 0.8 copies all tensors when it writes"
)
def test_converting_takes_less_than_a_minute_and_twice_the_captioners_file_in_memory(folder, enclap):
    """Beside the captioner's 0.66 GB lie 1.85 GB of LAION-CLAP, most of which is never brought into memory.

    Processor time is bounded, as the time on the clock depends on what else the machine does.
    """
    clap, encodec = save_published_encoders(folder)
    large = {"enclap": enclap, "clap": clap, "encodec": encodec, "output": str(folder / "large")}
    tiny = {**save_original_sources(folder), "output": str(folder / "tiny")}
    command = [sys.executable, "-c", MEASURE_COST, json.dumps(tiny), json.dumps(large)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    cost = json.loads(result.stdout)
    size = os.path.getsize(os.path.join(enclap, "pytorch_model.bin"))
    print(f"captioner's file {size / 1e6:.0f} MB, memory {cost['rise'] / 1e6:.0f} MB, {cost['rise'] / size:.2f} times; "
          f"{cost['wall_s']:.1f} s, of the processor {cost['processor_s']:.1f} s")  # fmt: skip
    assert cost["rise"] < 2 * size
    assert cost["processor_s"] < 60
