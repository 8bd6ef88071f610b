"""Training on a reward of whole captions, after training on their words: self-critical, with a share of cross entropy.

    one forward         encoder once a clip, decoder over its caption of the data and its n samples together
    samples, greedy     drawn from what the captioner is, without dropout, on one encoding of the clip

A sample that is rewarded above the greedy caption becomes likelier, one below it less likely. Differences are divided
by their standard deviation in the batch, so that learning rates mean the same for any reward. A clip's samples follow
from the seed, the epoch and the clip, so a run that is taken up again draws the same.

Source: self-critical sequence training, Rennie et al., CVPR 2017 (arXiv 1612.00563).
"""

from dataclasses import dataclass

import torch
from torch.nn.functional import cross_entropy, pad
from transformers.modeling_outputs import BaseModelOutput

from ..model.candidates import generate_candidates
from ..model.caption_choice import CandidateSearch
from ..model.caption_scores import find_scored_tokens
from ..model.losses_enclap import IGNORED_TARGET, count_targets, counts_hidden_codes, smoothed_caption_loss
from .rewards import CaptionReward, read_reward
from .trainer import AUDIO_INPUTS, EnClapTrainer


@dataclass(frozen=True)
class RewardSettings:
    """How a reward is trained on.

    Args:
        share: of the reward's loss; the rest is that of the captions' words.
        num_samples: captions drawn of each clip.
        temperature: of the samples.
    Raises:
        ValueError: a value out of its range.
    """

    share: float = 0.9
    num_samples: int = 5
    temperature: float = 1.0

    def __post_init__(self):
        if not 0 < self.share <= 1:
            raise ValueError(f"Got `reward_share`={self.share}; expected a share above 0 and up to 1.")
        if self.num_samples < 2:
            raise ValueError(f"Got `reward_samples`={self.num_samples}; expected at least 2.")


class RewardCollator:
    """A collator that hands on the clips' `references` and the keys of their randomness beside the batch."""

    def __init__(self, collator):
        self.collator = collator

    def __call__(self, features: list[dict]) -> dict:
        """Collate clips, see [`DataCollatorForEnClap`]."""
        batch = dict(self.collator(features))
        batch.pop("mcm_targets", None)  # all codes are shown
        batch["references"] = [clip.get("references") for clip in features]
        batch["keys"] = [list(clip.get("rng_key") or ()) for clip in features]
        return batch

    def for_evaluation(self):
        """The collator for evaluation, which hands on nothing."""
        return self.collator.for_evaluation()


