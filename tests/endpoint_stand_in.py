"""Stands in for the serving toolkit of Inference Endpoints: loads a handler from its file, and answers HTTP with it.

It does what the toolkit's documentation and behaviour say, so that the tests take the way that a deployment takes:
- the repository's folder goes first on the module path, `handler.py` is executed under the name
  "handler.EndpointHandler", and the class is made with the folder;
- the Content-Type picks the decoder of a body: JSON, or an audio file, which becomes {"inputs": bytes}; or none;
- query parameters become `parameters`, whole numbers and true/false converted, all else left as text;
- whatever is raised is answered with status 400 and {"error": the exception's text}.
"""

import contextlib
import importlib.util
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

MODULE_NAME = "handler.EndpointHandler"
JSON_TYPES = ("application/json", "application/json; charset=UTF-8")
AUDIO_TYPES = ("audio/wav", "audio/x-wav", "audio/mpeg", "audio/flac", "audio/ogg", "audio/webm", "audio/m4a")


def load_handler(folder: str):
    """Make the handler of a repository's folder."""
    spec = importlib.util.spec_from_file_location(MODULE_NAME, Path(folder) / "handler.py")
    sys.path.insert(0, folder)
    module = importlib.util.module_from_spec(spec)
    sys.modules[MODULE_NAME] = module
    spec.loader.exec_module(module)
    return module.EndpointHandler(folder)


def decode_body(content_type: str, body: bytes) -> dict:
    """What the toolkit hands to a handler."""
    if content_type in JSON_TYPES:
        return json.loads(body)
    if content_type in AUDIO_TYPES:
        return {"inputs": bytes(body)}
    raise TypeError(f'Content type "{content_type}" not supported.')


def convert_query(query: str) -> dict:
    """Query parameters as a handler sees them."""
    words = {"true": True, "false": False}
    return {name: int(text) if text.isnumeric() else words.get(text, text) for name, text in parse_qsl(query)}


class EndpointRequestHandler(BaseHTTPRequestHandler):
    """Answers POST with the server's handler."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        try:
            data = decode_body(self.headers["Content-Type"], body)
            if "inputs" not in data and "instances" not in data:
                raise ValueError(f"Body needs to provide a inputs key, received: {json.dumps(data)}")
            query = urlsplit(self.path).query
            if query and "parameters" not in data:
                data["parameters"] = convert_query(query)
            status, answer = 200, self.server.handler(data)
        except Exception as error:  # as the toolkit does
            status, answer = 400, {"error": str(error)}
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args) -> None:
        pass


class EndpointServer(ThreadingHTTPServer):
    """A thread for every request, unlike the toolkit, which lets one at a time reach its handler: the harder case."""

    daemon_threads = True
    request_queue_size = 128  # connections that arrive at once must not be turned away


@contextlib.contextmanager
def serve(handler):
    """Answer requests on loopback for the time of a `with`; gives the address."""
    server = EndpointServer(("127.0.0.1", 0), EndpointRequestHandler)
    server.handler = handler
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def main() -> None:
    """Serve the repository in argv[1] until standard input ends; the address is the first line printed."""
    with serve(load_handler(sys.argv[1])) as url:
        print(url, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
