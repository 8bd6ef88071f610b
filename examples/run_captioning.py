"""Train and evaluate an EnCLAP captioner, from recordings or prepared features to a repository with a model card.

    python examples/run_captioning.py examples/recipes/scenes_smoke.json              # a CPU, no downloads
    python examples/run_captioning.py examples/recipes/clotho_base.json --learning_rate 3e-5
    torchrun --nproc_per_node 8 examples/run_captioning.py examples/recipes/audiocaps_large.json

A recipe, JSON or YAML, holds the arguments that the command line would; arguments behind it override it. A data set is
a path, the name of a data set on the Hub, or an object with the fields of `DataSource`:

    --train_data clotho_captions_development.csv
    --train_data '{"path": "clotho_captions_development.csv", "audio_dir": "development", "weight": 2}' more.jsonl

Without a recipe, on recordings of one's own:

    python examples/run_captioning.py --do_train --train_data recordings/captions.csv --output_dir output/mine \\
        --model_name_or_path owner/enclap --num_train_epochs 5 --learning_rate 2e-5

The same command again goes on where it was stopped or killed.
"""

import contextlib
import json
import logging
import os
import sys
from dataclasses import asdict, replace

import transformers
from transformers import set_seed

from enclap_hf import DataCollatorForEnClap, EnClapForConditionalGeneration, EnClapProcessor
from enclap_hf.commands.freed_memory import keep_freed_memory
from enclap_hf.data.caption_clips import CaptionDataError
from enclap_hf.data.captioning_data import open_source, parse_source, read_weights
from enclap_hf.data.feature_shards import FeatureSettings
from enclap_hf.hub.model_card import CaptionerCard, Example, render_card, write_card
from enclap_hf.hub.model_card_makers import make_run_card
from enclap_hf.training.checkpoints import find_last_complete_checkpoint
from enclap_hf.training.clips import ShownAudio, StreamedClips, TrainingClips
from enclap_hf.training.recipes import expand_recipe, parse_script_arguments
from enclap_hf.training.report import (
    CaptionScorer,
    StepTimes,
    compare_evaluations,
    describe_training,
    write_predictions,
)
from enclap_hf.training.run_arguments import (
    RUN_ARGUMENTS,
    CaptioningTrainingArguments,
    DataArguments,
    ModelArguments,
    check_arguments,
    check_run_arguments,
    find_run_arguments,
    write_run_arguments,
)
from enclap_hf.training.run_encoders import choose_training_processor, fit_processor
from enclap_hf.training.run_setup import build_captioner
from enclap_hf.training.trainer import EnClapTrainer

logger = logging.getLogger("run_captioning")

# Kept out of uploads by its first letter.
FEATURES_FOLDER = "_features"
DATA_FIELDS = ("train_data", "validation_data", "test_data")
PREDICTIONS = ("predictions_validation.csv", "predictions_test.csv")
RESULTS = ("all_results.json", "train_results.json", "eval_results.json", "test_results.json", *PREDICTIONS)
NUM_EXAMPLES = 3  # recordings with their captions in the model card


def parse_arguments() -> tuple[ModelArguments, DataArguments, CaptioningTrainingArguments]:
    """Arguments of a recipe, of the command line, or of a recipe and what overrides it."""
    types, usage = (ModelArguments, DataArguments, CaptioningTrainingArguments), "[RECIPE] [--argument VALUE ...]"
    return parse_script_arguments(types, __doc__, usage, expand_recipe(sys.argv[1:]))


def find_checkpoint(model_args, data_args, training_args) -> str | None:
    """The checkpoint that training goes on from; a run that was begun with other arguments is not gone on with."""
    named, folder = training_args.resume_from_checkpoint, training_args.output_dir
    if named and not os.path.isfile(os.path.join(named, "trainer_state.json")):
        raise ValueError(
            f"Got `resume_from_checkpoint` {named}, which is not a checkpoint; left out, it is the last one."
        )
    checkpoint = named or find_last_complete_checkpoint(folder, training_args.world_size)
    arguments = find_run_arguments(model_args, data_args, training_args)
    if named or checkpoint is None:
        if training_args.should_save:
            write_run_arguments(folder, arguments)
        return checkpoint
    check_run_arguments(
        os.path.join(folder, RUN_ARGUMENTS),
        arguments,
        "give the same, or another `output_dir`; to begin anew, delete its checkpoints; to go on with these all the "
        f"same, add --resume_from_checkpoint {checkpoint}.",
    )
    return checkpoint


def set_up_logging(training_args: CaptioningTrainingArguments) -> None:
    """Log from the main process alone, but for errors."""
    level = logging.INFO if training_args.should_log else logging.ERROR
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", datefmt="%H:%M:%S", level=level)
    transformers.utils.logging.set_verbosity(logging.WARNING if training_args.should_log else logging.ERROR)


