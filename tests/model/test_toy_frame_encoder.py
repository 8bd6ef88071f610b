"""A new codec is one file: one that the package does not know is registered, trained with, saved, loaded, captions."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from transformers import Seq2SeqTrainingArguments, pipeline

import enclap_hf
from conftest import build_clap, build_feature_extractor, build_tokenizer, make_clip
from enclap_hf import DataCollatorForEnClap, EnClapForConditionalGeneration, EnClapProcessor
from enclap_hf.model import frame_encoder_families
from enclap_hf.model.repository import save_repository
from enclap_hf.training.trainer import EnClapTrainer
from frame_encoder_models import build_captioner_for, build_frame_processor
from toy_frame_encoder import LoudnessFrames, SpectrumFrames

RATE = 24_000
TOYS = {"toy_loudness": LoudnessFrames, "toy_spectrum": SpectrumFrames}
CLIPS = [make_clip(0.5 + 0.3 * i, seed=i) * 0.2 * (i + 1) for i in range(4)]


@pytest.fixture(autouse=True)
def families(monkeypatch):
    """The toys are registered for the length of a test."""
    monkeypatch.setattr(frame_encoder_families, "FRAME_ENCODERS", dict(frame_encoder_families.FRAME_ENCODERS))
    for name, family in TOYS.items():
        enclap_hf.register_frame_encoder(name, family)


def train(processor, model, output_dir) -> EnClapTrainer:
    """Two steps on four recordings."""
    clips = processor.encode_recordings(CLIPS, RATE)
    for i, clip in enumerate(clips):
        clip["caption"] = ["a dog barks twice", "rain falls on a roof"][i % 2]
    trainer = EnClapTrainer(
        model=model,
        args=Seq2SeqTrainingArguments(
            output_dir=str(output_dir),
            max_steps=2,
            per_device_train_batch_size=2,
            learning_rate=1e-3,
            logging_steps=1,
            save_steps=1,
            report_to="none",
            use_cpu=True,
        ),
        data_collator=DataCollatorForEnClap(processor, mcm_probability=0.5, mcm_span=4),
        train_dataset=clips,
        processing_class=processor,
    )
    trainer.train()
    return trainer


@pytest.mark.parametrize("name", TOYS)
def test_it_trains_saves_loads_and_captions(name, tmp_path):
    processor = build_frame_processor(TOYS[name](range_db=50.0))
    assert processor.frame_encoder_type == name
    extractor = processor.feature_extractor
    assert (extractor.codec_sampling_rate, extractor.codec_hop_length) == (8_000, 320)
    inputs = processor(audio=CLIPS, sampling_rate=RATE)
    frames = inputs["audio_codes" if name == "toy_loudness" else "audio_features"]
    assert frames.dtype == (torch.int64 if name == "toy_loudness" else torch.float32)
    assert frames.shape == (4, 35, 2 if name == "toy_loudness" else 8)
    assert inputs["attention_mask"].sum(1).tolist() == [13, 20, 28, 35]
    model = build_captioner_for(processor)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    trainer = train(processor, model, tmp_path / "run")
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert len(logs) == 2 and all(np.isfinite(entry["loss"]) for entry in logs)
    assert all(("mcm_loss" in entry) is (name == "toy_loudness") for entry in logs)
    moved = {key for key, tensor in model.state_dict().items() if not torch.equal(tensor, before[key])}
    assert any(".embed_encodec." in key or ".embed_features." in key for key in moved)

    trainer.save_model(str(tmp_path / "trained"))
    assert os.listdir(tmp_path / "trained" / "codec") == ["config.json"]
    expected = processor.batch_decode(model.eval().generate(**inputs.to(model.device)))
    loaded = EnClapProcessor.from_pretrained(str(tmp_path / "trained"))
    assert type(loaded.frame_encoder) is TOYS[name] and loaded.frame_encoder.range_db == 50.0
    again = EnClapForConditionalGeneration.from_pretrained(str(tmp_path / "trained"))
    assert loaded.batch_decode(again.generate(**loaded(audio=CLIPS, sampling_rate=RATE))) == expected
    captioner = pipeline("audio-captioning", model=str(tmp_path / "trained"), device="cpu")
    texts = [caption["text"] for caption in captioner(CLIPS, sampling_rate=RATE)]
    assert texts == expected


def test_a_checkpoint_of_a_run_refers_to_it_where_it_is(tmp_path):
    build_frame_processor(LoudnessFrames(40.0)).save_pretrained(tmp_path / "given")
    processor = EnClapProcessor.from_pretrained(str(tmp_path / "given"))
    train(processor, build_captioner_for(processor), tmp_path / "run")
    checkpoint = tmp_path / "run" / "checkpoint-2"
    assert not (checkpoint / "codec").exists()
    assert str(tmp_path) not in (checkpoint / "processor_config.json").read_text()
    assert EnClapProcessor.from_pretrained(str(checkpoint)).frame_encoder.range_db == 40.0


def test_a_codec_of_its_own_gets_all_channels():
    received = []

    class Listener(LoudnessFrames):
        def prepare(self, samples):
            received.append(samples)
            return super().prepare(samples)

    enclap_hf.register_frame_encoder("toy_listener", Listener)
    processor = build_frame_processor(Listener())
    stereo = np.stack([CLIPS[0], -0.5 * CLIPS[0]])
    inputs = processor(audio=stereo, sampling_rate=RATE)
    (samples,) = received
    assert samples.shape == (2, 4000)
    np.testing.assert_allclose(samples[1], -0.5 * samples[0], atol=1e-6)  # float32
    mono = processor(audio=stereo.mean(0), sampling_rate=RATE)
    torch.testing.assert_close(inputs["clap_embedding"], mono["clap_embedding"], atol=1e-5, rtol=0)


def test_a_long_recording_is_cut_to_the_window():
    processor = build_frame_processor(LoudnessFrames())
    processor.feature_extractor.max_codec_frames = 20
    clip = make_clip(3.0)
    (prepared,) = processor.prepare(clip, RATE)["input_values"]
    assert prepared.shape == (20, 320)
    assert processor(audio=clip, sampling_rate=RATE)["audio_codes"].shape == (1, 20, 2)


STRANGER = """
import sys
import enclap_hf
from transformers import pipeline
if sys.argv[3:]:
    from toy_frame_encoder import LoudnessFrames
    enclap_hf.register_frame_encoder("toy_loudness", LoudnessFrames)
