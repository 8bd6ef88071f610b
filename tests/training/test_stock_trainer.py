"""A stock `Trainer` and `Seq2SeqTrainer` train on clips in every form, evaluate whole codes, and are taken up again."""

import datasets
import numpy as np
import pytest
import torch
from transformers import Seq2SeqTrainer

from conftest import CAPTIONS, build_processor
from enclap_hf import DataCollatorForEnClap, EnClapProcessor
from enclap_hf.training.data_collator import warn_of_no_captions
from stock_trainers import TRAINERS, caption_alone, encode_recordings, make_model, make_trainer, write_recordings


@pytest.fixture(scope="module")
def encoders(tmp_path_factory) -> str:
    """A folder that a processor was saved to, which holds its encoders."""
    folder = str(tmp_path_factory.mktemp("place-of-the-encoders"))
    build_processor().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def recordings(tmp_path_factory) -> list[dict]:
    return write_recordings(tmp_path_factory.mktemp("recordings"))


@pytest.fixture(scope="module")
def clips(recordings) -> list[dict]:
    return encode_recordings(recordings)


@pytest.fixture(scope="module")
def sounds(recordings) -> list[str]:
    return [row["audio"] for row in recordings]


def map_recordings(recordings: list[dict], encoders: str) -> datasets.Dataset:
    processor = EnClapProcessor.from_pretrained(encoders)
    columns = {name: [row[name] for row in recordings] for name in recordings[0]}
    data = datasets.Dataset.from_dict(columns)
    return data.map(lambda row: dict(processor(audio=row["audio"], text=row["caption"])), remove_columns=["caption"])


# What it trains on


@pytest.mark.parametrize("kind", list(TRAINERS))
@pytest.mark.parametrize("form", ["clips", "recordings", "mapped", "arrays"])
def test_clips_train_in_every_form(recordings, clips, encoders, tmp_path, kind, form):
    """Codes, recordings and captions, and what `datasets.map` makes of them give the same first loss."""
    losses = []
    for chosen in ("clips", form):
        rows = clips
        if chosen == "recordings":
            rows = recordings
        elif chosen == "mapped":
            rows = map_recordings(recordings, encoders)
        elif chosen == "arrays":
            rows = [{name: np.asarray(value).tolist() for name, value in clip.items()} for clip in clips]
        by_hand = {"remove_unused_columns": False} if chosen == "recordings" else {}
        trainer = make_trainer(rows, encoders, kind, output_dir=tmp_path, **by_hand)
        before = trainer.model.mcm_heads[0].weight.clone()
        trainer.train()
        assert not torch.equal(trainer.model.mcm_heads[0].weight, before), "masked codec modelling was trained"
        losses.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)  # float32 sums in another order


@pytest.mark.parametrize("kind", list(TRAINERS))
def test_dropped_columns_are_named(recordings, clips, encoders, tmp_path, kind):
    """Trainer drops `audio` and `caption`, which the model does not take, and the collator got empty clips."""
    with pytest.raises(ValueError, match="remove_unused_columns=False"):
        make_trainer(recordings, encoders, kind, output_dir=tmp_path).train()


def test_clips_whose_captions_were_dropped_are_said_to_train_none(clips, encoders, tmp_path, caplog):
    rows = [{**clip, "caption": "rain"} for clip in clips]
    for row in rows:
        del row["labels"]
    warn_of_no_captions.cache_clear()
    make_trainer(rows, encoders, output_dir=tmp_path).train()
    assert caplog.text.count("no captions are trained") == 1 and "remove_unused_columns=False" in caplog.text
    caplog.clear()
    warn_of_no_captions.cache_clear()
    make_trainer(rows, encoders, output_dir=tmp_path, remove_unused_columns=False).train()
    assert "no captions are trained" not in caplog.text


def test_clips_of_unlike_parts_are_refused(clips, encoders):
    collator = DataCollatorForEnClap(EnClapProcessor.from_pretrained(encoders))
    for name in ("labels", "clap_embedding", "audio_codes"):
        lacking = {key: value for key, value in clips[1].items() if key != name}
        with pytest.raises(ValueError, match="clip 1 has"):
            collator([clips[0], lacking])
    with pytest.raises(ValueError, match="expected `audio_codes`, `audio_features` or `audio`"):
        collator([{"labels": [0, 2]}])


