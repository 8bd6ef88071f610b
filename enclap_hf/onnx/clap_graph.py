"""CLAP as a module that exports: samples at CLAP's rate, or windows of log-mel spectrograms, to unit vectors (B, C).

All of what the feature extractor does behind resampling is in the graph: 16 bits and back, the window filled or cut out
of the middle, the spectrogram as a product with the Fourier matrix, and for towers with fusion the whole clip shrunk
and its three windows. A tower with fusion reads both kinds of clips; which one a clip is, its length tells the graph.
"""

import copy

import torch
from torch import nn


class ClapGraph(nn.Module):
    """A CLAP tower and the spectrograms that it reads.

    Args:
        tower: `ClapAudioModelWithProjection`, float32, in evaluation mode; it is copied.
        feature_extractor: [`EnClapFeatureExtractor`].
    """

    def __init__(self, tower: nn.Module, feature_extractor):
        super().__init__()
        self.tower = copy.deepcopy(tower)
        self.spectrogram = SpectrogramGraph(feature_extractor.log_mel)
        self.rounds = feature_extractor.int16_round_trip
        self.fuses = feature_extractor.long_clips == "fusion"
        self.window_length = feature_extractor.clap_window_length
        self.num_frames = feature_extractor.window_mel_frames
        encoder = self.tower.audio_model.audio_encoder
        self.patches = None
        if encoder.enable_fusion:
            encoder.enable_fusion = False  # it would ask in Python which clips are longer
            self.patches = encoder.patch_embed = FusedPatches(encoder.patch_embed)

    def forward(
        self, samples: torch.Tensor, features: torch.Tensor, is_longer: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Clips as samples, and others as windows: either may be none.

        Args:
            samples: (A, m) float32, of one length.
            features: (B, windows, mel frames, mel bins), see [`EnClapFeatureExtractor.__call__`].
            is_longer: bool (B, 1) of these; None for a tower without fusion.
        Returns:
            (A + B, C), rows of length 1.
        """
        if self.rounds:
            samples = torch.trunc(samples.clamp(-1, 1) * 32767) / 32767
        window = self.fill_window(samples)
        if self.fuses:  # what a longer clip has behind its first window; nothing of one that is not
            window = torch.cat([window, samples[:, self.window_length :]], dim=1)
        mel = self.spectrogram(window)  # (A, mel frames, mel bins)
        own = mel[:, None]
        if self.fuses:
            num_frames = torch.zeros(1, dtype=torch.long, device=mel.device) + mel.shape[1]
            own = torch.stack([self.shrink(mel, num_frames), *self.cut_windows(mel, num_frames)], dim=1)
        if self.patches is not None:
            own_longer = torch.zeros_like(samples[:, :1], dtype=torch.bool)
            if self.fuses:
                own_longer = own_longer | (num_frames > self.num_frames)
            self.patches.is_longer = torch.cat([own_longer, is_longer])[:, :, None, None]
        embedding = self.tower(torch.cat([own, features])).audio_embeds
        return embedding / embedding.norm(dim=1, keepdim=True).clamp(min=1e-12)

    def fill_window(self, samples: torch.Tensor) -> torch.Tensor:
        """A window: a short clip repeated as many whole times as fit, then zeros; the middle or the start of others."""
        place = torch.arange(self.window_length, device=samples.device)
        length = torch.zeros(1, dtype=torch.long, device=samples.device) + samples.shape[1]
        end = length * (torch.full_like(length, self.window_length) // length).clamp(min=1)
        start = 0 if self.fuses else (length - self.window_length + 1).clamp(min=0) // 2
        return samples.index_select(1, place % length + start) * (place < end).to(samples.dtype)

    def shrink(self, mel: torch.Tensor, num_frames: torch.Tensor) -> torch.Tensor:
        """A spectrogram at the length of a window's, by linear interpolation; one that has it stays as it is."""
        place = torch.arange(self.num_frames, device=mel.device) + 0.5
        place = (place * (num_frames.to(mel.dtype) / self.num_frames) - 0.5).clamp(min=0)
        before = place.floor().long()
        share = (place - before)[:, None]
        after = torch.minimum(before + 1, num_frames - 1)
        return mel.index_select(1, before) * (1 - share) + mel.index_select(1, after) * share

    def cut_windows(self, mel: torch.Tensor, num_frames: torch.Tensor) -> list[torch.Tensor]:
        """Three windows, see [`~feature_extraction_enclap.choose_window_starts`]."""
        place, num_starts = torch.arange(self.num_frames, device=mel.device), num_frames - self.num_frames + 1
        windows, begin = [], torch.zeros_like(num_starts)
        for third in range(3):
            size = (num_starts + 2 - third) // 3
            start = (begin + size // 2) * (size > 0)
            windows.append(mel.index_select(1, place + start))
            begin = begin + size
        return windows


class SpectrogramGraph(nn.Module):
    """[`LogMel`] as a convolution with the windowed waves of the Fourier transform, of the bins that mel filters read.

    Args:
        log_mel: the settings.
    """

    def __init__(self, log_mel):
        super().__init__()
        from ..model.log_mel import make_mel_filters

        filters = make_mel_filters(log_mel, torch.device("cpu"))
        bins = filters.sum(1).nonzero()[:, 0]
        size, self.hop_length = log_mel.n_fft, log_mel.hop_length
        angles = 2 * torch.pi / size * (bins[:, None] * torch.arange(size) % size).double()  # exact multiples
        waves = torch.cat([angles.cos(), angles.sin()]) * torch.hann_window(size, dtype=torch.float64)
        self.register_buffer("waves", waves.float()[:, None])
        self.register_buffer("filters", filters[bins])
        self.margin = size // 2

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        """(B, m) -> (B, mel frames, mel bins) in dB."""
        padded = nn.functional.pad(samples[:, None], (self.margin, self.margin), mode="reflect")
        real, imaginary = nn.functional.conv1d(padded, self.waves, stride=self.hop_length).chunk(2, dim=1)
        power = (real * real + imaginary * imaginary).transpose(1, 2)
        return 10 * torch.log10((power @ self.filters).clamp(min=1e-10))


class FusedPatches(nn.Module):
    """The patch embedding of a tower with fusion, computed both ways; the clips' length says which one counts."""

    def __init__(self, patches: nn.Module):
        super().__init__()
        self.patches = patches
        self.is_longer: torch.Tensor | None = None  # bool (B, 1, 1, 1), set before each call

    def forward(self, features: torch.Tensor, is_longer_idx=None) -> torch.Tensor:
        """(B, 4, height, width) -> (B, patches, channels)."""
        whole = self.patches.proj(features[:, :1])
        num_clips, num_windows = features.shape[0], features.shape[1] - 1
        windows = self.patches.mel_conv2d(features[:, 1:].flatten(0, 1)[:, None])
        windows = windows.unflatten(0, (num_clips, num_windows)).permute(0, 2, 3, 1, 4).flatten(3)
        windows = nn.functional.pad(windows, (0, whole.shape[3] - windows.shape[3]))
        states = torch.where(self.is_longer, self.patches.fusion_model(whole, windows), whole)
        if self.patches.flatten:
            states = states.flatten(2).transpose(1, 2)
        return self.patches.norm(states)
