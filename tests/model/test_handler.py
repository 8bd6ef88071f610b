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
from pathlib import Path

import numpy as np
import pytest
import soundfile
from transformers import pipeline

import enclap_hf
import fuzz_requests
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


LONG = encode(np.concatenate([CLIPS[3], CLIPS[1], CLIPS[3]]), subtype="FLOAT")  # 6.6 s


def test_long_recordings_are_captioned_window_by_window(handler, captioner):
    assert handler({"inputs": LONG}) == captioner(LONG)
    chunks = captioner(LONG, chunk_length_s=2, return_timestamps=True)
    parameters = {"chunk_length_s": 2, "return_timestamps": True}
    assert handler({"inputs": LONG, "parameters": parameters}) == chunks
    assert [chunk["timestamp"][0] for chunk in chunks["chunks"]] == [0, 2, 4, 6]
    with serve(handler) as url:
        query = f"{url}/?chunk_length_s=2.0&stride_length_s=0.5&return_timestamps=true&segmentation=fixed"
        expected = captioner(LONG, chunk_length_s=2, stride_length_s=0.5, return_timestamps=True)
        assert post(query, LONG, "audio/wav") == (200, json.loads(json.dumps(expected)))
        body = {"inputs": text_of(LONG), "parameters": {"chunk_length_s": 3, "stride_length_s": [1, 0], "stream": True}}
        rows = [row for _, row in captioner.stream(LONG, chunk_length_s=3, stride_length_s=(1, 0))]
        assert post(url, body) == (200, rows) and [row["start_s"] for row in rows] == [0, 3, 5]


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"chunk_length_s": 50}, "this model hears 3.373 s at a time"),
        ({"chunk_length_s": -1}, "from 0 to 3600"),
        ({"chunk_length_s": 0.5}, "at most one a second"),
        ({"chunk_length_s": 3, "stride_length_s": 1.2}, "windows that begin every 0.6 s"),
        ({"chunk_length_s": 2, "stride_length_s": [1, 1]}, "they must leave 0.1 s of a window"),
        ({"stride_length_s": [1, 2, 3]}, "Got a list of 3 as `stride_length_s`"),
        ({"stride_length_s": [[1, 2], 3]}, "Got a list of 2 as `stride_length_s`"),
        ({"chunk_length_s": 0, "stride_length_s": 1}, "cuts no windows"),
        ({"segmentation": "words"}, "`segmentation`='words'; expected 'fixed'"),
        ({"segmentation": 3}, "expected a word"),
        ({"return_timestamps": "word"}, "expected true or false"),
    ],
)
def test_windows_that_cannot_be_are_refused(handler, parameters, reason):
    with pytest.raises(ValueError) as caught:
        handler({"inputs": WAVS[0], "parameters": parameters})
    assert reason in str(caught.value) and caught.value.status_code == 422


# What is refused

