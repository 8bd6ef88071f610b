"""Losses are those of the paper, splitting a batch changes nothing, and Trainer, checkpointing and compile work."""

import copy
import inspect
import math
import os

import numpy as np
import pytest
import torch
from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments
from transformers.models.bart.modeling_bart import BartEncoder
from transformers.trainer_utils import get_last_checkpoint

from conftest import build_model, build_processor, make_clip, make_inputs
from enclap_hf import DataCollatorForEnClap, EnClapForConditionalGeneration, EnClapProcessor

ATOL = 1e-5  # float32 sums in another order


def gradients(model) -> dict[str, torch.Tensor]:
    return {
        name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone()
        for name, parameter in model.named_parameters()
    }


def assert_same_gradients(ours: dict, expected: dict, rtol: float = 1e-4):
    """Within `rtol` of each parameter's largest gradient; a key bias has a true gradient of 0, so noise is left."""
    assert ours.keys() == expected.keys()
    largest = max(gradient.abs().max() for gradient in expected.values())
    for name, gradient in ours.items():
        bound = float(max(rtol * expected[name].abs().max(), 1e-6 * largest))
        torch.testing.assert_close(
            gradient, expected[name], atol=bound, rtol=0, msg=lambda m, name=name: f"{name}: {m}"
        )


def recompute_caption_loss(logits, labels, smoothing: float) -> float:
    """Token by token in float64: (1 - s) of the target's share and s of the mean over the vocabulary."""
    losses = []
    log_probs = logits.double().log_softmax(-1)
    for b, s in np.ndindex(*labels.shape):
        if labels[b, s] != -100:
            row = log_probs[b, s]
            losses.append(-(1 - smoothing) * row[labels[b, s]] - smoothing * row.mean())
    return float(sum(losses) / len(losses))


def recompute_codebook_loss(model, states, targets, k: int) -> float:
    """Mean cross entropy of codebook k, code by code in float64; 0 where nothing is hidden."""
    losses = []
    for b, t in np.ndindex(*targets.shape[:2]):
        if targets[b, t, k] != -100:
            head = model.mcm_heads[k]
            row = (head.weight.double() @ states[b, t + 2].double() + head.bias.double()).log_softmax(-1)
            losses.append(-row[targets[b, t, k]])
    return float(sum(losses) / len(losses)) if losses else 0.0


@pytest.mark.parametrize(("smoothing", "weight"), [(0.2, 0.7), (0.0, 0.0), (0.1, 3.0)])
def test_the_losses_are_those_of_the_paper(smoothing, weight):
    model = build_model(label_smoothing=smoothing, mcm_loss_weight=weight)
    inputs = make_inputs()
    with torch.no_grad():
        out = model(**inputs)
        caption = recompute_caption_loss(out.logits, inputs["labels"], smoothing)
        parts = [
            recompute_codebook_loss(model, out.encoder_last_hidden_state, inputs["mcm_targets"], k) for k in range(4)
        ]
    mcm = sum(part / 2 ** (k + 1) for k, part in enumerate(parts))
    assert out.caption_loss.item() == pytest.approx(caption, rel=1e-5)
    assert out.mcm_loss.item() == pytest.approx(mcm, rel=1e-5)
    assert out.loss.item() == pytest.approx(caption + weight * mcm, rel=1e-5)


def test_either_target_alone_gives_its_own_part_of_the_loss(tiny_model):
    inputs = make_inputs()
    labels, targets = inputs.pop("labels"), inputs.pop("mcm_targets")
    with torch.no_grad():
        both = tiny_model(**inputs, labels=labels, mcm_targets=targets, use_mcm=True)
        captions, codes = tiny_model(**inputs, labels=labels), tiny_model(**inputs, mcm_targets=targets)
    torch.testing.assert_close(captions.loss, both.caption_loss)
    assert captions.mcm_loss is None
    torch.testing.assert_close(codes.loss, 0.7 * both.mcm_loss)
    assert codes.caption_loss is None and codes.logits is None


def test_masked_codec_modelling_alone_does_not_run_the_decoder(tiny_model):
    inputs = make_inputs()
    del inputs["labels"]
    tiny_model.model.decoder.forward = None  # calling it would fail
    tiny_model(**inputs).loss.backward()


