from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments, pipeline

from enclap_hf import DEFAULT_MODEL, DataCollatorForEnClap, EnClapForConditionalGeneration, EnClapProcessor

processor = EnClapProcessor.from_pretrained(DEFAULT_MODEL)
clips = [
    {"audio": "examples/sounds/dog_then_telephone.flac", "caption": "A dog barks, then a telephone rings."},
    {"audio": "examples/sounds/rain_and_piano.ogg", "caption": "Rain falls while a piano plays."},
]
trainer = Seq2SeqTrainer(
    model=EnClapForConditionalGeneration.from_pretrained(DEFAULT_MODEL),
    args=Seq2SeqTrainingArguments(
        output_dir="mine",
        max_steps=2,
        per_device_train_batch_size=2,
        learning_rate=1e-5,
        remove_unused_columns=False,  # the collator reads `audio` and `caption`, which the model does not take
        report_to="none",
    ),
    data_collator=DataCollatorForEnClap(processor),  # hides codes for masked codec modelling, in training alone
    train_dataset=clips,  # or a `datasets` table with these columns
    processing_class=processor,
)
trainer.train()
trainer.save_model()  # model, processor, encoders and code: what `trainer.push_to_hub()` uploads
print(pipeline("audio-captioning", model="mine")("examples/sounds/dog_then_telephone.flac"))
