"""Clips that the tests of reading audio share, and what they measure of them."""

import io

import numpy as np
import pytest
import soundfile

from enclap_hf.model.audio_errors import AudioLoadError

RATE = 16_000
AV_INSTALL = 'pip install "enclap-hf[av]"'


def sine(rate=RATE, duration_s=0.5, hz=440.0, level=0.5):
    return (level * np.sin(2 * np.pi * hz * np.arange(round(rate * duration_s)) / rate)).astype(np.float32)


def encoded(samples, rate=RATE, **kind):
    file = io.BytesIO()
    soundfile.write(file, samples, rate, **(kind or {"format": "WAV", "subtype": "FLOAT"}))
    return file.getvalue()


def encoded_by_av(samples, rate, container, codec, **tags):
    """One stereo clip (2, num_samples) as an mp4, webm, ... file; skips the test where this ffmpeg cannot write it."""
    av = pytest.importorskip("av")
    file = io.BytesIO()
    try:
        with av.open(file, "w", format=container) as output:
            output.metadata.update(tags)
            stream = output.add_stream(codec, rate=rate)
            stream.layout = "stereo"
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout="stereo")
            frame.sample_rate = rate
            for packet in (*stream.encode(frame), *stream.encode(None)):
                output.mux(packet)
    except (av.error.FFmpegError, av.codec.codec.UnknownCodecError) as error:
        pytest.skip(f"this ffmpeg writes no {codec}: {error}")
    return file.getvalue()


def strongest_hz(samples, rate):
    """Frequency of the highest spectral peak, to a small part of a bin."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), 16 * len(samples)))
    return np.argmax(spectrum) * rate / (16 * len(samples))


def rms(samples):
    return np.sqrt(np.mean(np.square(samples, dtype=np.float64)))


class Decoder:
    """The part of torchcodec's AudioDecoder that is used."""

    class Samples:
        def __init__(self, data, sample_rate):
            self.data, self.sample_rate = data, sample_rate

    def __init__(self, data, sample_rate=RATE):
        self.samples = self.Samples(data, sample_rate)

    def get_all_samples(self):
        return self.samples


class Pipe(io.RawIOBase):
    """A stream that cannot seek."""

    def __init__(self, content):
        self.content = io.BytesIO(content)

    def readable(self):
        return True

    def readinto(self, buffer):
        return self.content.readinto(buffer)


def assert_helpful(load, named, problem, remedy):
    with pytest.raises(AudioLoadError) as caught:
        load()
    message = str(caught.value)
    assert message.isprintable()  # one line
    for part in (named, problem, remedy):
        assert part in message
    assert len(message) < 4000


CLIP = sine()
WAV = encoded(CLIP)
