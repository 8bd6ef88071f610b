"""The README and docs/: their lines of code run as printed, their links lead somewhere, the README stays short."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
REASONS = {"needs a microphone", "needs the network", "installs packages", "takes hours", "starts a server"}
FENCE = re.compile(r"(?:<!-- not run: (.*?) -->\n)?```(python|bash)\n(.*?)```", re.DOTALL)


def collect_blocks(language: str) -> list:
    """The runnable blocks of every page in one language."""
    return [
        pytest.param(text, id=f"{page.stem}-{number}")
        for page in PAGES
        for number, (reason, name, text) in enumerate(FENCE.findall(page.read_text()))
        if name == language and not reason
    ]


@pytest.fixture
def beside_the_sounds(tmp_path, monkeypatch):
    """A folder to write to, in which the paths of the pages hold."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("block", collect_blocks("python"))
def test_python_blocks_run(block, beside_the_sounds, capsys):
    exec(compile(block, "page", "exec"), {})
    if "dog_then_telephone" in block:
        assert "dog" in capsys.readouterr().out


@pytest.mark.parametrize("block", collect_blocks("bash"))
def test_bash_blocks_run(block, beside_the_sounds):
    """The commands come from this checkout; what installs a package is left out, since it is installed."""
    bin_folder = beside_the_sounds / "bin"
    bin_folder.mkdir()
    enclap = bin_folder / "enclap"
    enclap.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m enclap_hf "$@"\n')
    enclap.chmod(0o755)
    lines = re.sub(r"^pip install [^&\n]*(&& |$)", "", block, flags=re.MULTILINE)
    if not lines.strip() or "pytest" in lines:
        pytest.skip("it installs, and runs the tests")
    environment = {**os.environ, "PATH": f"{bin_folder}:{os.environ['PATH']}"}
    environment["PYTHONPATH"] = str(ROOT) + os.pathsep + environment.get("PYTHONPATH", "")
    done = subprocess.run([shutil.which("bash"), "-euc", lines], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def test_what_is_not_run_says_why():
    reasons = {reason for page in PAGES for reason, _, _ in FENCE.findall(page.read_text()) if reason}
    assert reasons <= REASONS


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_links_lead_to_files(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        assert target.startswith("https://") or (page.parent / target).exists(), target


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120
