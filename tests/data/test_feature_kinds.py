"""Features of every kind of frames, codes and continuous ones, with and without CLAP; and one bad recording of many."""

import hashlib
import json
from itertools import islice

import numpy as np
import pytest
import soundfile
import torch

from conftest import build_clap, build_codec, build_feature_extractor, build_tokenizer, make_clip
from enclap_hf import EnClapProcessor
from enclap_hf.data import recording_features
from enclap_hf.data.caption_clips import CaptionDataError, Clip
from enclap_hf.data.captioning_data import open_source
from enclap_hf.data.feature_shards import FeatureSettings, prepare_features
from enclap_hf.data.prepared_features import PreparedClips, read_manifest
from enclap_hf.model.clap_encoder import ClapEncoder
from enclap_hf.model.clap_frames import ClapFrames
from enclap_hf.model.encodec_frames import EncodecLatents
from enclap_hf.model.frame_encoder import freeze
from enclap_hf.model.log_mel_frames import LogMelFrames
from enclap_hf.training.clips import ShownAudio, StreamedClips, TrainingClips

ALL_CODES = {"num_codebooks": 4, "shard_size": 3, "batch_size": 2, "show_progress": False}


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> list[Clip]:
    """Five clips, the last of them longer than a window of 253 frames."""
    folder = tmp_path_factory.mktemp("clips")
    for i, duration_s in enumerate((0.2, 0.31, 0.4, 1.0, 4.0)):
        soundfile.write(folder / f"{i}.wav", make_clip(duration_s, i), 24_000, subtype="FLOAT")
    return [Clip(f"{i}.wav", str(folder / f"{i}.wav"), (f"rain {i}",)) for i in range(5)]


def build(kind: str, with_clap: bool = True) -> EnClapProcessor:
    """A processor with tiny encoders of a kind."""
    tower = build_clap()
    frames = {
        "codes": build_codec,
        "latents": lambda: EncodecLatents(freeze(build_codec())),
        "log_mel": lambda: LogMelFrames(num_mel_bins=16),
        "clap_frames": lambda: ClapFrames(ClapEncoder(freeze(tower))),
    }[kind]()
    extractor = build_feature_extractor()
    extractor.codec_sampling_rate = extractor.codec_hop_length = None
    clap = tower if with_clap else None
    return EnClapProcessor.from_encoders(extractor, build_tokenizer(), frames, clap)


def prepare(clips, folder, processor, **settings) -> PreparedClips:
    is_codes = processor.frame_encoder.kind == "codes"
    settings = {**ALL_CODES, **({} if is_codes else {"num_codebooks": None}), **settings}
    prepare_features(clips, str(folder), processor, FeatureSettings(**settings))
    return PreparedClips(str(folder), processor)


@pytest.mark.parametrize("with_clap", [True, False], ids=["CLAP", "no CLAP"])
@pytest.mark.parametrize("kind", ["codes", "latents", "log_mel", "clap_frames"])
def test_features_are_what_the_processor_gives_for_each_clip_alone(clips, tmp_path, kind, with_clap):
    processor = build(kind, with_clap)
    features = prepare(clips, tmp_path, processor)
    name, dtype = ("audio_codes", np.uint16) if kind == "codes" else ("audio_features", np.float16)
    for clip, row in zip(clips, features, strict=True):
        assert set(row) == {"name", "captions", name, *(["clap_embedding"] if with_clap else [])}
        inputs, frames = processor(audio=clip.audio), row[name]
        alone = inputs[name][0].numpy()  # the first 253 frames
        assert frames.dtype == dtype and frames.shape[1] == alone.shape[1]
        # float16 rounds to 11 bits; a batch sums in another order.
        tolerance = {"rtol": 1e-3, "atol": 1e-3} if dtype == np.float16 else {"rtol": 0, "atol": 0}
        np.testing.assert_allclose(frames[: len(alone)].astype(float), alone, **tolerance)
        if with_clap:
            np.testing.assert_allclose(row["clap_embedding"], inputs["clap_embedding"][0], atol=1e-5)
    assert features.lengths == [len(row[name]) for row in features]
    assert features.lengths[-1] > 253 or kind == "clap_frames", "whole clips are kept"


@pytest.mark.parametrize("kind", ["codes", "latents", "log_mel", "clap_frames"])
def test_the_manifest_names_the_frames(clips, tmp_path, kind):
    processor = build(kind)
    frames = prepare(clips[:2], tmp_path, processor).manifest["encoders"]["frames"]
    encoder = processor.frame_encoder
    for field in ("frame_encoder_type", "kind", "sampling_rate", "frame_rate"):
        assert frames[field] == getattr(encoder, field)
    assert frames.get("codebook_size") == encoder.codebook_size and frames.get("frame_dim") == encoder.frame_dim
    assert len(frames["sha256"]) == 64 and "revision" in frames


