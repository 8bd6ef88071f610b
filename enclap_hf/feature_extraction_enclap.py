"""From a recording to what the two frozen encoders read: a waveform for EnCodec, log-mel windows for CLAP.

Everything is deterministic: the published system drew the windows of long clips at random and let one clip of a batch
change another's; here a clip has one description, whatever stands beside it.
"""

import functools

import numpy as np
import torch
from torch import nn
from transformers import BatchFeature, FeatureExtractionMixin
from transformers.audio_utils import mel_filter_bank

from .audio_arrays import as_whole_number  # noqa: F401 (transformers 5.0 copies only what this file names itself)
from .audio_av import AvDecoder  # noqa: F401 (as above)
from .audio_bytes import FileView  # noqa: F401 (as above)
from .audio_chatter import silence_c_libraries  # noqa: F401 (as above)
from .audio_decoding import SoundfileDecoder  # noqa: F401 (as above)
from .audio_errors import AudioLoadError  # noqa: F401 (as above)
from .audio_formats import AUDIO_EXTENSIONS  # noqa: F401 (as above)
from .audio_headers import inspect_header  # noqa: F401 (as above)
from .audio_links import inspect_stream  # noqa: F401 (as above)
from .audio_loading import as_audio_batch, load_audio
from .audio_memory import check_memory  # noqa: F401 (as above)
from .audio_reader import AudioReader  # noqa: F401 (as above)
from .audio_resampling import resample_audio
from .audio_sources import open_audio  # noqa: F401 (as above)

# Extra audio resampled behind the last codec frame, so that the resampler's edge falls outside of what is kept.
RESAMPLING_MARGIN_S = 0.5
# Mel frames whose spectra are held in memory at once (five minutes at 100 frames a second).
MEL_BLOCK_FRAMES = 30_000


