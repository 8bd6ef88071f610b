"""Inference Endpoints: captions the recordings that HTTP requests carry.

The serving toolkit loads this file by its path, makes `EndpointHandler(folder)` of the repository around it, and calls
that with every decoded body. Whatever is raised becomes status 400 with the exception's text, so a refusal says in one
line what came, what is allowed and what to do; `RequestError.status_code` is for services that tell refusals apart.

    body                                  one recording
    audio/wav, audio/mpeg, ...            the file itself
    {"inputs": "UklGR..."}                the file in base64; data: URLs too
    {"inputs": {"array": [...], "sampling_rate": 16000}}
    {"inputs": "https://..."}             refused: nothing is downloaded here

Samples are fractions of full scale, or whole numbers of 16 bits. `parameters` beside `inputs`: those of `PARAMETERS`.
The answer is the pipeline's: {"text", "score"}, or with `num_return_sequences` a list of such, best first; where the
repository has the text tower of its CLAP, with `confidence`. Recordings longer than the model hears at once are
captioned window by window, as `chunk_length_s`, `stride_length_s` (a number or a list of two) and `segmentation` say;
with `return_timestamps` the answer has `chunks`, a list of {"timestamp": [start, end], "text", "score"}; with `stream`
it is a list of rows {"start_s", "end_s", "caption", ...}. The toolkit sends an answer when all of it is there, so these
rows come together; `captioner.stream` gives each in turn.

Limits, from the environment: ENCLAP_MAX_BYTES of a file (25000000), ENCLAP_MAX_DURATION_S of a recording (120). Windows
begin at most once a second. ENCLAP_BACKEND is "torch", "onnx" or "onnx-int8": what computes.
"""

import base64
import binascii
import importlib
import logging
import math
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from transformers import pipeline

logger = logging.getLogger(__name__)

# What a request may set: type, least and greatest value; of texts, their length.
PARAMETERS = {
    "num_beams": (int, 1, 16),
    "num_return_sequences": (int, 1, 16),
    "max_new_tokens": (int, 1, 200),
    "no_repeat_ngram_size": (int, 0, 20),
    "length_penalty": (float, -5.0, 5.0),
    "do_sample": (bool, False, True),
    "temperature": (float, 0.05, 5.0),
    "top_k": (int, 1, 1000),
    "top_p": (float, 0.01, 1.0),
    "silence_dbfs": (float, -300.0, 0.0),
    "chunk_length_s": (float, 0.0, 3600.0),
    "stride_length_s": (float, 0.0, 3600.0),
    "segmentation": (str, 1, 40),
    "return_timestamps": (bool, False, True),
    "stream": (bool, False, True),
    "num_candidates": (int, 2, 100),
    "candidates": (str, 1, 40),
    "rerank": (str, 1, 40),
    "seed": (int, 0, 2**32),
    "min_confidence": (float, -1.0, 1.0),
}
CHOICES = ("num_candidates", "candidates", "rerank")
# Of those, what null turns off.
OPTIONAL_PARAMETERS = ("silence_dbfs",)
WINDOW_PARAMETERS = ("chunk_length_s", "stride_length_s", "segmentation")
# Seconds from the start of a window to that of the next.
SHORTEST_STEP_S = 1.0
SAMPLING_PARAMETERS = ("temperature", "top_k", "top_p")
INPUTS_HELP = (
    'Send an audio file as the body, or JSON {"inputs": the file in base64} or '
    '{"inputs": {"array": [samples], "sampling_rate": Hz}}.'
)
MAX_MESSAGE_CHARACTERS = 500
INT16 = np.iinfo(np.int16)


class RequestError(ValueError):
    """A request that cannot be answered; the message is one line for its sender.

    Args:
        message: what came, what is allowed, what to do; it is put on one line of bounded length.
        status_code: the HTTP status that fits: 400 malformed, 403 not done here, 413 too large, 415 no audio that can
            be read, 422 a parameter out of its range, 500 a fault of this service.
    """

    def __init__(self, message: str, status_code: int = 400):
        super().__init__(make_line(message))
        self.status_code = status_code


