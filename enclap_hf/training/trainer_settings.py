"""Which of a Trainer's settings `EnClapTrainer` can keep its promises with."""

from .clip_batches import STRATEGIES


def check_settings(args, max_frames_per_batch: int | None = None) -> None:
    """Refuse settings that [`EnClapTrainer`] cannot keep its promises with.

    Args:
        args: `TrainingArguments`.
        max_frames_per_batch: see [`EnClapTrainer`].
    Raises:
        ValueError: the message says which to change.
    """
    if args.n_gpu > 1:
        raise ValueError(
            f"Got {args.n_gpu} GPUs in one process, which would split the counts of hidden codes; expected one process "
            f"for each GPU. Start with: torchrun --nproc_per_node {args.n_gpu} ..."
        )
    if args.label_smoothing_factor:
        raise ValueError(
            f"Got `label_smoothing_factor`={args.label_smoothing_factor}, which would drop the MCM loss; set "
            "`label_smoothing` in the model's configuration instead."
        )
    if find_sampling_strategy(args) not in STRATEGIES:
        raise ValueError(
            f"Got `train_sampling_strategy`={find_sampling_strategy(args)}; expected one of {', '.join(STRATEGIES)}."
        )
    if max_frames_per_batch is not None and max_frames_per_batch < 1:
        raise ValueError(f"Got `max_frames_per_batch`={max_frames_per_batch}; expected at least 1, or None.")


def find_sampling_strategy(args) -> str:
    """`train_sampling_strategy`, also of a transformers that knows `group_by_length` only."""
    if hasattr(args, "train_sampling_strategy"):
        return args.train_sampling_strategy
    return "group_by_length" if args.group_by_length else "random"  # transformers 5.0
