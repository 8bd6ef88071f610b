"""`compare_decoding.py`: its scores are those of the metrics, its intervals those of drawn scenes."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from enclap_hf.metrics import cider_d
from enclap_hf.sound_scenes import make_scene

SCRIPT = Path(__file__).parents[2] / "examples" / "benchmarks" / "compare_decoding.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("compare_decoding", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["compare_decoding"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["compare_decoding"]


def test_a_table_of_few_scenes(script):
    result = script.compare(script.ComparisonArguments(num_scenes=3, first_seed=700_000, num_candidates=4))
    rows = {row["way"]: row for row in result["rows"]}
    assert list(rows)[:2] == ["beam 4", "greedy"] and "4 nucleus, consensus" in rows
    scenes = [make_scene(seed) for seed in range(700_000, 700_003)]
    for name, captions in result["captions"].items():
        expected = cider_d(captions, [list(scene.captions) for scene in scenes])[0]
        assert rows[name]["CIDEr-D"]["value"] == pytest.approx(expected, abs=1e-4)
    table = script.format_table(result["rows"]).splitlines()
    assert len(table) == 2 + len(rows) and all(line.count("|") == table[0].count("|") for line in table)


def test_an_interval_of_a_difference_is_of_the_same_drawn_scenes(script):
    rng = np.random.default_rng(1)
    tops, bottoms = rng.random(50), 1 + rng.random(50)
    assert np.ptp(script.bootstrap(tops + 0.5 * bottoms, bottoms) - script.bootstrap(tops, bottoms)) < 1e-12
    low, high = np.quantile(script.bootstrap(tops, np.ones(50)), [0.025, 0.975])
    assert high - low == pytest.approx(2 * 1.96 * tops.std() / 50**0.5, rel=0.1)


def test_diversity_is_the_share_of_different_bigrams(script):
    assert script.compute_diversity(["a dog barks", "A dog barks", "a dog"]) == 2 / 5
