"""The scenes of `examples/sounds/` and of the demo: a few that show what a caption says."""

from .scenes import Scene, make_scene

# name: kinds (the background last), relation, seed
EXAMPLE_SCENES = {
    "dog_then_telephone": (["dog", "telephone"], "then", 500_021),
    "rain_and_piano": (["piano", "rain"], "background", 500_002),
    "knocking": (["knocking"], "single", 500_003),
    "siren_over_engine": (["siren", "engine"], "background", 500_004),
    "owl_then_thunder": (["owl", "thunder"], "then", 500_005),
}


def make_example_scene(name: str) -> Scene:
    """Make the scene of this name, the same each time, at 24 kHz."""
    kinds, relation, seed = EXAMPLE_SCENES[name]
    return make_scene(seed, num_events=len(kinds), kinds=kinds, relation=relation)