def test_features_of_another_kind_are_refused(clips, tmp_path):
    latents = build("latents")
    prepare(clips[:2], tmp_path, latents)
    with pytest.raises(CaptionDataError, match="differ in `frame_encoder_type` encodec_latents and log_mel"):
        PreparedClips(str(tmp_path), build("log_mel"))
    with pytest.raises(CaptionDataError, match="`kind` features and codes"):
        prepare(clips[:2], tmp_path, build("codes"))
    other = EnClapProcessor.from_encoders(
        build_feature_extractor(), build_tokenizer(), EncodecLatents(freeze(build_codec(seed=1))), build_clap()
    )
    with pytest.raises(CaptionDataError, match="are of another frame encoder"):
        PreparedClips(str(tmp_path), other)


def test_clap_vectors_may_be_passed_over_and_not_be_missing(clips, tmp_path):
    prepare(clips[:2], tmp_path / "with", build("codes"))
    assert PreparedClips(str(tmp_path / "with"), build("codes", with_clap=False)).has_clap
    prepare(clips[:2], tmp_path / "without", build("codes", with_clap=False))
    with pytest.raises(CaptionDataError, match="have no CLAP vectors; prepare them again"):
        PreparedClips(str(tmp_path / "without"), build("codes"))
    parts = [PreparedClips(str(tmp_path / "without"))]
    with pytest.raises(CaptionDataError, match="reads CLAP vectors and .*without holds none"):
        TrainingClips(parts, build_tokenizer(), ShownAudio(32), 16)
    example = TrainingClips(parts, build_tokenizer(), ShownAudio(32, use_clap=False), 16)[0]
    assert set(example) == {"audio_codes", "labels"}


def test_an_empty_frame_of_features_is_zero(clips, tmp_path):
    parts = [prepare(clips[:2], tmp_path, build("log_mel"))]
    shown = TrainingClips(parts, build_tokenizer(), ShownAudio(1, use_codes=False), 16)[0]["audio_features"]
    assert shown.shape == (1, 16) and not shown.any()


@pytest.mark.parametrize(
    ("kind", "number", "message"),
    [
        ("codes", 5, "Got `num_codebooks` 5 .*expected 1 to 4"),
        ("codes", None, "Got `num_codebooks` None .*expected 1 to 4"),
        ("log_mel", 4, "Got `num_codebooks` 4 .*expected None for features"),
    ],
)
def test_codebooks_that_are_not_there_are_refused(clips, tmp_path, kind, number, message):
    """Rows of four codebooks would be read as rows of five."""
    with pytest.raises(CaptionDataError, match=message):
        prepare(clips[:2], tmp_path, build(kind), num_codebooks=number)


def test_features_of_the_first_format_are_opened_and_gone_on_with(clips, tmp_path):
    processor = build("codes")
    whole = prepare(clips, tmp_path, processor)
    manifest = json.loads((tmp_path / "features.json").read_text())
    tensors = sorted(processor.codec.state_dict().items())
    digest = hashlib.sha256()
    for name, tensor in tensors:
        if name.startswith(("encoder.", "quantizer.")):
            digest.update(name.encode())
            digest.update(tensor.numpy().tobytes())
    frames = manifest["encoders"].pop("frames")
    codec = {**{name: frames[name] for name in ("repo_id", "revision", "subfolder")}, "sha256": digest.hexdigest()}
    fields = {**manifest["encoders"]["feature_extractor"], "codec_sampling_rate": 24_000, "codec_hop_length": 320}
    encoders = {"codec": codec, "clap": manifest["encoders"]["clap"], "feature_extractor": fields}
    first = {**manifest, "format": 1, "encoders": encoders}
    (tmp_path / "features.json").write_text(json.dumps(first))
    opened = PreparedClips(str(tmp_path), build("codes"))
    assert opened.num_codebooks == 4 and opened.names == whole.names
    np.testing.assert_array_equal(opened[2]["audio_codes"], whole[2]["audio_codes"])
    with pytest.raises(CaptionDataError, match="`kind` codes and features"):
        PreparedClips(str(tmp_path), build("log_mel"))
    begun = {name: value for name, value in first.items() if name not in ("shards", "num_rows", "bad_clips")}
    (tmp_path / "features.json").write_text(json.dumps(begun))
    (tmp_path / "shard-00001-of-00002.arrow").unlink()
    assert prepare(clips, tmp_path, processor).names == whole.names
    assert read_manifest(str(tmp_path))["format"] == 2


# One bad recording among good ones


def fail(error: BaseException):
    """A function that raises for the clip of 0.4 s, whatever it is given."""

    def wrap(method):
        def run(*args, **kwargs):
            samples = args[1] if isinstance(args[0], LogMelFrames) else args[0]
            items = samples if isinstance(samples, list) else [samples]
            if any(9_000 < np.shape(item)[-1] < 11_000 for item in items):
                raise error
            return method(*args, **kwargs)

        return run

    return wrap


