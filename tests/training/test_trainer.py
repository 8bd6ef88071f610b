"""However a batch is split and wherever a run is killed, the losses are the same; both parts of them are logged."""

import json
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from transformers import Seq2SeqTrainingArguments

from conftest import build_config, build_model, build_tokenizer
from enclap_hf import DataCollatorForEnClap
from enclap_hf.training.checkpoints import find_last_complete_checkpoint
from enclap_hf.training.clip_batches import ClipBatchSampler, KeyedClips, draw_epoch
from enclap_hf.training.trainer import EnClapTrainer

# Not so transformers 5.0, which has `group_by_length`.
KNOWS_STRATEGIES = "train_sampling_strategy" in Seq2SeqTrainingArguments.__dataclass_fields__
FIRST_STEP_RTOL = 1e-5  # float32 sums in another order


class Clips(torch.utils.data.Dataset):
    """Prepared clips of unlike lengths."""

    def __init__(self, num_clips: int = 16, seed: int = 0):
        rng, config, tokenizer = np.random.default_rng(seed), build_config(), build_tokenizer()
        self.rows = []
        for i in range(num_clips):
            shape = (int(rng.integers(20, 120)), config.num_codebooks)
            caption = " ".join(["a dog barks", "rain", "then a bell rings"][: 1 + i % 3])
            self.rows.append(
                {
                    "audio_codes": rng.integers(config.codec_vocab_size, size=shape).astype(np.uint16),
                    "clap_embedding": rng.standard_normal(config.clap_dim).astype(np.float32) / 5,
                    "labels": tokenizer(caption)["input_ids"],
                }
            )
        self.lengths = [len(row["audio_codes"]) for row in self.rows]

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        return self.rows[i]


def make_trainer(output_dir, train=None, evaluation=None, model=None, **arguments) -> EnClapTrainer:
    collator = DataCollatorForEnClap(32, max_codec_frames=100, mcm_probability=arguments.pop("mcm_probability", 0.3))
    if not KNOWS_STRATEGIES and arguments.pop("train_sampling_strategy", "random") == "group_by_length":
        arguments["group_by_length"] = True
    extra = {name: arguments.pop(name) for name in ("max_frames_per_batch", "compute_metrics") if name in arguments}
    return EnClapTrainer(
        model=model or build_model(dropout=arguments.pop("dropout", 0.0)),
        args=Seq2SeqTrainingArguments(
            output_dir=str(output_dir),
            **{
                "max_steps": 1,
                "per_device_train_batch_size": 8,
                "per_device_eval_batch_size": 3,
                "learning_rate": 1e-3,
                "logging_steps": 1,
                "save_strategy": "no",
                "report_to": "none",
                "use_cpu": True,
                "seed": 3,
                **arguments,
            },
        ),
        data_collator=collator,
        train_dataset=train if train is not None else Clips(),
        eval_dataset=evaluation,
        **extra,
    )


def train_logs(trainer: EnClapTrainer) -> list[dict]:
    return [entry for entry in trainer.state.log_history if "loss" in entry]


def run(output_dir, **arguments) -> list[dict]:
    trainer = make_trainer(output_dir, **arguments)
    trainer.train()
    return train_logs(trainer)


# The loss does not depend on how a batch is split


@pytest.mark.parametrize("strategy", ["random", "group_by_length"])
@pytest.mark.parametrize(("size", "number"), [(4, 2), (2, 4)])
def test_accumulated_batches_have_the_loss_and_gradient_of_the_whole(tmp_path, strategy, size, number):
    split = {"per_device_train_batch_size": size, "gradient_accumulation_steps": number}
    whole = run(tmp_path, train_sampling_strategy=strategy)[0]
    parts = run(tmp_path, train_sampling_strategy=strategy, **split)[0]
    assert whole["mcm_loss"] > 0
    for name in ("loss", "caption_loss", "mcm_loss", "grad_norm"):
        assert parts[name] == pytest.approx(whole[name], rel=FIRST_STEP_RTOL), name


