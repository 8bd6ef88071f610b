"""Training on a reward: its loss is self-critical training's, it goes on as it was, and captions are rewarded more."""

import itertools

import pytest
import torch
from test_trainer import Clips
from transformers import Seq2SeqTrainingArguments

from clap_text_models import build_clap_text, build_processor_with_text
from conftest import build_model
from enclap_hf import DataCollatorForEnClap
from enclap_hf.metrics import cider_d
from enclap_hf.model.clap_text import compare_with_captions
from enclap_hf.training.reward_trainer import RewardSettings, RewardTrainer
from enclap_hf.training.rewards import CaptionReward, read_reward

REFERENCES = [["a dog barks", "a dog is barking"], ["rain", "it rains"], ["then a bell rings", "a bell rings"]]


class RewardedClips(Clips):
    """Clips with references."""

    def __getitem__(self, i):
        return {**self.rows[i], "references": REFERENCES[i % 3]}


def make_trainer(folder, reward=None, model=None, settings=None, **arguments) -> RewardTrainer:
    arguments = {
        **{"max_steps": 2, "per_device_train_batch_size": 4, "learning_rate": 1e-3, "logging_steps": 1, "seed": 3},
        **{"save_strategy": "no", "report_to": "none", "use_cpu": True, "disable_tqdm": True},
        **arguments,
    }
    model = model or build_model(mcm_loss_weight=0.0)
    model.generation_config.max_length = 8
    return RewardTrainer(
        model=model,
        args=Seq2SeqTrainingArguments(output_dir=str(folder), **arguments),
        data_collator=DataCollatorForEnClap(32, max_codec_frames=100, mcm_probability=0.0),
        train_dataset=RewardedClips(8),
        processing_class=build_processor_with_text(),
        reward=reward or CaptionReward({"cider_d": 1.0}, REFERENCES),
        settings=settings or RewardSettings(num_samples=3),
    )


def test_cider_d_is_the_metrics_with_the_frequencies_of_the_training_clips():
    reward = CaptionReward({"cider_d": 1.0}, REFERENCES)
    captions = ["A dog barks loudly.", "It rains.", "A bell rings, then rings."]
    expected = cider_d(captions, REFERENCES)[1]
    given = reward([[caption] for caption in captions], REFERENCES, None)
    torch.testing.assert_close(given[:, 0] * 10, torch.tensor(expected), rtol=1e-6, atol=1e-6)


def test_a_mixture_is_the_weighted_sum():
    tower = build_clap_text()
    captions, audio = [["rain", "a dog"], ["bell", "rain"]], torch.nn.functional.normalize(torch.ones(2, 24), dim=1)
    parts = [
        CaptionReward({name: 1.0}, REFERENCES, tower)(captions, REFERENCES[:2], audio) for name in ("cider_d", "clap")
    ]
    assert parts[1].tolist() == [pytest.approx(row) for row in compare_with_captions(tower, audio, captions)]
    mixed = CaptionReward(read_reward("cider_d=3,clap=1"), REFERENCES, tower)(captions, REFERENCES[:2], audio)
    torch.testing.assert_close(mixed, 0.75 * parts[0] + 0.25 * parts[1])


def test_the_loss_is_that_of_self_critical_training_and_of_the_words(tmp_path):
    """Against sequences that are scored one by one, with the probability of each token."""
    trainer = make_trainer(tmp_path, settings=RewardSettings(share=0.7, num_samples=3))
    model = trainer.model.train()
    batch = next(iter(trainer.get_train_dataloader()))
    inputs = {name: value for name, value in batch.items() if name not in ("references", "keys", "labels")}
    sequences, greedy = trainer.write_captions(model, inputs, batch["keys"])
    loss = trainer.compute_loss(model, dict(batch))
    rewards = torch.zeros(4, 3)
    decode = trainer.processing_class.decode
    for clip, sample in itertools.product(range(4), range(3)):
        of_clip = [batch["references"][clip]]
        rewards[clip, sample] = trainer.reward([[decode(sequences[clip, sample])]], of_clip, None)
        rewards[clip, sample] -= trainer.reward([[decode(greedy[clip])]], of_clip, None)[0, 0]
    advantages = rewards / rewards.std().clamp(min=1e-6)
    total, num_tokens = 0.0, 0
    for clip, sample in itertools.product(range(4), range(3)):
        ids = sequences[clip, sample]
        audio = {name: value[clip : clip + 1] for name, value in inputs.items()}
        log_probs = model(**audio, decoder_input_ids=ids[None, :-1]).logits[0].log_softmax(-1)
        for position in range(1, len(ids)):
            token = int(ids[position])
            is_forced = position == 1 or position == 7  # <s>, and </s> where the length ends
            if token == 1 or (is_forced and (position == 1 or token == 2)):
                continue
            total += -advantages[clip, sample] * log_probs[position - 1, token]
            num_tokens += 1
    words = model(**inputs, labels=batch["labels"]).caption_loss
    torch.testing.assert_close(loss, 0.7 * total / num_tokens + 0.3 * words, rtol=1e-4, atol=1e-5)


def test_captions_are_rewarded_more_after_some_steps(tmp_path):
    settings = RewardSettings(share=1.0, num_samples=8)
    trainer = make_trainer(tmp_path, settings=settings, max_steps=30, learning_rate=3e-3)
    trainer.train()
    rewards = [entry["reward"] for entry in trainer.state.log_history if "reward" in entry]
    logged = next(entry for entry in trainer.state.log_history if "reward" in entry)
    assert {"greedy_reward", "entropy", "caption_words"} <= set(logged)
    assert sum(rewards[-8:]) > sum(rewards[:8])


def test_the_same_steps_again_and_however_a_batch_is_split(tmp_path):
    losses = []
    for arguments in ({}, {}, {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}):
        trainer = make_trainer(tmp_path, max_steps=1, **arguments)
        trainer.train()
        losses.append([entry["reward"] for entry in trainer.state.log_history if "reward" in entry])
    assert losses[0] == losses[1] and losses[2] == pytest.approx(losses[0], abs=1e-6)


def test_clips_without_references_are_refused_in_one_line(tmp_path):
    trainer = make_trainer(tmp_path)
    trainer.train_dataset = Clips(8)
    with pytest.raises(ValueError, match="Got clips without `references`, which the reward cider_d needs"):
        trainer.train()
    with pytest.raises(ValueError, match="Got the reward cider_d without references"):
        CaptionReward({"cider_d": 1.0}, [])
    with pytest.raises(ValueError, match="no text tower"):
        CaptionReward({"clap": 1.0}, None)


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        ("cider", "expected cider_d or clap"),
        ("cider_d=0", "without a weight above 0"),
        ("cider_d=a", "expected cider_d or clap"),
        ({"clap": -1}, "expected cider_d or clap"),
        ({}, "expected cider_d or clap"),
    ],
)
def test_a_reward_that_makes_no_sense_is_refused_in_one_line(reward, message):
    with pytest.raises(ValueError, match="Got `reward`") as raised:
        read_reward(reward)
    assert message in str(raised.value) and "\n" not in str(raised.value)
    for options in ({"share": 0.0}, {"num_samples": 1}):
        with pytest.raises(ValueError, match="Got `reward_"):
            RewardSettings(**options)
