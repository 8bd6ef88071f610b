"""Ablations: runs side by side, past a failure, ended with their parent; the table of what is there.

A short program stands for run_captioning.py, whose own tests are in test_run_captioning.py.
"""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from training_runs import EXAMPLES, load_script

SCORES = {"full": [0.5, 0.6, 0.7], "no CLAP": [0.1, 0.1, 0.4]}
RUN = """
import json, os, sys, time
with open(sys.argv[1]) as file:
    recipe = json.load(file)
def note(event):
    with open(recipe["journal"], "a") as file:
        file.write(json.dumps([event, recipe["output_dir"], os.getpid(), os.environ["OMP_NUM_THREADS"]]) + "\\n")
if "--prepare_only" in sys.argv:
    note("features")
    sys.exit(recipe.get("features_status", 0))
note("begin")
time.sleep(recipe["seconds"])
note("end")
if recipe.get("fails_with"):
    sys.exit(recipe["fails_with"])
with open(os.path.join(recipe["output_dir"], "all_results.json"), "w") as file:
    json.dump({"test_cider_d": recipe["scores"][recipe["seed"] - 1]}, file)
"""


@pytest.fixture
def plan(tmp_path):
    """Files of a plan of six runs, and the command line of them."""
    (tmp_path / "run.py").write_text(RUN)
    (tmp_path / "recipe.json").write_text(json.dumps({"journal": str(tmp_path / "journal"), "seconds": 0.3}))
    variants = {name: {"scores": scores, "use_clap": name == "full"} for name, scores in SCORES.items()}
    return {"recipe": "recipe.json", "seeds": [1, 2, 3], "metrics": ["test_cider_d"], "variants": variants}


def run(tmp_path, monkeypatch, plan, *arguments: str) -> list[list]:
    """Run the script in this process; returns what its runs wrote into the journal."""
    script = load_script("run_ablations")
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    monkeypatch.setattr(script, "SCRIPT", str(tmp_path / "run.py"))
    monkeypatch.setattr(script, "_SECONDS_BETWEEN_LOOKS", 0.02)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    command = [str(tmp_path / "plan.json"), "--output_dir", str(tmp_path / "runs"), *arguments]
    monkeypatch.setattr(sys, "argv", ["run_ablations.py", *command])
    try:
        script.main()
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        journal = tmp_path / "journal"
        entries = [json.loads(line) for line in journal.read_text().splitlines()] if journal.exists() else []
    return entries


def test_the_table_has_mean_and_spread_and_finished_runs_are_not_repeated(tmp_path, monkeypatch, plan):
    report = tmp_path / "README.md"
    report.write_text("above\n<!-- ablations -->\nold\n<!-- /ablations -->\nbelow\n")
    arguments = ["--report", str(report), "--num-processes", "3", "--overrides", '{"seconds": 0, "max_steps": 5}']
    for _ in range(2):
        journal = run(tmp_path, monkeypatch, plan, *arguments)
        assert sorted(event for event, *_ in journal) == ["begin"] * 6 + ["end"] * 6 + ["features"]
    text = report.read_text()
    assert "| full | 3 | 0.600 ± 0.100 [0.500, 0.700] |" in text
    assert "| no CLAP | 3 | 0.200 ± 0.173 [0.100, 0.400] |" in text
    assert text.startswith("above\n") and text.endswith("below\n") and "old" not in text
    recipe = json.loads((tmp_path / "runs" / "no-clap-seed2" / "recipe.json").read_text())
    assert (recipe["seed"], recipe["use_clap"], recipe["max_steps"]) == (2, False, 5)


@pytest.mark.parametrize(("num_processes", "threads"), [(1, "8"), (2, "4"), (3, "2")])
def test_so_many_run_at_once_each_with_its_share_of_the_cores(tmp_path, monkeypatch, plan, num_processes, threads):
    entries = run(tmp_path, monkeypatch, plan, "--num_processes", str(num_processes), "--seeds", "1", "2")
    assert entries[0][0] == "features" and entries[0][3] == "8", "computed first, with all cores"
    at_once = [0]
    for event, _, _, given in entries[1:]:
        at_once.append(at_once[-1] + (1 if event == "begin" else -1))
        assert given == threads
    assert max(at_once) == num_processes