def test_the_logged_parts_add_up_to_the_loss(tmp_path):
    for entry in run(tmp_path, max_steps=4, logging_steps=2, gradient_accumulation_steps=2):
        total = entry["caption_loss"] + build_config().mcm_loss_weight * entry["mcm_loss"]
        assert entry["loss"] == pytest.approx(total, rel=1e-5)


def test_without_masked_codec_modelling_its_part_is_not_logged(tmp_path):
    (entry,) = run(tmp_path, mcm_probability=0.0)
    assert "mcm_loss" not in entry and entry["caption_loss"] == pytest.approx(entry["loss"], rel=1e-6)


def test_mixed_precision_changes_nothing_but_rounding(tmp_path):
    full, mixed = run(tmp_path)[0], run(tmp_path, bf16=True)[0]
    for name in ("loss", "caption_loss", "mcm_loss"):
        assert mixed[name] == pytest.approx(full[name], rel=2e-2), name  # bfloat16 has 8 bits


def test_workers_change_no_hidden_code(tmp_path):
    alone, workers = run(tmp_path, max_steps=2), run(tmp_path, max_steps=2, dataloader_num_workers=2)
    assert [entry["loss"] for entry in workers] == [entry["loss"] for entry in alone]


TWO_PROCESSES = """
    import json, sys
    sys.path.insert(0, {tests!r})
    import torch
    torch.set_num_threads(1)
    from test_trainer import Clips, make_trainer, train_logs

    seen = []
    trainer = make_trainer(
        {output_dir!r}, evaluation=Clips(7, seed=1), per_device_train_batch_size={batch_size}, max_steps=2,
        predict_with_generate=True, generation_max_length=8, generation_num_beams=1,
        compute_metrics=lambda prediction: seen.append(prediction.predictions.tolist()) or {{}},
    )
    trainer.train()
    metrics = trainer.evaluate()
    if trainer.is_world_process_zero():
        with open({result!r}, "w") as file:
            json.dump(
                {{"train": train_logs(trainer), "eval": metrics, "predictions": seen[-1],
                  "num_processes": trainer.args.world_size}}, file,
            )
    trainer.end()
"""


TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc_per_node")
# On CPUs, `--cpu` would start one process whatever the number; this is torchrun with accelerate's variables.
ACCELERATE = (
    "accelerate.commands.launch",
    "--multi_gpu",
    "--num_machines=1",
    "--mixed_precision=no",
    "--num_processes",
)


def run_processes(folder, num_processes: int, batch_size: int, launcher: tuple[str, ...] = TORCHRUN) -> dict:
    """Train and evaluate in so many processes; returns what the main one saw."""
    folder.mkdir()
    result, script = str(folder / "result.json"), folder / "script.py"
    tests = os.path.dirname(os.path.abspath(__file__))
    source = TWO_PROCESSES.format(tests=tests, output_dir=str(folder), batch_size=batch_size, result=result)
    script.write_text(textwrap.dedent(source))
    command = [sys.executable, "-m", *launcher, str(num_processes)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.path.dirname(tests)}
    done = subprocess.run([*command, str(script)], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    with open(result) as file:
        return json.load(file)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [TORCHRUN, ACCELERATE], ids=["torchrun", "accelerate"])
def test_two_processes_have_the_losses_and_scores_of_one(tmp_path, launcher):
    """Seven clips in batches of three: stock evaluation gathers twelve of them from two processes."""
    one, two = run_processes(tmp_path / "one", 1, 8), run_processes(tmp_path / "two", 2, 4, launcher)
    assert two["num_processes"] == 2
    for name in ("loss", "caption_loss", "mcm_loss", "grad_norm"):
        assert two["train"][0][name] == pytest.approx(one["train"][0][name], rel=FIRST_STEP_RTOL), name
    assert len(two["predictions"]) == len(one["predictions"]) == 7
    assert [row[:8] for row in two["predictions"]] == [row[:8] for row in one["predictions"]]
    for name in ("eval_loss", "eval_caption_loss", "eval_mcm_loss"):
        # After two steps, in which Adam turns rounding of tiny gradients into whole steps.
        assert two["eval"][name] == pytest.approx(one["eval"][name], rel=1e-3), name


