"""Stock trainers of a tiny captioner on six recordings, for tests."""

from pathlib import Path

import soundfile
from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments, Trainer, TrainingArguments

from conftest import CAPTIONS, SAMPLING_RATE, build_model, build_processor, make_clip
from enclap_hf import DataCollatorForEnClap, EnClapForConditionalGeneration, EnClapProcessor

TRAINERS = {"Trainer": (Trainer, TrainingArguments), "Seq2SeqTrainer": (Seq2SeqTrainer, Seq2SeqTrainingArguments)}


def make_model(seed: int = 0, **overrides) -> EnClapForConditionalGeneration:
    model = build_model(seed, **overrides)
    model.generation_config.max_length = 12
    return model


def write_recordings(folder: Path) -> list[dict]:
    """Six recordings of unlike lengths, as rows of `audio` and `caption`."""
    rows = []
    for i in range(6):
        path = str(folder / f"{i}.wav")
        soundfile.write(path, make_clip(0.4 + 0.15 * i, seed=i), SAMPLING_RATE, subtype="FLOAT")
        rows.append({"audio": path, "caption": CAPTIONS[i % len(CAPTIONS)]})
    return rows


def encode_recordings(recordings: list[dict]) -> list[dict]:
    """The recordings' prepared codes, vectors and labels."""
    processor = build_processor()
    made = [processor(audio=row["audio"], text=row["caption"]) for row in recordings]
    return [{name: row[name][0] for name in ("audio_codes", "clap_embedding", "labels")} for row in made]


def make_trainer(rows, encoders, kind="Seq2SeqTrainer", model=None, output_dir="run", collator=None, **arguments):
    """A stock trainer of a tiny captioner; `processing_class` knows its encoders by their place on this machine."""
    trainer_class, arguments_class = TRAINERS[kind]
    processor = EnClapProcessor.from_pretrained(encoders) if isinstance(encoders, str) else encoders
    fields = {
        "max_steps": 2,
        "per_device_train_batch_size": 3,
        "per_device_eval_batch_size": 3,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
    }
    return trainer_class(
        model=make_model() if model is None else model,
        args=arguments_class(output_dir=str(output_dir), **{**fields, **arguments}),
        data_collator=DataCollatorForEnClap(processor) if collator is None else collator,
        train_dataset=rows,
        eval_dataset=rows,
        processing_class=processor,
    )


def caption_alone(model, processor, path: str) -> str:
    return processor.batch_decode(model.eval().generate(**processor(audio=path)))[0]