TEXT_AS_WAV = b"These are notes, not a recording. " * 20
BAD_INPUTS = {
    "text file": (TEXT_AS_WAV, 415, "it is text, not audio (it begins 'These are notes, not a r')"),
    "base64 of a text": (text_of(TEXT_AS_WAV), 415, "it is text, not audio"),
    "cut off": (WAVS[0][:60], 415, "it is damaged or cut off"),
    "noise": (bytes(range(128, 256)) * 8, 415, "not audio that can be read"),
    "no bytes": (b"", 415, "it is empty"),
    "not base64": ("rain.wav", 400, "Got text that is not base64 (it begins 'rain.wav')"),
    "path of a file": ("/etc/passwd", 415, "not audio that can be read"),  # "/etc/passwd" happens to be base64
    "file address": ("file:///etc/passwd", 400, "not base64"),
    "empty text": ("", 400, "empty text"),
    "data without base64": ("data:audio/wav,abc", 400, "expected data:audio/...;base64"),
    "address": ("https://example.org/rain.wav", 403, "send the file itself"),
    "number": (17, 400, "Got 17 as `inputs`"),
    "nothing": (None, 400, "Got None as `inputs`"),
    "several": ([text_of(WAVS[0])] * 2, 400, "Got a list of 2 as `inputs`"),
    "dict of a path": ({"path": "/etc/passwd"}, 400, "Got an object with keys ['path']"),
    "samples without rate": ({"array": [0.0, 0.1]}, 400, '"sampling_rate": Hz'),
    "no samples": ({"array": [], "sampling_rate": RATE}, 415, "it holds no samples"),
    "ragged channels": ({"array": [[0.0, 0.1], [0.0]], "sampling_rate": RATE}, 400, "unlike lengths"),
    "words for samples": ({"array": ["a", "b"], "sampling_rate": RATE}, 415, "are not audio samples"),
    "odd rate": ({"array": [0.0] * 99, "sampling_rate": 12}, 415, "allowed are "),
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
    assert reason in str(caught.value) and len(str(caught.value)) < 400
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


# Addresses


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/rain.wav", "HTTPS://example.org/rain.wav"])
def test_nothing_is_downloaded_whatever_the_environment_says(make_handler, caplog, monkeypatch, address):
    def connect(*args, **kwargs):
        raise AssertionError("the handler opened a connection")

    handler = make_handler(ENCLAP_ALLOW_URLS="1")
    assert "ENCLAP_ALLOW_URLS has no effect" in caplog.text
    monkeypatch.setattr("socket.socket.connect", connect)
    monkeypatch.setattr("socket.getaddrinfo", connect)
    with pytest.raises(ValueError, match="downloads nothing: download it, and send the file itself") as caught:
        handler({"inputs": address})
    assert caught.value.status_code == 403


# Samples in JSON


def test_whole_numbers_of_16_bits_are_captioned_as_the_fractions_they_stand_for(handler):
    pcm = (CLIPS[0] * 32767).astype(np.int16)
    file = io.BytesIO()
    soundfile.write(file, pcm, RATE, format="WAV", subtype="PCM_16")
    asked = {"array": json.loads(json.dumps(pcm.tolist())), "sampling_rate": RATE}
    assert handler({"inputs": asked}) == handler({"inputs": file.getvalue()})


def test_samples_at_full_scale_that_json_made_whole_numbers_are_no_16_bit_samples(handler, captioner):
    """JavaScript writes 1.0 as 1: as 16 bits they would be 90 dB quieter."""
    square = np.where(np.arange(RATE) % 60 < 30, 1.0, -1.0).astype(np.float32)
    asked = {"array": [int(sample) for sample in square], "sampling_rate": RATE}
    seen = {}
    preprocess = handler.captioner.preprocess
    handler.captioner.preprocess = lambda inputs, **kwargs: seen.update(vars(inputs)) or preprocess(inputs, **kwargs)
    try:
        handler({"inputs": asked})
    finally:
        del handler.captioner.preprocess
    assert np.abs(seen["samples"]).max() == 1.0


def test_whole_numbers_beyond_16_bits_are_refused(handler):
    with pytest.raises(ValueError, match="Got whole numbers from 0 to 40000 as `array`; expected fractions") as caught:
        handler({"inputs": {"array": [0, 40_000], "sampling_rate": RATE}})
    assert caught.value.status_code == 400


# Odd requests


def test_no_more_tokens_are_asked_than_the_model_has_positions_for(handler, monkeypatch):
    monkeypatch.setattr(handler.captioner.model.config, "max_position_embeddings", 60)
    with pytest.raises(ValueError, match="Got 60 as `max_new_tokens`; this model writes at most 59") as caught:
        handler({"inputs": WAVS[0], "parameters": {"max_new_tokens": 60}})
    assert caught.value.status_code == 422
    assert handler({"inputs": WAVS[0], "parameters": {"max_new_tokens": 59}})["text"]


@pytest.mark.parametrize(
    "body",
    [
        {"inputs": {"a" * 10**6: 1}},
        {"inputs": WAVS[0], "parameters": {"b\n" * 10**5: 1}},
        {"inputs": WAVS[0], "parameters": {"\ud800\u202e\x1b[31m": 1}},
        {"inputs": WAVS[0], "parameters": {"num_beams": "\ud800\n" * 10**5}},
        {"inputs": WAVS[0], "parameters": {"num_beams": 10**5000}},
        {"inputs": "\udcff\n\x00" * 1000},
        {"c" * 10**6 + "\ud800": 1},
    ],
)
def test_refusals_are_one_printable_line_of_bounded_length(handler, body):
    with pytest.raises(ValueError) as caught:
        handler(body)
    message = str(caught.value)
    assert len(message) <= 500 and message.isprintable() and message.encode()


@pytest.mark.parametrize("error", [OSError("seek failed\nin line 2"), ValueError("64 bit integers"), MemoryError()])
def test_whatever_a_decoder_raises_is_one_line_for_the_sender(handler, monkeypatch, error):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(handler._audio_loading, "load_audio", fail)
    with pytest.raises(ValueError, match="The recording could not be decoded") as caught:
        handler({"inputs": WAVS[0]})
    assert caught.value.status_code == 415 and str(caught.value).isprintable()


def test_a_fault_while_captioning_is_one_line_and_the_next_request_is_answered(handler, monkeypatch, expected):
    monkeypatch.setattr(handler.captioner, "preprocess", lambda *args, **kwargs: 1 / 0)
    with pytest.raises(ValueError, match="could not be captioned .division by zero.") as caught:
        handler({"inputs": WAVS[0]})
    assert caught.value.status_code == 500
    monkeypatch.undo()
    assert handler({"inputs": WAVS[0]}) == expected[0]


def test_the_level_that_counts_as_silence_is_a_parameter_and_null_turns_it_off(handler):
    assert handler.check_options({"silence_dbfs": -50})["silence_dbfs"] == -50
    assert handler.check_options({"silence_dbfs": None})["silence_dbfs"] is None
    assert "silence_dbfs" not in handler.check_options({})
    with pytest.raises(ValueError, match="Got 3 as `silence_dbfs`; expected a number from -300 to 0"):
        handler.check_options({"silence_dbfs": 3})


def test_fuzzed_requests_are_answered_or_refused_in_one_line():
    outcomes = fuzz_requests.fuzz(60, seed=5)
    assert not {outcome for _, outcome in outcomes} - set(fuzz_requests.FINE), outcomes
    assert {outcome for _, outcome in outcomes} == set(fuzz_requests.FINE)


@pytest.mark.slow
def test_two_thousand_fuzzed_requests_leave_memory_flat():
    script = str(Path(__file__).parents[1] / "fuzz_requests.py")
    done = subprocess.run(
        [sys.executable, script, "--count", "2000", "--seed", "7"], capture_output=True, text=True, timeout=1800
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr


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
        ({"inputs": "rain.wav"}, "application/json", "not base64"),
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
