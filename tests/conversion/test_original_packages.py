"""The converted encoders equal the original `encodec` and `laion-clap` packages on the same samples.

The packages run as they are, with random weights in files of their own formats; only functions of torchaudio and
torchvision, which have no CPU build, are stand-ins. Where the packages are not installed, tests that need them skip.
"""

import importlib.machinery
import importlib.util
import json
import shutil
import subprocess
import sys
import types

import numpy as np
import pytest
import soundfile
import torch
from enclap_hf.model.audio_encoders import AudioEncoders

import enclap_hf.conversion.original_packages as original
from conftest import make_clip
from enclap_hf import EnClapFeatureExtractor
from enclap_hf.cli import main
from enclap_hf.conversion.published_files import ConversionError, read_state_dict
from enclap_hf.conversion.published_tensor_maps import convert_clap_tensors, convert_encodec_tensors
from original_formats import PUBLISHED, MelSpectrogram, install_stand_ins

missing = [name for name in ("encodec", "laion_clap") if importlib.util.find_spec(name) is None]
needs_originals = pytest.mark.skipif(
    bool(missing), reason=f"not installed: {', '.join(missing)} (pip install encodec; pip install --no-deps laion-clap)"
)
CLAP_RATE = 48_000


@pytest.fixture(scope="module")
def stand_ins():
    before = dict(sys.modules)
    install_stand_ins()
    yield
    for name in set(sys.modules) - set(before):
        if name.split(".")[0] in ("torchaudio", "torchvision"):
            del sys.modules[name]


@pytest.fixture(scope="module")
def encodec_file(stand_ins, tmp_path_factory) -> str:
    """The package's 24 kHz model with random weights, and codebooks that its latent falls all over."""
    from encodec import EncodecModel

    torch.manual_seed(0)
    model = EncodecModel.encodec_model_24khz(pretrained=False)
    with torch.no_grad():
        for name, parameter in model.encoder.named_parameters():
            if name.endswith("weight_g"):  # the default start leaves the latent near zero
                parameter.mul_(2.0)
        latent = model.encoder(torch.from_numpy(make_clip(2.0))[None, None])
        for index, layer in enumerate(model.quantizer.vq.layers):
            codebook = layer._codebook
            codebook.embed.copy_(torch.randn(1024, 128) * latent.std() * 0.9**index + latent.mean())
            codebook.inited.fill_(1)
    path = tmp_path_factory.mktemp("encodec") / "encodec_24khz.th"
    torch.save(model.state_dict(), path)
    return str(path)


def save_random_clap(folder, name: str, fusion: bool, protocol: int) -> str:
    """A training checkpoint of the package's own model, random and stirred."""
    with original.text_models_left_out():
        import laion_clap

        torch.manual_seed(1)
        module = laion_clap.CLAP_Module(enable_fusion=fusion, device="cpu", amodel=name)
    state = module.model.state_dict()
    for key, tensor in state.items():
        if not key.startswith("audio_branch") or "_extractor" in key or not tensor.is_floating_point():
            continue
        if "running_var" in key:
            tensor.mul_(1 + torch.rand(tensor.shape))
        elif "running_mean" in key or tensor.dim() == 1:
            tensor.add_(0.1 * torch.randn(tensor.shape))
        elif "attn_mask" not in key:  # far enough from the start that clips do not look alike
            tensor.mul_(2.0)
    checkpoint = {
        "epoch": 1,
        "name": "random",
        "state_dict": {f"module.{key}": tensor for key, tensor in state.items()},
        "optimizer": {"state": {}, "param_groups": [{"lr": np.float64(1e-4), "params": [0]}]},
    }
    path = folder / f"{name}-{fusion}.pt"
    torch.save(checkpoint, path, pickle_protocol=protocol)
    return str(path)


@pytest.fixture(scope="module")
def fused_file(stand_ins, tmp_path_factory) -> str:
    return save_random_clap(tmp_path_factory.mktemp("clap"), "HTSAT-tiny", True, protocol=4)


def encode(codec, waveforms: list) -> list:
    return AudioEncoders(codec, {}).encode_codes([torch.from_numpy(waveform) for waveform in waveforms], 16)


