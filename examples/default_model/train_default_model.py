"""Train the small captioner that the package carries, from nothing but seeds: codec, CLAP, tokenizer, captioner.

    python examples/default_model/train_default_model.py --output enclap_hf/default_model --work-dir /tmp/default_model

A smoke run on a CPU, about a minute:

    python examples/default_model/train_default_model.py --output /tmp/smoke/model --work-dir /tmp/smoke/work \
        --num-scenes 48 --num-held-out 24 --codec-steps 10 --clap-steps 10 --probe-steps 10 --captioner-steps 10 \
        --clap-text-scenes 40 --clap-text-steps 10

The stages run in the order of `STAGES`, codec and CLAP tower side by side; each reads what the earlier ones left in the
work folder, and a finished one is not run again, so a stopped run is taken up by the same command (within a stage:
scenes and features by shards of 250 scenes, trainings from their start). `training_report.json`, written to both
folders, has sizes, times and scores. The same seed, torch and number of processes give the same weights.

Distinctive choices: every clip is read as it is and damaged (level, treble, lossy codec, noise); the captioner's code
embeddings start as a random projection of the codec's codebooks, so that alike codes start alike, and its positions as
sinusoids, which is what makes the order of events learnable in minutes.
"""

import json
import os
import shutil
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path

import torch
from train_default_captioner import score_captioner, train_captioner
from train_default_clap import train_clap
from train_default_clap_text import ClapTextArguments, make_tower
from train_default_codec import train_codec
from train_default_data import (
    FRAME,
    KINDS,
    MEL,
    SAMPLING_RATE,
    TRAINING_SEED,
    VALIDATION_SEED,
    SceneStore,
    keep_freed_memory,
    train_tokenizer,
)
from train_default_features import FeatureStore, probe_codes
from transformers import AutoTokenizer, ClapAudioModelWithProjection, HfArgumentParser

from enclap_hf import EnClapFeatureExtractor, EnClapForConditionalGeneration, EnClapProcessor
from enclap_hf.model.encodec_frames import CodecModel
from enclap_hf.model.repository import update_json

STAGES = ("tokenizer", "codec", "clap", "features", "captioner", "clap_text")
ENCODERS = ("codec", "clap")  # neither reads the other's result


@dataclass
class DefaultModelArguments:
    """What is trained, on how much, and where it goes."""

    output: str = field(metadata={"help": "folder of the finished repository"})
    work_dir: str = field(default="default_model_work", metadata={"help": "scenes, features and unfinished parts"})
    seed: int = field(default=0, metadata={"help": "seed of every initial value and every draw"})
    stage: str = field(default="all", metadata={"help": f"one of {', '.join(STAGES)}, or all"})
    num_scenes: int = field(default=16_000, metadata={"help": "training scenes"})
    num_held_out: int = field(default=500, metadata={"help": "held-out scenes that the report is measured on"})
    num_copies: int = field(default=2, metadata={"help": "feature copies of a scene: one clean, the others damaged"})
    vocab_size: int = field(default=600, metadata={"help": "tokens of the caption vocabulary"})
    codec_steps: int = field(default=4000, metadata={"help": "optimiser steps of the codec"})
    clap_steps: int = field(default=4000, metadata={"help": "optimiser steps of the CLAP tower"})
    probe_steps: int = field(default=800, metadata={"help": "optimiser steps of the probe that scores the codes"})
    captioner_steps: int = field(default=3200, metadata={"help": "optimiser steps of the captioner"})
    clap_text_scenes: int = field(default=3000, metadata={"help": "scenes that CLAP's text tower learns from"})
    clap_text_steps: int = field(default=1000, metadata={"help": "optimiser steps of CLAP's text tower"})
    num_processes: int = field(default=2, metadata={"help": "processes, of one thread each"})

    def __post_init__(self):
        if self.stage not in (*STAGES, "all"):
            raise ValueError(f"Got `stage` {self.stage!r}; expected all or one of {', '.join(STAGES)}.")