try:
    captioner = pipeline("audio-captioning", model=sys.argv[1], device="cpu")
    print("caption:", ascii(captioner(sys.argv[2])["text"]))
except ValueError as error:
    print("refused:", error)
"""


@pytest.mark.slow
def test_another_process_registers_it_before_it_loads(tmp_path):
    soundfile = pytest.importorskip("soundfile")
    processor = build_frame_processor(LoudnessFrames())
    model = build_captioner_for(processor)
    save_repository(model, processor, str(tmp_path / "saved"))
    soundfile.write(tmp_path / "clip.wav", CLIPS[1], RATE, subtype="FLOAT")
    expected = processor.batch_decode(model.generate(**processor(audio=CLIPS[1], sampling_rate=RATE)))

    def ask(*arguments: str) -> str:
        command = [sys.executable, "-c", STRANGER, str(tmp_path / "saved"), str(tmp_path / "clip.wav"), *arguments]
        path = os.pathsep.join(sys.path)
        done = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}, timeout=600
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    assert ask("register") == f"caption: {ascii(expected[0])}"
    refused = ask()
    assert refused.startswith("refused: Got the frame encoder 'toy_loudness'; expected one of encodec, ")
    assert "register_frame_encoder" in refused and len(refused.splitlines()) == 1


# What is refused


def test_a_class_without_a_part_of_the_interface_is_refused():
    class Half:
        def prepare(self, samples): ...

        def encode(self, clips): ...

    with pytest.raises(TypeError, match="which lacks load, save, fingerprint; see `FrameEncoder`"):
        enclap_hf.register_frame_encoder("half", Half)


def test_a_name_that_is_taken_is_refused_and_the_same_class_may_come_again():
    enclap_hf.register_frame_encoder("toy_loudness", LoudnessFrames)
    with pytest.raises(ValueError, match="'dac', which is DacFrames already"):
        enclap_hf.register_frame_encoder("dac", LoudnessFrames)


def test_an_encoder_of_no_registered_class_is_refused():
    class Unknown(LoudnessFrames):
        pass

    with pytest.raises(ValueError, match="Got a Unknown, which is not a known frame encoder; register its class"):
        build_frame_processor(Unknown())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "tokens"}, "of the `kind` 'tokens'; expected 'codes' or 'features'"),
        ({"num_codebooks": None}, "with `num_codebooks` None; expected a number above 0"),
        ({"codebook_size": 0}, "with `codebook_size` 0"),
        ({"frame_rate": "25"}, "with `frame_rate` '25'"),
        ({"sampling_rate": -1}, "with `sampling_rate` -1"),
        ({"kind": "features"}, "with `frame_dim` None"),
    ],
)
def test_an_encoder_that_does_not_say_what_its_frames_are_is_refused(fields, message):
    encoder = LoudnessFrames()
    for name, value in fields.items():
        setattr(encoder, name, value)
    with pytest.raises(ValueError) as caught:
        EnClapProcessor.from_encoders(build_feature_extractor(), build_tokenizer(), encoder, build_clap())
    assert message in str(caught.value) and "LoudnessFrames" in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("toy", "frames", "message"),
    [
        (LoudnessFrames, torch.zeros(5, 1, dtype=torch.long), "torch.int64 of shape (5, 1)"),
        (LoudnessFrames, torch.zeros(5, 2), "torch.float32 of shape (5, 2)"),
        (LoudnessFrames, torch.zeros(0, 2, dtype=torch.long), "of shape (0, 2)"),
        (LoudnessFrames, torch.zeros(1, 5, 2, dtype=torch.long), "of shape (1, 5, 2)"),
        (LoudnessFrames, torch.full((5, 2), 12), "codes from 12 to 12; expected 0 to 11"),
        (LoudnessFrames, torch.full((5, 2), -1), "codes from -1 to -1"),
        (SpectrumFrames, torch.zeros(5, 9), "expected floats (T, 8)"),
        (SpectrumFrames, torch.zeros(5, 8, dtype=torch.long), "torch.int64 of shape (5, 8)"),
    ],
)
def test_frames_that_are_not_what_their_encoder_said_are_refused(toy, frames, message):
    encoder = toy()
    processor = build_frame_processor(encoder)
    encoder.encode = lambda clips: [frames for _ in clips]
    with pytest.raises(ValueError) as caught:
        processor(audio=CLIPS[0], sampling_rate=RATE)
    assert message in str(caught.value) and toy.__name__ in str(caught.value)
    assert str(caught.value).isprintable()


def test_an_encoder_that_gives_another_number_of_clips_is_refused():
    encoder = LoudnessFrames()
    processor, encode = build_frame_processor(encoder), encoder.encode
    encoder.encode = lambda clips: encode(clips)[:-1]
    with pytest.raises(ValueError, match="gave frames of 1 clips for 2"):
        processor(audio=CLIPS[:2], sampling_rate=RATE)
