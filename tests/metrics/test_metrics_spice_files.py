"""CoreNLP's files: found, looked at before Java starts, and named when one is damaged."""

import os
import random
import shutil
import zipfile
from pathlib import Path

import pytest

from enclap_hf.metrics import corenlp, corenlp_files
from enclap_hf.metrics.corenlp_files import FILE_NAMES, MODEL_ENTRIES, check_class_path, fingerprint
from enclap_hf.metrics.java_runtime import MetricUnavailableError
from enclap_hf.metrics.spice import compute_spice, find_class_path
from spice_stand_in import install, make_corenlp, make_jar, read_runs

PROGRAM, MODELS = FILE_NAMES
needs_posix = pytest.mark.skipif(os.name != "posix", reason="the stand-in for Java is a script with a #! line")


@pytest.fixture
def folder(tmp_path):
    return make_corenlp(tmp_path / "corenlp")


def flip_bits(path: Path, seed: int = 0) -> None:
    """Flip some bits in the compressed contents of a jar's first entry."""
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        item = archive.infolist()[0]
        start = item.header_offset + 30 + len(item.filename)
        rng = random.Random(seed)
        for _ in range(3):
            content[start + rng.randrange(item.compress_size)] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def leave_out(path: Path, name: str) -> None:
    with zipfile.ZipFile(path) as archive:
        entries = {item: archive.read(item).decode() for item in archive.namelist() if item != name}
    make_jar(path, entries)


DAMAGES = {
    "cut in half": (lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]), "is not whole"),
    "end missing": (lambda path: path.write_bytes(path.read_bytes()[:-30]), "is not whole"),
    "HTML": (lambda path: path.write_text("<!DOCTYPE html><html>404</html>"), "is a page of HTML, not a jar"),
    "empty": (lambda path: path.write_bytes(b""), "is empty, not a jar"),
    "something else": (lambda path: path.write_bytes(b"\x7fELF" * 99), r"is not a jar \(396 bytes\)"),
    "flipped bits": (flip_bits, "is damaged: part of its contents does not fit its checksum"),
    "no entries": (lambda path: make_jar(path, {}), "is a jar, but lacks .* of CoreNLP 3.6.0 that SPICE needs"),
}


@pytest.mark.parametrize("name", FILE_NAMES)
@pytest.mark.parametrize("damage", DAMAGES)
def test_each_damage_is_named_with_the_file_and_the_way_to_get_it_anew(folder, name, damage):
    """Java said NoClassDefFoundError, StreamCorruptedException or "Unable to open ... as class path"."""
    jars = [folder / each for each in FILE_NAMES]
    check_class_path(jars)
    make_damage, message = DAMAGES[damage]
    make_damage(folder / name)
    with pytest.raises(MetricUnavailableError, match=message) as caught:
        fingerprint(jars)
        check_class_path(jars)
    text = str(caught.value)
    assert str(folder / name) in text and "delete it and get it anew: python -m enclap_hf.metrics.corenlp" in text
    assert ("3.6.0:jar:models" in text) == (name == MODELS) and "Error" not in text and ".class" not in text


@pytest.mark.parametrize("seed", range(30))
def test_flipped_bits_in_contents_never_pass(folder, seed):
    for name in FILE_NAMES:
        flip_bits(folder / name, seed)
        with pytest.raises(MetricUnavailableError, match="is damaged|is not whole"):
            check_class_path([folder / name])


@pytest.mark.parametrize("entry", [MODEL_ENTRIES[1], MODEL_ENTRIES[-1]])
def test_a_model_that_lacks_is_noticed(folder, entry):
    leave_out(folder / MODELS, entry)
    with pytest.raises(MetricUnavailableError, match=rf"{MODELS} is a jar, but lacks 1 of 30 models"):
        check_class_path([folder / MODELS])
    check_class_path([folder / MODELS], needs_models=False)


def test_damage_in_what_is_not_loaded_does_no_harm(folder):
    path = folder / MODELS
    with zipfile.ZipFile(path) as archive:
        entries = {"edu/stanford/nlp/models/german.ser.gz": "german " * 50} | {
            name: archive.read(name).decode() for name in archive.namelist()
        }
    make_jar(path, entries)
    before = fingerprint([path])
    flip_bits(path)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() == "edu/stanford/nlp/models/german.ser.gz"
    check_class_path([path])
    assert fingerprint([path]) == before


