"""Parts that were not made for each other are refused in one line, however they are put together."""

import json
import shutil

import pytest
from transformers import Seq2SeqTrainingArguments, pipeline

from conftest import build_clap, build_codec, build_config, build_feature_extractor, build_model, build_tokenizer
from enclap_hf import EnClapFeatureExtractor, EnClapProcessor
from enclap_hf.model.clap_frames import ClapFrames
from enclap_hf.model.encodec_frames import EncodecLatents
from enclap_hf.model.model_files import ModelFileError
from enclap_hf.model.repository import save_repository
from enclap_hf.training.trainer import EnClapTrainer
from frame_encoder_models import (
    ENCODEC_32_KHZ,
    ENCODEC_48_KHZ,
    build_captioner_for,
    build_encodec,
    build_frame_encoder,
    build_frame_processor,
)
from toy_frame_encoder import LoudnessFrames

WAYS = ("pipeline", "trainer", "save_repository", "pipe.save_pretrained", "push_to_hub", "pipe.push_to_hub", "folder")
# Of each pair of fields: the processor's encoder, whether it gives CLAP's vector, what the captioner says, the message.
PAIRS = {
    "kind: features": (
        "encodec_24",
        True,
        {"frame_kind": "features", "frame_dim": 16},
        "reads features (`frame_kind`)",
    ),
    "kind: codes": (
        "log_mel",
        True,
        {"frame_kind": "codes", "frame_dim": None, "frame_encoder_type": None},
        "reads codes (`frame_kind`), and the processor's frame encoder (log_mel) gives features",
    ),
    "type": ("dac_24", True, {"frame_encoder_type": "encodec"}, "`frame_encoder_type`: encodec and dac"),
    "type of features": ("log_mel", True, {"frame_encoder_type": "clap_frames"}, "clap_frames and log_mel"),
    "frame rate": ("encodec_32", True, {"frame_rate": 75.0}, "`frame_rate`: 75.0 and 50.0"),
    "fewer codebooks": ("encodec_24", True, {"num_codebooks": 3}, "`num_codebooks`: 3 and 4"),
    "more codebooks": ("encodec_24", True, {"num_codebooks": 5}, "`num_codebooks`: 5 and 4"),
    "size": ("encodec_24", True, {"codec_vocab_size": 64}, "(`codec_vocab_size`): 64 and 32"),
    "width": ("log_mel", True, {"frame_dim": 20}, "`frame_dim`: 20 and 16"),
    "CLAP width": ("encodec_24", True, {"clap_dim": 48}, "(`clap_dim`, 0 for none): 48 and 24"),
    "no vector wanted": ("encodec_24", True, {"clap_dim": 0}, "(`clap_dim`, 0 for none): 0 and 24"),
    "no vector given": ("log_mel", False, {"clap_dim": 24}, "(`clap_dim`, 0 for none): 24 and 0"),
    "window": ("encodec_24", True, {"max_position_embeddings": 200}, "keeps 253 frames of a clip (`max_codec_frames`)"),
}


@pytest.fixture(scope="module")
def processors():
    """Processors, made when first asked for."""
    made = {}

    def get(name: str, with_clap: bool) -> EnClapProcessor:
        if (name, with_clap) not in made:
            made[name, with_clap] = build_frame_processor(build_frame_encoder(name), with_clap)
        return made[name, with_clap]

    return get


def put_together(way: str, model, processor, folder) -> None:
    """Bring a captioner and a processor together."""
    if way == "trainer":
        args = Seq2SeqTrainingArguments(output_dir=str(folder), report_to="none", use_cpu=True)
        EnClapTrainer(model=model, args=args, processing_class=processor)
    elif way == "save_repository":
        save_repository(model, processor, str(folder / "saved"))
    elif way == "push_to_hub":
        model.push_to_hub("me/captioner", processor=processor)
    elif way == "folder":  # saved one by one
        model.save_pretrained(folder / "apart")
        processor.save_pretrained(folder / "apart")
        pipeline("audio-captioning", model=str(folder / "apart"), device="cpu")
    elif way == "pipeline":
        pipeline("audio-captioning", model=model, processor=processor, device="cpu")
    else:
        captioner = pipeline(
            "audio-captioning", model=build_captioner_for(processor), processor=processor, device="cpu"
        )
        captioner.model = model
        if way == "pipe.push_to_hub":
            captioner.push_to_hub("me/captioner")
        else:
            captioner.save_pretrained(str(folder / "saved"))