class EndpointHandler:
    """Captions one recording per call; safe to call from many threads.

    Args:
        path: folder of a repository; this file's own when empty.
    Raises:
        ValueError: a limit in the environment is not a positive number.
    """

    def __init__(self, path: str = ""):
        self.max_bytes = read_limit("ENCLAP_MAX_BYTES", 25_000_000)
        self.max_duration_s = read_limit("ENCLAP_MAX_DURATION_S", 120)
        if os.environ.get("ENCLAP_ALLOW_URLS"):
            logger.warning("ENCLAP_ALLOW_URLS has no effect: nothing is downloaded here; callers send the file itself.")
        folder = path or os.path.dirname(os.path.abspath(__file__))
        backend = {"backend": os.environ.get("ENCLAP_BACKEND") or "torch"}
        options = {"dtype": "auto", "trust_remote_code": True, "model_kwargs": backend}
        self.captioner = pipeline("audio-captioning", model=folder, **options)
        # Loaded here: `from_pretrained` sets the process's default dtype, which no other thread's request may meet.
        self.captioner.processor.load_encoders()
        # The module beside the pipeline's own, which is the package's where that is installed, else the repository's.
        package = type(self.captioner).__module__.rpartition(".")[0]
        self._audio_loading = importlib.import_module(f"{package}.audio_loading")
        # One thread captions for all. A caption uses all cores, so several at once are no faster; and each thread that
        # runs the model keeps memory of its own (50 threads in turn: 1363 MB at the peak, this one alone: 592 MB).
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="captioner")

    def __call__(self, data: dict) -> dict | list[dict]:
        """Caption the recording of one request.

        Args:
            data: the decoded body, `inputs` and optional `parameters`, as in the module's table.
        Returns:
            {"text", "score"}, or with `num_return_sequences` above 1 a list of such, best first; see the module.
        Raises:
            RequestError: the request cannot be answered; the reason is the message.
        """
        if not isinstance(data, dict) or "inputs" not in data:
            raise RequestError(f"Got {describe(data)}; expected `inputs`. {INPUTS_HELP}")
        options = self.check_options(data.get("parameters"))
        recording = self.read_inputs(data["inputs"])
        return self._worker.submit(self.caption, recording, options).result()

    def caption(self, recording: bytes | dict, options: dict) -> dict | list[dict]:
        """Decode and caption, in the one thread for it, so that only one decoded recording is in memory at a time."""
        loaded = self.load(recording)
        options = dict(options)
        try:
            if options.pop("stream", False):
                return [row for _, row in self.captioner.stream(loaded, errors="raise", **options)]
            return self.captioner(loaded, **options)
        except self._audio_loading.AudioLoadError as error:
            raise RequestError(str(error), 415) from None
        except Exception as error:  # whatever it is, its sender gets one line, and the log all of it
            logger.exception("A recording could not be captioned.")
            raise RequestError(
                f"The recording could not be captioned ({error or type(error).__name__}).", 500
            ) from None

    def read_inputs(self, inputs) -> bytes | dict:
        """An encoded file as bytes, or samples as a dict of array and sampling rate."""
        if isinstance(inputs, dict):
            return read_samples(inputs)
        if isinstance(inputs, str):
            inputs = self.read_text(inputs.strip())
        if not isinstance(inputs, (bytes, bytearray, memoryview)):
            raise RequestError(f"Got {describe(inputs)} as `inputs`. {INPUTS_HELP}")
        if len(inputs) > self.max_bytes:
            raise too_large(f"a file of {len(inputs)} bytes", self.max_bytes)
        return bytes(inputs)

    def read_text(self, text: str) -> bytes:
        """The file that a text holds. Text is never the name of a file on this machine, nor an address to ask."""
        if text[:8].lower().startswith(("http://", "https://")):
            raise RequestError(
                "Got an address, and this endpoint downloads nothing: download it, and send the file itself.", 403
            )
        if len(text) > 4 * self.max_bytes // 3 + 1024:  # before it is decoded; 1024 for a data: URL's head
            raise too_large(f"base64 of {len(text)} characters", self.max_bytes)
        return decode_base64(text)

    def load(self, recording: bytes | dict) -> dict:
        """Decode a recording, no further than is allowed: {"array": (num_samples,) float32, "sampling_rate": Hz}."""
        try:
            loaded = self._audio_loading.load_audio(recording, max_duration_s=self.max_duration_s + 1)
        except self._audio_loading.AudioLoadError as error:
            raise RequestError(str(error), 415) from None
        except Exception as error:  # decoders fail in ways of their own
            logger.exception("A recording could not be decoded.")
            reason = str(error) or type(error).__name__
            raise RequestError(
                f"The recording could not be decoded ({reason}); convert it and send it again.", 415
            ) from None
        if len(loaded.samples) > self.max_duration_s * loaded.sampling_rate:
            raise RequestError(
                f"Got a recording longer than {self.max_duration_s:g} s, the most that is allowed; send a part of it, "
                "or raise ENCLAP_MAX_DURATION_S where the endpoint is configured.",
                413,
            )
        return {"array": loaded.samples, "sampling_rate": loaded.sampling_rate}

    def check_options(self, parameters: dict | None) -> dict:
        """Arguments of `generate`, once they are known to be allowed and to fit each other."""
        if parameters is None:
            return {}
        if not isinstance(parameters, dict):
            raise RequestError(
                f"Got {describe(parameters)} as `parameters`; expected an object of {', '.join(PARAMETERS)}."
            )
        options = {name: check_parameter(name, value) for name, value in parameters.items()}
        self.check_windows(options)
        most = self.captioner.model.config.max_position_embeddings - 1  # the start token takes one
        if options.get("max_new_tokens", 0) > most:
            raise RequestError(
                f"Got {options['max_new_tokens']} as `max_new_tokens`; this model writes at most {most}.", 422
            )
        is_sampling = options.get("do_sample", False)
        for name in SAMPLING_PARAMETERS:
            if name in options and not is_sampling and not options.keys() & {*CHOICES}:
                raise RequestError(
                    f'Got `{name}`, which concerns sampling only; add "do_sample": true or leave it out.', 422
                )
        num_captions = options.get("num_return_sequences", 1)
        try:
            # Refuses what does not go together.
            self.captioner._sanitize_parameters(**{name: options[name] for name in options if name != "stream"})
        except ValueError as error:
            raise RequestError(str(error), 422) from None
        if options.keys() & {*CHOICES}:
            return options
        if "num_beams" not in options:
            default = 1 if is_sampling else self.captioner.model.generation_config.num_beams or 1
            options["num_beams"] = default if is_sampling else max(default, num_captions)
        elif num_captions > options["num_beams"] and not (is_sampling and options["num_beams"] == 1):
            raise RequestError(
                f"Got `num_return_sequences` {num_captions} of `num_beams` {options['num_beams']}; a search returns at "
                "most as many captions as it has beams: raise `num_beams` or leave it out.",
                422,
            )
        return options

    def check_windows(self, options: dict) -> None:
        """Refuse windows that cannot be, or are too many."""
        try:
            plan = self.captioner.plan_windows({name: options[name] for name in WINDOW_PARAMETERS if name in options})
        except ValueError as error:
            raise RequestError(str(error), 422) from None
        step_s = plan.chunk_length_s - plan.left_s - plan.right_s
        if step_s < SHORTEST_STEP_S and any(name in options for name in WINDOW_PARAMETERS):
            raise RequestError(
                f"Got windows that begin every {step_s:.3g} s; at most one a second is captioned here: raise "
                "`chunk_length_s` or lower `stride_length_s`.",
                422,
            )


