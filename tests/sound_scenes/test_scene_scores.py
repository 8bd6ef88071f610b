"""What a caption gets right of a scene."""

import math
from dataclasses import replace

from enclap_hf.sound_scenes import make_scene
from enclap_hf.sound_scenes.scene_scores import compute_precision, compute_recall, compute_share, count_named_events

SCENE = make_scene(1, num_events=2, relation="then", kinds=["dog", "telephone"])


def test_events_relation_and_order_are_counted():
    for caption, expected in {
        "A dog barks, then a phone rings.": (2, 2, 2, True, True),
        "A phone rings, then a dog barks.": (2, 2, 2, True, False),
        "A dog barks while a phone rings.": (2, 2, 2, False, None),
        "A dog barks while a phone rings, then a cat meows.": (2, 3, 2, True, False),
        "A dog barks, then a cat meows.": (1, 2, 2, None, None),
        "Nothing.": (0, 0, 2, None, None),
    }.items():
        assert count_named_events(SCENE, caption) == expected, caption


def test_one_event_has_no_relation():
    scene = replace(SCENE, events=SCENE.events[:1], relation="single")
    assert count_named_events(scene, "A dog barks.") == (1, 1, 1, None, None)


def test_shares_are_pooled_over_scenes():
    counts = [count_named_events(SCENE, caption) for caption in ("A dog barks.", "A dog, a phone and a cat.", "Rain.")]
    assert compute_precision(counts) == 3 / 5 and compute_recall(counts) == 3 / 6
    assert compute_share([True, None, False, True]) == 2 / 3 and math.isnan(compute_share([None]))