class RewardTrainer(EnClapTrainer):
    """[`EnClapTrainer`] on a reward.

    `reward`, `greedy_reward`, `entropy` (of a token, in nats) and `caption_words` of the samples are logged.

    Args:
        reward: [`CaptionReward`].
        settings: how it is trained on.
        args, kwargs: those of [`EnClapTrainer`]; clips carry `references`.
    """

    def __init__(self, *args, reward: CaptionReward, settings: RewardSettings | None = None, **kwargs):
        super().__init__(*args, **kwargs)
        self.reward, self.settings = reward, settings or RewardSettings()
        self.data_collator = RewardCollator(self.data_collator)
        self._reward_sums: torch.Tensor | None = None
        self._reward_batches = 0

    def compute_loss(self, model, inputs, return_outputs: bool = False, num_items_in_batch=None):
        """The loss of a batch; in evaluation that of the captions' words."""
        references, keys = inputs.pop("references", None), inputs.pop("keys", None)
        if not model.training:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        audio = {name: inputs[name] for name in AUDIO_INPUTS if name in inputs}
        captioner = self.accelerator.unwrap_model(model)
        sequences, greedy = self.write_captions(captioner, audio, keys)
        texts = [self.processing_class.batch_decode(clip) for clip in sequences]
        of_greedy = [[text] for text in self.processing_class.batch_decode(greedy)]
        if references is not None and any(clip is None for clip in references):
            references = None
        clap = audio.get("clap_embedding")
        rewards, baseline = self.reward(texts, references, clap), self.reward(of_greedy, references, clap)
        advantages = rewards - baseline
        advantages = (advantages / advantages.std().clamp(min=1e-6)).to(sequences.device)
        logits = self.run_decoder(model, captioner, audio, inputs["labels"], sequences)
        words = smoothed_caption_loss(
            logits[:, 0, : inputs["labels"].shape[1]],
            inputs["labels"],
            captioner.config.label_smoothing,
            num_items_in_batch,
        )
        policy, entropy = self.compute_policy_loss(captioner, logits[:, 1:], sequences, advantages)
        if num_items_in_batch is not None:  # this batch is a part of a larger one, by its tokens
            has_codes = counts_hidden_codes(num_items_in_batch)
            total = num_items_in_batch[0] if has_codes else num_items_in_batch
            policy = policy * count_targets(inputs["labels"]) / total
        self._count(rewards, baseline, entropy, texts)
        loss = self.settings.share * policy + (1 - self.settings.share) * words
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            loss = loss * self.accelerator.num_processes  # gradients are averaged over the processes
        return (loss, {"loss": loss}) if return_outputs else loss

    @torch.no_grad()
    def write_captions(self, captioner, audio: dict, keys: list | None) -> tuple[torch.LongTensor, torch.LongTensor]:
        """Samples (B, n, S) and greedy captions (B, S) of a batch, on one encoding of each clip."""
        captioner.eval()
        mask = audio["attention_mask"]
        states = captioner.model.encoder(**audio)[0]
        search = CandidateSearch(
            self.settings.num_samples, seed=self._data_seed, top_p=1.0, temperature=self.settings.temperature
        )
        clip_seeds = [fold_key(key) for key in keys]
        sequences = generate_candidates(captioner, states, mask, search, clip_seeds, no_repeat_ngram_size=0)
        greedy = captioner.generate(encoder_outputs=BaseModelOutput(states), attention_mask=mask, num_beams=1)
        captioner.train()
        return sequences, greedy

    def run_decoder(self, model, captioner, audio: dict, labels: torch.Tensor, sequences: torch.Tensor) -> torch.Tensor:
        """Logits (B, 1 + n, S, V) of each clip's caption of the data and of its samples."""
        of_data = captioner.prepare_decoder_input_ids_from_labels(labels)[:, None]
        of_samples = sequences[:, :, :-1]
        length = max(of_data.shape[2], of_samples.shape[2])
        rows = [
            pad(ids, (0, length - ids.shape[2]), value=captioner.config.pad_token_id) for ids in (of_data, of_samples)
        ]
        rows = torch.cat(rows, dim=1)  # (B, 1 + n, S)
        return model(**audio, decoder_input_ids=rows.flatten(0, 1), use_cache=False).logits.unflatten(0, rows.shape[:2])

    def compute_policy_loss(
        self, captioner, logits: torch.Tensor, sequences: torch.LongTensor, advantages: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The loss that makes samples likelier by their advantages, and the entropy of a token.

        Args:
            captioner: whose decoding says which tokens count.
            logits: (B, n, S, V) at least as long as the samples less one.
            sequences: (B, n, S) samples.
            advantages: (B, n).
        """
        targets = find_scored_tokens(sequences.flatten(0, 1), captioner.find_decoding())  # (B * n, S - 1)
        logits = logits.flatten(0, 1)[:, : targets.shape[1]].float()
        losses = cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED_TARGET, reduction="none")
        counts = targets != IGNORED_TARGET
        num_tokens = counts.sum().clamp(min=1)
        policy = (losses.view_as(targets).sum(1) * advantages.flatten()).sum() / num_tokens
        with torch.no_grad():
            log_probs = logits.log_softmax(-1)
            entropy = (-(log_probs.exp() * log_probs).sum(-1) * counts).sum() / num_tokens
        return policy, entropy

    def _count(self, rewards, baseline, entropy, texts: list[list[str]]) -> None:
        """Add a batch's means for the next log."""
        words = [len(text.split()) for clip in texts for text in clip]
        means = [rewards.mean().item(), baseline.mean().item(), entropy.item(), sum(words) / len(words)]
        device = entropy.device
        self._reward_sums = torch.tensor(means, device=device) + (0 if self._reward_sums is None else self._reward_sums)
        self._reward_batches += 1

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add what the samples were rewarded, where the training loss is logged."""
        if "loss" in logs and self._reward_sums is not None:
            sums = self.accelerator.reduce(self._reward_sums / self._reward_batches, "mean").tolist()
            names = ("reward", "greedy_reward", "entropy", "caption_words")
            logs.update(dict(zip(names, sums, strict=True)))
            self._reward_sums, self._reward_batches = None, 0
        super().log(logs, start_time)


def choose_trainer(args, clips, processor) -> tuple[type[EnClapTrainer], dict]:
    """The trainer that a run's arguments ask for, and what it takes beside those of [`EnClapTrainer`].

    Args:
        args: [`~enclap_hf.training.run_arguments.CaptioningTrainingArguments`].
        clips: [`~enclap_hf.training.clips.TrainingClips`] to train on, which then give their references; or None.
        processor: [`EnClapProcessor`] of the captioner.
    """
    if args.reward is None or clips is None:
        return EnClapTrainer, {}
    clips.gives_references = True
    reward = CaptionReward(read_reward(args.reward), clips.references, processor.clap_text_encoder)
    return RewardTrainer, {"reward": reward, "settings": RewardSettings(args.reward_share, args.reward_samples)}


def fold_key(key: list[int]) -> int:
    """One number of a clip's key, other numbers for other keys."""
    folded = 0
    for part in key:
        folded = folded * 1_000_003 + int(part) + 1
    return folded % 2**63
