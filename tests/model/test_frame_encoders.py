"""Every family of frame encoders: what stock transformers gives, each clip as it is alone, from a file to a caption."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from transformers import DacFeatureExtractor, Seq2SeqTrainingArguments, pipeline

from conftest import build_clap, build_model, build_processor, make_clip
from enclap_hf import DataCollatorForEnClap, EnClapForConditionalGeneration, EnClapProcessor
from enclap_hf.model.clap_frames import ClapFrames
from enclap_hf.model.encodec_frames import EncodecFrames
from enclap_hf.model.frame_encoder import fingerprint_tensors, fingerprint_unnamed
from enclap_hf.model.frame_encoder_families import find_family
from enclap_hf.model.log_mel_frames import LogMelFrames
from enclap_hf.model.repository import save_repository
from enclap_hf.training.trainer import EnClapTrainer
from frame_encoder_models import (
    CODECS,
    FEATURES,
    build_captioner_for,
    build_dac,
    build_encodec,
    build_frame_encoder,
    build_frame_processor,
    build_mimi,
)

FAMILIES = [*CODECS, *FEATURES]
# A float32 product sums in another order where more rows are multiplied at once.
FEATURES_TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def encoders():
    """Frame encoders, made when first asked for."""
    made = {}

    def get(name: str):
        if name not in made:
            made[name] = build_frame_encoder(name)
        return made[name]

    return get


def describe(name: str) -> tuple[int, int]:
    """Sampling rate and samples of a frame."""
    return (CODECS[name][:2]) if name in CODECS else FEATURES[name]


def make_samples(name: str, num_samples: int, seed: int = 0) -> np.ndarray:
    """A recording of an encoder's rate and channels: float32 (channels, num_samples)."""
    rate, _ = describe(name)
    channels = 2 if name == "encodec_48" else 1
    clips = [make_clip(num_samples / rate, seed + 50 * channel, rate) for channel in range(channels)]
    return np.stack(clips)


