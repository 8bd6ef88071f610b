"""From a recording to what the two frozen encoders read: samples for the frame encoder, log-mel windows for CLAP.

Everything is deterministic: the published system drew the windows of long clips at random and let one clip of a batch
change another's; here a clip has one description, whatever stands beside it.
"""

import numpy as np
import torch
from transformers import BatchFeature, FeatureExtractionMixin

from .audio_arrays import average_channels
from .audio_loading import as_audio_batch, load_start, open_source
from .audio_reader import AudioReader
from .audio_resampling import resample_audio
from .clap_windows import choose_window_starts, fill_window, stack_windows
from .frame_encoder import FrameEncoder, WaveformFrames, count_samples
from .log_mel import LogMel
from .long_recording import LongRecording

# Extra audio resampled behind the last frame, so that the resampler's edge falls outside of what is kept.
RESAMPLING_MARGIN_S = 0.5
# Longer recordings are never held as a whole: CLAP's windows of them are made block by block.
MAX_HELD_S = 300.0
# What a feature extractor prepares for as long as it belongs to no processor: EnCodec, 24 kHz.
DEFAULT_SAMPLING_RATE, DEFAULT_HOP_LENGTH = 24_000, 320


class EnClapFeatureExtractor(FeatureExtractionMixin):
    """Turns recordings into the frame encoder's samples and CLAP's log-mel windows.

    The defaults are those of the published captioners (LAION-CLAP with fusion). How samples are prepared for the frame
    encoder, that one alone knows: the processor that owns both hands it over.

    Args:
        codec_sampling_rate: Hz that the frame encoder reads, as it said when the processor was made; None until then.
        codec_hop_length: samples of a frame, likewise; 24,000 / 320 = 75 frames a second.
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
        codec_sampling_rate: int | None = None,
        codec_hop_length: int | float | None = None,
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
        self.log_mel  # noqa: B018 (refuses what it cannot be)
        if self.max_codec_frames is not None and self.max_codec_frames < 1:
            raise ValueError(f"Got `max_codec_frames`={self.max_codec_frames}; expected at least 1, or None for all.")

    @property
    def sampling_rate(self) -> int:
        """Hz that a pipeline should record at so that nothing is lost: the higher of the encoders' rates."""
        return max(self.codec_sampling_rate or DEFAULT_SAMPLING_RATE, self.clap_sampling_rate)

    @property
    def log_mel(self) -> LogMel:
        """The spectrogram of CLAP's windows."""
        return LogMel(
            sampling_rate=self.clap_sampling_rate,
            hop_length=self.hop_length,
            n_fft=self.n_fft,
            num_mel_bins=self.num_mel_bins,
            frequency_min=self.frequency_min,
            frequency_max=self.frequency_max,
            mel_scale=self.mel_scale,
        )

    @property
    def clap_window_length(self) -> int:
        """Samples of a CLAP window."""
        return round(self.clap_window_s * self.clap_sampling_rate)

    @property
    def window_mel_frames(self) -> int:
        """Mel frames of a CLAP window."""
        return self.clap_window_length // self.hop_length + 1

    @classmethod
    def register_for_auto_class(cls, auto_class: str | None = None) -> None:
        """Nothing: the code comes with `add_remote_code`, where transformers would add it to every checkpoint, too."""

    def __call__(
        self,
        audio,
        sampling_rate: int | None = None,
        rng: np.random.Generator | None = None,
        device: str | torch.device = "cpu",
        frame_encoder: FrameEncoder | None = None,
        with_clap: bool = True,
        **kwargs,
    ) -> BatchFeature:
        """Prepare one recording or a list of them.

        Args:
            audio: anything [`~enclap_hf.load_audio`] reads, or a list of such.
            sampling_rate: Hz of arrays and tensors, which do not carry it.
            rng: draws where the windows of clips longer than CLAP's window start, to augment training; without it
                they start in the middle of their thirds.
            device: where the log-mel windows are computed, and stay.
            frame_encoder: what the samples are for; None prepares mono waveforms of this extractor's own rate.
            with_clap: False leaves CLAP's windows out.
            kwargs: `return_tensors`, which can only be "pt".
        Returns:
            `input_values`: list of float32 samples at the frame encoder's rate, (num_samples,) or for encoders of
            several channels (channels, num_samples);
            `input_features`: float32 (B, windows, mel frames, mel bins), log-mel in dB;
            `is_longer`: bool (B, 1), True where the three extra windows hold parts of a longer clip;
            `peak`: float32 (B,), the highest absolute sample of what an encoder hears, full scale at 1.
        Raises:
            AudioLoadError: a recording that cannot be read; the message names it.
            ValueError: an empty list, or tensors of another kind.
            TypeError: an argument of the feature extractors of other models, as pipelines of other tasks pass.
        """
        check_other_arguments(kwargs)
        clips, _ = as_audio_batch(audio)
        if not clips:
            raise ValueError("Got an empty list of recordings; pass at least one.")
        encoder = self.default_encoder if frame_encoder is None else frame_encoder
        waveforms, features, is_longer, peaks = [], [], [], []
        for clip in clips:
            with open_source(clip, sampling_rate, buffers_streams=True) as reader:
                waveform, peak, clap_input = self.prepare_recording(reader, encoder, with_clap, rng, device)
            waveforms.append(waveform)
            peaks.append(peak)
            if with_clap:
                features.append(clap_input[0])
                is_longer.append([clap_input[1]])
        prepared = {"input_values": waveforms, "peak": torch.tensor(peaks)}
        if with_clap:
            prepared.update(input_features=torch.stack(features), is_longer=torch.tensor(is_longer))
        return BatchFeature(prepared)

    def prepare_recording(
        self,
        reader: AudioReader,
        encoder: FrameEncoder,
        with_clap: bool,
        rng: np.random.Generator | None,
        device: str | torch.device,
    ) -> tuple[torch.Tensor, float, tuple[torch.Tensor, bool] | None]:
        """Prepare one open recording, of which no more is held than is needed.

        Returns:
            what the frame encoder reads, the peak of what the encoders hear, and CLAP's windows with whether these
            show parts of a longer clip.
        """
        mono, rate = getattr(encoder, "num_channels", None) == 1, reader.sampling_rate
        num_heard, num_read = self.count_frame_samples(encoder, rate)
        held = max(self.clap_window_s + 1, MAX_HELD_S) * rate if with_clap else 0
        limit = None if num_read is None else max(num_read, round(held) + 1)
        samples = load_start(reader, limit, mono).samples
        channels = samples[None] if mono else samples  # (channels, num_samples)
        waveform = self.prepare_samples(channels, rate, encoder)
        heard = channels[:, :num_heard]
        if not with_clap:
            return waveform, find_peak(heard), None
        if limit is not None and channels.shape[1] == limit:
            peak = find_peak(heard)
            del samples, channels, heard
            recording = LongRecording(reader, self, mono, device)
            windows = recording.read_windows(rng)
            return waveform, max(peak, recording.peak), (windows, self.long_clips == "fusion")
        at_clap_rate = resample_audio(samples if mono else average_channels(channels.T), rate, self.clap_sampling_rate)
        clap_input = self.prepare_clap_windows(torch.from_numpy(at_clap_rate).to(device), rng)
        return waveform, max(find_peak(heard), find_peak(self.cut_to_clap(channels, rate))), clap_input

    @property
    def default_encoder(self) -> FrameEncoder:
        """Prepares mono waveforms of this extractor's rates; it encodes nothing."""
        return WaveformFrames(
            self.codec_sampling_rate or DEFAULT_SAMPLING_RATE, self.codec_hop_length or DEFAULT_HOP_LENGTH
        )

    def prepare_samples(self, channels: np.ndarray, sampling_rate: int, encoder: FrameEncoder) -> torch.Tensor:
        """Cut a clip to the window, resample it to the encoder's rate, and let the encoder prepare it.

        What is kept covers `max_codec_frames` frames, and behind them what changes these (`lookahead_s`).

        Args:
            channels: float32 (channels, num_samples).
            sampling_rate: of these, Hz.
            encoder: the frame encoder.
        Returns:
            what the encoder reads.
        """
        max_samples = self.count_kept_samples(encoder)
        resampled = np.stack(
            [
                resample_audio(channel, sampling_rate, encoder.sampling_rate)
                for channel in channels[:, : self.count_frame_samples(encoder, sampling_rate)[1]]
            ]
        )
        return encoder.prepare(resampled[:, :max_samples])

    def count_kept_samples(self, encoder: FrameEncoder) -> int | None:
        """Samples at the encoder's rate that change the frames kept; None for all."""
        if self.max_codec_frames is None:
            return None
        lookahead = round(getattr(encoder, "lookahead_s", 0.0) * encoder.sampling_rate)
        return count_samples(encoder, self.max_codec_frames) + lookahead

    def count_frame_samples(self, encoder: FrameEncoder, sampling_rate: int) -> tuple[int | None, int | None]:
        """Samples of a recording that its frames show, and that are read for them; None for all."""
        kept = self.count_kept_samples(encoder)
        if kept is None:
            return None, None
        kept_s = kept / encoder.sampling_rate
        return tuple(max(1, int(seconds * sampling_rate)) for seconds in (kept_s, kept_s + RESAMPLING_MARGIN_S))

    def cut_to_clap(self, channels: np.ndarray, sampling_rate: int) -> np.ndarray:
        """Of a recording (channels, num_samples), what CLAP hears: all of it, or the window in its middle."""
        length = round(self.clap_window_s * sampling_rate)
        if self.long_clips == "fusion" or channels.shape[1] <= length:
            return channels
        start = (channels.shape[1] - length + 1) // 2
        return channels[:, start : start + length]

    def round_samples(self, samples: torch.Tensor) -> torch.Tensor:
        """Round samples to 16 bits and back where CLAP's training did."""
        return torch.trunc(samples.clamp(-1, 1) * 32767) / 32767 if self.int16_round_trip else samples

    def prepare_clap_windows(
        self, samples: torch.Tensor, rng: np.random.Generator | None = None
    ) -> tuple[torch.Tensor, bool]:
        """Log-mel windows of one clip at CLAP's rate: (num_samples,) -> (windows, mel frames, mel bins), is longer.

        "fusion" gives four windows: for a longer clip the whole clip shrunk and its three parts, else one four times.
        """
        samples = self.round_samples(samples)
        length, num_windows = self.clap_window_length, 4 if self.long_clips == "fusion" else 1
        if len(samples) > length and self.long_clips == "middle":
            start = (len(samples) - length + 1) // 2
            samples = samples[start : start + length]
        if len(samples) <= length:
            samples = fill_window(samples, length)
        mel = self.log_mel(samples)
        # A clip that is longer by less than one hop has as many mel frames as a window, and counts as one.
        if len(mel) == self.window_mel_frames:
            return mel.expand(num_windows, -1, -1).contiguous(), False
        starts = choose_window_starts(len(mel), self.window_mel_frames, rng)
        return stack_windows(mel, self.window_mel_frames, starts), True


def find_peak(channels: np.ndarray) -> float:
    """The highest absolute sample of (channels, num_samples)."""
    return max(float(channels.max()), -float(channels.min()))


def check_other_arguments(arguments: dict) -> None:
    """Refuse arguments that mean something to the feature extractors of other models alone."""
    if arguments.pop("return_tensors", "pt") not in ("pt", None):
        raise ValueError('The feature extractor returns torch tensors; leave `return_tensors` out or pass "pt".')
    if arguments:
        raise TypeError(
            f"Got {', '.join(f'`{name}`' for name in arguments)}, which EnCLAP's feature extractor does not know: it "
            'prepares recordings for `EnClapProcessor`. Caption with `pipeline("audio-captioning", model=...)`, no '
            "pipeline of another task, or with `processor(audio=...)` and `model.generate`."
        )