# Limits and parameters


def read_limit(name: str, default: int) -> float:
    """A positive number from the environment."""
    text = os.environ.get(name, "").strip()
    try:
        limit = float(text) if text else float(default)
    except ValueError:
        limit = math.nan
    if not 0 < limit < math.inf:
        raise ValueError(f"Got {name}={text!r}; expected a positive number, or nothing for {default}.")
    return limit


def check_parameter(name: str, value) -> int | float | bool | str | list[float] | None:
    """One parameter's value in its own type; numbers may come as text, as they do from a query string."""
    if name not in PARAMETERS:
        raise RequestError(f"Got the parameter `{make_line(name, 40)}`; allowed are {', '.join(PARAMETERS)}.", 422)
    if value is None and name in OPTIONAL_PARAMETERS:
        return None
    kind, least, greatest = PARAMETERS[name]
    if name == "stride_length_s" and is_pair(value):
        return [check_parameter(name, side) for side in value]
    if kind is str:
        if not isinstance(value, str) or not least <= len(value) <= greatest:
            raise RequestError(f"Got {describe(value)} as `{name}`; expected a word.", 422)
        return value
    if kind is bool:
        if not isinstance(value, bool):
            raise RequestError(f"Got {describe(value)} as `{name}`; expected true or false.", 422)
        return value
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not least <= number <= greatest or (kind is int and number != int(number)):
        allowed = f"{'a whole number' if kind is int else 'a number'} from {least:g} to {greatest:g}"
        raise RequestError(f"Got {describe(value)} as `{name}`; expected {allowed}.", 422)
    return kind(number)


