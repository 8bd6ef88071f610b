"""A Trainer for EnCLAP: one loss however a batch is split, both parts of it in the logs, scores of every clip once.

What differs from `Seq2SeqTrainer`:

* label tokens and hidden codes are counted over the accumulated, multi-process batch, and both losses are divided by
  those counts (`get_batch_samples`);
* batches, crops and hidden codes follow from the seed and the epoch alone (`clip_batches.py`), so gradient
  accumulation, processes, workers and a killed run change none of them;
* `caption_loss` and `mcm_loss` are logged beside `loss`, in training and in evaluation. In evaluation the captions are
  read off visible codes, and masked codec modelling is a second pass of the encoder over hidden ones;
* in evaluation no clip counts twice, whatever the number of processes;
* what is saved in the output directory itself, and so what is pushed, is a complete repository, with both encoders and
  a model card; checkpoints refer to the encoders.
"""

import itertools
import logging
import math
import os
import time

import torch
from transformers import Seq2SeqTrainer, TrainerCallback, TrainerState
from transformers.trainer import TRAINER_STATE_NAME

from ..model.losses_enclap import IGNORED_TARGET
from ..model.processing_enclap import EnClapProcessor
from .clip_batches import ClipBatchSampler, KeyedClips
from .trainer_settings import check_settings, find_sampling_strategy

logger = logging.getLogger(__name__)

_SECONDS_TO_LET_GO = 0.2
AUDIO_INPUTS = ("audio_codes", "audio_features", "clap_embedding", "attention_mask")