class Report:
    """The training report, kept on disk so that it survives a stop; a stage with an entry is finished."""

    def __init__(self, path: Path):
        self.path = path
        self.entries = json.loads(path.read_text()) if path.exists() else {}

    def add(self, stage: str, entry: dict) -> None:
        """Note what a finished stage has to tell."""
        self.entries[stage] = entry
        self.path.write_text(json.dumps(self.entries, indent=2) + "\n")
        print(f"{stage}: {json.dumps(entry)}")


def open_scenes(args: DefaultModelArguments) -> tuple[SceneStore, SceneStore]:
    """Training and held-out scenes, made where they are missing."""
    folder = Path(args.work_dir) / "scenes"
    return (
        SceneStore(folder / "training", TRAINING_SEED, args.num_scenes, args.num_processes),
        SceneStore(folder / "validation", VALIDATION_SEED, args.num_held_out, args.num_processes),
    )


def open_features(args: DefaultModelArguments, scenes: SceneStore) -> FeatureStore:
    """Codes and CLAP embeddings of `scenes`, made where they are missing."""
    work = Path(args.work_dir)
    return FeatureStore(
        work / "features" / scenes.folder.name,
        scenes,
        work / "codec",
        work / "clap",
        args.num_copies,
        args.num_processes,
    )


def make_tokenizer(args: DefaultModelArguments, training: SceneStore, held_out: SceneStore) -> dict:
    """Stage: the caption vocabulary."""
    captions = [caption for info in training.info for caption in info.captions]
    tokenizer = train_tokenizer(captions, Path(args.work_dir) / "tokenizer", args.vocab_size)
    lengths = [len(ids) for ids in tokenizer(captions[:5000])["input_ids"]]
    return {"tokens": len(tokenizer), "mean_caption_tokens": round(sum(lengths) / len(lengths), 1)}


def make_codec(args: DefaultModelArguments, training: SceneStore, held_out: SceneStore) -> dict:
    """Stage: EnCodec's encoder and codebooks."""
    return train_codec(training, held_out, Path(args.work_dir) / "codec", args.codec_steps, args.seed)


def make_clap(args: DefaultModelArguments, training: SceneStore, held_out: SceneStore) -> dict:
    """Stage: the CLAP audio tower."""
    work = Path(args.work_dir)
    tokenizer = AutoTokenizer.from_pretrained(work / "tokenizer")
    return train_clap(training, held_out, tokenizer, work / "clap", args.clap_steps, args.seed)


def make_features(args: DefaultModelArguments, training: SceneStore, held_out: SceneStore) -> dict:
    """Stage: what the captioner reads, once and for all."""
    began = time.perf_counter()
    held_out_features, features = (open_features(args, scenes) for scenes in (held_out, training))
    return {
        "codebook_perplexity": held_out_features.codebook_perplexity(),
        "events_from_codes": probe_codes(features, held_out_features, args.probe_steps, args.seed),
        "minutes": round((time.perf_counter() - began) / 60, 1),
    }


