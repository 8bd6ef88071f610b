"""`handler.py`, loaded and called as the serving toolkit does: a caption for every good request, else the reason."""

import base64
import io
import json
import os
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import soundfile
from transformers import pipeline

import enclap_hf
from conftest import build_model, build_processor, make_clip
from enclap_hf.model.repository import save_repository
from endpoint_stand_in import load_handler, serve

RATE = 24_000
CLIPS = [make_clip(duration_s, seed) for seed, duration_s in enumerate((0.5, 1.4, 0.9, 2.6, 0.2))]
PACKAGE = Path(enclap_hf.__file__).parent / "model"


def encode(clip: np.ndarray, kind: str = "WAV", **options) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, clip, RATE, format=kind, **options)
    return file.getvalue()


WAVS = [encode(clip, subtype="FLOAT") for clip in CLIPS]


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> str:
    folder = str(tmp_path_factory.mktemp("repository"))
    model = build_model()
    model.generation_config.max_length = 12
    save_repository(model, build_processor(), folder)
    return folder


@pytest.fixture
def make_handler(repository, monkeypatch):
    """Loads the handler under an environment; the toolkit's traces on the module path are removed afterwards."""

    def make(**environment: str):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        return load_handler(repository)

    monkeypatch.setattr(sys, "path", list(sys.path))
    return make


@pytest.fixture(scope="module")
def handler(repository):
    path = list(sys.path)
    yield load_handler(repository)
    sys.path[:] = path


@pytest.fixture(scope="module")
def captioner(repository):
    return pipeline("audio-captioning", model=repository, device="cpu")


@pytest.fixture(scope="module")
def expected(captioner) -> list[dict]:
    captions = [captioner(wav) for wav in WAVS]
    assert len({caption["text"] for caption in captions}) >= 3, "clips must differ for these tests to tell anything"
    return captions


