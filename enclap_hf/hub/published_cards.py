"""Fills model cards (`model_card.py`) for published checkpoints and for what is converted from them."""

import json
from collections.abc import Sequence
from dataclasses import replace

from .hub_addresses import HubAddress
from .model_card import LIMITS, CaptionerCard, Part, ScoreRow
from .model_card_makers import (
    ENCODEC_LICENCE,
    PACKAGE,
    PAPER,
    describe_recipe,
    describe_start,
    describe_window,
)
from .published_weights import CARD_PREFIX, PublishedCheckpoint, read_facts

PUBLISHED_PARTS = (
    Part("captioner", "[EnCLAP](https://github.com/jaeyeonkim99/EnCLAP)", "MIT"),
    Part("`codec/`", "[EnCodec](https://github.com/facebookresearch/encodec)", "CC-BY-NC 4.0: no commercial use"),
    Part("`clap/`", "[LAION-CLAP](https://github.com/LAION-AI/CLAP)", "CC0"),
    Part("tokenizer", "[BART](https://hf.co/facebook/bart-base)", "Apache-2.0"),
)
PUBLISHED_LICENCE_NOTE = "The strictest of them, CC-BY-NC 4.0, holds for the repository as a whole."


def make_conversion_card(
    repository: str, sources: Sequence[str], model: dict, front_end: dict, decoding: dict
) -> CaptionerCard:
    """Card of converted published weights.

    Args:
        repository: name of the folder.
        sources: Markdown lines, one for each source.
        model: the captioner's configuration.
        front_end: the feature extractor's.
        decoding: arguments of `generate`.
    """
    sizes = (
        f"* Captioner: {model['num_codebooks']} codebooks of {model['codec_vocab_size']} codes, CLAP vectors of "
        f"{model['clap_dim']}, width {model['d_model']}, {model['encoder_layers']} + {model['decoder_layers']} layers."
    )
    tower = (
        f"* CLAP tower: {'with' if front_end['long_clips'] == 'fusion' else 'without'} fusion. Log-mel from "
        f"{front_end['frequency_min']:g} to {front_end['frequency_max']:g} Hz, samples rounded to 16 bits, as in "
        "training."
    )
    always = (
        f"* What CLAP sees of clips over {front_end['clap_window_s']:g} s was drawn at random by the published system. "
        "Here it is always the same: the same recording has the same caption every time."
    )
    return CaptionerCard(
        name="EnCLAP audio captioner",
        summary=f"Writes one sentence about a sound recording. Converted from the published [EnCLAP]({PAPER}) weights; "
        "the tensors of the captioner are the published ones, bit for bit.",
        load_from=json.dumps(repository, ensure_ascii=False),
        license=ENCODEC_LICENCE,
        licence_note=PUBLISHED_LICENCE_NOTE,
        limits=[*LIMITS, describe_window(front_end)],
        score_note="Not measured in the conversion. Which scores are reported depends on the published checkpoint.",
        training_data="That of the published checkpoint: AudioCaps, Clotho, or both.",
        parts=list(PUBLISHED_PARTS),
        how_made="\n".join(
            [
                f"With `enclap convert` of {PACKAGE}, from:",
                *("", *sources, "", sizes, tower),
                f"* Decoding: {', '.join(f'{name} {value}' for name, value in decoding.items())}.",
                always,
            ]
        ),
    )


def describe_published(card: CaptionerCard, checkpoint: PublishedCheckpoint) -> CaptionerCard:
    """A card with what is known of a published checkpoint: its data, where it began, its scores.

    Args:
        card: of the checkpoint, or of its conversion.
        checkpoint: the checkpoint.
    """
    published, facts = read_facts(), checkpoint.facts
    encoders = [HubAddress.parse(published[name]).repo_id for name in ("encodec", "clap")]
    scores = [ScoreRow(**{"in_index": "source_url" in row, **row}) for row in facts["scores"]]
    return replace(
        card,
        datasets=facts["datasets"],
        base_models=[facts["start"], *encoders],
        scores=scores,
        score_note=f"No score was measured with this package on these weights. {published['protocol']}"
        if scores
        else "Not reported: no score of this checkpoint is known.",
        training_data=f"{facts['training_data']} Training began from {describe_start(facts['start'])}; EnCodec and "
        "CLAP were frozen.",
    )


def make_published_card(checkpoint: PublishedCheckpoint, recipe: dict | None) -> CaptionerCard:
    """Card of a published checkpoint, from what is known of it.

    Args:
        checkpoint: the checkpoint.
        recipe: its training by the names of `examples/recipes/`, None where it is not known.
    """
    published, name = read_facts(), CARD_PREFIX + checkpoint.name
    by_hand = "" if checkpoint.captioner else f" --enclap {checkpoint.folder}"
    card = CaptionerCard(
        name=name,
        summary=f"The published [EnCLAP]({PAPER}) captioner `{checkpoint.folder}`: it writes one sentence about a "
        "sound recording. This card is for its conversion, whose tensors are the published ones, bit for bit.",
        load_from=json.dumps(name),
        license=ENCODEC_LICENCE,
        licence_note=PUBLISHED_LICENCE_NOTE,
        limits=[*LIMITS, describe_window(published["front_end"])],
        training_data="",
        recipe=describe_recipe(recipe or {}),
        parts=list(PUBLISHED_PARTS),
        how_made=f"""Trained by the [authors of EnCLAP]({published["source"]}). {PACKAGE} converts their weights and the
LAION-CLAP file that they were trained with:

```bash
enclap convert --published {checkpoint.name}{by_hand} --output {name}
```""",
    )
    return describe_published(card, checkpoint)