def make_captioner(args: DefaultModelArguments, training: SceneStore, held_out: SceneStore) -> dict:
    """Stage: the captioner; then the whole repository is written."""
    began = time.perf_counter()
    work = Path(args.work_dir)
    features = open_features(args, training)
    train_captioner(features, work, args.captioner_steps, args.seed, args.num_processes)
    minutes = round((time.perf_counter() - began) / 60, 1)
    write_repository(args)
    model = EnClapForConditionalGeneration.from_pretrained(args.output, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(args.output)
    held_out_features = open_features(args, held_out)
    scores = {
        name: score_captioner(model, tokenizer, held_out_features, copy)
        for copy, name in enumerate(("clean", "damaged")[: args.num_copies])
    }
    return {"parameters": sum(p.numel() for p in model.parameters()), "minutes": minutes, **scores}


def make_clap_text(args: DefaultModelArguments, training: SceneStore, held_out: SceneStore) -> dict:
    """Stage: the text tower of the finished repository's CLAP."""
    scenes = {"num_scenes": args.clap_text_scenes, "num_held_out": args.num_held_out}
    options = {"steps": args.clap_text_steps, "seed": args.seed, "cache": str(Path(args.work_dir, "clap_text"))}
    return make_tower(ClapTextArguments(args.output, **scenes, **options))


def write_repository(args: DefaultModelArguments) -> None:
    """Put captioner, processor, codec and CLAP tower into the output folder, as 16-bit floats."""
    work = Path(args.work_dir)
    model = EnClapForConditionalGeneration.from_pretrained(work / "captioner", dtype=torch.float16)
    model.generation_config.max_length = 80  # three events in a small vocabulary take more tokens than BART's
    # Of held-out scenes, this names the most events: no kind twice, and no short caption for being short.
    model.generation_config.update(num_beams=4, length_penalty=2.0, no_repeat_ngram_size=5)
    model.save_pretrained(args.output)
    feature_extractor = EnClapFeatureExtractor(
        codec_sampling_rate=SAMPLING_RATE,
        codec_hop_length=FRAME,
        max_codec_frames=model.config.max_codec_frames,
        clap_sampling_rate=SAMPLING_RATE,
        clap_window_s=MEL["window_s"],
        n_fft=MEL["n_fft"],
        hop_length=MEL["hop_length"],
        num_mel_bins=MEL["num_mel_bins"],
        frequency_min=MEL["frequency_min"],
        frequency_max=MEL["frequency_max"],
        long_clips="middle",
        int16_round_trip=False,
    )
    codec = CodecModel.from_pretrained(work / "codec")
    codec.decoder = None  # never trained
    clap = ClapAudioModelWithProjection.from_pretrained(work / "clap")
    tokenizer = AutoTokenizer.from_pretrained(work / "tokenizer")
    processor = EnClapProcessor.from_encoders(
        feature_extractor, tokenizer, codec, clap, num_codebooks=model.config.num_codebooks
    )
    processor.save_pretrained(args.output)
    for name in ("codec", "clap"):  # the processor computes, and so saves, in 32 bits
        shutil.copytree(work / name, Path(args.output) / name, dirs_exist_ok=True)
    for name in ("", "codec", "clap"):  # stored in 16 bits, to be loaded in 32
        update_json(str(Path(args.output, name, "config.json")), {"dtype": "float32"})


def describe_run(args: DefaultModelArguments) -> dict:
    """The report's first entry: data sizes and settings."""
    settings = {key: value for key, value in asdict(args).items() if key not in ("output", "work_dir", "stage")}
    return {"kinds": len(KINDS), "cpu_cores": os.cpu_count(), "torch": torch.__version__, **settings}


def run_stage(args: DefaultModelArguments, stage: str) -> dict:
    """Run one stage, in this process or in one of its own; returns its part of the report."""
    torch.set_num_threads(1)
    keep_freed_memory()
    makers = dict(
        zip(STAGES, (make_tokenizer, make_codec, make_clap, make_features, make_captioner, make_clap_text), strict=True)
    )
    return makers[stage](args, *open_scenes(args))


def run_encoders(args: DefaultModelArguments, stages: list[str], report: Report) -> None:
    """Train codec and CLAP tower, each in a process of its own."""
    with ProcessPoolExecutor(min(args.num_processes, len(stages)), mp_context=get_context("spawn")) as pool:
        futures = {stage: pool.submit(run_stage, args, stage) for stage in stages}
        for stage, future in futures.items():
            report.add(stage, future.result())


def main() -> None:
    (args,) = HfArgumentParser(DefaultModelArguments).parse_args_into_dataclasses()
    Path(args.work_dir).mkdir(parents=True, exist_ok=True)
    report = Report(Path(args.work_dir) / "training_report.json")
    report.add("run", describe_run(args))
    open_scenes(args)
    wanted = [s for s in STAGES if args.stage == s or (args.stage == "all" and s not in report.entries)]
    for stage in wanted:
        if stage == ENCODERS[0] or (stage == ENCODERS[1] and ENCODERS[0] not in wanted):
            run_encoders(args, [s for s in ENCODERS if s in wanted], report)
        elif stage not in ENCODERS:
            report.add(stage, run_stage(args, stage))
    if "captioner" in report.entries:
        Path(args.output, "training_report.json").write_text(report.path.read_text())
        size = sum(path.stat().st_size for path in Path(args.output).rglob("*") if path.is_file())
        print(f"Wrote {args.output}: {size / 1e6:.2f} MB.")


if __name__ == "__main__":
    main()
