"""Long recordings for tests, and a tiny captioner of them; fixtures are taken by assignment."""

import numpy as np
import pytest
from transformers import pipeline

from audio_clips import encoded
from conftest import build_model, build_processor, make_clip
from enclap_hf import AudioCaptioningPipeline

RATE = 24_000
HEARD_S = 253 / 75  # of the tests' model
# A short file, and one that is cut into windows of 2 s: 2, 2, 2 and 1.3 s.
SHORT, LONG = make_clip(0.7, 5), np.concatenate([make_clip(2.0, 1), make_clip(3.0, 2), make_clip(2.3, 3)])


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> str:
    folder = str(tmp_path_factory.mktemp("repository"))
    model = build_model()
    model.generation_config.max_length = 10
    model.save_pretrained(folder)
    build_processor().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def captioner(repository) -> AudioCaptioningPipeline:
    return pipeline("audio-captioning", model=repository, device="cpu", num_beams=1)


def wav(samples: np.ndarray, rate: int = RATE) -> bytes:
    return encoded(samples.T, rate)