@needs_originals
@pytest.mark.slow
def test_codes_equal_the_encodec_package_for_clips_alone_and_in_batches(encodec_file):
    codec = convert_encodec_tensors(read_state_dict(encodec_file), encodec_file)
    package = original.OriginalEncodec(encodec_file)
    package.model.set_target_bandwidth(12.0)
    durations_s = (0.25, 0.6, 1.3, 4.7, 10.0, 31.0)
    clips = [make_clip(duration_s, seed)[: int(duration_s * 75) * 320] for seed, duration_s in enumerate(durations_s)]
    expected = [package.encode(torch.from_numpy(clip), 16) for clip in clips]
    assert len(torch.cat(expected).unique()) > 900 and all(codes.shape[1] == 16 for codes in expected)
    total = sum(codes.numel() for codes in expected)
    alone = sum((encode(codec, [clip])[0] != codes).sum() for clip, codes in zip(clips, expected, strict=True))
    together = sum((ours != codes).sum() for ours, codes in zip(encode(codec, clips), expected, strict=True))
    # The package's own batch: clips padded with zeros to one length, and a clip's own frames read off.
    longest = torch.zeros(4, 1, len(clips[3]))
    for row, clip in zip(longest, clips[:4], strict=True):
        row[0, : len(clip)] = torch.from_numpy(clip)
    with torch.no_grad():
        padded = package.model.encode(longest)[0][0].transpose(1, 2)
    batched = sum((codes[: len(own)] != own).sum() for codes, own in zip(padded, expected[:4], strict=True))
    print(f"{total} codes: {alone} differ alone, {together} in our batches, {batched} in the package's batch")
    assert alone == together == batched == 0


@needs_originals
@pytest.mark.parametrize("num_samples", [1, 319, 6_001, 50_123])
def test_codes_equal_the_encodec_package_for_any_number_of_samples(encodec_file, num_samples):
    codec = convert_encodec_tensors(read_state_dict(encodec_file), encodec_file)
    clip = make_clip(3.0)[:num_samples]
    assert torch.equal(
        encode(codec, [clip])[0], original.OriginalEncodec(encodec_file).encode(torch.from_numpy(clip), 16)
    )


def compare_embeddings(path: str, num_samples: list[int]) -> list[float]:
    """Cosines of both systems' embeddings of clips at 48 kHz."""
    package = original.OriginalClap(path)
    tower = convert_clap_tensors(read_state_dict(path), path)
    extractor = EnClapFeatureExtractor(
        long_clips="fusion" if package.fusion else "middle", mel_scale="htk" if package.fusion else "slaney"
    )
    encoders, cosines, all_theirs = AudioEncoders({}, tower), [], []
    clips = [make_clip(length / CLAP_RATE, seed, CLAP_RATE) for seed, length in enumerate(num_samples)]
    prepared = extractor(clips, sampling_rate=CLAP_RATE)
    ours = encoders.embed_features(prepared["input_features"], prepared["is_longer"])
    for row, clip in zip(ours, clips, strict=True):
        theirs = package.embed(clip)
        all_theirs.append(theirs)
        cosines.append(torch.nn.functional.cosine_similarity(row.double(), theirs.double(), dim=0).item())
    apart = torch.stack(all_theirs)
    assert (apart @ apart.T).min() < 0.999, "all clips look alike, so the comparison would prove nothing"
    print(f"{path}: least cosine {min(cosines):.9f}, others of each other {(apart @ apart.T).min():.4f}")
    return cosines


@needs_originals
def test_embeddings_with_fusion_equal_the_laion_clap_package(fused_file):
    """Up to 10 s, the corner below one hop more, and longer clips with the same windows; all in one batch."""
    lengths = [12_000, 96_123, 300_000, 480_000, 480_001, 480_479, 480_480, 481_000, 14 * CLAP_RATE, 31 * CLAP_RATE]
    assert min(compare_embeddings(fused_file, lengths)) >= 0.999999


@needs_originals
@pytest.mark.parametrize(
    ("name", "fusion"),
    [
        ("HTSAT-tiny", False),
        pytest.param("HTSAT-base", True, marks=pytest.mark.slow),
        pytest.param("HTSAT-base", False, marks=pytest.mark.slow),
    ],
)
def test_embeddings_of_other_towers_equal_the_laion_clap_package(stand_ins, tmp_path, name, fusion):
    path = save_random_clap(tmp_path, name, fusion, protocol=2)
    assert min(compare_embeddings(path, [12_000, 300_000, 480_000, 480_001, 20 * CLAP_RATE])) >= 0.999999


def make_small_captioner(folder) -> str:
    """A published folder of tiny width that reads 16 codebooks of 1,024 codes and vectors of 512."""
    torch.manual_seed(0)
    shutil.copytree(PUBLISHED / "ckpt", folder)
    tensors = torch.load(folder / "pytorch_model.bin", weights_only=True)
    for name in [name for name in tensors if "embed_encodec" in name or "mcm_heads" in name]:
        del tensors[name]
    for k in range(16):
        tensors[f"model.encoder.embed_encodec.{k}.weight"] = torch.randn(1088, 64) * 0.5
        tensors[f"mcm_heads.{k}.weight"], tensors[f"mcm_heads.{k}.bias"] = torch.randn(1024, 64), torch.zeros(1024)
    tensors["model.encoder.clap_projection.weight"] = torch.randn(64, 512) * 5
    tensors["final_logits_bias"][0, 2] = -5.0  # or captions end before they begin
    torch.save(tensors, folder / "pytorch_model.bin")
    fields = json.loads((folder / "config.json").read_text())
    fields |= {"num_rvq": 16, "encodec_vocab_size": 1024, "encodec_pad_token_id": 1024, "d_clap": 512}
    (folder / "config.json").write_text(json.dumps({**fields, "max_position_embeddings": 128}))
    return str(folder)


