r"""Compute frames and CLAP embeddings of a whole data set once, for any number of trainings.

    python examples/prepare_features.py --data scenes --num_scenes 20 --output_dir features    # a CPU, no downloads
    python examples/prepare_features.py --data clotho_captions_development.csv --audio_dir development \
        --processor_name_or_path owner/enclap --output_dir features/clotho-train
    python examples/prepare_features.py examples/recipes/clotho_base.json --output_dir features/clotho-train \
        --data clotho/clotho_captions_development.csv --audio_dir clotho/development    # for the paper's training
    torchrun --nproc_per_node 8 examples/prepare_features.py ...          # or accelerate launch

Encoders are chosen as run_captioning.py chooses them. A training's recipe at the head of the command line gives the
encoders, `max_duration_s` and `max_bad_share` of that training; what else it holds is passed over, with its
`output_dir`.

The same command again goes on where it was stopped or killed, also with another number of processes. Train on the
result by naming its folder as a data set: run_captioning.py --train_data features/clotho-train. The first clips alone
(`--max_clips 8`) get a folder of their own beside it, features/clotho-train-first8.
"""

import logging
import os
import sys
import time
from dataclasses import dataclass, field, fields

import torch

from enclap_hf import EnClapProcessor
from enclap_hf.commands.freed_memory import keep_freed_memory
from enclap_hf.data.caption_clips import CaptionDataError
from enclap_hf.data.captioning_data import open_source
from enclap_hf.data.data_source import DataSource
from enclap_hf.data.feature_shards import FeatureSettings
from enclap_hf.data.prepared_features import MANIFEST, PreparedClips
from enclap_hf.training.recipes import expand_recipe, parse_script_arguments
from enclap_hf.training.report import measure_peak_memory_gib
from enclap_hf.training.run_arguments import EncoderArguments
from enclap_hf.training.run_encoders import choose_training_processor


@dataclass
class FeatureArguments:
    """What is encoded, with what, and where to."""

    data: str = field(metadata={"help": "table, folder or Hub name of a data set, see `DataSource`"})
    output_dir: str = field(metadata={"help": "folder of the features"})
    audio_dir: str | None = field(default=None, metadata={"help": "folder of a table's recordings"})
    split: str | None = field(default=None, metadata={"help": "split of a data set, or sub-folder of an audiofolder"})
    dataset_name: str | None = field(default=None, metadata={"help": "configuration of a `datasets` data set"})
    dataset_revision: str | None = field(default=None, metadata={"help": "revision of a Hub data set"})
    audio_column: str = field(default="audio", metadata={"help": "column of the recordings"})
    caption_column: str | None = field(default=None, metadata={"help": "column of the captions, in place of the usual"})
    encoding: str = field(default="utf-8", metadata={"help": "of a table"})
    exclude: str | None = field(default=None, metadata={"help": "list of clips to leave out, see `DataSource`"})
    num_scenes: int | None = field(default=None, metadata={"help": "write so many sound scenes to `data` first"})
    first_seed: int = field(default=0, metadata={"help": "seed of the first scene"})
    max_duration_s: float = field(default=60.0, metadata={"help": "seconds read from the start of a recording"})
    max_clips: int | None = field(default=None, metadata={"help": "the first clips only, in <output_dir>-first<N>"})
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
        exclude=args.exclude,
        num_scenes=args.num_scenes,
        first_seed=args.first_seed,
    )


def choose_device(device: str | None) -> str:
    """The wanted device, else this process's GPU, else the CPU."""
    if device is not None:
        return device
    return f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"


def parse_arguments() -> tuple[FeatureArguments, EncoderArguments]:
    """Arguments of the command line, behind what a training's recipe says of its encoders."""
    types = (FeatureArguments, EncoderArguments)
    names = {argument.name for group in types for argument in fields(group)} - {"output_dir"}  # that of the training
    usage = "[RECIPE] --data DATA --output_dir FOLDER [--argument VALUE ...]"
    try:
        args, encoder_args = parse_script_arguments(types, __doc__, usage, expand_recipe(sys.argv[1:], names))
    except ValueError as error:
        raise CaptionDataError(str(error)) from error
    for name in ("max_clips", "shard_size", "batch_size"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise CaptionDataError(f"Got `{name}`={value}; expected at least 1.")
    return args, encoder_args


def load_processor(args: EncoderArguments, device: str) -> EnClapProcessor:
    """The encoders."""
    try:
        return choose_training_processor(args, device)
    except (ValueError, OSError, RuntimeError) as error:  # of what the user named; the last of `device`
        raise CaptionDataError(str(error)) from error


def prepare(args: FeatureArguments, encoder_args: EncoderArguments) -> PreparedClips:
    """Prepare this process's share, wait for the others, and open what all have made."""
    source = open_source(make_source(args))
    processor = load_processor(encoder_args, choose_device(args.device))
    settings = FeatureSettings(
        processor.num_codebooks,
        args.max_duration_s,
        args.shard_size,
        max_clips=args.max_clips,
        max_bad_share=args.max_bad_share,
        batch_size=args.batch_size,
        num_workers=args.num_workers,
        process_index=int(os.environ.get("RANK", 0)),
        num_processes=int(os.environ.get("WORLD_SIZE", 1)),
    )
    return source.open_features(args.output_dir, processor, settings)


def main() -> None:
    keep_freed_memory()
    args, encoder_args = parse_arguments()
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", level=logging.WARNING)
    began = time.perf_counter()
    features = prepare(args, encoder_args)
    if int(os.environ.get("RANK", 0)) == 0:
        num_bad = len(features.manifest["bad_clips"])
        print(f"Wrote {features.folder}: features of {len(features)} clips; {num_bad} could not be used ({MANIFEST}).")
        memory = measure_peak_memory_gib()
        peak = "" if memory is None else f", peak memory {memory:.2f} GiB"
        print(f"{time.perf_counter() - began:.0f} s{peak}.")


if __name__ == "__main__":
    try:
        main()
    except CaptionDataError as error:
        sys.exit(f"prepare_features: {error}")
