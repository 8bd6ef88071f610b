"""A frame encoder that the package does not know, all of it in this file: loudness and pitch of short stretches.

It derives from nothing of the package and has the documented interface alone, as a stranger's would.
"""

import hashlib
import json
import os

import numpy as np
import torch


class LoudnessFrames:
    """Codes: in each stretch of 40 ms how loud it is, and how often the signal crosses zero; 12 steps each."""

    sampling_rate = 8_000
    frame_rate = 25.0
    kind = "codes"
    num_codebooks = 2
    codebook_size = 12

    def __init__(self, range_db: float = 60.0):
        self.range_db = range_db

    @classmethod
    def load(cls, source):
        with open(os.path.join(source, "config.json"), encoding="utf-8") as file:
            return cls(json.load(file)["range_db"])

    def save(self, folder):
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as file:
            json.dump({"range_db": self.range_db}, file)

    def fingerprint(self):
        return hashlib.sha256(f"{type(self).__name__} {self.range_db}".encode()).hexdigest()

    def prepare(self, samples):
        """(channels, num_samples) -> stretches (T, 320), the last one filled with zeros."""
        mono = samples.mean(axis=0)
        return np.pad(mono, (0, -len(mono) % 320)).reshape(-1, 320)

    def encode(self, clips):
        return [torch.from_numpy(self.measure(stretches)) for stretches in clips]

    def measure(self, stretches):
        """(T, 320) -> codes (T, 2)."""
        level_db = 10 * np.log10(np.square(stretches).mean(1) + 1e-9)
        crossings = (np.diff(np.sign(stretches), axis=1) != 0).mean(1)
        steps = np.stack([1 + level_db / self.range_db, 2 * crossings], axis=1) * self.codebook_size
        return np.clip(steps, 0, self.codebook_size - 1).astype(np.int64)


class SpectrumFrames(LoudnessFrames):
    """Features: the first 8 bands of each stretch's spectrum."""

    kind = "features"
    num_codebooks = codebook_size = None
    frame_dim = 8

    def measure(self, stretches):
        """(T, 320) -> (T, 8)."""
        spectrum = np.abs(np.fft.rfft(stretches, axis=1))[:, :160].reshape(-1, 8, 20).mean(2)
        return np.log(spectrum + 1e-3).astype(np.float64)  # the package makes it float32


class ScaledFrames(SpectrumFrames):
    """The same, each band scaled; it is saved in a file of its own kind alone."""

    def __init__(self, scales=(1.0,) * 8):
        self.scales = np.asarray(scales, dtype=np.float64)

    @classmethod
    def load(cls, source):
        return cls(np.load(os.path.join(source, "scales.npy")))

    def save(self, folder):
        os.makedirs(folder, exist_ok=True)
        np.save(os.path.join(folder, "scales.npy"), self.scales)

    def fingerprint(self):
        return hashlib.sha256(self.scales.tobytes()).hexdigest()

    def measure(self, stretches):
        return super().measure(stretches) * self.scales