def assert_refused(put, message: str) -> None:
    with pytest.raises((ValueError, ModelFileError)) as caught:
        put()
    assert message in str(caught.value) and str(caught.value).isprintable()  # one line


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("pair", PAIRS)
def test_a_captioner_of_other_frames_is_refused(processors, hub, tmp_path, pair, way):
    name, with_clap, fields, message = PAIRS[pair]
    processor = processors(name, with_clap)
    model = build_captioner_for(processor, **fields)
    assert_refused(lambda: put_together(way, model, processor, tmp_path), message)
    assert not (tmp_path / "saved").exists() and not hub.repositories


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["encodec_24", "log_mel"])
def test_a_captioner_that_fits_is_taken(processors, hub, tmp_path, name, way):
    """Otherwise the test above would pass by refusing everything."""
    processor = processors(name, True)
    put_together(way, build_captioner_for(processor), processor, tmp_path)


@pytest.mark.parametrize("with_clap", [True, False])
def test_what_an_older_captioner_does_not_say_is_not_compared(processors, with_clap):
    processor = processors("encodec_24", with_clap)
    config = build_config(clap_dim=24 if with_clap else 0)
    assert config.frame_kind == "codes" and config.frame_encoder_type is config.frame_rate is None
    processor.check_captioner(config)


def test_rates_that_were_rounded_when_written_down_are_the_same(processors):
    processor = processors("encodec_48", True)
    model = build_captioner_for(processor, frame_rate=round(processor.frame_encoder.frame_rate, 6))
    processor.check_captioner(model.config)


# A processor's own parts


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processor")
    build_frame_processor(build_frame_encoder("encodec_24")).save_pretrained(folder)
    for name, fields in {"encodec_32": ENCODEC_32_KHZ, "encodec_48": ENCODEC_48_KHZ}.items():
        build_encodec(**fields).save_pretrained(folder / name)
    build_encodec(upsampling_ratios=[8, 5, 4, 4]).save_pretrained(folder / "encodec_hop")
    return folder


INSIDE = {
    "sampling rate": (
        {"codec_source": {"subfolder": "encodec_32"}},
        "saved for a frame encoder of 24000 Hz (`codec_sampling_rate`), and this one (encodec) reads 32000 Hz",
    ),
    "frame rate": (
        {"codec_source": {"subfolder": "encodec_hop"}},
        "saved for frames of 320 samples (`codec_hop_length`), and this frame encoder's (encodec) have 640",
    ),
    "codebooks": ({"num_codebooks": 5}, "Asked for 5 codebooks of a codec that has 4 (encodec)"),
    "family": ({"frame_encoder_type": "dac"}, "Got a model of type 'encodec' in"),
    "no family": ({"frame_encoder_type": "opus"}, "Got the frame encoder 'opus'; expected one of encodec, "),
    "latents of segments": (
        {"frame_encoder_type": "encodec_latents", "codec_source": {"subfolder": "encodec_48"}},
        "stereo, scaled or cut into segments",
    ),
    "vector": ({"sequence_vector": "music"}, "its field sequence_vector is 'music'; expected clap or none"),
    "mel bins": ({"feature_extractor.num_mel_bins": 64}, "makes 64 mel bins (`num_mel_bins`), and CLAP reads 16"),
    "mel bins of frames": (
        {"feature_extractor.num_mel_bins": 64, "frame_encoder_type": "clap_frames", "sequence_vector": "none"},
        "makes 64 mel bins (`num_mel_bins`), and CLAP reads 16",
    ),
    "CLAP's window": (
        {"feature_extractor.clap_window_s": 4.0},
        "have 401 mel frames (`clap_window_s`, `hop_length`), and CLAP reads 256 at most",
    ),
    "fusion": ({"feature_extractor.long_clips": "fusion"}, "for fusion (`long_clips`"),
}