def test_the_name_of_a_parser_follows_its_contents(tmp_path, folder):
    jars = [folder / name for name in FILE_NAMES]
    first = fingerprint(jars)
    assert fingerprint(reversed(jars)) == first
    assert fingerprint([make_corenlp(tmp_path / "copy") / name for name in FILE_NAMES]) == first
    with zipfile.ZipFile(folder / MODELS, "a") as archive:  # as the whole file has more than SPICE loads
        archive.writestr("edu/stanford/nlp/models/german.ser.gz", "german")
    assert fingerprint(jars) == first
    for name in FILE_NAMES:
        other = make_corenlp(tmp_path / f"other {name}")
        shutil.copy(make_corenlp(tmp_path / f"word {name}", word="another") / name, other / name)
        assert fingerprint([other / each for each in FILE_NAMES]) != first


@needs_posix
def test_java_does_not_start_with_damaged_files(tmp_path, monkeypatch):
    install(tmp_path, monkeypatch)
    flip_bits(tmp_path / "corenlp" / MODELS)
    with pytest.raises(MetricUnavailableError, match=f"{MODELS} is damaged"):
        compute_spice(["a dog"], [["a cat"]])
    assert read_runs(tmp_path) == []
    jar = tmp_path / "modules" / "pycocoevalcap" / "spice" / "lib" / "guava-19.0.jar"
    make_corenlp(tmp_path / "corenlp")
    jar.write_bytes(b"PK")
    with pytest.raises(MetricUnavailableError, match=r"guava-19.0.jar is not whole.*pip install --force-reinstall"):
        compute_spice(["a dog"], [["a cat"]])
    assert read_runs(tmp_path) == []


@needs_posix
def test_another_corenlp_among_the_libraries_is_not_taken(tmp_path, monkeypatch):
    """pycocoevalcap's own way to get CoreNLP puts it beside the libraries, which came first on the class path."""
    install(tmp_path, monkeypatch)
    libraries = tmp_path / "modules" / "pycocoevalcap" / "spice" / "lib"
    make_corenlp(libraries, word="another")
    jars = find_class_path()
    assert [path.parent for path in jars if path.name in FILE_NAMES] == [tmp_path / "corenlp"] * 2
    monkeypatch.delenv("ENCLAP_CORENLP")
    assert [path.parent for path in find_class_path() if path.name in FILE_NAMES] == [libraries] * 2


def test_missing_corenlp_is_named_with_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(corenlp, "_coco_lib_folders", lambda: [])
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setenv("ENCLAP_CACHE", str(tmp_path))
    monkeypatch.delenv("ENCLAP_CORENLP", raising=False)
    with pytest.raises(
        MetricUnavailableError, match=r"stanford-corenlp-3.6.0.jar and .*models.jar are missing; run python -m"
    ):
        corenlp.find_corenlp()
    (tmp_path / PROGRAM).touch()
    monkeypatch.setenv("ENCLAP_CORENLP", str(tmp_path))
    with pytest.raises(MetricUnavailableError, match="has no stanford-corenlp-3.6.0-models.jar; correct it"):
        corenlp.find_corenlp()


def test_corenlp_is_found_in_the_unpacked_archive(tmp_path, monkeypatch):
    make_corenlp(tmp_path / "stanford-corenlp-full-2015-12-09")
    monkeypatch.setenv("ENCLAP_CORENLP", str(tmp_path))
    assert [path.name for path in corenlp.find_corenlp()] == list(FILE_NAMES)


def test_corenlp_is_found_in_the_local_maven_repository(tmp_path, monkeypatch):
    monkeypatch.setattr(corenlp, "_coco_lib_folders", lambda: [])
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setenv("ENCLAP_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("ENCLAP_CORENLP", raising=False)
    folder = make_corenlp(tmp_path / ".m2/repository/edu/stanford/nlp/stanford-corenlp/3.6.0")
    assert corenlp.find_corenlp() == (folder / PROGRAM, folder / MODELS)
    downloaded = make_corenlp(tmp_path / "cache" / "corenlp")
    assert corenlp.find_corenlp() == (downloaded / PROGRAM, downloaded / MODELS)


def test_the_real_files_pass(monkeypatch):
    if not os.environ.get("ENCLAP_CORENLP"):
        pytest.skip("needs ENCLAP_CORENLP, the folder of CoreNLP 3.6.0")
    check_class_path(corenlp.find_corenlp())
    assert corenlp_files.describe_version(corenlp.find_corenlp()) == "3.6.0"
    assert len(MODEL_ENTRIES) == len(set(MODEL_ENTRIES)) == 30 and corenlp_files.VERSION in PROGRAM