def test_a_run_that_fails_is_named_at_the_end_and_the_others_go_on(tmp_path, monkeypatch, capsys, plan):
    plan["variants"]["broken"] = {"fails_with": "out of memory"}
    with pytest.raises(SystemExit) as error:
        run(tmp_path, monkeypatch, plan, "--num_processes", "2", "--seeds", "1", "2")
    message = str(error.value)
    assert "2 runs failed" in message and "broken-seed1 ended with status 1: out of memory" in message
    printed = capsys.readouterr().out
    assert "| full | 2 |" in printed and "| no CLAP | 2 |" in printed and "| broken | 0 | - |" in printed


def test_runs_whose_features_fail_are_not_started(tmp_path, monkeypatch, plan):
    plan["variants"]["other CLAP"] = {"features_dir": "elsewhere", "features_status": 2, "scores": [0, 0, 0]}
    with pytest.raises(SystemExit, match="other-clap-seed1 ended with status 2"):
        run(tmp_path, monkeypatch, plan, "--seeds", "1")
    finished = sorted(path.parent.name for path in (tmp_path / "runs").glob("*/all_results.json"))
    assert finished == ["full-seed1", "no-clap-seed1"]


def test_runs_of_other_arguments_are_not_put_into_the_same_table(tmp_path, monkeypatch, plan):
    look = ["--seeds", "1", "--overrides", '{"seconds": 0, "max_steps": 2}']
    run(tmp_path, monkeypatch, plan, *look)
    refusal = r"full-seed1 was begun with seconds=0, max_steps=2, and this command has seconds=0.3, max_steps=null"
    for further in ([], ["--table_only", "True"]):
        with pytest.raises(ValueError, match=refusal):
            run(tmp_path, monkeypatch, plan, *further)
    run(tmp_path, monkeypatch, plan, *look, "--table_only", "True")


def test_runs_share_features_where_their_encoders_are_named_alike(tmp_path, monkeypatch, plan):
    """Features of other encoders are refused in one folder, and those that a captioner reads must all be there."""
    mel = {"scores": [0, 0, 0], "frames": "log_mel"}
    plan["variants"] = {
        "mel, no CLAP": {**mel, "use_clap": False},
        "mel": mel,
        "codes": {"scores": [0, 0, 0]},
        "named": {**mel, "features_dir": str(tmp_path / "own")},
        "DAC": {"scores": [0, 0, 0], "frame_encoder_name_or_path": "descript/dac_44khz"},
    }
    journal = run(tmp_path, monkeypatch, plan, "--seeds", "1", "--overrides", '{"seconds": 0}')
    made = [os.path.basename(folder) for event, folder, *_ in journal if event == "features"]
    assert sorted(made) == ["codes-seed1", "dac-seed1", "mel-seed1", "named-seed1"]
    folders = {}
    for path in (tmp_path / "runs").glob("*/recipe.json"):
        folders[path.parent.name] = os.path.basename(json.loads(path.read_text())["features_dir"])
    assert folders == {
        **{f"{name}-seed1": "_features_log_mel" for name in ("mel-no-clap", "mel")},
        **{"codes-seed1": "_features", "dac-seed1": "_features_descript-dac_44khz", "named-seed1": "own"},
    }


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_ends_all_runs(tmp_path, plan, stop):
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    source = (
        f"import sys; sys.path.insert(0, {EXAMPLES!r}); import run_ablations as script\n"
        f"script.SCRIPT = {str(tmp_path / 'run.py')!r}; script.main()"
    )
    command = [sys.executable, "-c", source, str(tmp_path / "plan.json"), "--output_dir", str(tmp_path / "runs")]
    command += ["--num_processes", "2", "--overrides", '{"seconds": 60}']
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # so that the signal reaches the parent alone
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored where the tests run behind a shell
    )
    journal, begun = tmp_path / "journal", []
    try:
        while len(begun) < 2 and process.poll() is None:
            time.sleep(0.05)
            lines = journal.read_text().splitlines() if journal.exists() else []
            begun = [pid for event, _, pid, _ in map(json.loads, lines) if event == "begin"]
        process.send_signal(stop)
        assert process.wait(30) != 0
    finally:
        process.kill()
    for pid in begun:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_wrong_settings_are_refused(tmp_path, monkeypatch, plan):
    with pytest.raises(ValueError, match="Got `num_processes`=0; expected at least 1"):
        run(tmp_path, monkeypatch, plan, "--num_processes", "0")
    with pytest.raises(ValueError, match="Got the variants none; expected some of full, no CLAP"):
        run(tmp_path, monkeypatch, plan, "--only", "none")