@pytest.mark.parametrize("case", INSIDE)
def test_a_saved_processor_of_parts_that_do_not_fit_is_refused_when_loaded(saved, tmp_path, case):
    changes, message = INSIDE[case]
    folder = tmp_path / "changed"
    shutil.copytree(saved, folder)
    path = folder / "processor_config.json"
    fields = json.loads(path.read_text())
    for name, value in changes.items():
        group, _, key = name.rpartition(".")
        (fields[group] if group else fields)[key] = value
    path.write_text(json.dumps(fields))
    assert_refused(lambda: EnClapProcessor.from_pretrained(str(folder)), message)


def extractor(**fields) -> EnClapFeatureExtractor:
    return EnClapFeatureExtractor(**{**build_feature_extractor().to_dict(), **fields})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: (extractor(codec_sampling_rate=24_000, codec_hop_length=320), build_encodec(**ENCODEC_32_KHZ)),
            "of 24000 Hz (`codec_sampling_rate`), and this one (encodec) reads 32000 Hz",
        ),
        (
            lambda: (extractor(codec_sampling_rate=8000, codec_hop_length=160), build_codec()),
            "of 8000 Hz",
        ),
        (
            lambda: (extractor(codec_sampling_rate=24_000, codec_hop_length=640), build_codec()),
            "frames of 640 samples (`codec_hop_length`), and this frame encoder's (encodec) have 320",
        ),
        (lambda: (extractor(num_mel_bins=64), build_codec()), "makes 64 mel bins"),
        (lambda: (extractor(num_mel_bins=64), ClapFrames(build_clap())), "makes 64 mel bins"),
        (lambda: (extractor(clap_window_s=4.0), build_codec()), "have 401 mel frames"),
        (lambda: (extractor(long_clips="fusion"), build_codec()), "for fusion (`long_clips`"),
        (lambda: (extractor(), build_clap()), "Got the frame encoder 'clap_audio_model'; expected one of"),
        (lambda: (extractor(), LoudnessFrames()), "Got a LoudnessFrames, which is not a known frame encoder"),
    ],
)
def test_a_processor_of_loaded_parts_that_do_not_fit_is_refused(make, message):
    feature_extractor, encoder = make()
    tokenizer, clap = build_tokenizer(), build_clap()
    assert_refused(lambda: EnClapProcessor.from_encoders(feature_extractor, tokenizer, encoder, clap), message)


def test_more_codebooks_than_a_codec_has_are_refused():
    parts = (extractor(), build_tokenizer(), build_codec(), build_clap())
    assert_refused(
        lambda: EnClapProcessor.from_encoders(*parts, num_codebooks=5), "Asked for 5 codebooks of a codec that has 4"
    )


def test_without_a_vector_clap_is_not_asked_for(tmp_path):
    """The windows of a tower that is not there cannot be wrong."""
    processor = EnClapProcessor.from_encoders(
        extractor(num_mel_bins=64), build_tokenizer(), EncodecLatents(build_codec()), None
    )
    processor.check_captioner(build_captioner_for(processor).config)
    processor.save_pretrained(tmp_path)
    assert not (tmp_path / "clap").exists()
    assert EnClapProcessor.from_pretrained(str(tmp_path)).clap_encoder is None


def test_another_encoder_takes_the_place_of_the_first_with_its_rates(saved):
    processor = EnClapProcessor.from_pretrained(str(saved))
    processor.use_encoder("codec", {"repo_id": str(saved), "subfolder": "encodec_32"})
    processor.check_parts()
    stated = processor.feature_extractor
    assert (stated.codec_sampling_rate, stated.codec_hop_length) == (32_000, 640)
    assert_refused(
        lambda: processor.check_captioner(build_model(frame_rate=75.0, codec_vocab_size=2048).config),
        "`frame_rate`: 75.0 and 50.0",
    )