def build_model(model_args: ModelArguments, processor: EnClapProcessor) -> EnClapForConditionalGeneration:
    """The captioner that is trained."""
    fields = dict(model_args.config_overrides or {})
    if model_args.mcm_loss_weight is not None:
        fields["mcm_loss_weight"] = model_args.mcm_loss_weight
    return build_captioner(
        model_args.model_name_or_path,
        processor,
        revision=model_args.model_revision,
        num_codebooks=model_args.num_codebooks,
        config_fields=fields,
        may_replace_frames=model_args.names_frames,
    )


def load_data(model_args, data_args, training_args, processor, config) -> dict[str, object]:
    """Training, validation and test clips, as far as they are named."""
    shown = ShownAudio(config.codec_vocab_size, config.num_codebooks, model_args.use_codes, config.clap_dim > 0)
    max_tokens = min(data_args.max_caption_tokens, config.max_position_embeddings)
    entries = {name.removesuffix("_data"): getattr(data_args, name) for name in DATA_FIELDS}
    if not (training_args.do_train or data_args.prepare_only):
        entries["train"] = []
    # All are found before the first is encoded, which may take hours.
    sources = {split: [open_source(entry) for entry in entries[split]] for split in entries if entries[split]}
    weights, choice = read_weights(sources.get("train", [])), data_args.captions_per_clip
    clips = {}
    for split, settings in make_feature_settings(data_args, training_args, processor).items():
        if split not in sources:
            continue
        if split == "train" and data_args.streaming:
            seed = training_args.seed
            clips[split] = StreamedClips(sources[split], processor, settings, shown, max_tokens, seed)
            continue
        base = data_args.features_dir or os.path.join(training_args.output_dir, FEATURES_FOLDER)
        parts = [
            source.open_features(os.path.join(base, f"{split}-{i}"), processor, settings)
            for i, source in enumerate(sources[split])
        ]
        if split == "train":
            clips[split] = TrainingClips(parts, processor.tokenizer, shown, max_tokens, choice, weights)
            clips[split].warn_of_long_captions()
        else:
            clips[split] = TrainingClips(parts, processor.tokenizer, shown, max_tokens, captions="one")
    return clips


def make_feature_settings(data_args, training_args, processor) -> dict[str, FeatureSettings]:
    """How the features of each split are made."""
    evaluation = FeatureSettings(
        processor.num_codebooks,
        data_args.max_duration_s,
        max_clips=data_args.max_eval_clips,
        max_bad_share=data_args.max_bad_share,
        batch_size=data_args.feature_batch_size,
        num_workers=data_args.feature_workers,
        process_index=training_args.process_index,
        num_processes=training_args.world_size,
    )
    training = replace(evaluation, max_clips=data_args.max_train_clips)
    return {"train": training, "validation": evaluation, "test": evaluation}


def build_scorer(data_args, training_args, processor) -> CaptionScorer | None:
    """Metrics of captions, if some are generated; they must have the one that chooses the best checkpoint."""
    if not training_args.predict_with_generate:
        return None
    scorer = CaptionScorer(processor, data_args.metrics)
    if training_args.do_train:
        scorer.check(training_args.metric_for_best_model)
    return scorer


def build_trainer(model_args, data_args, training_args, model, processor, clips, scorer) -> EnClapTrainer:
    """The trainer."""
    config = model.config
    if scorer is not None and "validation" in clips:
        scorer.references = clips["validation"].references
    return EnClapTrainer(
        model=model,
        args=training_args,
        data_collator=DataCollatorForEnClap(
            config,
            mcm_probability=model_args.mcm_probability if config.mcm_loss_weight else 0.0,
            mcm_span=model_args.mcm_span,
        ),
        train_dataset=clips.get("train"),
        eval_dataset=clips.get("validation"),
        processing_class=processor,
        compute_metrics=scorer,
        max_frames_per_batch=data_args.max_frames_per_batch,
        callbacks=[StepTimes()],
    )


def train(trainer: EnClapTrainer, checkpoint: str | None) -> None:
    """Train, from a checkpoint if there is one, and save the model that did best."""
    args = trainer.args
    if checkpoint is not None:
        logger.info("Going on from %s.", checkpoint)
    if checkpoint is not None and trainer.load_finished(checkpoint):
        logger.info("All %d steps were done before.", trainer.state.global_step)
        metrics = {}
    else:
        remove_results(args)
        metrics = trainer.train(resume_from_checkpoint=checkpoint).metrics
        times = next(callback for callback in trainer.callback_handler.callbacks if isinstance(callback, StepTimes))
        metrics.update({f"train_{name}": value for name, value in times.summarize().items()})
    metrics.update(compare_evaluations(trainer.state.log_history, args.metric_for_best_model or "loss"))
    trainer.save_model(_internal_call=True)
    if metrics:
        trainer.log_metrics("train", metrics)
        trainer.save_metrics("train", metrics)
    trainer.save_state()


def remove_results(args) -> None:
    """Remove the results of an earlier model, which a new one would else be published with."""
    if args.should_save:
        for name in RESULTS:
            with contextlib.suppress(FileNotFoundError):
                os.remove(os.path.join(args.output_dir, name))


