"""Write the model cards of `model_cards/`, each with the JSON of its contents, and the card inside the default model.

    python examples/write_model_cards.py

Run it after the default model was trained or evaluated, after a recipe or `enclap_hf/hub/published_checkpoints.json`
(what is known of the published checkpoints) was edited, and when the package has a new version.
"""

import argparse
from pathlib import Path

from enclap_hf import DEFAULT_MODEL
from enclap_hf.hub.model_card import CaptionerCard, write_card
from enclap_hf.hub.model_card_makers import make_default_card
from enclap_hf.hub.published_cards import make_published_card
from enclap_hf.hub.published_weights import CARD_PREFIX, list_published
from enclap_hf.model.repository import read_json

ROOT = Path(__file__).parent.parent


def make_cards(default_model: Path) -> dict[str, CaptionerCard]:
    """All cards, by the names of their files."""
    cards = {}
    for checkpoint in list_published():
        recipe = checkpoint.facts["recipe"] and read_json(ROOT / f"examples/recipes/{checkpoint.facts['recipe']}.json")
        cards[CARD_PREFIX + checkpoint.name] = make_published_card(checkpoint, recipe)
    return {"enclap-default": make_default_card(default_model), **cards}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--default_model", type=Path, default=Path(DEFAULT_MODEL), help="folder (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=ROOT / "model_cards", help="folder (default: %(default)s)")
    args = parser.parse_args()
    cards = make_cards(args.default_model)
    args.output.mkdir(parents=True, exist_ok=True)
    for name, card in cards.items():
        write_card(card, args.output / f"{name}.md", args.output / f"{name}.json")
    (args.default_model / "README.md").write_bytes((args.output / "enclap-default.md").read_bytes())
    print(f"Wrote {len(cards)} cards into {args.output}, and {args.default_model / 'README.md'}.")


if __name__ == "__main__":
    main()
