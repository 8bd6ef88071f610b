"""Which arguments of `generate` a pipeline passes on."""

from transformers import GenerationConfig

from .audio_arrays import as_whole_number

# Arguments of `generate` beside those of `GenerationConfig` that a pipeline passes on.
GENERATE_ARGUMENTS = (
    *("generation_config", "logits_processor", "stopping_criteria", "prefix_allowed_tokens_fn", "streamer"),
    *("decoder_input_ids", "seed"),
)
# What `generate` returns beside token ids when it is asked to, which a pipeline's result has no place for.
OUTPUT_ARGUMENTS = (
    *("output_scores", "output_logits", "output_attentions", "output_hidden_states"),
    "return_dict_in_generate",
)
# Arguments of `generate` that count something.
COUNTS = ("num_beams", "num_return_sequences", "max_length", "max_new_tokens")


def check_generate_arguments(arguments: dict) -> dict:
    """Refuse what `generate` does not know, and what a pipeline's result has no place for."""
    known = vars(GenerationConfig())
    config = arguments.get("generation_config")
    asked = [(name, getattr(config, name, None)) for name in OUTPUT_ARGUMENTS]
    for name, value in [*arguments.items(), *asked]:
        if name in OUTPUT_ARGUMENTS and value:
            raise TypeError(
                f"Got `{name}`, and a pipeline returns texts and scores alone; for the rest call `pipe.model.generate` "
                "with `pipe.processor(audio=...)`."
            )
        if name not in known and name not in GENERATE_ARGUMENTS:
            raise TypeError(
                f"Got `{name}`, which neither the pipeline nor `generate` knows; pass arguments of "
                "`GenerationConfig`, such as `num_beams`."
            )
        if name in COUNTS and value is not None and (as_whole_number(value) or 0) < 1:
            raise ValueError(f"Got `{name}`={value!r}; expected a whole number from 1.")
    return {name: value for name, value in arguments.items() if name not in OUTPUT_ARGUMENTS}