class EnClapFeatureExtractor(FeatureExtractionMixin):
    """Turns recordings into EnCodec's waveforms and CLAP's log-mel windows.

    The defaults are those of the published captioners (LAION-CLAP with fusion, EnCodec 24 kHz).

    Args:
        codec_sampling_rate: Hz that EnCodec reads.
        codec_hop_length: samples of a codec frame; 24,000 / 320 = 75 frames a second.
        max_codec_frames: T, frames kept from the start of a clip; None keeps all.
        clap_sampling_rate: Hz that CLAP reads.
        clap_window_s: seconds of a CLAP window; shorter clips are repeated to fill it.
        n_fft: samples of the periodic Hann window and of the Fourier transform.
        hop_length: samples from one mel frame to the next.
        num_mel_bins: bins of the mel filter bank.
        frequency_min: Hz, lower edge of the lowest mel bin.
        frequency_max: Hz, upper edge of the highest mel bin.
        long_clips: what CLAP sees of a clip longer than its window: "fusion", the whole clip shrunk and one window
            of each third; or "middle", the window in the middle (for towers without fusion).
        int16_round_trip: round CLAP's samples to 16 bits and back, as when the published captioners were trained.
        mel_scale: "htk", triangles of height 1 (LAION-CLAP with fusion), or "slaney", triangles of equal area
            (LAION-CLAP without fusion).

    Raises:
        ValueError: a field is out of its range.

    Source: LAION-CLAP, `get_audio_features`; EnCLAP, arXiv 2401.17690, section 3.
    """

    model_input_names = ["input_values", "input_features"]

    def __init__(
        self,
        codec_sampling_rate: int = 24_000,
        codec_hop_length: int = 320,
        max_codec_frames: int | None = 1021,
        clap_sampling_rate: int = 48_000,
        clap_window_s: float = 10.0,
        n_fft: int = 1024,
        hop_length: int = 480,
        num_mel_bins: int = 64,
        frequency_min: float = 50.0,
        frequency_max: float = 14_000.0,
        long_clips: str = "fusion",
        int16_round_trip: bool = True,
        mel_scale: str = "htk",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.codec_sampling_rate = codec_sampling_rate
        self.codec_hop_length = codec_hop_length
        self.max_codec_frames = max_codec_frames
        self.clap_sampling_rate = clap_sampling_rate
        self.clap_window_s = clap_window_s
        self.n_fft = n_fft
        self.hop_length = hop_length
        self.num_mel_bins = num_mel_bins
        self.frequency_min = frequency_min
        self.frequency_max = frequency_max
        self.long_clips = long_clips
        self.int16_round_trip = int16_round_trip
        self.mel_scale = mel_scale
        self._check_fields()

    def _check_fields(self) -> None:
        if self.long_clips not in ("fusion", "middle"):
            raise ValueError(f'Got `long_clips`={self.long_clips!r}; expected "fusion" or "middle".')
        if self.mel_scale not in ("htk", "slaney"):
            raise ValueError(f'Got `mel_scale`={self.mel_scale!r}; expected "htk" or "slaney".')
        if not 0 <= self.frequency_min < self.frequency_max <= self.clap_sampling_rate / 2:
            raise ValueError(
                f"Got `frequency_min`={self.frequency_min} and `frequency_max`={self.frequency_max} Hz; expected 0 <= "
                f"minimum < maximum <= {self.clap_sampling_rate / 2} Hz, half of `clap_sampling_rate`."
            )
        if self.max_codec_frames is not None and self.max_codec_frames < 1:
            raise ValueError(f"Got `max_codec_frames`={self.max_codec_frames}; expected at least 1, or None for all.")

    @property
    def sampling_rate(self) -> int:
        """Hz that a pipeline should record at so that nothing is lost: the higher of the encoders' rates."""
        return max(self.codec_sampling_rate, self.clap_sampling_rate)

    @property
    def clap_window_length(self) -> int:
        """Samples of a CLAP window."""
        return round(self.clap_window_s * self.clap_sampling_rate)

    @property
    def window_mel_frames(self) -> int:
        """Mel frames of a CLAP window."""
        return self.clap_window_length // self.hop_length + 1

    def __call__(
        self,
        audio,
        sampling_rate: int | None = None,
        rng: np.random.Generator | None = None,
        device: str | torch.device = "cpu",
        **kwargs,
    ) -> BatchFeature:
        """Prepare one recording or a list of them.

        Args:
            audio: anything [`~enclap_hf.audio_loading.load_audio`] reads, or a list of such.
            sampling_rate: Hz of arrays and tensors, which do not carry it.
            rng: draws where the windows of clips longer than CLAP's window start, to augment training; without it
                they start in the middle of their thirds.
            device: where the log-mel windows are computed, and stay.
        Returns:
            `input_values`: list of float32 waveforms (num_samples,) at the codec's rate;
            `input_features`: float32 (B, windows, mel frames, mel bins), log-mel in dB;
            `is_longer`: bool (B, 1), True where the three extra windows hold parts of a longer clip.
        Raises:
            AudioLoadError: a recording that cannot be read; the message names it.
            ValueError: an empty list.
        """
        clips, _ = as_audio_batch(audio)
        if not clips:
            raise ValueError("Got an empty list of recordings; pass at least one.")
        waveforms, features, is_longer = [], [], []
        for clip in clips:
            loaded = load_audio(clip, sampling_rate)
            waveforms.append(self.prepare_codec_waveform(loaded.samples, loaded.sampling_rate))
            clap_samples = resample_audio(loaded.samples, loaded.sampling_rate, self.clap_sampling_rate)
            windows, longer = self.prepare_clap_windows(torch.from_numpy(clap_samples).to(device), rng)
            features.append(windows)
            is_longer.append([longer])
        return BatchFeature(
            {
                "input_values": waveforms,
                "input_features": torch.stack(features),
                "is_longer": torch.tensor(is_longer),
            }
        )

    def prepare_codec_waveform(self, samples: np.ndarray, sampling_rate: int) -> torch.Tensor:
        """Resample to the codec's rate, and keep the samples of the first `max_codec_frames` frames: (num_samples,).

        A codec frame depends on no later sample, so what is cut away does not change the frames that stay.
        """
        if self.max_codec_frames is None:
            return torch.from_numpy(resample_audio(samples, sampling_rate, self.codec_sampling_rate))
        max_samples = self.max_codec_frames * self.codec_hop_length
        head_s = max_samples / self.codec_sampling_rate + RESAMPLING_MARGIN_S
        head = samples[: int(head_s * sampling_rate)]
        return torch.from_numpy(resample_audio(head, sampling_rate, self.codec_sampling_rate)[:max_samples].copy())

    def prepare_clap_windows(
        self, samples: torch.Tensor, rng: np.random.Generator | None = None
    ) -> tuple[torch.Tensor, bool]:
        """Log-mel windows of one clip at CLAP's rate: (num_samples,) -> (windows, mel frames, mel bins), is longer.

        "fusion" gives four windows: for a longer clip the whole clip shrunk and its three parts, else one four times.
        """
        if self.int16_round_trip:
            samples = torch.trunc(samples.clamp(-1, 1) * 32767) / 32767
        length, num_windows = self.clap_window_length, 4 if self.long_clips == "fusion" else 1
        if len(samples) > length and self.long_clips == "middle":
            start = (len(samples) - length + 1) // 2
            samples = samples[start : start + length]
        if len(samples) <= length:
            samples = fill_window(samples, length)
        mel = self.compute_log_mel(samples)
        # A clip that is longer by less than one hop has as many mel frames as a window, and counts as one.
        if len(mel) == self.window_mel_frames:
            return mel.expand(num_windows, -1, -1).contiguous(), False
        starts = choose_window_starts(len(mel), self.window_mel_frames, rng)
        # Bilinear without antialiasing: the pixels that the published captioners were trained on.
        shrunk = nn.functional.interpolate(
            mel[None, None], size=(self.window_mel_frames, self.num_mel_bins), mode="bilinear", align_corners=False
        )[0, 0]
        return torch.stack([shrunk, *(mel[start : start + self.window_mel_frames] for start in starts)]), True

    def compute_log_mel(self, samples: torch.Tensor) -> torch.Tensor:
        """Log-mel spectrogram in dB, without an upper or lower cut: (num_samples,) -> (mel frames, mel bins).

        Long clips pass in blocks of frames, so that their complex spectra are never in memory as a whole.
        """
        filters = make_mel_filters(
            self.n_fft // 2 + 1,
            self.num_mel_bins,
            self.frequency_min,
            self.frequency_max,
            self.clap_sampling_rate,
            self.mel_scale,
            samples.device,
        )
        window = make_hann_window(self.n_fft, samples.device)
        half = self.n_fft // 2
        padded = nn.functional.pad(samples[None], (half, half), mode="reflect")[0]
        num_frames = len(samples) // self.hop_length + 1
        blocks = []
        for first in range(0, num_frames, MEL_BLOCK_FRAMES):
            frames = min(MEL_BLOCK_FRAMES, num_frames - first)
            start = first * self.hop_length
            part = padded[start : start + (frames - 1) * self.hop_length + self.n_fft]
            spectrum = torch.stft(part, self.n_fft, self.hop_length, window=window, center=False, return_complex=True)
            power = spectrum.real**2 + spectrum.imag**2  # (n_fft // 2 + 1, frames)
            with torch.autocast(samples.device.type, enabled=False):  # which would multiply in half precision
                blocks.append(10 * torch.log10((power.T @ filters).clamp(min=1e-10)))
        return torch.cat(blocks)


@functools.lru_cache(maxsize=8)
def make_mel_filters(
    num_frequency_bins: int,
    num_mel_bins: int,
    frequency_min: float,
    frequency_max: float,
    sampling_rate: int,
    mel_scale: str,
    device: torch.device,
) -> torch.Tensor:
    """Triangular filters, float32 (frequency bins, mel bins); made once for each setting."""
    filters = mel_filter_bank(
        num_frequency_bins=num_frequency_bins,
        num_mel_filters=num_mel_bins,
        min_frequency=frequency_min,
        max_frequency=frequency_max,
        sampling_rate=sampling_rate,
        norm="slaney" if mel_scale == "slaney" else None,
        mel_scale=mel_scale,
    )
    return torch.from_numpy(filters.astype(np.float32)).to(device)


@functools.lru_cache(maxsize=8)
def make_hann_window(num_samples: int, device: torch.device) -> torch.Tensor:
    """The periodic Hann window (num_samples,); made once for each size."""
    return torch.hann_window(num_samples, periodic=True, device=device)


def fill_window(samples: torch.Tensor, length: int) -> torch.Tensor:
    """Repeat a short clip as many whole times as fit, then pad with zeros: (num_samples,) -> (length,)."""
    repeated = samples.repeat(length // len(samples))
    return nn.functional.pad(repeated, (0, length - len(repeated)))


def choose_window_starts(num_frames: int, window_frames: int, rng: np.random.Generator | None = None) -> list[int]:
    """First frames of three windows, one in each third of the possible ones.

    Args:
        num_frames: mel frames of the clip, more than a window has.
        window_frames: mel frames of a window.
        rng: draws each start from its third; without it, the middle one is taken.
    Source: LAION-CLAP draws them with numpy's global generator, also in evaluation.
    """
    thirds = np.array_split(np.arange(num_frames - window_frames + 1), 3)
    thirds = [third if len(third) else np.zeros(1, dtype=int) for third in thirds]
    return [int(third[len(third) // 2] if rng is None else rng.choice(third)) for third in thirds]