def test_the_heads_compute_on_hidden_positions_alone(tiny_model):
    inputs, seen = make_inputs(), {}
    for k, head in enumerate(tiny_model.mcm_heads):
        head.register_forward_pre_hook(lambda module, args, k=k: seen.update({k: args[0]}))
    with torch.no_grad():
        states = tiny_model(**inputs).encoder_last_hidden_state[:, 2:-1]
    for k in range(4):
        hidden = inputs["mcm_targets"][..., k] != -100
        assert 0 < hidden.sum() < 0.5 * inputs["attention_mask"].sum()
        torch.testing.assert_close(seen[k], states[hidden])


@pytest.mark.parametrize("empty", [[1], [0, 3], [0, 1, 2, 3]])
def test_a_codebook_with_nothing_hidden_adds_zero(tiny_model, empty):
    """The published code divided by zero there."""
    inputs = make_inputs()
    inputs["mcm_targets"][..., empty] = -100
    out = tiny_model(**inputs)
    with torch.no_grad():
        parts = [
            recompute_codebook_loss(tiny_model, out.encoder_last_hidden_state, inputs["mcm_targets"], k)
            for k in range(4)
        ]
    assert all(parts[k] == 0 for k in empty)
    assert out.mcm_loss.item() == pytest.approx(sum(part / 2 ** (k + 1) for k, part in enumerate(parts)), rel=1e-5)
    out.loss.backward()
    grads = gradients(tiny_model)
    assert all(torch.isfinite(gradient).all() for gradient in grads.values())
    assert all(torch.count_nonzero(grads[f"mcm_heads.{k}.weight"]) == 0 for k in empty)
    # Distributed training waits for a gradient of every parameter.
    assert all(parameter.grad is not None for parameter in tiny_model.mcm_heads.parameters())


def test_a_batch_whose_captions_are_all_padding_has_loss_zero(tiny_model):
    inputs = make_inputs()
    inputs["labels"] = torch.full_like(inputs["labels"], -100)
    assert tiny_model(**inputs).caption_loss.item() == 0


# Splitting a batch


def split(inputs: dict, sizes: list[int]) -> list[dict]:
    """Parts of a batch, each cut to its own longest clip and caption, as a collator would pad it."""
    parts, start = [], 0
    for size in sizes:
        part = {name: value[start : start + size] for name, value in inputs.items()}
        frames, tokens = part["attention_mask"].sum(1).max(), (part["labels"] != -100).sum(1).max()
        for name in ("audio_codes", "attention_mask", "mcm_targets"):
            part[name] = part[name][:, :frames]
        part["labels"] = part["labels"][:, :tokens]
        parts.append(part)
        start += size
    return parts


def count_tokens(inputs: dict) -> torch.Tensor:
    return (inputs["labels"] != -100).sum()


def count_all(inputs: dict) -> torch.Tensor:
    """(1 + K,): label tokens, then hidden codes of each codebook."""
    return torch.cat([count_tokens(inputs)[None], (inputs["mcm_targets"] != -100).sum((0, 1))])


@pytest.mark.parametrize("sizes", [[1, 1, 1, 1, 1], [2, 3], [4, 1]])
def test_splitting_a_batch_changes_neither_loss_nor_gradients(tiny_model, sizes):
    inputs = make_inputs((40, 57, 9, 23, 31))
    whole = tiny_model(**inputs)
    whole.loss.backward()
    expected = gradients(tiny_model)
    tiny_model.zero_grad()
    total = 0
    for part in split(inputs, sizes):
        loss = tiny_model(**part, num_items_in_batch=count_all(inputs)).loss
        loss.backward()
        total += loss.detach()
    torch.testing.assert_close(total, whole.loss.detach(), atol=ATOL, rtol=0)
    assert_same_gradients(gradients(tiny_model), expected)


@pytest.mark.parametrize("as_tensor", [True, False])
def test_splitting_a_batch_by_trainers_count_keeps_the_caption_loss(tiny_model, as_tensor):
    inputs = make_inputs((40, 57, 9, 23, 31))
    parts = split(inputs, [2, 3])
    del inputs["mcm_targets"]
    whole = tiny_model(**inputs)
    whole.loss.backward()
    expected = gradients(tiny_model)
    tiny_model.zero_grad()
    count = count_tokens(inputs) if as_tensor else int(count_tokens(inputs))
    total = 0
    for part in parts:
        del part["mcm_targets"]
        loss = tiny_model(**part, num_items_in_batch=count).loss
        loss.backward()
        total += loss.detach()
    torch.testing.assert_close(total, whole.loss.detach(), atol=ATOL, rtol=0)
    assert_same_gradients(gradients(tiny_model), expected)