# Evaluation


def test_evaluation_losses_do_not_depend_on_the_batches(tmp_path):
    evaluation = Clips(7, seed=1)
    found = [
        make_trainer(tmp_path, evaluation=evaluation, per_device_eval_batch_size=size).evaluate() for size in (1, 3, 7)
    ]
    for name in ("eval_loss", "eval_caption_loss", "eval_mcm_loss"):
        assert found[1][name] == pytest.approx(found[0][name], rel=1e-5), name
        assert found[2][name] == pytest.approx(found[0][name], rel=1e-5), name
    weighted = found[0]["eval_caption_loss"] + build_config().mcm_loss_weight * found[0]["eval_mcm_loss"]
    assert found[0]["eval_loss"] == pytest.approx(weighted, rel=1e-6)


def test_evaluation_reads_captions_off_visible_codes(tmp_path):
    """The caption loss is that of the model on the clip as generation sees it: cropped at the start, nothing hidden."""
    evaluation, model = Clips(7, seed=1), build_model()
    metrics = make_trainer(tmp_path, evaluation=evaluation, model=model).evaluate()
    total, tokens = 0.0, 0
    for row in evaluation.rows:
        codes = torch.from_numpy(row["audio_codes"][:100].astype(np.int64))[None]
        labels = torch.tensor(row["labels"])[None]
        clap = torch.from_numpy(row["clap_embedding"])[None]
        with torch.no_grad():
            loss = model(audio_codes=codes, clap_embedding=clap, labels=labels).caption_loss
        total, tokens = total + loss.item() * labels.numel(), tokens + labels.numel()
    assert metrics["eval_caption_loss"] == pytest.approx(total / tokens, rel=1e-5)


def test_captions_come_in_the_order_of_the_clips(tmp_path):
    evaluation, model, seen = Clips(7, seed=1), build_model(), []
    trainer = make_trainer(
        tmp_path,
        evaluation=evaluation,
        model=model,
        predict_with_generate=True,
        generation_max_length=8,
        generation_num_beams=1,
        train_sampling_strategy="group_by_length",  # of training batches alone
        compute_metrics=lambda prediction: seen.append(prediction.predictions) or {"n": len(prediction.predictions)},
    )
    assert trainer.evaluate()["eval_n"] == 7
    for row, tokens in zip(evaluation.rows, seen[0], strict=True):
        codes = torch.from_numpy(row["audio_codes"][:100].astype(np.int64))[None]
        clap = torch.from_numpy(row["clap_embedding"])[None]
        mask = torch.ones(codes.shape[:2], dtype=torch.long)
        alone = model.generate(audio_codes=codes, clap_embedding=clap, attention_mask=mask, max_length=8, num_beams=1)[
            0
        ]
        assert tokens[: len(alone)].tolist() == alone.tolist()


# Going on after a kill


@pytest.mark.parametrize("kill_at", [1, 2, 3])
def test_a_run_that_is_taken_up_has_the_losses_of_an_unbroken_one(tmp_path, kill_at):
    """Four steps are two epochs; dropout, crops, hidden codes and the order of clips all have to go on."""
    arguments = {"max_steps": 4, "dropout": 0.1, "save_strategy": "steps", "save_steps": 1}
    unbroken = make_trainer(tmp_path / "whole", **arguments)
    unbroken.train()
    expected = [entry["loss"] for entry in train_logs(unbroken)]

    class Kill(BaseException):
        pass

    killed = make_trainer(tmp_path / "killed", **arguments)
    step = killed.training_step

    def training_step(*args, **kwargs):
        if killed.state.global_step == kill_at:
            raise Kill
        return step(*args, **kwargs)

    killed.training_step = training_step
    with pytest.raises(Kill):
        killed.train()
    resumed = make_trainer(tmp_path / "killed", **arguments)
    resumed.train(resume_from_checkpoint=find_last_complete_checkpoint(str(tmp_path / "killed")))
    assert [entry["loss"] for entry in train_logs(resumed)] == pytest.approx(expected, rel=1e-6)
    for name, value in resumed.model.state_dict().items():
        torch.testing.assert_close(value, unbroken.model.state_dict()[name], atol=1e-6, rtol=1e-5)