class EnClapTrainer(Seq2SeqTrainer):
    """`Seq2SeqTrainer` for [`EnClapForConditionalGeneration`] and [`DataCollatorForEnClap`].

    Args:
        args, kwargs: those of `Seq2SeqTrainer`. `data_collator` is the one for training; evaluation uses its
            `for_evaluation()`. A `train_dataset` may have `lengths` (codec frames of each clip), `sizes` and `weights`
            (see [`~enclap_hf.training.clip_batches.draw_epoch`]) and `draw(index, rng)`, as
            [`~enclap_hf.training.clips.TrainingClips`] has.
        max_frames_per_batch: token budget: a process's batch holds as many clips as fit into so many codec frames,
            padding included. None takes `per_device_train_batch_size` clips.
        model_card: text of README.md; None leaves the card to `Seq2SeqTrainer`.

    Raises:
        ValueError: settings that this trainer cannot keep its promises with; the message says which to change.
    """

    def __init__(self, *args, max_frames_per_batch: int | None = None, model_card: str | None = None, **kwargs):
        super().__init__(*args, **kwargs)
        check_settings(self.args, max_frames_per_batch)
        if isinstance(self.processing_class, EnClapProcessor):
            self.processing_class.check_captioner(self.model.config)
        if self.args.hub_token is not None:
            self.args.hub_token = _Unsaved(self.args.hub_token)  # training_args.bin is uploaded
        self.max_frames_per_batch, self.model_card = max_frames_per_batch, model_card
        self.eval_data_collator = (
            self.data_collator.for_evaluation() if hasattr(self.data_collator, "for_evaluation") else self.data_collator
        )
        self._follow_epoch = _FollowEpoch()
        self.add_callback(self._follow_epoch)
        self._loss_parts = None  # (2,), caption and MCM loss since the last log
        self._parts_start_step = 0
        self._evaluation_sums = None

    # Batches

    def get_train_dataloader(self) -> torch.utils.data.DataLoader:
        """Batches of this process. Streams are read as they come; see `clip_batches.py` for everything else."""
        if self.train_dataset is None:
            raise ValueError("Training needs a `train_dataset`.")
        if isinstance(self.train_dataset, torch.utils.data.IterableDataset):
            return torch.utils.data.DataLoader(
                self.train_dataset, batch_size=self._train_batch_size, **self._loader_arguments(self.data_collator)
            )
        sampler = self.make_train_sampler()
        self._follow_epoch.sampler = sampler
        return torch.utils.data.DataLoader(
            KeyedClips(self.train_dataset, self._data_seed),
            batch_sampler=sampler,
            **self._loader_arguments(self.data_collator),
        )

    def make_train_sampler(self) -> ClipBatchSampler:
        """The sampler of this process's training batches."""
        dataset, args = self.train_dataset, self.args
        needs_lengths = find_sampling_strategy(self.args) == "group_by_length" or self.max_frames_per_batch is not None
        return ClipBatchSampler(
            getattr(dataset, "sizes", [len(dataset)]),
            self._train_batch_size,
            self._data_seed,
            lengths=find_lengths(dataset, args.length_column_name) if needs_lengths else None,
            strategy=find_sampling_strategy(self.args),
            max_frames=self.max_frames_per_batch,
            weights=getattr(dataset, "weights", None),
            accumulation_steps=args.gradient_accumulation_steps,
            num_processes=args.world_size,
            process_index=args.process_index,
            drop_last=args.dataloader_drop_last,
        )

    def get_eval_dataloader(self, eval_dataset=None) -> torch.utils.data.DataLoader:
        """Batches of an evaluation set in its own order, with the evaluation collator."""
        dataset = self.eval_dataset if eval_dataset is None else eval_dataset
        if isinstance(dataset, str):
            dataset = self.eval_dataset[dataset]
        if dataset is None:
            raise ValueError("Evaluation needs an `eval_dataset`.")
        if not isinstance(dataset, torch.utils.data.IterableDataset):
            dataset = KeyedClips(dataset, self._data_seed)
        arguments = self._loader_arguments(self.eval_data_collator)
        loader = torch.utils.data.DataLoader(dataset, batch_size=self.args.eval_batch_size, **arguments)
        return self.accelerator.prepare(loader)

    def get_test_dataloader(self, test_dataset) -> torch.utils.data.DataLoader:
        """As [`get_eval_dataloader`]."""
        return self.get_eval_dataloader(test_dataset)

    @property
    def _data_seed(self) -> int:
        return self.args.seed if self.args.data_seed is None else self.args.data_seed

    def _loader_arguments(self, collator) -> dict:
        args = self.args
        return {
            "collate_fn": collator,
            "num_workers": args.dataloader_num_workers,
            "pin_memory": args.dataloader_pin_memory,
            "persistent_workers": args.dataloader_persistent_workers,
            "prefetch_factor": args.dataloader_prefetch_factor,
            # A generator of its own: starting an epoch then leaves the model's randomness as it was.
            "generator": torch.Generator().manual_seed(self._data_seed),
        }

    # Training

    def load_finished(self, checkpoint: str) -> bool:
        """Load the model of a training that is done, the best one where that is chosen; Trainer would take a step more.

        Args:
            checkpoint: folder of its last step.
        Returns:
            False, and nothing is loaded, where steps are left.
        """
        state = TrainerState.load_from_json(os.path.join(checkpoint, TRAINER_STATE_NAME))
        if state.global_step < self._count_steps():
            return False
        self.state = state
        best = state.best_model_checkpoint if self.args.load_best_model_at_end else None
        self._load_from_checkpoint(checkpoint if best is None else best)
        return True

    def _count_steps(self) -> int:
        """Optimiser steps of the whole training."""
        if self.args.max_steps > 0:
            return self.args.max_steps
        num_batches = len(self.get_train_dataloader())
        return math.ceil(self.args.num_train_epochs * max(-(-num_batches // self.args.gradient_accumulation_steps), 1))

    def get_batch_samples(self, epoch_iterator, num_batches: int, device) -> tuple[list, torch.Tensor | None]:
        """Batches of one optimiser step, and what its losses are divided by.

        Returns:
            the batches, and int64 (1 + K,): label tokens and hidden codes of each codebook, summed over the batches and
            processes; without hidden codes the number of tokens alone.
        """
        batches = list(itertools.islice(epoch_iterator, num_batches))
        if not batches or "labels" not in batches[0]:
            return batches, None
        counts = sum(count_targets(batch) for batch in batches).to(device)
        if self.args.average_tokens_across_devices and self.args.world_size > 1:
            counts = self.accelerator.reduce(counts, "sum")
        return batches, counts if len(counts) > 1 else counts[0]

    def compute_loss(self, model, inputs, return_outputs: bool = False, num_items_in_batch=None):
        """As in Trainer; the two parts are added up for the next log."""
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, num_items_in_batch=num_items_in_batch)
        if model.training:
            if self._loss_parts is None:
                self._loss_parts = torch.zeros(2, device=loss.device)
                self._parts_start_step = self.state.global_step
            caption, mcm = outputs.get("caption_loss"), outputs.get("mcm_loss")
            if mcm is not None:
                self._loss_parts[1] += mcm.detach()
            elif self.args.average_tokens_across_devices and num_items_in_batch is not None:
                # Alone, the caption loss is `loss`, which Trainer has multiplied in place by the number of processes.
                caption = loss / self.args.world_size
            if caption is not None:
                self._loss_parts[0] += caption.detach()
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add `caption_loss` and `mcm_loss` where the training loss is logged."""
        if "loss" in logs and self._loss_parts is not None:
            parts = self.accelerator.reduce(self._loss_parts, "sum")
            if not self.args.average_tokens_across_devices:
                parts = parts / self.args.world_size
            caption, mcm = (parts / max(self.state.global_step - self._parts_start_step, 1)).tolist()
            logs["caption_loss"] = caption
            if mcm:
                logs["mcm_loss"] = mcm
            self._loss_parts = None
        super().log(logs, start_time)

    # Evaluation

    def evaluation_loop(self, dataloader, description: str, *args, metric_key_prefix: str = "eval", **kwargs):
        """As in Trainer, with losses that do not depend on how the clips were batched."""
        self.gather_function = self.accelerator.gather_for_metrics  # drops the clips that fill up the last batch
        self._evaluation_sums = [0.0] * 4  # caption loss, label tokens, MCM loss, hidden codes of a codebook
        output = super().evaluation_loop(dataloader, description, *args, metric_key_prefix=metric_key_prefix, **kwargs)
        dtype = torch.float32 if self.args.device.type == "mps" else torch.float64
        sums = torch.tensor(self._evaluation_sums, dtype=dtype, device=self.args.device)
        caption, tokens, mcm, hidden = self.accelerator.reduce(sums, "sum").tolist()
        if tokens:
            output.metrics[f"{metric_key_prefix}_caption_loss"] = caption / tokens
        if hidden:
            output.metrics[f"{metric_key_prefix}_mcm_loss"] = mcm / hidden
        if tokens:
            total = caption / tokens + (self.model.config.mcm_loss_weight * mcm / hidden if hidden else 0.0)
            output.metrics[f"{metric_key_prefix}_loss"] = total
        return output

    def prediction_step(self, model, inputs, prediction_loss_only: bool, ignore_keys=None, **gen_kwargs):
        """Add one batch to the losses, and caption it. Returns (None, token ids, labels)."""
        inputs = self._prepare_inputs(inputs)
        self._add_losses(model, self._blank_repeated_clips(inputs))
        if prediction_loss_only or not self.args.predict_with_generate:
            return None, None, None
        audio = {name: inputs[name] for name in AUDIO_INPUTS if name in inputs}
        _, generated, _ = super().prediction_step(model, audio, False, ignore_keys, **gen_kwargs)
        return None, generated, inputs.get("labels")

    def _blank_repeated_clips(self, inputs: dict) -> dict:
        """Inputs without the targets of clips that fill up the last batch of several processes."""
        state = self.accelerator.gradient_state
        if self.args.world_size == 1 or not state.end_of_dataloader or state.remainder <= 0:
            return inputs
        mask = inputs["attention_mask"]
        place = torch.arange(len(mask), device=mask.device) + self.args.process_index * len(mask)
        repeated = place >= state.remainder
        blanked = dict(inputs)
        for name in ("labels", "mcm_targets"):
            if name in inputs:
                rows = repeated.view(-1, *[1] * (inputs[name].dim() - 1))
                blanked[name] = inputs[name].masked_fill(rows, IGNORED_TARGET)
        return blanked

    @torch.no_grad()
    def _add_losses(self, model, inputs: dict) -> None:
        """Add a batch's sums: captions over visible codes, then the encoder alone over hidden ones."""
        config, sums = self.model.config, self._evaluation_sums
        targets = inputs.get("mcm_targets")
        audio = {name: value for name, value in inputs.items() if name not in ("labels", "mcm_targets")}
        ones = torch.ones(1 + config.num_codebooks, device=audio["attention_mask"].device)  # sums, not means
        with self.compute_loss_context_manager():
            if "labels" in inputs:
                output = model(**audio, labels=inputs["labels"], num_items_in_batch=ones)
                sums[0] += output["caption_loss"].item()
                sums[1] += (inputs["labels"] != IGNORED_TARGET).sum().item()
            if targets is not None:
                hidden = targets != IGNORED_TARGET
                output = model(**audio, mcm_targets=targets, num_items_in_batch=ones, use_mcm=True)
                sums[2] += output["mcm_loss"].item()
                sums[3] += hidden.sum().item() / config.num_codebooks

    def end(self) -> None:
        """As in Trainer, which has it since 5.1: call it at the end of a script.

        With gloo, a process that ends at once after a sum over processes can hang: the thread that still holds the
        sum's tensor waits for Python to let go of it, and Python waits for that thread. It is given a moment.
        """
        if self.args.world_size > 1:
            time.sleep(_SECONDS_TO_LET_GO)
        if hasattr(super(), "end"):
            super().end()

    # Saving

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save as Trainer does; into the output directory itself, a repository that is complete and ready to load."""
        super().save_model(output_dir, _internal_call=True)
        if self.args.push_to_hub and not _internal_call:
            self.push_to_hub(commit_message="Model save", revision=self.args.hub_revision)

    def push_to_hub(self, *args, **kwargs):
        """As in Trainer: upload the output directory, a complete repository; returns the commit."""
        if not isinstance(self.processing_class, EnClapProcessor):
            logger.warning(
                "Without a `processing_class` the captioner is pushed alone, and nobody can caption with it; pass the "
                "`EnClapProcessor` to the trainer, or push it to the same repository with `processor.push_to_hub(...)`."
            )
        return super().push_to_hub(*args, **kwargs)

    def create_model_card(self, *args, **kwargs) -> None:
        """Write `model_card` as README.md."""
        if self.model_card is None:
            super().create_model_card(*args, **kwargs)
        elif self.is_world_process_zero():
            with open(os.path.join(self.args.output_dir, "README.md"), "w", encoding="utf-8") as file:
                file.write(self.model_card)


class _Unsaved(str):
    """A secret that is empty once it is pickled."""

    def __reduce__(self):
        return str, ("",)


class _FollowEpoch(TrainerCallback):
    """Tells the sampler which epoch begins, also when a run is taken up in the middle of one."""

    sampler: ClipBatchSampler | None = None

    def on_epoch_begin(self, args, state, control, **kwargs):
        if self.sampler is not None:
            self.sampler.epoch = int(state.epoch + 1e-6)


def count_targets(batch: dict) -> torch.Tensor:
    """What the losses of a batch are sums over: int64 (1 + K,), or (1,) where nothing can be hidden."""
    counts = [(batch["labels"] != IGNORED_TARGET).sum()[None]]
    if "mcm_targets" in batch:
        counts.append((batch["mcm_targets"] != IGNORED_TARGET).sum((0, 1)))
    return torch.cat(counts)


def find_lengths(dataset, column: str) -> list[int]:
    """Codec frames T of every clip: the data set's `lengths`, its column, or counted clip by clip."""
    if hasattr(dataset, "lengths"):
        return dataset.lengths
    if column in getattr(dataset, "column_names", ()):
        return dataset[column]
    return [len(clip["audio_codes"] if "audio_codes" in clip else clip["audio_features"]) for clip in dataset]
