"""The first script of a user with a stock Trainer runs as it is printed, on the recordings of the repository."""

import re
from pathlib import Path

import pytest
import torch

from enclap_hf import DEFAULT_MODEL, EnClapForConditionalGeneration
from enclap_hf.hub.export import find_missing_parts

ROOT = Path(__file__).parents[2]
SCRIPT = (ROOT / "examples" / "stock_trainer.py").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


@pytest.fixture
def beside_the_sounds(tmp_path, monkeypatch):
    """A folder to write to, from which the example sounds have the paths that the script gives them."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_script_trains_saves_and_captions(beside_the_sounds, capsys):
    exec(compile(SCRIPT, "stock_trainer.py", "exec"), {})
    printed = capsys.readouterr().out
    assert "train_loss" in printed and "dog" in printed.splitlines()[-1]
    mine = beside_the_sounds / "mine"
    assert find_missing_parts(str(mine)) == [] and (mine / "handler.py").is_file()
    assert DEFAULT_MODEL not in (mine / "processor_config.json").read_text()
    before = EnClapForConditionalGeneration.from_pretrained(DEFAULT_MODEL).state_dict()
    after = EnClapForConditionalGeneration.from_pretrained(str(mine)).state_dict()
    changed = [name for name, tensor in after.items() if not torch.equal(tensor, before[name])]
    assert any("mcm_heads" in name for name in changed) and any("decoder" in name for name in changed)


def test_readme_prints_the_script():
    assert [block for block in BLOCKS if "Trainer(" in block] in ([], [SCRIPT])