def test_training_draws_order_and_hidden_codes_anew_in_every_epoch(tmp_path):
    """The released code drew them once and cached them."""
    trainer, keys = make_trainer(tmp_path, max_steps=4), []
    collator = trainer.data_collator

    def collate(features):
        keys.extend(clip["rng_key"] for clip in features)
        return collator(features)

    trainer.data_collator = collate
    trainer.train()
    assert [epoch for _, epoch, _ in keys] == [1] * 16 + [2] * 16
    first, second = ([index for _, _, index in part] for part in (keys[:16], keys[16:]))
    assert first != second and sorted(first) == sorted(second) == list(range(16))


def test_half_written_checkpoints_are_passed_over(tmp_path, caplog):
    assert find_last_complete_checkpoint(str(tmp_path)) is None
    for step, state, rng in ((9, "{}", True), (10, "{}", True), (20, '{"global_st', True), (30, None, True)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        if state is not None:
            (folder / "trainer_state.json").write_text(state)
        if rng:
            (folder / "rng_state.pth").touch()
    assert find_last_complete_checkpoint(str(tmp_path)) == str(tmp_path / "checkpoint-10")
    assert "checkpoint-20 is incomplete" in caplog.text
    (tmp_path / "checkpoint-10" / "rng_state.pth").rename(tmp_path / "checkpoint-10" / "rng_state_0.pth")
    assert find_last_complete_checkpoint(str(tmp_path), num_processes=2) == str(tmp_path / "checkpoint-9")


# Batches


def flatten(batches) -> list[int]:
    return [index for batch in batches for index, _ in batch]


@pytest.mark.parametrize("strategy", ["random", "group_by_length", "sequential"])
@pytest.mark.parametrize("max_frames", [None, 400])
def test_an_epoch_has_every_clip_once(strategy, max_frames):
    clips = Clips(37)
    seen, lengths = [], []
    for process in range(2):
        sampler = ClipBatchSampler(
            [37], 4, 0, lengths=clips.lengths, strategy=strategy, max_frames=max_frames, num_processes=2,
            process_index=process,
        )  # fmt: skip
        batches = list(sampler)
        lengths.append(len(sampler))
        assert len(batches) == len(sampler)
        if max_frames is not None:
            for batch in batches:
                assert max(clips.lengths[i] for i, _ in batch) * len(batch) <= max_frames
        seen += flatten(batches)
    assert lengths[0] == lengths[1]
    # 37 clips over two processes: the 37th alone cannot be shared.
    assert len(set(seen)) == len(seen) >= (37 if max_frames is not None else 36)


def test_the_clips_of_a_step_do_not_depend_on_processes_and_accumulation():
    clips = Clips(37)

    def first_steps(batch_size, num_processes, accumulation):
        per_process = [
            list(
                ClipBatchSampler(
                    [37],
                    batch_size,
                    0,
                    lengths=clips.lengths,
                    strategy="group_by_length",
                    accumulation_steps=accumulation,
                    num_processes=num_processes,
                    process_index=process,
                )  # fmt: skip
            )
            for process in range(num_processes)
        ]
        steps = []
        for first in range(0, 4 * accumulation, accumulation):
            parts = [flatten(batches[first : first + accumulation]) for batches in per_process]
            steps.append(sorted(index for part in parts for index in part))
        return steps

    assert first_steps(8, 1, 1) == first_steps(2, 1, 4) == first_steps(4, 2, 1) == first_steps(2, 2, 2)


def test_length_groups_pad_less_and_start_with_the_longest():
    clips = Clips(200)

    def padded(strategy):
        sampler = ClipBatchSampler([200], 10, 0, lengths=clips.lengths, strategy=strategy)
        return [[clips.lengths[i] for i, _ in batch] for batch in sampler]

    def waste(batches):
        return sum(max(batch) * len(batch) - sum(batch) for batch in batches)

    assert waste(padded("group_by_length")) < 0.3 * waste(padded("random"))
    assert max(clips.lengths) in padded("group_by_length")[0]


def test_epochs_differ_and_repeat_with_the_seed():
    sampler, again = (ClipBatchSampler([37], 4, seed=5) for _ in range(2))
    first = flatten(sampler)
    sampler.epoch = again.epoch = 1
    assert flatten(sampler) == flatten(again) != first
    assert flatten(ClipBatchSampler([37], 4, seed=6)) != first


def test_a_mixture_gives_each_data_set_its_share_and_goes_on_in_the_next_epoch():
    sizes, weights = [10, 90], [1.0, 1.0]
    epochs = [draw_epoch(sizes, weights, 0, epoch) for epoch in range(9)]
    assert all((epoch < 10).sum() == 50 and len(epoch) == 100 for epoch in epochs)
    assert np.bincount(epochs[0][epochs[0] < 10]).tolist() == [5] * 10
    large = np.concatenate([epoch[epoch >= 10] for epoch in epochs])  # 450 draws of 90 clips
    assert np.bincount(large)[10:].tolist() == [5] * 90
    assert draw_epoch(sizes, None, 0, 3).tolist() == list(range(100))
    with pytest.raises(ValueError, match="expected a positive one"):
        draw_epoch(sizes, [1.0, 0.0], 0, 0)


def test_hidden_codes_follow_from_seed_epoch_and_clip_alone():
    clips, collator = KeyedClips(Clips(6), seed=1), DataCollatorForEnClap(32, mcm_probability=0.3)
    together = collator([clips[i, 0] for i in range(6)])
    for i in (0, 3):
        alone = collator([clips[i, 0]])["mcm_targets"][0]
        torch.testing.assert_close(together["mcm_targets"][i, : len(alone)], alone)
        assert not torch.equal(collator([clips[i, 1]])["mcm_targets"][0], alone)
    other_seed = collator([KeyedClips(Clips(6), seed=2)[0, 0]])["mcm_targets"]
    assert not torch.equal(other_seed, collator([clips[0, 0]])["mcm_targets"])


def test_clips_shorter_than_a_span_and_of_one_frame_train(tmp_path):
    clips = Clips(8)
    for i, row in enumerate(clips.rows):
        row["audio_codes"] = row["audio_codes"][: 1 + i]
    (entry,) = run(tmp_path, train=clips)
    assert np.isfinite(entry["loss"]) and np.isfinite(entry["grad_norm"])


# Settings


def test_weight_decay_spares_biases_and_layer_norms(tmp_path):
    """The published code decayed the two embedding norms, whose name its list did not have."""
    trainer = make_trainer(tmp_path, weight_decay=0.01)
    optimizer = trainer.create_optimizer()
    decayed = {id(p) for group in optimizer.param_groups if group["weight_decay"] for p in group["params"]}
    spared = {name for name, p in trainer.model.named_parameters() if id(p) not in decayed}
    expected = {name for name, p in trainer.model.named_parameters() if p.dim() == 1}
    assert spared == expected and any("layernorm_embedding.weight" in name for name in spared)
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.01, 0.0}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"label_smoothing_factor": 0.1}, "`label_smoothing` in the model's configuration"),
        pytest.param(
            {"train_sampling_strategy": "batch_rebalance"},
            "expected one of random, group_by_length, sequential",
            marks=pytest.mark.skipif(not KNOWS_STRATEGIES, reason="this transformers has no such setting"),
        ),
        ({"max_frames_per_batch": 0}, "expected at least 1"),
    ],
)
def test_settings_that_would_break_the_promises_are_refused(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        make_trainer(tmp_path, **arguments)