def is_pair(value) -> bool:
    """Whether a value is a list of two that are no lists."""
    is_list = isinstance(value, (list, tuple))
    return is_list and len(value) == 2 and not any(isinstance(side, (list, tuple, dict)) for side in value)


def describe(value) -> str:
    """A value in a few words, however large it is."""
    if isinstance(value, dict):
        return f"an object with keys {[make_line(name, 40) for name in sorted(map(str, value))[:8]]}"
    if isinstance(value, (list, tuple)):
        return f"a list of {len(value)}"
    if isinstance(value, int) and abs(value) >= 10**60:
        return "a number of more than 60 digits"  # whose text Python itself refuses to make
    return make_line(repr(value[:100] if isinstance(value, (str, bytes, bytearray)) else value), 60)


def make_line(text: str, limit: int = MAX_MESSAGE_CHARACTERS) -> str:
    """A text on one line of bounded length, in characters that any client can read."""
    words = " ".join(text[: 4 * limit].split())
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in words)
    return line if len(line) <= limit else f"{line[: limit - 3]}..."


def too_large(what: str, max_bytes: float) -> RequestError:
    """The refusal of a file above the limit."""
    return RequestError(
        f"Got {what}; at most {max_bytes:.0f} bytes of file are allowed: send a shorter or compressed recording, or "
        "raise ENCLAP_MAX_BYTES where the endpoint is configured.",
        413,
    )


# Forms of a recording


def read_samples(inputs: dict) -> dict:
    """Samples that came as JSON lists: (num_samples,) or (channels, num_samples).

    JSON writes 1.0 as 1, so whole numbers from -1 to 1 are samples at full scale; larger ones are 16 bit samples.
    """
    if not isinstance(inputs.get("array"), (list, np.ndarray)) or inputs.get("sampling_rate") is None:
        raise RequestError(f"Got {describe(inputs)} as `inputs`. {INPUTS_HELP}")
    try:
        array = np.asarray(inputs["array"])
    except (ValueError, RecursionError):
        raise RequestError(
            "Got lists of unlike lengths as `array`; expected samples, or one list per channel."
        ) from None
    if array.dtype.kind in "iu" and array.size:
        lowest, highest = int(array.min()), int(array.max())
        if lowest < INT16.min or highest > INT16.max:
            raise RequestError(
                f"Got whole numbers from {lowest} to {highest} as `array`; expected fractions of full scale, -1 to 1, "
                f"or 16 bit samples, {INT16.min} to {INT16.max}."
            )
        array = array.astype(np.float32 if lowest >= -1 and highest <= 1 else np.int16)
    return {"array": array, "sampling_rate": inputs["sampling_rate"]}


def decode_base64(text: str) -> bytes:
    """The file in a base64 text or a data: URL, in the plain or the URL-safe alphabet, with or without padding."""
    begin = text[:24]
    if text[:5].lower() == "data:":
        head, _, text = text.partition(",")
        if not head.lower().endswith(";base64"):
            raise RequestError(
                f"Got a data: URL without base64 (it begins {begin!r}); expected data:audio/...;base64,..."
            )
    text = "".join(text.split()).rstrip("=").translate(str.maketrans("-_", "+/"))
    try:
        content = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise RequestError(f"Got text that is not base64 (it begins {begin!r}) as `inputs`. {INPUTS_HELP}") from None
    if not content:
        raise RequestError(f"Got an empty text as `inputs`. {INPUTS_HELP}")
    return content