def test_trainers_count_weighs_each_parts_own_masked_codec_loss_by_its_share_of_tokens(tiny_model):
    """Trainer counts label tokens only, so the parts' means are averaged: over parts of one size, their plain mean."""
    inputs = make_inputs((40, 57, 9, 23, 31))
    with torch.no_grad():
        parts = split(inputs, [2, 3])
        ours = sum(tiny_model(**part, num_items_in_batch=count_tokens(inputs)).mcm_loss for part in parts)
        expected = sum(tiny_model(**part).mcm_loss * count_tokens(part) for part in parts) / count_tokens(inputs)
    torch.testing.assert_close(ours, expected, atol=ATOL, rtol=0)


def test_a_whole_batch_has_the_same_loss_however_its_counts_are_passed(tiny_model):
    inputs = make_inputs()
    with torch.no_grad():
        expected = tiny_model(**inputs).loss
        for count in (count_tokens(inputs), int(count_tokens(inputs)), count_tokens(inputs)[None], count_all(inputs)):
            loss = tiny_model(**inputs, num_items_in_batch=count).loss
            torch.testing.assert_close(loss.squeeze(), expected)


# Memory and speed


def test_checkpointing_recomputes_in_encoder_and_decoder_and_gives_the_same_gradients(tiny_model):
    """In the published code it never reached the encoder."""
    inputs, calls = make_inputs(), {"encoder": 0, "decoder": 0}
    model = tiny_model.train()
    model(**inputs).loss.backward()
    expected = gradients(model)
    for name in calls:
        layer = getattr(model.model, name).layers[0]

        def count(*_, name=name):
            calls[name] += 1

        layer.fc1.register_forward_hook(count)
    model.zero_grad()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    assert model.is_gradient_checkpointing
    loss = model(**inputs).loss
    assert calls == {"encoder": 1, "decoder": 1}
    loss.backward()
    assert calls == {"encoder": 2, "decoder": 2}
    assert_same_gradients(gradients(model), expected)
    model.zero_grad()
    model.gradient_checkpointing_disable()
    model(**inputs).loss.backward()
    assert calls == {"encoder": 3, "decoder": 3}


@pytest.mark.slow
def test_a_training_step_compiles_into_one_graph_and_equals_eager(tiny_model):
    """The backend differentiates the graph but leaves out the C++ compiler, which would take a minute.

    BART of the oldest transformers draws dropped layers in Python while training, which no graph can hold.
    """
    inputs = make_inputs()
    inputs["mcm_targets"][..., 2] = -100  # a codebook with nothing hidden
    model = tiny_model.train("torch.rand([])" not in inspect.getsource(BartEncoder))
    eager = model(**inputs, num_items_in_batch=count_all(inputs))
    eager.loss.backward()
    expected = gradients(model)
    model.zero_grad()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    out = compiled(**inputs, num_items_in_batch=count_all(inputs), use_mcm=True)
    out.loss.backward()
    for part in ("loss", "caption_loss", "mcm_loss"):
        torch.testing.assert_close(getattr(out, part), getattr(eager, part), atol=ATOL, rtol=0)
    assert_same_gradients(gradients(model), expected)


def test_training_lowers_both_losses():
    model = build_model(dropout=0.0)
    inputs = make_inputs((40, 30))
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    first = model(**inputs)
    for _ in range(20):
        optimizer.zero_grad()
        out = model(**inputs)
        out.loss.backward()
        optimizer.step()
    assert out.caption_loss < 0.8 * first.caption_loss and out.mcm_loss < 0.8 * first.mcm_loss


# Trainer


