"""Training data of the default model: scenes on disk, their log-mels, damaged copies, caption tokens.

Scenes come from seeds, so the data set is a pair (first seed, number of scenes). They are made once, by several
processes, in shards that a stopped run takes up again:

    <folder>/00003.audio.npy   int16 (samples of all scenes of the shard, end to end)
    <folder>/00003.mels.npy    float16 (scenes, COPIES, mel frames, mel bins): clean, damaged
    <folder>/00003.json        where each scene starts, its events, relation and captions; written last
"""

import ctypes
import json
import math
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from scipy import fft
from scipy.signal import resample_poly
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast
from transformers.audio_utils import mel_filter_bank

from enclap_hf.sound_scenes import SAMPLING_RATE, SOUND_KINDS, degrade_audio, make_scene

TRAINING_SEED = 1_000_000  # upwards; 0 to 99,999 belongs to the final test and is touched by nothing here
VALIDATION_SEED = 900_000  # to 909,999
KINDS = sorted(SOUND_KINDS)
FRAME = 960  # samples of a codec frame: 25 frames a second
SHARD_SIZE = 250
MEL_COPIES = 2  # clean, damaged

# The CLAP tower's mel: 8 s at 760 samples a column are 253 columns; the tower has room for 256.
MEL = {
    "sampling_rate": SAMPLING_RATE,
    "n_fft": 1024,
    "hop_length": 760,
    "num_mel_bins": 64,
    "frequency_min": 50.0,
    "frequency_max": 7500.0,
    "window_s": 8.0,
}


def build_mel_filters() -> torch.Tensor:
    """Triangular HTK mel filters without area normalisation, (n_fft // 2 + 1, mel bins)."""
    return torch.tensor(
        mel_filter_bank(
            num_frequency_bins=MEL["n_fft"] // 2 + 1,
            num_mel_filters=MEL["num_mel_bins"],
            min_frequency=MEL["frequency_min"],
            max_frequency=MEL["frequency_max"],
            sampling_rate=SAMPLING_RATE,
            norm=None,
            mel_scale="htk",
        ),
        dtype=torch.float32,
    )


MEL_FILTERS = build_mel_filters()
MEL_WINDOW = torch.hann_window(MEL["n_fft"])


def compute_log_mel(audio: torch.Tensor, hop_length: int, center: bool = True) -> torch.Tensor:
    """Log-mel in dB of waveforms (..., samples) -> (..., columns, mel bins), floor -100 dB."""
    spectrum = torch.stft(
        audio, MEL["n_fft"], hop_length, window=MEL_WINDOW, center=center, pad_mode="reflect", return_complex=True
    )
    power = spectrum.real.square() + spectrum.imag.square()
    mel = power.transpose(-1, -2) @ MEL_FILTERS
    return 10.0 * torch.log10(mel.clamp(min=1e-10))