ERRORS = [
    OSError(22, "Invalid argument"),
    ValueError("64 bit integers"),
    MemoryError("Unable to allocate 3 GiB"),
    RuntimeError("the decoder\ngave up"),
    ZeroDivisionError("division by zero"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("place", ["reading", "preparing", "encoding"])
def test_whatever_one_recording_raises_is_its_own_error(clips, tmp_path, monkeypatch, place, error):
    """A decoder, a resampler or an encoder may raise anything, and the other clips are features all the same."""
    if place == "reading":
        read = recording_features.load_audio

        def load(audio, **kwargs):
            if kwargs["name"] == "2.wav":
                raise error
            return read(audio, **kwargs)

        monkeypatch.setattr(recording_features, "load_audio", load)
    elif place == "preparing":
        monkeypatch.setattr(LogMelFrames, "prepare", fail(error)(LogMelFrames.prepare))
    else:
        monkeypatch.setattr(LogMelFrames, "encode", fail(error)(LogMelFrames.encode))
    features = prepare(clips, tmp_path, build("log_mel"), max_bad_share=0.2)
    assert features.names == ["0.wav", "1.wav", "3.wav", "4.wav"]
    (bad,) = features.manifest["bad_clips"]
    assert bad["name"] == "2.wav" and bad["reason"].startswith(type(error).__name__) and "\n" not in bad["reason"]
    expected = prepare([clip for clip in clips if clip.name != "2.wav"], tmp_path / "good", build("log_mel"))
    np.testing.assert_array_equal(features[2]["audio_features"], expected[2]["audio_features"])


def test_an_interrupt_is_nobodys_error(clips, tmp_path, monkeypatch):
    monkeypatch.setattr(LogMelFrames, "encode", fail(KeyboardInterrupt())(LogMelFrames.encode))
    with pytest.raises(KeyboardInterrupt):
        prepare(clips, tmp_path, build("log_mel"), max_bad_share=1.0)


def test_an_encoder_that_fails_always_ends_the_run(clips, tmp_path, monkeypatch):
    def encode(self, samples):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(LogMelFrames, "encode", encode)
    with pytest.raises(CaptionDataError, match="2 of 5 clips cannot be used .*RuntimeError: out of memory"):
        prepare(clips, tmp_path, build("log_mel"), max_bad_share=0.2)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e5])
def test_frames_that_float16_cannot_hold_are_a_bad_clip(clips, tmp_path, monkeypatch, value):
    """1e5 is infinite there, and one such clip would make every weight NaN."""
    encode = LogMelFrames.encode_alone

    def encode_alone(self, clip):
        frames = encode(self, clip)
        return torch.full_like(frames, value) if 9_000 < len(clip) < 11_000 else frames

    monkeypatch.setattr(LogMelFrames, "encode_alone", encode_alone)
    features = prepare(clips, tmp_path, build("log_mel"), max_bad_share=0.2)
    assert [clip["name"] for clip in features.manifest["bad_clips"]] == ["2.wav"]
    assert "numbers that are infinite" in features.manifest["bad_clips"][0]["reason"]


# Streams


@pytest.fixture
def stream(clips, tmp_path, monkeypatch):
    """A function that makes a stream of the five clips, pass after pass, which is judged after ten of them."""
    import datasets

    monkeypatch.setattr("enclap_hf.training.clips._NUM_JUDGED", 10)
    rows = {"audio": [clip.audio for clip in clips], "caption": [f"rain {i}" for i in range(len(clips))]}
    datasets.Dataset.from_dict(rows).save_to_disk(str(tmp_path / "saved"))

    def make(**settings) -> StreamedClips:
        settings = FeatureSettings(None, batch_size=3, **settings)
        sources = [open_source(str(tmp_path / "saved"))]
        return StreamedClips(sources, build("log_mel"), settings, ShownAudio(1), 16, seed=0)

    return make


def test_a_clip_of_a_stream_that_cannot_be_encoded_is_passed_over(stream, monkeypatch):
    monkeypatch.setattr(LogMelFrames, "encode", fail(MemoryError())(LogMelFrames.encode))
    decode = build_tokenizer().decode
    seen = [decode(clip["labels"], skip_special_tokens=True) for clip in islice(stream(max_bad_share=0.5), 12)]
    assert set(seen) == {"rain 0", "rain 1", "rain 3", "rain 4"}
    assert all(clip["audio_features"].shape[1] == 16 for clip in islice(stream(max_bad_share=0.5), 2))


@pytest.mark.parametrize("share", [0.1, 1.0])
def test_a_stream_of_which_too_much_cannot_be_encoded_ends(stream, monkeypatch, share):
    """Else a run would search for ever for a clip that its encoder can read."""

    def encode(self, samples):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(LogMelFrames, "encode", encode)
    with pytest.raises(CaptionDataError, match="has no usable clip; the last: RuntimeError: out of memory"):
        next(iter(stream(max_bad_share=share)))


def test_a_stream_with_more_bad_clips_than_allowed_ends(stream, monkeypatch):
    monkeypatch.setattr(LogMelFrames, "encode", fail(OSError(22, "Invalid argument"))(LogMelFrames.encode))
    with pytest.raises(CaptionDataError, match=r"2 of 10 clips cannot be used .*allowed are 10.0%"):
        list(islice(stream(max_bad_share=0.1), 30))
