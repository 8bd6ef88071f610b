"""Sessions of ONNX Runtime: opened when first used, with known threads and providers, and closed to free memory."""

import logging
import os
import threading

import numpy as np
import torch

from .model_files import describe_cause, file_error
from .onnx_files import EXPORT_AGAIN, check_metadata

logger = logging.getLogger(__name__)

INSTALL_LINE = 'pip install "enclap-hf[onnx]"'


def import_onnxruntime():
    """ONNX Runtime.

    Raises:
        ImportError: it is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError(
            f'`backend="onnx"` needs onnxruntime, which is not installed ({error}). Run: {INSTALL_LINE}'
        ) from None
    return onnxruntime


def choose_providers(device: torch.device, providers: list | None = None) -> list:
    """Execution providers for a device, of those that the installed runtime has.

    Raises:
        ValueError: providers that were asked for by name, and that it does not have.
    """
    available = import_onnxruntime().get_available_providers()
    if providers is not None:
        missing = [
            name
            for name in (entry if isinstance(entry, str) else entry[0] for entry in providers)
            if name not in available
        ]
        if missing:
            raise ValueError(f"Got `providers` {', '.join(missing)}; onnxruntime here has {', '.join(available)}.")
        return providers
    if device.type == "cuda" and "CUDAExecutionProvider" in available:
        return [("CUDAExecutionProvider", {"device_id": device.index or 0}), "CPUExecutionProvider"]
    if device.type != "cpu":
        logger.warning("onnxruntime here has no provider for %s; ONNX graphs run on the CPU.", device)
    return ["CPUExecutionProvider"]


class GraphSession:
    """One graph of a repository.

    Args:
        path: of its file.
        config: of the model, which the graph must be of.
        folder: of the model's weights.
        num_threads: that work on one run; None is torch's number at the time it is opened.
        providers: of ONNX Runtime, see [`choose_providers`].
    """

    def __init__(self, path: str, config, folder: str, num_threads: int | None = None, providers: list | None = None):
        self.path, self.config, self.folder = path, config, folder
        self.num_threads, self.providers = num_threads, providers or ["CPUExecutionProvider"]
        self._session, self._opening = None, threading.Lock()

    def __getstate__(self) -> dict:
        return {name: value for name, value in self.__dict__.items() if name not in ("_session", "_opening")}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._session, self._opening = None, threading.Lock()

    @property
    def session(self):
        """The session, opened on first use.

        Raises:
            ModelFileError: the file is damaged, another model's, or for a newer runtime.
        """
        with self._opening:
            if self._session is None:
                self._session = self._open()
            return self._session

    def close(self) -> None:
        """Free the session's memory; the next use opens it again."""
        with self._opening:
            self._session = None

    def move(self, providers: list) -> None:
        """Open it with other providers at its next use."""
        self.providers = providers
        self.close()

    def _open(self):
        runtime = import_onnxruntime()
        options = runtime.SessionOptions()
        options.intra_op_num_threads = self.num_threads or torch.get_num_threads()
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        if not os.path.isfile(self.path):
            raise file_error(self.path, "there is no such file.", EXPORT_AGAIN)
        try:
            session = runtime.InferenceSession(self.path, options, providers=self.providers)
        except Exception as error:  # the runtime has a class of its own for each of many reasons
            raise explain_refusal(error, self.path, runtime.__version__) from None
        check_metadata(session.get_modelmeta().custom_metadata_map, self.config, self.folder, self.path)
        return session

    def as_values(self, tensors: dict) -> dict:
        """Tensors or arrays as the runtime takes them, without a copy."""
        runtime, values = import_onnxruntime(), {}
        for name, tensor in tensors.items():
            array = tensor if isinstance(tensor, np.ndarray) else tensor.detach().cpu().contiguous().numpy()
            values[name] = runtime.OrtValue.ortvalue_from_numpy(array)
        return values

    def run_tensors(self, tensors: dict, wanted: list[str]) -> list[torch.Tensor]:
        """[`run`] from tensors to tensors on the CPU."""
        return [torch.from_numpy(value.numpy()) for value in self.run(self.as_values(tensors), wanted)]

    def run(self, feeds: dict, wanted: list[str]) -> list:
        """Compute some outputs, and what these need alone; both as `OrtValue`s."""
        runtime, session = import_onnxruntime(), self.session
        options = runtime.RunOptions()
        options.only_execute_path_to_fetches = True
        return session.run_with_ort_values(wanted, feeds, options)


def explain_refusal(error: Exception, path: str, version: str) -> Exception:
    """The one line for a graph that the runtime does not open."""
    cause = describe_cause(error)
    if "opset" in cause.lower():
        return file_error(
            path,
            f"onnxruntime {version} does not know its opset ({cause}).",
            "Install a newer onnxruntime, or export the model with a lower --opset.",
        )
    return file_error(path, f"it is damaged, no ONNX graph that can be opened ({cause}).", EXPORT_AGAIN)
