"""From a run's arguments to its first batch few functions see a data set's source: it reads itself."""

import json
import sys

import pytest

from conftest import CAPTIONS
from enclap_hf.data.data_source import DataSource
from training_runs import load_script, make_recipe, write_repository_and_clips

MOST_FUNCTIONS = 11


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A repository of a tiny captioner, and seven clips as a table, a saved data set, scenes and prepared features."""
    import datasets

    folder = tmp_path_factory.mktemp("work")
    write_repository_and_clips(folder)
    names = [str(folder / "audio" / f"clip [{i}].wav") for i in range(7)]
    rows = {"audio": names, "caption": [CAPTIONS[i % len(CAPTIONS)] for i in range(7)]}
    datasets.Dataset.from_dict(rows).save_to_disk(str(folder / "saved"))
    (folder / "excluded.txt").write_text("clip [3].wav\n")
    run(folder, folder / "first", {"path": str(folder / "clotho.csv"), "audio_dir": str(folder / "audio")})
    return folder


def run(work, output_dir, source: dict, **arguments) -> dict:
    """All of a run up to its first batch, which is returned."""
    nothing = dict.fromkeys(("validation_data", "test_data", "metric_for_best_model", "greater_is_better"))
    recipe = make_recipe(
        work, output_dir, train_data=[source], eval_strategy="no", load_best_model_at_end=False, save_strategy="no",
        report_to="none", **nothing, **arguments,
    )  # fmt: skip
    script = load_script("run_captioning")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["run_captioning.py", recipe])
        *_, trainer = script.set_up()
    return next(iter(trainer.get_train_dataloader()))


def holds_source(value) -> bool:
    """Whether an argument is a source, or a list, tuple or dict with one."""
    values = list(value.values()) if isinstance(value, dict) else value
    return isinstance(value, DataSource) or (isinstance(values, (list, tuple)) and any(map(holds_source, values)))


def find_receivers(call) -> set[str]:
    """Functions of the package and the script that are called with a source while `call` runs."""
    receivers = set()

    def watch(frame, event, _):
        module = frame.f_globals.get("__name__", "")
        if event != "call" or not (module.startswith("enclap_hf") or module == "run_captioning"):
            return
        code = frame.f_code
        flags = bool(code.co_flags & 4) + bool(code.co_flags & 8)  # *args and **kwargs
        names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount + flags]
        if any(holds_source(frame.f_locals.get(name)) for name in names):
            receivers.add(f"{module}.{code.co_qualname}")

    sys.setprofile(watch)
    try:
        call()
    finally:
        sys.setprofile(None)
    return receivers


SOURCES = {
    "table": {"path": "clotho.csv", "audio_dir": "audio", "exclude": "excluded.txt", "weight": 2},
    "scenes": {"path": "scenes", "num_scenes": 3},
    "data set": {"path": "saved", "exclude": "excluded.txt"},
    "features": {"path": "first/_features/train-0"},
    "stream": {"path": "saved"},
}


@pytest.mark.parametrize("kind", SOURCES)
def test_a_source_is_received_by_few_functions(work, tmp_path, kind):
    paths = ("path", "audio_dir", "exclude")
    source = {name: str(work / value) if name in paths else value for name, value in SOURCES[kind].items()}
    receivers = find_receivers(lambda: run(work, tmp_path, source, streaming=kind == "stream"))
    # A test that watches nothing would pass, too.
    assert any(name.endswith("DataSource.__post_init__") for name in receivers), receivers
    opened = "stream_clips" if kind == "stream" else "open_features"
    assert any(name.endswith(opened) for name in receivers), receivers
    assert len(receivers) <= MOST_FUNCTIONS, json.dumps(sorted(receivers), indent=1)