def post(url: str, body, content_type: str = "application/json") -> tuple[int, object]:
    """Status and decoded answer of a request."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(url, content, {"Content-Type": content_type})
    try:
        with urllib.request.urlopen(request, timeout=600) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def text_of(content: bytes) -> str:
    return base64.b64encode(content).decode()


# What is captioned


def test_with_the_package_installed_no_code_of_the_repository_runs_but_the_handler(handler):
    assert type(handler).__module__ == "handler.EndpointHandler"
    assert type(handler.captioner) is enclap_hf.AudioCaptioningPipeline
    assert type(handler.captioner.model) is enclap_hf.EnClapForConditionalGeneration
    assert not [name for name in sys.modules if name.startswith("transformers_modules.") and "repository" in name]


def test_one_recording_in_any_form_gives_the_pipelines_caption(handler, expected):
    wav = WAVS[0]
    urlsafe = base64.urlsafe_b64encode(wav).decode().rstrip("=")
    for form in (
        *(wav, bytearray(wav), text_of(wav), base64.encodebytes(wav).decode(), urlsafe),
        f"data:audio/wav;base64,{text_of(wav)}",
        {"array": CLIPS[0].tolist(), "sampling_rate": RATE},
        {"array": [CLIPS[0].tolist()] * 2, "sampling_rate": RATE},
    ):
        assert handler({"inputs": form}) == expected[0]


def test_compressed_files_are_captioned_over_http(handler, captioner):
    mp3, flac = encode(CLIPS[1], "MP3"), encode(CLIPS[1], "FLAC")
    with serve(handler) as url:
        assert post(url, mp3, "audio/mpeg") == (200, captioner(mp3))
        assert post(url, flac, "audio/flac") == (200, captioner(flac))
        assert post(url, {"inputs": text_of(flac), "parameters": {}}) == (200, captioner(flac))


def test_n_best_captions_come_with_scores(handler, captioner):
    best = captioner(WAVS[1], num_beams=5, num_return_sequences=5)
    assert handler({"inputs": WAVS[1], "parameters": {"num_return_sequences": 5}}) == best
    assert [set(caption) for caption in best] == [{"text", "score"}] * 5


def test_parameters_reach_generate_also_from_a_query(handler, captioner):
    long, short = (captioner(WAVS[1], num_beams=1, max_new_tokens=count) for count in (9, 4))
    assert long != short
    with serve(handler) as url:
        query = f"{url}/?num_beams=1&max_new_tokens=4&length_penalty=0.5"
        assert post(query, WAVS[1], "audio/wav") == (200, short)
        assert post(url, {"inputs": text_of(WAVS[1]), "parameters": {"num_beams": 1, "max_new_tokens": 9}})[1] == long


def test_sampling_gives_as_many_captions_as_asked(handler):
    parameters = {"do_sample": True, "num_return_sequences": 6, "temperature": "0.9", "top_p": 0.95, "top_k": 40}
    captions = handler({"inputs": WAVS[0], "parameters": parameters})
    assert len(captions) == 6
    assert [caption["score"] for caption in captions] == sorted((c["score"] for c in captions), reverse=True)


# What is refused

TEXT_AS_WAV = b"These are notes, not a recording. " * 20
BAD_INPUTS = {
    "text file": (TEXT_AS_WAV, 415, "it is text, not audio (it begins 'These are notes, not a r')"),
    "base64 of a text": (text_of(TEXT_AS_WAV), 415, "it is text, not audio"),
    "cut off": (WAVS[0][:60], 415, "it is damaged or cut off"),
    "noise": (bytes(range(128, 256)) * 8, 415, "no audio that can be read"),
    "no bytes": (b"", 415, "it is empty"),
    "no base64": ("rain.wav", 400, "Got text that is no base64 (it begins 'rain.wav')"),
    "path of a file": ("/etc/passwd", 415, "no audio that can be read"),  # "/etc/passwd" happens to be base64
    "file address": ("file:///etc/passwd", 400, "no base64"),
    "empty text": ("", 400, "empty text"),
    "data without base64": ("data:audio/wav,abc", 400, "expected data:audio/...;base64"),
    "address": ("https://example.org/rain.wav", 403, "ENCLAP_ALLOW_URLS=1"),
    "number": (17, 400, "Got 17 as `inputs`"),
    "nothing": (None, 400, "Got None as `inputs`"),
    "several": ([text_of(WAVS[0])] * 2, 400, "Got a list of 2 as `inputs`"),
    "dict of a path": ({"path": "/etc/passwd"}, 400, "Got an object with keys ['path']"),
    "samples without rate": ({"array": [0.0, 0.1]}, 400, '"sampling_rate": Hz'),
    "no samples": ({"array": [], "sampling_rate": RATE}, 415, "it holds no samples"),
    "ragged channels": ({"array": [[0.0, 0.1], [0.0]], "sampling_rate": RATE}, 400, "unlike lengths"),
    "words for samples": ({"array": ["a", "b"], "sampling_rate": RATE}, 415, "are no audio samples"),
    "odd rate": ({"array": [0.0] * 99, "sampling_rate": 12}, 415, "allowed are 8000 to 192000 Hz"),
}
BAD_PARAMETERS = {
    "unknown": ({"num_beems": 4}, "Got the parameter `num_beems`; allowed are num_beams, "),
    "dangerous": ({"custom_generate": "owner/name"}, "Got the parameter `custom_generate`"),
    "too many beams": ({"num_beams": 1000}, "Got 1000 as `num_beams`; expected a whole number from 1 to 16."),
    "half a beam": ({"num_beams": 1.5}, "a whole number from 1 to 16"),
    "true beams": ({"num_beams": True}, "Got True as `num_beams`"),
    "beams in words": ({"num_beams": "four"}, "Got 'four' as `num_beams`"),
    "endless": ({"max_new_tokens": 10**400}, "from 1 to 200"),
    "not a number": ({"length_penalty": "nan"}, "from -5 to 5"),
    "more captions than beams": ({"num_beams": 2, "num_return_sequences": 3}, "raise `num_beams`"),
    "temperature of a search": ({"temperature": 0.7}, 'add "do_sample": true'),
    "sampling in words": ({"do_sample": "yes"}, "expected true or false"),
    "null": ({"num_beams": None}, "Got None as `num_beams`"),
}


@pytest.mark.parametrize("name", BAD_INPUTS)
def test_bad_inputs_are_refused_with_the_reason_in_one_line(handler, name):
    inputs, status_code, reason = BAD_INPUTS[name]
    with pytest.raises(ValueError) as caught:
        handler({"inputs": inputs})
    assert reason in str(caught.value) and "\n" not in str(caught.value)
    assert type(caught.value).__name__ == "RequestError" and caught.value.status_code == status_code


@pytest.mark.parametrize("name", BAD_PARAMETERS)
def test_bad_parameters_are_refused_with_what_is_allowed(handler, name):
    parameters, reason = BAD_PARAMETERS[name]
    with pytest.raises(ValueError) as caught:
        handler({"inputs": WAVS[0], "parameters": parameters})
    assert reason in str(caught.value) and len(str(caught.value)) < 300
    assert caught.value.status_code == 422


def test_bodies_of_other_shapes_are_refused(handler):
    for body in ({"instances": [1]}, [1, 2], None):
        with pytest.raises(ValueError, match="expected `inputs`"):
            handler(body)
    with pytest.raises(ValueError, match="Got a list of 1 as `parameters`"):
        handler({"inputs": WAVS[0], "parameters": [4]})


def test_long_and_large_recordings_are_refused(make_handler):
    handler = make_handler(ENCLAP_MAX_BYTES="60000", ENCLAP_MAX_DURATION_S="1.5")
    assert handler({"inputs": WAVS[0]})["text"]
    silence = encode(np.zeros(20 * RATE, np.float32), "FLAC")  # 20 s in few bytes
    assert len(silence) < 60_000
    for inputs, reason in (
        (silence, "longer than 1.5 s"),
        ({"array": [0.5] * 2 * RATE, "sampling_rate": RATE}, "longer than 1.5 s"),
        (WAVS[3], f"a file of {len(WAVS[3])} bytes; at most 60000"),
        (text_of(WAVS[3]), "base64 of"),
    ):
        with pytest.raises(ValueError, match=reason) as caught:
            handler({"inputs": inputs})
        assert caught.value.status_code == 413


@pytest.mark.parametrize("value", ["0", "-3", "many", "inf", "nan"])
def test_a_limit_that_is_no_limit_stops_the_start(make_handler, value):
    with pytest.raises(ValueError, match="ENCLAP_MAX_BYTES.*expected a positive number"):
        make_handler(ENCLAP_MAX_BYTES=value)


# Downloads


class FileServer(BaseHTTPRequestHandler):
    """Serves one recording, redirects, and misbehaves on request."""

    def do_GET(self) -> None:
        port = self.server.server_port
        redirects = {
            "/moved": "/rain%20drop.wav?x=1",
            "/around": "/around",
            "/inside": f"http://127.0.0.2:{port}/rain.wav",
            "/to-file": "file:///etc/passwd",
        }
        if self.path in redirects:
            self.send_response(302)
            self.send_header("Location", redirects[self.path])
            self.end_headers()
        elif self.path in ("/rain.wav", "/rain%20drop.wav?x=1"):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(WAVS[0])
        elif self.path == "/endless":
            self.send_response(200)
            self.end_headers()
            try:
                for _ in range(1000):
                    self.wfile.write(bytes(1 << 20))
                self.server.was_read_to_the_end = True
            except OSError:
                pass
        else:
            self.send_error(404)

    def log_message(self, *args) -> None:
        pass


@pytest.fixture(scope="module")
def file_server():
    server = ThreadingHTTPServer(("0.0.0.0", 0), FileServer)
    server.was_read_to_the_end = False
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def downloading_handler(make_handler, monkeypatch):
    """Takes 127.0.0.1 for a public address, and no other."""
    handler = make_handler(ENCLAP_ALLOW_URLS="1")
    monkeypatch.setattr(sys.modules["handler.EndpointHandler"], "is_public", lambda address: address == "127.0.0.1")
    return handler


@pytest.mark.parametrize("path", ["/rain.wav", "/moved"])
def test_an_address_is_captioned_where_that_is_enabled(downloading_handler, file_server, expected, path):
    assert downloading_handler({"inputs": f"http://127.0.0.1:{file_server.server_port}{path}"}) == expected[0]


@pytest.mark.parametrize(
    "path, reason",
    [
        ("/missing", "its server answered 404"),
        ("/around", "more than 5 redirects"),
        ("/inside", "inside a private network"),
        ("/to-file", "expected http://host"),
        ("/endless", "at most 25000000 bytes"),
    ],
)
def test_an_address_that_gives_no_recording_is_refused(downloading_handler, file_server, path, reason):
    with pytest.raises(ValueError) as caught:
        downloading_handler({"inputs": f"http://127.0.0.1:{file_server.server_port}{path}"})
    assert reason in str(caught.value) and 400 <= caught.value.status_code < 500
    assert not file_server.was_read_to_the_end


@pytest.mark.parametrize(
    "url", ["http://[::1", "http://127.0.0.1:1/a.wav", "http://", "http://a..b/", "http://x:99999/"]
)
def test_an_address_that_leads_nowhere_is_refused(downloading_handler, url):
    with pytest.raises(ValueError, match="could not be downloaded") as caught:
        downloading_handler({"inputs": url})
    assert caught.value.status_code == 400


def test_addresses_inside_private_networks_are_refused(make_handler, file_server):
    handler = make_handler(ENCLAP_ALLOW_URLS="1")
    for host in ("127.0.0.1", "localhost", "169.254.169.254", "10.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0"):
        with pytest.raises(ValueError, match="inside a private network") as caught:
            handler({"inputs": f"http://{host}:{file_server.server_port}/rain.wav"})
        assert caught.value.status_code == 403


def test_public_addresses_are_told_from_others(handler):
    is_public = sys.modules[type(handler).__module__].is_public
    for address in ("8.8.8.8", "2606:4700:4700::1111", "2002:808:808::1"):
        assert is_public(address), address
    private = ("192.168.1.1", "100.64.0.1", "224.0.0.1", "fe80::1%eth0", "fd00::1", "64:ff9b::7f00:1", "::")
    for address in (*private, "2002:7f00:1::1", "::ffff:10.0.0.1"):
        assert not is_public(address), address


# Many at once


def mixed_requests(expected: list[dict]) -> list[tuple]:
    """50 requests: body, content type, expected status, expected answer or a part of the reason."""
    requests = []
    for i in range(30):
        clip, wav = i % len(CLIPS), WAVS[i % len(CLIPS)]
        body = (wav, {"inputs": text_of(wav)}, {"inputs": {"array": CLIPS[clip].tolist(), "sampling_rate": RATE}})[
            i % 3
        ]
        requests.append((body, "audio/wav" if i % 3 == 0 else "application/json", 200, expected[clip]))
    bad = [
        (TEXT_AS_WAV, "audio/wav", "it is text, not audio"),
        ({"inputs": "rain.wav"}, "application/json", "no base64"),
        ({"inputs": text_of(WAVS[0]), "parameters": {"num_beams": 99}}, "application/json", "from 1 to 16"),
        (b'{"inputs": ', "application/json", "Expecting value"),
        (WAVS[0], "image/png", "not supported"),
    ]
    requests += [(body, content_type, 400, reason) for body, content_type, reason in bad * 4]
    return [requests[i * 7 % 50] for i in range(50)]  # good and bad ones interleaved


def send_all(url: str, requests: list[tuple]) -> list[tuple[int, object]]:
    """Send all requests at the same moment."""
    barrier = threading.Barrier(len(requests))

    def send(request):
        barrier.wait()
        return post(url, *request[:2])

    with ThreadPoolExecutor(len(requests)) as pool:
        return list(pool.map(send, requests))


def check_answers(answers: list[tuple[int, object]], requests: list[tuple]) -> None:
    for (status, answer), (_, _, wanted_status, wanted) in zip(answers, requests, strict=True):
        assert status == wanted_status, answer
        assert answer == wanted if status == 200 else wanted in answer["error"]


def test_fifty_requests_at_once_each_get_their_own_answer(handler, expected):
    requests = mixed_requests(expected)
    assert sum(status == 200 for _, _, status, _ in requests) == 30
    with serve(handler) as url:
        check_answers(send_all(url, requests), requests)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="a process's memory is read from /proc, which is Linux's")
def test_memory_stays_flat_over_hundreds_of_requests(repository, expected):
    """The service is a process of its own, so that it alone is measured. It has two allocator arenas, since glibc would
    give its hundreds of short-lived threads a dozen, which fill up slowly, whatever the handler does.
    """
    script = str(Path(__file__).parents[1] / "endpoint_stand_in.py")
    service = subprocess.Popen(
        [sys.executable, script, repository],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "MALLOC_ARENA_MAX": "2"},
        text=True,
    )
    try:
        url, requests = service.stdout.readline().strip(), mixed_requests(expected)
        for _ in range(2):
            send_all(url, requests)
        before_mb = resident_mb(service.pid)
        for _ in range(6):
            check_answers(send_all(url, requests), requests)
        grown_mb = resident_mb(service.pid) - before_mb
    finally:
        service.stdin.close()
        service.wait(60)
    print(f"memory {before_mb:.1f} MB after 100 requests, {grown_mb:+.1f} MB after 300 more")
    assert grown_mb < 15  # rounds differ by up to 10 MB either way; the bodies of 300 requests are 52 MB


def resident_mb(process_id: int) -> float:
    """Memory that a process holds, in MB."""
    with open(f"/proc/{process_id}/status", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS")) / 1024


def test_one_thread_captions_however_many_ask(handler, monkeypatch):
    """Each thread that ran the model would keep memory of its own."""
    seen = set()
    caption = handler.captioner.preprocess
    monkeypatch.setattr(
        handler.captioner,
        "preprocess",
        lambda *args, **kwargs: seen.add(threading.get_ident()) or caption(*args, **kwargs),
    )
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda wav: handler({"inputs": wav}), WAVS * 4))
    assert len(seen) == 1


# The package is made impossible to import, wherever it may be installed.
STRANGER = """
import sys
sys.modules["enclap_hf"] = None
sys.path.insert(0, sys.argv[1])
from endpoint_stand_in import load_handler
handler = load_handler(sys.argv[2])
assert type(handler.captioner).__module__.startswith("transformers_modules.")
with open(sys.argv[3], "rb") as file:
    print("caption:", ascii(handler({"inputs": file.read()})["text"]))
try:
    handler({"inputs": b"text"})
except ValueError as error:
    print("refusal:", error.status_code, error)
"""


@pytest.mark.slow
def test_without_the_package_the_repositorys_own_code_serves(repository, expected, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.delenv("PYTHONPATH", raising=False)
    (tmp_path / "clip.wav").write_bytes(WAVS[0])
    tests = str(Path(__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", STRANGER, tests, repository, str(tmp_path / "clip.wav")],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert f"caption: {ascii(expected[0]['text'])}" in done.stdout
    assert "refusal: 415 audio of 4 bytes: it is text, not audio" in done.stdout