def evaluate(trainer: EnClapTrainer, clips: dict) -> None:
    """Caption and score validation and test clips; writes predictions_*.csv and adds the scores to all_results.json."""
    scorer = trainer.compute_metrics
    for name in ("validation", "test"):
        if name not in clips:
            continue
        if scorer is not None:
            scorer.references = clips[name].references
        prefix = "eval" if name == "validation" else "test"
        metrics = trainer.predict(clips[name], metric_key_prefix=prefix).metrics
        metrics[f"{prefix}_samples"] = len(clips[name])
        trainer.log_metrics(prefix, metrics)
        if scorer is not None:
            metrics[f"{prefix}_metric_versions"] = scorer.versions
        trainer.save_metrics(prefix, metrics)
        if scorer is not None and trainer.is_world_process_zero():
            path = os.path.join(trainer.args.output_dir, f"predictions_{name}.csv")
            write_predictions(path, clips[name].names, scorer.candidates, clips[name].references, scorer.per_clip)


def make_card(trainer: EnClapTrainer, model_args, data_args, clips: dict) -> CaptionerCard:
    """The model card, from the arguments and the results of the run."""
    args, scorer = trainer.args, trainer.compute_metrics
    name = os.path.basename(os.path.normpath(args.output_dir))
    recipe = {**args.to_dict(), **asdict(data_args), **asdict(model_args)}
    recipe.update(
        {key: [parse_source(entry).path for entry in recipe[key]] for key in DATA_FIELDS},
        steps=trainer.state.global_step,
        num_processes=args.world_size,
        mcm_loss_weight=trainer.model.config.mcm_loss_weight,
        label_smoothing=trainer.model.config.label_smoothing,
    )
    encoders = (trainer.processing_class.codec_source, trainer.processing_class.clap_source)
    scored = clips.get("test", clips.get("validation"))
    captioned = [] if scorer is None or scored is None else zip(scored.names, scorer.candidates, strict=True)
    return make_run_card(
        name,
        args.hub_model_id or name,
        recipe,
        read_results(args.output_dir),
        trainer.model.num_parameters(),
        encoders=[source["repo_id"] for source in encoders if "repo_id" in source],
        examples=[Example(os.path.basename(clip), caption) for clip, caption in captioned][:NUM_EXAMPLES],
    )


def write_model_card(trainer: EnClapTrainer, model_args, data_args, clips: dict) -> None:
    """Put the model card, and as JSON what its numbers are from, into the output directory; uploads take the same."""
    if trainer.is_world_process_zero():
        card, folder = make_card(trainer, model_args, data_args, clips), trainer.args.output_dir
        write_card(card, os.path.join(folder, "README.md"), os.path.join(folder, "model_card.json"))
        trainer.model_card = render_card(card)


def read_results(folder: str) -> dict:
    """all_results.json of a run; nothing where it has none."""
    path = os.path.join(folder, "all_results.json")
    if not os.path.exists(path):
        return {}
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def report(trainer: EnClapTrainer) -> None:
    """Say what was written where, and how fast and large the run was."""
    if not trainer.is_world_process_zero():
        return
    results = read_results(trainer.args.output_dir)
    for line in describe_training(results, trainer.args.metric_for_best_model or "loss"):
        print(line)
    folder = trainer.args.output_dir
    names = ("model.safetensors", "README.md", "all_results.json", *PREDICTIONS)
    written = [name for name in names if os.path.exists(os.path.join(folder, name))]
    print(f"{folder} holds {', '.join(written)}.")
    print(json.dumps(results))


def set_up() -> tuple:
    """All that comes before training: arguments, encoders, model, data."""
    model_args, data_args, training_args = parse_arguments()
    set_up_logging(training_args)
    check_arguments(model_args, data_args, training_args)
    set_seed(training_args.seed)
    os.makedirs(training_args.output_dir, exist_ok=True)
    checkpoint = find_checkpoint(model_args, data_args, training_args) if training_args.do_train else None
    processor = choose_training_processor(model_args, training_args.device)
    scorer = build_scorer(data_args, training_args, processor)
    model = build_model(model_args, processor)
    fitted = fit_processor(processor, model.config)  # features keep all, the model may read less
    clips = load_data(model_args, data_args, training_args, processor, model.config)
    trainer = None
    if not data_args.prepare_only:
        trainer = build_trainer(model_args, data_args, training_args, model, fitted, clips, scorer)
    return model_args, data_args, checkpoint, clips, trainer


def main() -> None:
    keep_freed_memory()
    try:
        model_args, data_args, checkpoint, clips, trainer = set_up()
    except (ValueError, TypeError, OSError) as error:  # of what the user named; later ones are not
        raise CaptionDataError(str(error)) from error
    if data_args.prepare_only:
        folders = [part.folder for split in clips.values() for part in split.parts]
        print(f"The features are in {', '.join(folders)}.")
        return
    if trainer.args.do_train:
        train(trainer, checkpoint)
    evaluate(trainer, clips)
    if trainer.args.do_train:
        write_model_card(trainer, model_args, data_args, clips)
    if trainer.args.push_to_hub:
        trainer.push_to_hub()
    report(trainer)
    trainer.end()


if __name__ == "__main__":
    try:
        main()
    except CaptionDataError as error:
        sys.exit(f"run_captioning: {error}")