@pytest.mark.parametrize("kind", list(TRAINERS))
@pytest.mark.parametrize("mcm_probability", [0.0, 0.3])
def test_label_smoothing_of_a_trainer_is_refused_in_one_line(clips, encoders, tmp_path, kind, mcm_probability):
    """It takes the labels away from the model, which said `KeyError: 'logits'`."""
    processor = EnClapProcessor.from_pretrained(encoders)
    collator = DataCollatorForEnClap(processor, mcm_probability=mcm_probability)
    trainer = make_trainer(clips, processor, kind, output_dir=tmp_path, collator=collator, label_smoothing_factor=0.1)
    for run in (trainer.train, trainer.evaluate):
        with pytest.raises(ValueError, match="`label_smoothing` of its configuration") as error:
            run()
        assert "\n" not in str(error.value)


# Evaluation


def mean_caption_loss(model, clips) -> float:
    """Mean over batches of the caption loss of whole codes, by the model alone."""
    collator = DataCollatorForEnClap(32, max_codec_frames=253, mcm_probability=0.0)
    with torch.no_grad():
        return sum(model.eval()(**collator(clips[start : start + 3])).loss.item() for start in (0, 3)) / 2


@pytest.mark.parametrize("kind", list(TRAINERS))
@pytest.mark.parametrize("mcm_probability", [0.15, 0.9])
@pytest.mark.parametrize("after_training", [False, True])
def test_evaluations_give_one_number_that_of_whole_codes(
    clips, encoders, tmp_path, kind, mcm_probability, after_training
):
    processor = EnClapProcessor.from_pretrained(encoders)
    collator = DataCollatorForEnClap(processor, mcm_probability=mcm_probability)
    trainer = make_trainer(clips, processor, kind, output_dir=tmp_path, collator=collator)
    if after_training:
        trainer.train()
    losses = {trainer.evaluate()["eval_loss"] for _ in range(3)}
    assert len(losses) == 1
    assert losses.pop() == pytest.approx(mean_caption_loss(trainer.model, clips), rel=1e-5)


@pytest.mark.parametrize("mcm_probability", [0.0, 0.15, 0.9])
def test_predictions_are_captions_of_whole_codes(clips, sounds, encoders, tmp_path, mcm_probability):
    processor = EnClapProcessor.from_pretrained(encoders)
    collator = DataCollatorForEnClap(processor, mcm_probability=mcm_probability)
    arguments = {"predict_with_generate": True, "generation_max_length": 12}
    trainer = make_trainer(clips, processor, output_dir=tmp_path, collator=collator, **arguments)
    expected = [caption_alone(trainer.model, processor, path) for path in sounds]
    assert len(set(expected)) > 1
    for _ in range(2):
        output = trainer.predict(clips)
        assert processor.batch_decode(output.predictions) == expected
        assert output.metrics["test_loss"] == pytest.approx(mean_caption_loss(trainer.model, clips), rel=1e-5)
        captions = [CAPTIONS[i % len(CAPTIONS)] for i in range(len(clips))]
        assert processor.batch_decode(output.label_ids) == captions


def test_a_trainers_logits_are_those_of_whole_codes(clips, encoders, tmp_path):
    trainer = make_trainer(clips, encoders, "Trainer", output_dir=tmp_path)
    batch = DataCollatorForEnClap(32, max_codec_frames=253, mcm_probability=0.0)(clips[:3])
    with torch.no_grad():
        expected = trainer.model.eval()(**batch).logits
    predictions = trainer.predict(clips[:3]).predictions
    logits = predictions[0] if isinstance(predictions, tuple) else predictions
    torch.testing.assert_close(torch.from_numpy(logits), expected, rtol=0, atol=1e-5)  # sums in another order


# Hidden codes


def test_codes_are_hidden_in_training_alone(clips):
    model = make_model()
    torch.manual_seed(1)
    batch = DataCollatorForEnClap(32, max_codec_frames=253, mcm_probability=0.5)(clips[:3])
    whole = {name: value for name, value in batch.items() if name != "mcm_targets"}
    hidden = batch["audio_codes"].masked_fill(batch["mcm_targets"] != -100, 32)
    with torch.no_grad():
        evaluated, asked = model.eval()(**batch), model(**batch, use_mcm=True)
        visible, blank = model(**whole), model(**{**whole, "audio_codes": hidden})
        trained = model.train()(**batch)
        refused = model(**batch, use_mcm=False)
    assert evaluated.mcm_loss is None and torch.equal(evaluated.loss, visible.loss)
    for output in (trained, asked):  # there is no dropout
        assert output.mcm_loss > 0 and torch.equal(output.caption_loss, blank.loss)
        assert torch.equal(output.loss, blank.loss + model.config.mcm_loss_weight * output.mcm_loss)
    assert refused.mcm_loss is None and torch.equal(refused.loss, visible.loss)
    assert not torch.equal(blank.loss, visible.loss)


