"""The script that prepares features, as processes of their own: killed while it works, and several at once."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time

import pytest
import torch
from test_feature_shards import assert_same_features

from conftest import build_model, build_processor
from enclap_hf import EnClapProcessor
from enclap_hf.data.captioning_data import open_source
from enclap_hf.data.feature_shards import FeatureSettings, prepare_features
from enclap_hf.data.prepared_features import PreparedClips, is_prepared
from enclap_hf.model.repository import save_repository
from training_runs import EXAMPLES

SCRIPT = os.path.join(EXAMPLES, "prepare_features.py")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """A model's folder, 80 sound scenes, and their features from one undisturbed process."""
    folder = tmp_path_factory.mktemp("scenes")
    torch.manual_seed(0)
    save_repository(build_model(), build_processor(), str(folder / "model"))
    source = open_source({"path": str(folder / "data"), "num_scenes": 80, "first_seed": 77})
    clips, _ = source.read_clips(show_progress=False)
    processor = EnClapProcessor.from_pretrained(str(folder / "model"))
    settings = FeatureSettings(4, shard_size=2, batch_size=1, show_progress=False)
    prepare_features(clips, str(folder / "whole"), processor, settings)
    return folder


def make_command(scenes, output_dir, *launcher: str) -> list[str]:
    command = [sys.executable, *launcher, SCRIPT, "--data", str(scenes / "data"), "--output_dir", str(output_dir)]
    command += ["--processor_name_or_path", str(scenes / "model"), "--device", "cpu"]
    return [*command, "--batch_size", "1", "--shard_size", "2"]


def list_work(folder) -> set[tuple[str, int]]:
    """Shards, finished and not, told from those of the same name that were there before."""
    found = set()
    for path in folder.glob("shard-*"):
        with contextlib.suppress(FileNotFoundError):  # renamed in between
            found.add((path.name, path.stat().st_mtime_ns))
    return found


@pytest.mark.slow
def test_killed_five_times_at_random_moments_no_row_is_lost_or_doubled(scenes, tmp_path):
    """Each kill comes while shards are written; the moments are drawn anew in every run of the test."""
    folder = tmp_path / "killed"
    for _ in range(5):
        before, num_shards = list_work(folder), random.randint(1, 2)
        process = subprocess.Popen(make_command(scenes, folder), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and len(list_work(folder) - before) < num_shards:
            time.sleep(0.001)
        time.sleep(random.uniform(0, 0.05))  # a shard takes about as long
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL and len(list_work(folder) - before) >= num_shards
        assert not is_prepared(str(folder)), "the run is too short to be killed five times"
    subprocess.run(make_command(scenes, folder), check=True, capture_output=True)
    assert_same_features(PreparedClips(str(folder)), PreparedClips(str(scenes / "whole")))
    assert all(path.suffix == ".arrow" for path in folder.glob("shard-*"))


@pytest.mark.slow
def test_two_processes_under_torchrun_write_what_one_writes(scenes, tmp_path):
    folder = tmp_path / "two"
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    done = subprocess.run(make_command(scenes, folder, *torchrun), check=True, capture_output=True, text=True)
    assert done.stdout.count("features of 80 clips; 0 could not be used") == 1
    assert "process 1 of 2" in done.stderr and "40/40" in done.stderr  # its bar, of its half
    assert_same_features(PreparedClips(str(folder)), PreparedClips(str(scenes / "whole")))
    assert len(set(PreparedClips(str(folder)).names)) == 80
    ours, expected = (
        {path.name: path.read_bytes() for path in part.glob("*.arrow")} for part in (folder, scenes / "whole")
    )
    assert len(ours) == 40 and ours == expected