def make_lengths(name: str) -> list[int]:
    """One sample, less than a frame, not a multiple of one, a multiple, seconds."""
    rate, hop = describe(name)
    return [1, hop // 2, 3 * hop + 7, 5 * hop, 2 * rate + 11]


def make_prepared(encoder, name: str) -> list[torch.Tensor]:
    return [encoder.prepare(make_samples(name, length, seed=length)) for length in make_lengths(name)]


def stock_codes(codec, samples: np.ndarray) -> torch.Tensor:
    """What transformers' own feature extractor and codec give for one recording: (T, K)."""
    model_type = codec.config.model_type
    with torch.no_grad():
        if model_type == "encodec":
            out = codec.encode(torch.from_numpy(samples)[None], bandwidth=codec.config.target_bandwidths[-1])
            codes = torch.cat([segment[0].T for segment in out.audio_codes])
            return codes[: len(codes) - (out.last_frame_pad_length or 0)]
        if model_type == "mimi":
            return codec.encode(torch.from_numpy(samples)[None]).audio_codes[0].T
        rate = codec.config.sampling_rate if model_type == "dac" else codec.config.sample_rate
        prepare = DacFeatureExtractor(sampling_rate=rate, hop_length=codec.config.hop_length)
        inputs = prepare(samples[0], sampling_rate=rate, return_tensors="pt")["input_values"]
        return codec.encode(inputs.reshape(1, 1, -1)).audio_codes[0].T


def is_same(ours: torch.Tensor, expected: torch.Tensor) -> bool:
    """Codes to the last; features up to the order of sums."""
    if not expected.is_floating_point():
        return torch.equal(ours, expected)
    return ours.shape == expected.shape and bool((ours - expected).norm() <= FEATURES_TOLERANCE * expected.norm())


@pytest.fixture(scope="module")
def wav_path(tmp_path_factory) -> str:
    """A stereo recording of another rate than any encoder's."""
    path = str(tmp_path_factory.mktemp("clip") / "clip.wav")
    channels = np.stack([make_clip(1.11, seed, 22_050) for seed in (1, 2)])
    soundfile.write(path, channels.T, 22_050, subtype="FLOAT")
    return path


# What comes out


@pytest.mark.parametrize("name", CODECS)
def test_codes_equal_the_stock_codec_alone_and_in_a_batch(encoders, name):
    encoder = encoders(name)
    rate, hop = describe(name)
    assert encoder.kind == "codes" and encoder.sampling_rate == rate
    expected = [stock_codes(encoder.model, make_samples(name, length, seed=length)) for length in make_lengths(name)]
    prepared = make_prepared(encoder, name)
    alone = [encoder.encode([clip])[0] for clip in prepared]
    for batch in (alone, encoder.encode(prepared), encoder.encode(prepared[::-1])[::-1]):
        for codes, stock in zip(batch, expected, strict=True):
            assert codes.dtype == torch.int64 and torch.equal(codes, stock)
    if name != "encodec_48":  # whose segments overlap
        assert [len(codes) for codes in alone] == [-(-length // hop) for length in make_lengths(name)]
        assert encoder.frame_rate == rate / hop


@pytest.mark.parametrize("name", CODECS)
def test_codes_tell_sounds_apart(encoders, name):
    """Otherwise the test above proves nothing: a fresh codec's codebooks are zeros, and so is every code."""
    encoder = encoders(name)
    rate, _ = describe(name)
    first, second = encoder.encode([encoder.prepare(make_samples(name, 2 * rate, seed)) for seed in (1, 2)])
    for k in range(encoder.num_codebooks):
        assert len(first[:, k].unique()) > 5
        assert (first[:, k] != second[:, k]).float().mean() > 0.3


@pytest.mark.parametrize("name", CODECS)
def test_fewer_codebooks_are_the_first_ones_and_may_become_more_again(encoders, name):
    encoder = build_frame_encoder(name)
    clip = encoder.prepare(make_samples(name, 9000))
    whole = encoder.encode([clip])[0]
    for num_codebooks in (1, 3, 2, 4):
        encoder.limit_codebooks(num_codebooks)
        assert torch.equal(encoder.encode([clip])[0], whole[:, :num_codebooks])
    with pytest.raises(ValueError, match="Asked for 5 codebooks of a codec that has 4"):
        encoder.limit_codebooks(5)


def test_mimi_keeps_its_semantic_codebooks():
    encoder = build_frame_encoder("mimi")
    with pytest.raises(ValueError, match="at least its 1 semantic"):
        encoder.limit_codebooks(0)


@pytest.mark.parametrize("name", FEATURES)
def test_features_of_a_clip_do_not_depend_on_its_batch(name):
    processor = build_frame_processor(build_frame_encoder(name))
    encoder = processor.frame_encoder
    rate, hop = describe(name)
    assert (encoder.kind, encoder.sampling_rate, encoder.frame_rate) == ("features", rate, rate / hop)
    prepared = make_prepared(encoder, name)
    alone = [encoder.encode([clip])[0] for clip in prepared]
    assert [len(frames) for frames in alone] == [-(-length // hop) for length in make_lengths(name)]
    for batch in (encoder.encode(prepared), encoder.encode(prepared[::-1])[::-1]):
        for frames, expected in zip(batch, alone, strict=True):
            assert frames.dtype == torch.float32 and frames.shape[1] == encoder.frame_dim
            assert torch.isfinite(frames).all() and is_same(frames, expected)
    assert not is_same(alone[4][: len(alone[3])], alone[3])  # unlike sounds


def test_log_mel_frames_follow_the_sound_in_time_and_frequency():
    encoder = LogMelFrames(sampling_rate=24_000, hop_length=320, n_fft=1024, num_mel_bins=32)
    seconds = np.arange(24_000) / 24_000
    low, high = (0.5 * np.sin(2 * np.pi * hz * seconds).astype(np.float32) for hz in (300, 6000))
    (frames,) = encoder.encode([encoder.prepare(np.concatenate([low, high])[None])])
    assert frames.shape == (150, 32)
    peaks = frames.argmax(1)
    assert peaks[5:70].max() < 8 and peaks[80:145].min() > 20
    assert -2 < frames.mean() < 2 and 0.2 < frames.std() < 3


def test_clap_frames_are_those_of_the_processors_own_tower():
    processor = build_frame_processor(ClapFrames(build_clap()))
    assert processor.frame_encoder.clap is processor.clap_encoder
    clip = make_clip(3.0, sampling_rate=16_000)
    frames = processor(audio=clip, sampling_rate=16_000)["audio_features"][0]
    assert frames.shape == (48, 16)
    first = processor(audio=clip[:32_000], sampling_rate=16_000)["audio_features"][0]
    assert is_same(frames[:32], first)  # the first window
    last = processor(audio=clip[32_000:], sampling_rate=16_000)["audio_features"][0]
    assert is_same(frames[32:], last)  # the rest, repeated to fill a window


# The window


@pytest.mark.parametrize("name", FAMILIES)
def test_frames_of_a_head_are_those_of_the_whole_clip(encoders, name):
    """What lies behind the window is read as far as it changes the frames in it."""
    if name == "xcodec":
        pytest.skip("its speech model attends to the whole clip")
    processor = build_frame_processor(build_frame_encoder(name))
    extractor, encoder = processor.feature_extractor, processor.frame_encoder
    samples = make_samples(name, 6 * encoder.sampling_rate)
    for kept in (7, 40, 63):
        extractor.max_codec_frames = None
        (whole,) = processor.encode_frames([extractor.prepare_samples(samples, encoder.sampling_rate, encoder)])
        extractor.max_codec_frames = kept
        prepared = extractor.prepare_samples(samples, encoder.sampling_rate, encoder)
        assert prepared.shape[-1] < samples.shape[1]
        (head,) = processor.encode_frames([prepared])
        assert len(head) == kept and is_same(head, whole[:kept])


def test_the_head_of_a_clip_that_x_codec_reads_is_a_clip_by_itself():
    processor = build_frame_processor(build_frame_encoder("xcodec"))
    processor.feature_extractor.max_codec_frames = 40
    clip = make_clip(2.0, sampling_rate=16_000)
    expected = processor(audio=clip[: 40 * 320], sampling_rate=16_000)["audio_codes"]
    assert torch.equal(processor(audio=clip, sampling_rate=16_000)["audio_codes"], expected)


# From a file to a caption, saved and loaded


@pytest.mark.parametrize("with_clap", [True, False], ids=["clap", "none"])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_file_becomes_a_caption_and_a_saved_repository_gives_the_same(name, with_clap, wav_path, tmp_path):
    processor = build_frame_processor(build_frame_encoder(name), with_clap)
    model = build_captioner_for(processor)
    seconds = (1.11, 0.41, 0.66, 1.93)
    recordings = [{"array": make_clip(length, i), "sampling_rate": 24_000} for i, length in enumerate(seconds)]
    recordings[0] = wav_path
    inputs = processor(audio=recordings)
    assert set(inputs) == set(processor.model_input_names)
    assert ("clap_embedding" in inputs) is with_clap
    frames = inputs["audio_codes" if name in CODECS else "audio_features"]
    expected_frames = [int(np.ceil(length * processor.frame_encoder.frame_rate)) for length in seconds]
    if name != "encodec_48":  # whose segments overlap
        assert inputs["attention_mask"].sum(1).tolist() == expected_frames
    assert frames.shape[:2] == inputs["attention_mask"].shape
    captions = processor.batch_decode(model.generate(**inputs))
    assert all(captions) and len(set(captions)) > 1

    save_repository(model, processor, str(tmp_path))
    loaded = EnClapProcessor.from_pretrained(str(tmp_path))
    assert type(loaded.frame_encoder) is type(processor.frame_encoder)
    assert loaded.frame_encoder.fingerprint == processor.frame_encoder.fingerprint
    again = loaded(audio=recordings)
    assert all(torch.equal(again[key], inputs[key]) for key in inputs)
    captioner = pipeline("audio-captioning", model=str(tmp_path), device="cpu")
    assert [caption["text"] for caption in captioner(recordings, chunk_length_s=0)] == captions


@pytest.mark.parametrize("with_clap", [True, False], ids=["clap", "none"])
@pytest.mark.parametrize("name", ["dac_16", "log_mel", "clap_frames"])
def test_a_checkpoint_refers_to_encoders_of_this_machine_and_never_ends_a_run(name, with_clap, tmp_path):
    processor = build_frame_processor(build_frame_encoder(name), with_clap)
    processor.save_pretrained(tmp_path / "checkpoint-1")  # encoders that are nowhere but in memory
    processor.save_pretrained(tmp_path / "whole")
    loaded = EnClapProcessor.from_pretrained(str(tmp_path / "whole"))
    loaded.save_pretrained(tmp_path / "checkpoint-2")
    clip = make_clip(0.4)
    expected = processor(audio=clip, sampling_rate=24_000)
    for folder in ("checkpoint-1", "checkpoint-2"):
        assert not {"codec", "clap"} & set(os.listdir(tmp_path / folder))
    again = EnClapProcessor.from_pretrained(str(tmp_path / "checkpoint-2"))(audio=clip, sampling_rate=24_000)
    assert all(torch.equal(again[key], expected[key]) for key in expected)


@pytest.mark.parametrize("name", ["dac_16", "log_mel"])
def test_a_captioner_is_trained_on_recordings(name, tmp_path):
    processor = build_frame_processor(build_frame_encoder(name))
    model, captions = build_captioner_for(processor), ["a dog barks twice", "rain falls on a roof"]
    clips = processor.encode_recordings([make_clip(0.5 + 0.2 * i, i) for i in range(4)], 24_000)
    for i, clip in enumerate(clips):
        clip["caption"] = captions[i % 2]
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    trainer = EnClapTrainer(
        model=model,
        args=Seq2SeqTrainingArguments(
            output_dir=str(tmp_path),
            max_steps=2,
            per_device_train_batch_size=2,
            learning_rate=1e-3,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            use_cpu=True,
        ),
        data_collator=DataCollatorForEnClap(processor, mcm_probability=0.5),
        train_dataset=clips,
        processing_class=processor,
    )
    trainer.train()
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert len(logs) == 2 and all(np.isfinite(entry["loss"]) for entry in logs)
    assert all(("mcm_loss" in entry) is (name == "dac_16") for entry in logs)
    moved = {key for key, tensor in model.state_dict().items() if not torch.equal(tensor, before[key])}
    table = (
        "model.encoder.embed_encodec.0.weight" if name == "dac_16" else "model.encoder.embed_features.projection.weight"
    )
    assert table in moved and "model.encoder.clap_projection.weight" in moved
    trainer.save_model(str(tmp_path / "trained"))
    captioner = pipeline("audio-captioning", model=str(tmp_path / "trained"), device="cpu")
    assert captioner({"array": make_clip(0.4), "sampling_rate": 24_000})["text"] is not None


# Repositories of before


def test_a_repository_that_names_no_frame_encoder_loads_and_captions_equally(tmp_path, wav_path):
    """As they were written when there was EnCodec at 24 kHz alone."""
    model, processor = build_model(), build_processor()
    expected = processor.batch_decode(model.generate(**processor(audio=wav_path)))
    save_repository(model, processor, str(tmp_path))
    for file, names in {
        "config.json": ("frame_kind", "frame_dim", "frame_encoder_type", "frame_rate"),
        "processor_config.json": ("frame_encoder_type", "sequence_vector"),
    }.items():
        fields = json.loads((tmp_path / file).read_text())
        (tmp_path / file).write_text(json.dumps({key: value for key, value in fields.items() if key not in names}))
    extractor = json.loads((tmp_path / "processor_config.json").read_text())["feature_extractor"]
    assert (extractor["codec_sampling_rate"], extractor["codec_hop_length"]) == (24_000, 320)
    loaded = EnClapProcessor.from_pretrained(str(tmp_path))
    captioner = EnClapForConditionalGeneration.from_pretrained(str(tmp_path))
    assert captioner.config.frame_kind == "codes" and type(loaded.frame_encoder) is EncodecFrames
    assert loaded.batch_decode(captioner.generate(**loaded(audio=wav_path))) == expected
    assert pipeline("audio-captioning", model=str(tmp_path), device="cpu")(wav_path)["text"] == expected[0]


@pytest.mark.parametrize("name", ["dac_16", "mimi", "xcodec"])
def test_the_family_is_told_by_the_codecs_own_configuration(name, tmp_path):
    processor = build_frame_processor(build_frame_encoder(name))
    processor.save_pretrained(tmp_path)
    path = tmp_path / "processor_config.json"
    fields = json.loads(path.read_text())
    del fields["frame_encoder_type"]
    path.write_text(json.dumps(fields))
    loaded = EnClapProcessor.from_pretrained(str(tmp_path))
    assert type(loaded.frame_encoder) is type(processor.frame_encoder)


# What identifies it


def test_a_fingerprint_follows_the_weights_and_their_names():
    torch.manual_seed(0)
    first, second = torch.randn(3, 4), torch.randn(5)
    changed = [{"a": first.reshape(4, 3), "b": second}, {"a": first + 1e-6, "b": second}, {"a": first}]
    expected = fingerprint_tensors({"a": first, "b": second})
    assert fingerprint_tensors({"b": second, "a": first}) == expected
    assert all(fingerprint_tensors(tensors) != expected for tensors in [*changed, {"a": first, "c": second}][1:])
    expected = fingerprint_unnamed([first, second])
    assert fingerprint_unnamed([second, first]) == expected
    assert all(fingerprint_unnamed(tensors.values()) != expected for tensors in changed)


@pytest.mark.parametrize("build", [build_encodec, build_dac, build_mimi], ids=["encodec", "dac", "mimi"])
def test_a_fingerprint_does_not_depend_on_the_decoder(build):
    def fingerprint(change: str) -> str:
        codec = build()
        for name, tensor in codec.state_dict().items():
            if name.startswith(change) and tensor.is_floating_point():
                tensor.add_(1.0)
        return find_family(codec.config.model_type)(codec).fingerprint

    assert fingerprint("decoder.") == fingerprint("nothing")
    assert fingerprint("encoder.") != fingerprint("nothing")


def test_log_mel_settings_are_its_fingerprint(tmp_path):
    encoder = LogMelFrames(num_mel_bins=32)
    encoder.save(str(tmp_path))
    loaded = LogMelFrames.load(str(tmp_path))
    assert loaded.fingerprint == encoder.fingerprint != LogMelFrames(num_mel_bins=64).fingerprint
    assert json.loads(Path(tmp_path, "config.json").read_text())["model_type"] == "log_mel"