def test_batches_whose_codes_come_hidden_give_the_same(clips):
    """As collators of one's own make them, and the released code did."""
    model = make_model()
    for seed, count in ((0, 3), (1, 1), (2, 6)):
        torch.manual_seed(seed)
        batch = DataCollatorForEnClap(32, max_codec_frames=253, mcm_probability=0.3)(clips[:count])
        targets = batch["mcm_targets"]
        hidden = {**batch, "audio_codes": batch["audio_codes"].masked_fill(targets != -100, 32)}
        with torch.no_grad():
            drawn, given = model.train()(**batch), model(**hidden)
            evaluated = model.eval()(**hidden)
        assert torch.equal(given.mcm_loss, drawn.mcm_loss) and torch.equal(given.loss, drawn.loss)
        for name in ("mcm_loss", "loss"):  # evaluation takes clip by clip, which adds up in another order
            torch.testing.assert_close(evaluated[name], drawn[name], atol=2e-6, rtol=0)
        assert torch.equal(model.generate(**hidden), model.generate(**{**hidden, "mcm_targets": None}))


def test_masked_codec_modelling_is_evaluated_on_request(clips, encoders, tmp_path):
    class WithMcm(Seq2SeqTrainer):
        def prediction_step(self, model, inputs, *args, **kwargs):
            return super().prediction_step(model, {**inputs, "use_mcm": True}, *args, **kwargs)

    model = make_model()
    stock = make_trainer(clips, encoders, output_dir=tmp_path, model=model)
    asking = WithMcm(model=model, args=stock.args, data_collator=stock.data_collator, eval_dataset=clips)
    asking.args.prediction_loss_only = True
    assert asking.evaluate()["eval_loss"] > stock.evaluate()["eval_loss"] + 0.5


# Resuming


RESUMED = {  # arguments, step, share of hidden codes
    "at the end of an epoch": ({"num_train_epochs": 3, "max_steps": -1, "per_device_train_batch_size": 3}, 2, 0.5),
    "at the end of a second one": ({"num_train_epochs": 3, "max_steps": -1, "per_device_train_batch_size": 6}, 2, 0.5),
    "within one, where nothing is hidden": ({"max_steps": 4, "per_device_train_batch_size": 2}, 2, 0.0),
}


@pytest.mark.parametrize(("case", "kind"), [*zip(RESUMED, ["Trainer", "Seq2SeqTrainer", "Trainer"], strict=True)])
def test_a_resumed_run_equals_an_unbroken_one(clips, encoders, tmp_path, kind, case):
    arguments, step, mcm_probability = RESUMED[case]
    arguments = {"save_strategy": "steps", "save_steps": step, "output_dir": tmp_path / "run", **arguments}
    runs = []
    for seed, checkpoint in ((0, None), (3, str(tmp_path / f"run/checkpoint-{step}"))):
        processor = EnClapProcessor.from_pretrained(encoders)
        collator = DataCollatorForEnClap(processor, mcm_probability=mcm_probability)
        model = make_model(seed, dropout=0.1)
        trainer = make_trainer(clips, processor, kind, model=model, collator=collator, **arguments)
        trainer.train(resume_from_checkpoint=checkpoint)
        runs.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
    assert runs[0] == runs[1] and len(runs[0]) > step


@pytest.mark.parametrize("mcm_probability", [0.0, 0.15])
def test_torchs_randomness_is_read_only_where_something_is_drawn(clips, mcm_probability):
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    DataCollatorForEnClap(32, max_codec_frames=253, mcm_probability=mcm_probability)(clips)
    assert torch.equal(torch.rand(1), expected) == (mcm_probability == 0)
    torch.manual_seed(0)
    DataCollatorForEnClap(32, max_codec_frames=20, mcm_probability=0.0)(clips)  # crops at random
    assert not torch.equal(torch.rand(1), expected)
