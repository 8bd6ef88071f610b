"""Finding audio files: folders, patterns, odd names, and what matches nothing."""

import os
import pathlib
import socket

import pytest

from enclap_hf.data.audio_files import find_audio_files
from enclap_hf.model.audio_loading import AudioLoadError, load_audio
from enclap_hf.model.recordings import read_duration_s


@pytest.fixture
def folder(tmp_path, monkeypatch):
    names = ["b.wav", "a.WAV", "c.m4a", "notes.txt", ".hidden.wav", "._a.wav", "sub/d.flac", "sub/deep/e.mp3"]
    names += [".git/x.wav", "take [1]/f.wav", "song [live].ogg", "it's.opus", "empty/readme.md"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


ALL_FILES = [
    "a.WAV",
    "b.wav",
    "c.m4a",
    "it's.opus",
    "song [live].ogg",
    "sub/d.flac",
    "sub/deep/e.mp3",
    "take [1]/f.wav",
]
FOUND = {
    "a file": (["b.wav"], ["b.wav"]),
    "a file of any extension": (["notes.txt"], ["notes.txt"]),
    "a missing file": (["not there.wav"], ["not there.wav"]),
    "a URL": (["https://example.com/*.wav?x"], ["https://example.com/*.wav?x"]),
    "a folder": (["sub"], ["sub/d.flac", "sub/deep/e.mp3"]),
    "a folder with a slash": (["sub/"], ["sub/d.flac", "sub/deep/e.mp3"]),
    "a folder with brackets": (["take [1]"], ["take [1]/f.wav"]),
    "a file with brackets": (["song [live].ogg"], ["song [live].ogg"]),
    "a file with a quote": (["it's.opus"], ["it's.opus"]),
    "a pattern": (["*.wav"], ["b.wav"]),
    "a pattern that also matches other files": (["*"], ALL_FILES),
    "a pattern across folders": (["**/*.mp3"], ["sub/deep/e.mp3"]),
    "a pattern in a folder with brackets": (["take [1]/*.wav"], ["take [1]/f.wav"]),
    "brackets as a pattern": (["[bc].*"], ["b.wav", "c.m4a"]),
    "arguments in their order": (["sub", "c.m4a", "b.wav"], ["sub/d.flac", "sub/deep/e.mp3", "c.m4a", "b.wav"]),
    "each file once": (["b.wav", "./b.wav", "*.wav", "b.wav"], ["b.wav"]),
    "one string": ("b.wav", ["b.wav"]),
    "one path": (pathlib.Path("sub"), ["sub/d.flac", "sub/deep/e.mp3"]),
    "nothing": ([], []),
}


@pytest.mark.parametrize("case", FOUND)
def test_files_are_found(case, folder):
    paths, expected = FOUND[case]
    assert find_audio_files(paths) == [name.replace("/", os.sep) if "://" not in name else name for name in expected]


def test_a_whole_folder_is_searched_in_order(folder):
    assert find_audio_files([folder]) == sorted(str(folder / name) for name in ALL_FILES)


def test_linked_folders_are_entered_once(folder):
    try:
        (folder / "sub" / "up").symlink_to(folder / "sub", target_is_directory=True)
        (folder / "link").symlink_to(folder / "take [1]", target_is_directory=True)
    except OSError as error:
        pytest.skip(f"no links here: {error}")
    assert find_audio_files(["sub"]) == FOUND["a folder"][1]
    assert find_audio_files(["link"]) == [os.path.join("link", "f.wav")]


@pytest.fixture
def special_files(folder):
    """A named pipe and a socket with names of recordings."""
    if not hasattr(os, "mkfifo"):
        pytest.skip("no named pipes here")
    os.mkfifo(folder / "sub" / "pipe.wav")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind("sub/socket.mp3")
    yield ["sub/pipe.wav", "sub/socket.mp3"]
    listener.close()


@pytest.mark.parametrize("searched", ["sub", "sub/*", "**/*.wav"])
def test_pipes_and_sockets_in_a_folder_are_skipped_and_said(searched, special_files, caplog):
    """Opening a named pipe waits until someone writes into it, which may be never."""
    found = find_audio_files([searched])
    assert found and not set(found) & set(special_files)
    assert "sub/pipe.wav`: skipped, since it is a named pipe." in caplog.text
    assert ("sub/socket.mp3`: skipped, since it is a socket." in caplog.text) == (searched != "**/*.wav")


def test_a_pipe_or_device_that_is_named_is_an_error_of_its_own(special_files):
    assert find_audio_files(special_files) == special_files
    for path in special_files:
        with pytest.raises(AudioLoadError, match=f"`{path}`: it is a (named pipe|socket)"):
            load_audio(path)
        assert read_duration_s(path) == 0.0
    with pytest.raises(AudioLoadError, match="it is a device"):
        load_audio("/dev/zero")
    with open("/dev/null", "rb") as file, pytest.raises(AudioLoadError, match="0 bytes"):
        load_audio(file)


@pytest.mark.parametrize(
    "path, problem, remedy",
    [
        ("empty", "the folder holds no audio file", "Looked for .wav"),
        ("*.xyz", "as a pattern it matches none", "Check its spelling"),
        ("*.txt", "matches 1 files and folders, none of them audio", "Check its spelling"),
        ("song [dead].ogg", "no file has this name", "Check its spelling"),
    ],
)
def test_finding_nothing_is_an_error(path, problem, remedy, folder):
    with pytest.raises(AudioLoadError) as caught:
        find_audio_files(["b.wav", path])
    message = str(caught.value)
    assert message.isprintable()  # one line
    assert message.startswith(f"`{path}`: ") and problem in message and remedy in message