class Clips(torch.utils.data.Dataset):
    """Prepared clips as a data set holds them."""

    def __init__(self, processor: EnClapProcessor):
        captions = ["a dog barks twice", "rain falls", "a bell rings", "people's voices, then rain"] * 2
        inputs = processor(audio=[make_clip(0.4 + 0.1 * i, i) for i in range(8)], sampling_rate=24_000)
        self.rows = []
        for i, caption in enumerate(captions):
            length = int(inputs["attention_mask"][i].sum())
            self.rows.append(
                {
                    "audio_codes": inputs["audio_codes"][i, :length].numpy().astype(np.uint16),
                    "clap_embedding": inputs["clap_embedding"][i].numpy(),
                    "labels": processor.tokenizer(caption)["input_ids"],
                }
            )

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        return self.rows[i]


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> str:
    folder = str(tmp_path_factory.mktemp("repository"))
    build_model().save_pretrained(folder)
    build_processor().save_pretrained(folder)
    return folder


def make_trainer(repository: str, output_dir, **arguments) -> Seq2SeqTrainer:
    processor = EnClapProcessor.from_pretrained(repository)
    clips = Clips(processor)
    collator = DataCollatorForEnClap(codec_vocab_size=32, generator=torch.Generator().manual_seed(0))
    return Seq2SeqTrainer(
        model=EnClapForConditionalGeneration.from_pretrained(repository),
        args=Seq2SeqTrainingArguments(
            output_dir=str(output_dir),
            **{
                "max_steps": 2,
                "per_device_train_batch_size": 2,
                "per_device_eval_batch_size": 3,
                "gradient_accumulation_steps": 2,
                "learning_rate": 1e-3,
                "logging_steps": 1,
                "save_steps": 2,
                "report_to": "none",
                "use_cpu": True,
                "predict_with_generate": True,
                "generation_max_length": 12,
                "generation_num_beams": 2,
                **arguments,
            },
        ),
        data_collator=collator,
        train_dataset=clips,
        eval_dataset=clips,
        processing_class=processor,
    )


def test_trainer_trains_saves_light_checkpoints_and_captions(repository, tmp_path):
    trainer = make_trainer(repository, tmp_path)
    before = copy.deepcopy(trainer.model.state_dict())
    trainer.train()
    assert any(not torch.equal(before[name], value) for name, value in trainer.model.state_dict().items())
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 2 and all(math.isfinite(loss) and 0 < loss < 50 for loss in losses)

    checkpoint = get_last_checkpoint(str(tmp_path))
    assert not any(os.path.isdir(os.path.join(checkpoint, name)) for name in ("codec", "clap"))
    resumed = EnClapProcessor.from_pretrained(checkpoint)
    clip = make_clip(0.5)
    torch.testing.assert_close(
        dict(resumed(audio=clip, sampling_rate=24_000)),
        dict(EnClapProcessor.from_pretrained(repository)(audio=clip, sampling_rate=24_000)),
    )

    result = trainer.predict(trainer.eval_dataset)
    assert math.isfinite(result.metrics["test_loss"])
    assert result.predictions.shape[0] == result.label_ids.shape[0] == 8
    assert (result.predictions[:, 12:] == 1).all(), "captions of at most 12 tokens, padded by Trainer"
    assert (result.predictions[:, 0] == 2).all()


def test_accumulating_gradients_gives_the_step_of_the_whole_batch(repository, tmp_path):
    """Without masked codec modelling, whose counts Trainer does not know."""

    def first_step(batch_size, accumulation):
        trainer = make_trainer(
            repository,
            tmp_path / str(batch_size),
            max_steps=1,
            per_device_train_batch_size=batch_size,
            gradient_accumulation_steps=accumulation,
            save_strategy="no",
            seed=5,
        )
        trainer.data_collator.mcm_probability = 0.0
        trainer.train()
        logs = [entry for entry in trainer.state.log_history if "loss" in entry]
        return logs[0]["loss"], logs[0]["grad_norm"], trainer.model.state_dict()

    whole, parts = first_step(4, 1), first_step(1, 4)
    assert parts[0] == pytest.approx(whole[0], rel=1e-3)  # Trainer rounds what it logs
    assert parts[1] == pytest.approx(whole[1], rel=1e-3)
    for name, value in parts[2].items():
        # Adam's first step is the learning rate times the gradient's sign: where a gradient is all noise it may differ.
        different = (value - whole[2][name]).abs() > 1e-4
        assert different.float().mean() < 0.02 or name.endswith("k_proj.bias"), name
