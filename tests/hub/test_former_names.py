"""Scripts that import modules by the names of version 0.1 get the modules of today."""

import importlib
import sys

import pytest

from enclap_hf.hub.former_names import FORMER_NAMES


@pytest.mark.parametrize("former", sorted(FORMER_NAMES))
def test_a_former_name_gives_the_very_module(former, monkeypatch):
    monkeypatch.delitem(sys.modules, f"enclap_hf.{former}", raising=False)
    with pytest.warns(DeprecationWarning, match=f"`enclap_hf.{FORMER_NAMES[former]}`"):
        module = importlib.import_module(f"enclap_hf.{former}")
    assert module is importlib.import_module(f"enclap_hf.{FORMER_NAMES[former]}")
    assert module.__name__ == module.__spec__.name == f"enclap_hf.{FORMER_NAMES[former]}"


def test_names_are_imported_from_a_former_module(monkeypatch):
    monkeypatch.delitem(sys.modules, "enclap_hf.audio_loading", raising=False)
    with pytest.warns(DeprecationWarning):
        from enclap_hf.audio_loading import load_audio
    from enclap_hf import load_audio as of_today

    assert load_audio is of_today


def test_other_modules_are_missing_as_before():
    with pytest.raises(ModuleNotFoundError, match="enclap_hf.audio_playing"):
        importlib.import_module("enclap_hf.audio_playing")
