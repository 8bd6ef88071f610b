"""One event named twice as if it were two is told from two events, and from one that comes back."""

import pytest

from enclap_hf.model.repeated_events import names_event_twice
from enclap_hf.sound_scenes.scene_captions import write_captions
from enclap_hf.sound_scenes.scene_plan import plan_scene


@pytest.mark.parametrize(
    "caption",
    [
        "A large dog barking and a dog barking at the same time.",
        "A dog barks while a dog is barking in the background.",
        "Birds are chirping, and birds chirp loudly.",
        "Rain falls with rain falling in the distance.",
        "A man is speaking, followed by a man speaking.",
        "A car engine is running and a car engine runs.",
        "Speech, then speech.",
    ],
)
def test_one_event_named_twice(caption):
    assert names_event_twice(caption)


@pytest.mark.parametrize(
    "caption",
    [
        "A dog barks twice, then a phone is ringing.",
        "A man speaks and a woman speaks.",
        "A dog barks, then a bell rings, then a dog barks again.",
        "Birds chirp and birds sing.",
        "A large dog barks while a small dog whines.",
        "Someone knocks on a door, and a door is closed.",
        "People talk over music.",
        "",
        "A sound can be heard.",
    ],
)
def test_two_events_or_one(caption):
    assert not names_event_twice(caption)


def test_the_grammar_of_scenes_names_no_event_twice():
    import numpy as np

    wrong = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        plan = plan_scene(rng, None, None, None, None)
        kinds = [kind.name for kind in plan.kinds]
        wrong += filter(names_event_twice, write_captions(rng, plan.relation, kinds, [None] * len(kinds)))
    assert not wrong
