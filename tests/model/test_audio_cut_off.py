"""What is read in part is said, in every format that states a length or is written in pages."""

import io

import numpy as np
import pytest
import soundfile

from audio_clips import RATE, encoded
from enclap_hf.model.audio_loading import load_audio

NOISE = (0.3 * np.random.default_rng(4).uniform(-1, 1, 4 * RATE)).astype(np.float32)
STATED = ["NIST", "VOC", "SVX", "AVR", "MAT4", "MAT5", "MPC2K", "WVE", "AIFF", "AU", "CAF", "W64", "RF64", "WAV"]
PAGED = [("OGG", "VORBIS"), ("OGG", "OPUS")]


def make(container, subtype):
    if subtype not in soundfile.available_subtypes(container):
        pytest.skip(f"this libsndfile has no {subtype}")
    return encoded(NOISE, 8000 if container == "WVE" else RATE, format=container, subtype=subtype)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("container", STATED)
def test_a_format_that_states_its_length(container, share, caplog):
    content = make(container, "ALAW" if container == "WVE" else "PCM_16")
    whole = load_audio(content)
    assert not whole.is_partial and not caplog.text
    part = load_audio(content[: round(share * len(content))])
    assert f"its header promises {len(whole.samples) / whole.sampling_rate:.2f} s" in part.partial_reason
    assert abs(len(part.samples) / len(whole.samples) - share) < 0.05


@pytest.mark.parametrize("num_missing", [1, 2000])
@pytest.mark.parametrize("container, subtype", PAGED)
def test_a_format_in_pages(container, subtype, num_missing, caplog):
    content = make(container, subtype)
    assert not load_audio(content + content).is_partial and not caplog.text  # two links
    assert not load_audio(content + b"TAG" + bytes(125)).is_partial
    for cut in (content[:-num_missing], content + content[:-num_missing]):
        assert "within a page of its stream" in load_audio(cut).partial_reason


def test_an_mp3_of_which_the_second_decoder_finds_a_frame_alone():
    """libsndfile does not open it; its Xing header promises the whole length."""
    pytest.importorskip("av")
    content = make("MP3", "MPEG_LAYER_III")
    part = load_audio(content[:750])
    assert "its header promises 4.0" in part.partial_reason


def test_a_reader_knows_the_length_of_a_recording_that_was_read_to_its_end():
    from enclap_hf.model.audio_sources import open_audio

    for container in ("WAV", "FLAC"):
        with open_audio(io.BytesIO(make(container, "PCM_16"))) as reader:
            assert sum(block.shape[1] for block in reader.blocks()) == reader.num_samples == len(NOISE)
            assert reader.is_certain
