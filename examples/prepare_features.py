"""Compute codes and CLAP embeddings of a whole data set once, for any number of trainings.

    python examples/prepare_features.py --data scenes --num_scenes 20 --output_dir features    # a CPU, no downloads
    python examples/prepare_features.py --data clotho_captions_development.csv --audio_dir development \
        --processor_name_or_path owner/enclap --output_dir features/clotho-train
    torchrun --nproc_per_node 8 examples/prepare_features.py ...          # or accelerate launch

The same command again goes on where it was stopped or killed, also with another number of processes. Train on the
result by naming its folder as a data set: run_captioning.py --train_data features/clotho-train.
"""

import json
import logging
import os
import sys
import time
from dataclasses import dataclass, field

import torch
from transformers import HfArgumentParser

from enclap_hf import DEFAULT_MODEL
from enclap_hf.freed_memory import keep_freed_memory
from enclap_hf.training.captioning_data import CaptionDataError, DataSource
from enclap_hf.training.feature_shards import FeatureSettings
from enclap_hf.training.prepared_features import MANIFEST
from enclap_hf.training.recipes import expand_recipe, load_training_processor, open_features
from enclap_hf.training.report import measure_peak_memory_gib


@dataclass
class FeatureArguments:
    """What is encoded, with what, and where to."""

    data: str = field(metadata={"help": "table, folder or Hub name of a data set, see `DataSource`"})
    output_dir: str = field(metadata={"help": "folder of the features"})
    audio_dir: str | None = field(default=None, metadata={"help": "folder of a table's recordings"})
    split: str | None = field(default=None, metadata={"help": "split of a `datasets` data set"})
    dataset_name: str | None = field(default=None, metadata={"help": "configuration of a `datasets` data set"})
    dataset_revision: str | None = field(default=None, metadata={"help": "revision of a Hub data set"})
    audio_column: str = field(default="audio", metadata={"help": "of a `datasets` data set"})
    caption_column: str | None = field(default=None, metadata={"help": "of a `datasets` data set"})
    encoding: str = field(default="utf-8", metadata={"help": "of a table"})
    num_scenes: int | None = field(default=None, metadata={"help": "write so many sound scenes to `data` first"})
    first_seed: int = field(default=0, metadata={"help": "seed of the first scene"})
    processor_name_or_path: str = field(default=DEFAULT_MODEL, metadata={"help": "EnCLAP repository with the encoders"})
    clap_name_or_path: str | None = field(default=None, metadata={"help": "another CLAP in the processor's place"})
    max_duration_s: float = field(default=60.0, metadata={"help": "seconds read from the start of a recording"})
    max_clips: int | None = field(default=None, metadata={"help": "use the first clips only"})
    max_bad_share: float = field(default=0.01, metadata={"help": "share of clips that may be missing or broken"})
    shard_size: int = field(default=512, metadata={"help": "clips in a file; a killed process loses one file's work"})
    batch_size: int = field(default=16, metadata={"help": "clips encoded at a time"})
    num_workers: int = field(default=0, metadata={"help": "processes that read recordings ahead, for each process"})
    device: str | None = field(default=None, metadata={"help": "cpu, cuda, mps; left out, a GPU if there is one"})


def make_source(args: FeatureArguments) -> DataSource:
    """The data set."""
    return DataSource(
        args.data,
        audio_dir=args.audio_dir,
        split=args.split,
        name=args.dataset_name,
        revision=args.dataset_revision,
        audio_column=args.audio_column,
        caption_column=args.caption_column,
        encoding=args.encoding,
        num_scenes=args.num_scenes,
        first_seed=args.first_seed,
    )


def choose_device(device: str | None) -> str:
    """The wanted device, else this process's GPU, else the CPU."""
    if device is not None:
        return device
    return f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"


def prepare(args: FeatureArguments) -> int:
    """Prepare this process's share, wait for the others, and return the number of clips."""
    processor = load_training_processor(
        args.processor_name_or_path, clap_name=args.clap_name_or_path, device=choose_device(args.device)
    )
    features = open_features(
        make_source(args),
        args.output_dir,
        processor,
        max_clips=args.max_clips,
        settings=FeatureSettings(processor.num_codebooks, args.max_duration_s, args.shard_size),
        process_index=int(os.environ.get("RANK", 0)),
        num_processes=int(os.environ.get("WORLD_SIZE", 1)),
        max_bad_share=args.max_bad_share,
        batch_size=args.batch_size,
        num_workers=args.num_workers,
    )
    return len(features)


def main() -> None:
    keep_freed_memory()
    arguments = expand_recipe(sys.argv[1:])
    (args,) = HfArgumentParser(FeatureArguments).parse_args_into_dataclasses(arguments)
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", level=logging.WARNING)
    began = time.perf_counter()
    num_clips = prepare(args)
    if int(os.environ.get("RANK", 0)) == 0:
        with open(os.path.join(args.output_dir, MANIFEST), encoding="utf-8") as file:
            num_bad = len(json.load(file)["bad_clips"])
        print(f"Wrote {args.output_dir}: features of {num_clips} clips; {num_bad} could not be used ({MANIFEST}).")
        print(f"{time.perf_counter() - began:.0f} s, peak memory {measure_peak_memory_gib():.2f} GiB.")


if __name__ == "__main__":
    try:
        main()
    except CaptionDataError as error:
        sys.exit(f"prepare_features: {error}")
