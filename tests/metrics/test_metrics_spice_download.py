"""The download of CoreNLP: checked against the published digests, resumed, and cut down to what SPICE loads."""

import hashlib
import http.server
import re
import threading
import zipfile

import pytest

from enclap_hf.metrics import corenlp
from enclap_hf.metrics.corenlp_download import SHA1, download_corenlp, keep_entries
from enclap_hf.metrics.corenlp_files import FILE_NAMES, MODEL_ENTRIES
from spice_stand_in import make_corenlp

PROGRAM, MODELS = FILE_NAMES


class FileServer:
    """Serves files from memory; it can break connections off, and refuse to start in the middle."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files, self.requests = files, []
        self.num_bytes_before_break, self.knows_ranges = None, True
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_HEAD(self):
                self.do_GET(with_body=False)

            def do_GET(self, with_body=True):
                name, wanted = self.path.rpartition("/")[2], self.headers.get("Range")
                outer.requests.append((self.command, name, wanted))
                content = outer.files.get(name)
                if content is None:
                    return self.send_error(404)
                start = int(re.fullmatch(r"bytes=(\d+)-", wanted).group(1)) if wanted and outer.knows_ranges else 0
                if start >= len(content):
                    return self.send_error(416)
                self.send_response(206 if start else 200)
                if start:
                    self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
                self.send_header("Content-Length", str(len(content) - start))
                self.end_headers()
                if with_body:
                    self.wfile.write(content[start:][: outer.num_bytes_before_break])
                return None

            def log_message(self, *arguments):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/3.6.0"
        self.sha1 = {name: hashlib.sha1(content).hexdigest() for name, content in files.items()}

    def close(self):
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server(tmp_path):
    folder = make_corenlp(tmp_path / "server")
    with zipfile.ZipFile(folder / MODELS, "a", zipfile.ZIP_STORED) as archive:
        archive.writestr("edu/stanford/nlp/models/german.ser.gz", "german" * 1000)
        archive.writestr("META-INF/MANIFEST.MF", "Manifest-Version: 1.0\n")
    server = FileServer({name: (folder / name).read_bytes() for name in FILE_NAMES})
    yield server
    server.close()


def contents(path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return {item.filename: (archive.read(item), item.date_time) for item in archive.infolist()}


def fetch(server, folder, **options):
    return download_corenlp(folder, server.url, ask=False, sha1=server.sha1, **options)


def test_what_spice_loads_is_kept_unchanged(server, tmp_path):
    assert fetch(server, tmp_path / "target") == [tmp_path / "target" / name for name in FILE_NAMES]
    assert sorted(path.name for path in (tmp_path / "target").iterdir()) == sorted(FILE_NAMES)
    assert (tmp_path / "target" / PROGRAM).read_bytes() == server.files[PROGRAM]
    before = contents(tmp_path / "server" / MODELS)
    assert before.pop("edu/stanford/nlp/models/german.ser.gz")
    assert contents(tmp_path / "target" / MODELS) == before and set(before) == {*MODEL_ENTRIES, "META-INF/MANIFEST.MF"}


def test_the_download_says_its_size_and_asks_first(server, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("builtins.input", lambda question: "n")
    assert download_corenlp(tmp_path / "target", server.url, sha1=server.sha1) == []
    assert "0 MB if all is still to come" in capsys.readouterr().out and not (tmp_path / "target").exists()
    assert {method for method, _, _ in server.requests} == {"HEAD"}


@pytest.mark.parametrize("knows_ranges", [True, False])
def test_an_interrupted_download_goes_on_if_the_server_allows_it(server, tmp_path, knows_ranges):
    server.num_bytes_before_break = 500
    with pytest.raises(OSError, match=r"the connection broke after 500 of [\d,]+ bytes; run it again to go on"):
        fetch(server, tmp_path / "target")
    server.num_bytes_before_break, server.knows_ranges = None, knows_ranges
    server.requests.clear()
    fetch(server, tmp_path / "target")
    assert ("GET", PROGRAM, "bytes=500-") in server.requests
    assert (tmp_path / "target" / PROGRAM).read_bytes() == server.files[PROGRAM]
    # What is there is not fetched again; of the models only a part is left, whose digest nobody published.
    server.requests.clear()
    fetch(server, tmp_path / "target")
    assert [name for method, name, _ in server.requests if method == "GET"] == [MODELS]


def test_a_download_that_only_lacked_its_check_is_not_fetched_again(server, tmp_path):
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / f"{PROGRAM}.partial").write_bytes(server.files[PROGRAM])
    fetch(server, tmp_path / "target")
    assert (tmp_path / "target" / PROGRAM).read_bytes() == server.files[PROGRAM]


def test_something_else_than_was_published_is_refused_and_removed(server, tmp_path):
    server.files[MODELS] = b"<html>please log in</html>"
    with pytest.raises(ValueError, match=f"has the SHA-1 .*, not {server.sha1[MODELS]} as published, and was removed"):
        fetch(server, tmp_path / "target")
    assert [path.name for path in (tmp_path / "target").iterdir()] == [PROGRAM]


def test_the_digests_are_those_that_were_published():
    assert SHA1 == {
        "stanford-corenlp-3.6.0.jar": "078d130323856e71e4223ab4962a3f86bc98bd8a",
        "stanford-corenlp-3.6.0-models.jar": "e23de94a12edac0dd04dc67db94d18d8982b516f",
    }


def test_a_server_without_the_files_is_one_line(server, tmp_path, capsys):
    server.files.clear()
    assert corenlp.main(["--yes", "--folder", str(tmp_path / "target"), "--url", server.url]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "404" in error


def test_a_jar_that_is_none_is_not_cut_down(tmp_path):
    (tmp_path / "a.jar").write_bytes(b"PK\3\4 nothing more")
    with pytest.raises(ValueError, match="a.jar is not a whole zip file"):
        keep_entries(tmp_path / "a.jar", tmp_path / "b.jar", MODEL_ENTRIES)
    assert [path.name for path in tmp_path.iterdir()] == ["a.jar"]