@needs_originals
def test_the_command_converts_and_verifies_on_recordings(encodec_file, fused_file, tmp_path, capsys):
    recordings = []
    for seed, (duration_s, rate) in enumerate([(0.8, 16_000), (17.0, 44_100)]):  # longer than both windows, too
        recordings.append(str(tmp_path / f"{seed}.wav"))
        soundfile.write(recordings[-1], make_clip(duration_s, seed, rate), rate)
    enclap = make_small_captioner(tmp_path / "published")
    files = ["--clap", fused_file, "--encodec", encodec_file, "--output", str(tmp_path / "out")]
    tokenizer = ["--tokenizer", str(PUBLISHED / "tokenizer")]
    assert main(["convert", "--enclap", enclap, *tokenizer, *files, "--verify", *recordings]) == 0
    said = capsys.readouterr().out
    assert said.count("same; codes equal 100.00%, embedding cosine 1.0000000") == 2
    captions = [line.split(": ")[1].strip() for line in said.splitlines() if line.startswith("  ")]
    assert captions[0] == captions[1] and captions[2] == captions[3] and captions[0] != captions[2]
    # A tensor changed after converting is found by verifying alone, and what differs is not uploaded.
    from safetensors.torch import load_file, save_file

    path = tmp_path / "out/codec/model.safetensors"
    tensors = load_file(path)
    tensors["encoder.layers.15.conv.bias"] += 1
    save_file(tensors, path, metadata={"format": "pt"})
    assert main(["convert", *files, "--verify", recordings[0], "--push-to-hub", "owner/name"]) == 1
    said = capsys.readouterr()
    assert "DIFFERENT" in said.out and "was not uploaded" in said.err


def test_the_stand_in_for_the_mel_spectrogram_is_right_on_a_tone():
    """Its filters are triangles of height 1, so a tone at the top of one gives the window's squared half-sum there."""
    kwargs = {"center": True, "pad_mode": "reflect", "power": 2.0, "norm": None, "onesided": True}
    stand_in = MelSpectrogram(48_000, 1024, 1024, 480, 64, 50, 14_000, **kwargs)
    hertz = 48_000 / 1024 * 100
    tone = torch.sin(2 * torch.pi * hertz * torch.arange(48_000, dtype=torch.float64) / 48_000).float()
    frame = stand_in(tone)[:, 50]
    middle = 2595 * np.log10(1 + hertz / 700)
    low, high = (2595 * np.log10(1 + edge / 700) for edge in (50, 14_000))
    assert abs(int(frame.argmax()) - ((middle - low) / (high - low) * 65 - 1)) <= 1
    # A Hann window of 1,024 sums to 512, so the tone's bin holds 256^2, and the bin to each side a quarter of that.
    assert 0.4 * 256**2 < frame.max() <= 1.5 * 256**2


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("encodec", ["encodec"]),
        ("encodec", ["encodec", "torchaudio"]),
        ("laion_clap", ["laion_clap", "torchaudio", "torchvision"]),
    ],
)
def test_all_that_is_missing_is_named_with_its_install_line(monkeypatch, name, missing):
    for module in ("encodec", "laion_clap", "torchaudio", "torchvision"):
        found = None if module in missing else types.ModuleType(module)
        if found:
            found.__spec__ = importlib.machinery.ModuleSpec(module, None)
        monkeypatch.setitem(sys.modules, module, found)
    with pytest.raises(ConversionError) as caught:
        original.import_original(name)
    message = str(caught.value)
    assert f"`{name}` cannot be imported" in message and f"Not installed: {', '.join(missing)}." in message
    assert 'pip install "enclap-hf[original]"' in message


def test_a_broken_torchaudio_is_told_apart(monkeypatch):
    def fail(name):
        raise OSError("libtorch_cuda.so: cannot open shared object file")

    monkeypatch.setattr(original.importlib, "import_module", fail)
    with pytest.raises(ConversionError, match="libtorch_cuda.so: cannot open.*torchaudio"):
        original.import_original("encodec")


def test_verifying_needs_original_files():
    with pytest.raises(ConversionError, match="LAION-CLAP's .pt file"):
        original.OriginalClap("laion/clap-htsat-fused")


def test_converting_imports_neither_package():
    code = (
        "import sys, enclap_hf.conversion.convert_published, enclap_hf.commands.convert; "
        "print({'encodec', 'laion_clap'} & {*sys.modules})"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