def compute_clap_mel(audio: np.ndarray) -> torch.Tensor:
    """What the CLAP tower reads: the clip repeated whole, then zeros, up to the window; (columns, mel bins)."""
    window = int(MEL["window_s"] * SAMPLING_RATE)
    if len(audio) > window:
        start = (len(audio) - window + 1) // 2
        audio = audio[start : start + window]
    audio = np.tile(audio, window // len(audio))
    audio = np.pad(audio, (0, window - len(audio)))
    return compute_log_mel(torch.from_numpy(audio), MEL["hop_length"])


def limit_band(audio: np.ndarray, cutoff_hz: float) -> np.ndarray:
    """Low-pass with a 300 Hz wide cosine edge, as a resampler to 2 x cutoff_hz leaves it."""
    length = fft.next_fast_len(len(audio), real=True)
    frequencies = fft.rfftfreq(length, 1.0 / SAMPLING_RATE)
    edge = np.clip((cutoff_hz - frequencies) / 300.0, 0.0, 1.0)
    passed = fft.rfft(audio, length) * (0.5 - 0.5 * np.cos(np.pi * edge)).astype(np.float32)
    return fft.irfft(passed, length)[: len(audio)].astype(np.float32)


def damage(audio: np.ndarray, rng: np.random.Generator, mp3_like_share: float = 0.25) -> np.ndarray:
    """What recordings suffer: another level, a lost treble, a lossy codec, faint noise.

    Args:
        audio: float mono waveform (samples,) at 24 kHz.
        rng: the only randomness used here.
        mp3_like_share: how often the lossy codec strikes; it is the slow part.
    Returns:
        float32 waveform of the same length.
    """
    audio = audio.astype(np.float32)
    if rng.random() < mp3_like_share:
        audio = apply_mp3_like(audio, rng)
    elif rng.random() < 0.4:
        audio = limit_band(audio, rng.uniform(5500.0, 11500.0))
    audio = audio * np.float32(10.0 ** (rng.uniform(-18.0, 6.0) / 20.0))
    if rng.random() < 0.4:
        level = 10.0 ** (rng.uniform(-85.0, -55.0) / 20.0)
        audio = audio + level * rng.standard_normal(len(audio), dtype=np.float32)
    return np.clip(audio, -1.0, 1.0).astype(np.float32)


def apply_mp3_like(audio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The package's 16 kHz stereo mp3-like damage, back as 24 kHz mono of the same length."""
    damaged, sampling_rate = degrade_audio(audio, SAMPLING_RATE, mp3_like=True, rng=rng)
    divisor = math.gcd(SAMPLING_RATE, sampling_rate)
    mono = resample_poly(damaged.mean(axis=0), SAMPLING_RATE // divisor, sampling_rate // divisor)
    return np.pad(mono, (0, max(0, len(audio) - len(mono))))[: len(audio)].astype(np.float32)


@dataclass
class SceneInfo:
    """One cached scene without its samples. `events` are (kind, start_s, end_s, count, role)."""

    start: int
    num_samples: int
    events: list
    relation: str
    captions: list

    @property
    def kinds(self) -> list[int]:
        """Indices into KINDS of what sounds, without repetition."""
        return sorted({KINDS.index(event[0]) for event in self.events})


def frame_activity(info: SceneInfo, start_s: float, num_frames: int, hold_s: float = 0.0) -> np.ndarray:
    """Which kinds sound in each frame, or did up to `hold_s` before; (T, kinds) of 0 and 1."""
    active = np.zeros((num_frames, len(KINDS)), np.float32)
    for kind, event_start_s, event_end_s, _, _ in info.events:
        first = math.floor((event_start_s - start_s) * SAMPLING_RATE / FRAME)
        last = math.ceil((event_end_s + hold_s - start_s) * SAMPLING_RATE / FRAME)
        active[max(0, first) : max(0, last), KINDS.index(kind)] = 1.0
    return active


def make_shard(folder: str, shard: int, first_seed: int, num_scenes: int) -> int:
    """Make the scenes of one shard and write its three files; a finished shard is left alone."""
    path = Path(folder) / f"{shard:05d}.json"
    if path.exists():
        return num_scenes
    torch.set_num_threads(1)
    pieces, infos, start = [], [], 0
    mels = np.zeros((num_scenes, MEL_COPIES, *compute_clap_mel(np.zeros(9000, np.float32)).shape), np.float16)
    for i in range(num_scenes):
        seed = first_seed + shard * SHARD_SIZE + i
        scene = make_scene(seed)
        samples = np.round(np.clip(scene.audio, -1.0, 1.0) * 32767.0).astype(np.int16)
        clean = samples.astype(np.float32) / 32767.0
        mels[i, 0] = compute_clap_mel(clean)
        mels[i, 1] = compute_clap_mel(damage(clean, np.random.default_rng([seed, 1]), mp3_like_share=0.3))
        events = [[e.kind, float(e.start_s), float(e.end_s), e.count, e.role] for e in scene.events]
        infos.append([start, len(samples), events, scene.relation, list(scene.captions)])
        pieces.append(samples)
        start += len(samples)
    np.save(path.with_suffix(".audio.npy"), np.concatenate(pieces))
    np.save(path.with_suffix(".mels.npy"), mels)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(infos))
    temporary.rename(path)
    return num_scenes


def keep_freed_memory() -> None:
    """Let glibc reuse large freed blocks: giving them back costs the codec a third of its step in page faults."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            libc.mallopt(-4, 0)  # M_MMAP_MAX: no block of its own for a large tensor
            libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: do not give the end of the heap back


def run_shards(function, folder: Path, num_scenes: int, num_processes: int, what: str, **kwargs) -> None:
    """Run `function(folder, shard, num_scenes=..., **kwargs)` for every shard, in processes of one thread each."""
    shards = [(k, min(SHARD_SIZE, num_scenes - k * SHARD_SIZE)) for k in range(-(-num_scenes // SHARD_SIZE))]
    folder.mkdir(parents=True, exist_ok=True)
    with (
        ProcessPoolExecutor(num_processes, mp_context=get_context("spawn")) as pool,
        tqdm(total=num_scenes, desc=what, unit="scene", mininterval=5.0) as bar,
    ):
        jobs = [pool.submit(function, str(folder), k, num_scenes=n, **kwargs) for k, n in shards]
        for job in jobs:
            bar.update(job.result())


def load_shard(folder: Path, shard: int) -> tuple[list[SceneInfo], np.ndarray, np.ndarray]:
    """Scenes of a finished shard, their samples end to end, and their CLAP mels; the arrays stay on disk."""
    path = folder / f"{shard:05d}.json"
    infos = [SceneInfo(*row) for row in json.loads(path.read_text())]
    arrays = [np.load(path.with_suffix(suffix), mmap_mode="r") for suffix in (".audio.npy", ".mels.npy")]
    return infos, *arrays


class SceneStore:
    """Cached scenes of one seed range: `info[i]`, `audio(i)`, `mels(indices, copy)`.

    Args:
        folder: where the shards lie or will lie.
        first_seed: seed of scene 0.
        num_scenes: how many scenes.
        num_processes: processes that make what is missing.
    """

    def __init__(self, folder: Path, first_seed: int, num_scenes: int, num_processes: int = 2):
        self.folder, self.first_seed = folder, first_seed
        last = -(-num_scenes // SHARD_SIZE) - 1
        if not all((folder / f"{k:05d}.json").exists() for k in range(last + 1)):
            run_shards(make_shard, folder, num_scenes, num_processes, f"scenes {folder.name}", first_seed=first_seed)
        self.info, self._audio, self._mels = [], [], []
        for k in range(last + 1):
            infos, audio, mels = load_shard(folder, k)
            self.info += infos
            self._audio.append(audio)
            self._mels.append(mels)
        self.info = self.info[:num_scenes]

    def __len__(self) -> int:
        return len(self.info)

    def audio(self, i: int, start: int = 0, num_samples: int | None = None) -> np.ndarray:
        """Samples of scene i as float32, or a stretch of it, zero-padded to `num_samples`."""
        info = self.info[i]
        stop = info.num_samples if num_samples is None else min(info.num_samples, start + num_samples)
        piece = self._audio[i // SHARD_SIZE][info.start + start : info.start + stop].astype(np.float32) / 32767.0
        return piece if num_samples is None else np.pad(piece, (0, num_samples - len(piece)))

    def mels(self, indices, copies) -> torch.Tensor:
        """CLAP mels (B, columns, mel bins) in dB of the scenes and copies (0 clean, 1 damaged) asked for."""
        picked = [self._mels[i // SHARD_SIZE][i % SHARD_SIZE, c] for i, c in zip(indices, copies, strict=True)]
        return torch.from_numpy(np.stack(picked)).float()

    def tags(self, indices) -> torch.Tensor:
        """Which kinds sound, (B, kinds) of 0 and 1."""
        tags = torch.zeros(len(indices), len(KINDS))
        for row, i in enumerate(indices):
            tags[row, self.info[i].kinds] = 1.0
        return tags


def average_precision(scores: torch.Tensor, targets: torch.Tensor) -> float:
    """Mean over kinds of the average precision; kinds that never sound are left out."""
    values = []
    for score, target in zip(scores.T, targets.T, strict=True):
        if target.sum() == 0:
            continue
        hits = target[score.argsort(descending=True)]
        precision = hits.cumsum(0) / torch.arange(1, len(hits) + 1)
        values.append(float((precision * hits).sum() / hits.sum()))
    return float(np.mean(values))


def train_tokenizer(captions: list[str], folder: Path, vocab_size: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE over the captions, with BART's special tokens at BART's ids; exact decoding."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(captions, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        cls_token="<s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
        model_max_length=1024,
        clean_up_tokenization_spaces=False,
    )
    fast.save_pretrained(folder)
    return fast
