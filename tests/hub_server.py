"""A stand-in for the Hugging Face Hub on loopback, for tests of pushing and loading without a network.

It speaks the endpoints of models and Spaces that huggingface_hub 1.3 to 2.4 and transformers 5 call: creating a
repository, both ways of uploading (in the commit itself, and large files beforehand through git-LFS's batch API),
commits, branches, pull requests, listings, and downloads by branch or commit (`hub_files.py`). Errors carry the status
and the `X-Error-Code` of the real Hub.
Xet storage is not spoken: clients need HF_HUB_DISABLE_XET=1 wherever a file is large enough for `LARGE_FILE_BYTES`.
"""

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from hub_files import FileAnswers, Transfer

LARGE_FILE_BYTES = 20_000  # the real Hub decides by size and by name; anything works for a client


@dataclass
class Repository:
    """Commits are dictionaries from a file's path to the sha256 of its content; branches point to commits."""

    private: bool
    commits: dict[str, dict[str, str]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    messages: dict[str, str] = field(default_factory=dict)

    def commit(self, branch: str, files: dict[str, str], message: str, commit: str | None = None) -> str:
        """Add a commit to a branch; returns its id, which the test may choose."""
        content = json.dumps([self.branches.get(branch), sorted(files.items()), message, len(self.commits)])
        commit = commit or hashlib.sha1(content.encode()).hexdigest()
        self.commits[commit], self.messages[commit], self.branches[branch] = files, message, commit
        return commit


class HubError(Exception):
    """An answer other than success."""

    def __init__(self, status: int, message: str, code: str | None = None, commit: str | None = None):
        super().__init__(message)
        self.status, self.code, self.commit = status, code, commit


class StandInHub:
    """The server; a context manager that runs it in a thread.

    Args:
        folder: where contents of files are kept.
        tokens: what each token may do: user name, organisations, and whether it may write.
    """

    def __init__(self, folder: str | Path, tokens: dict[str, dict]):
        self.folder, self.tokens = Path(folder), tokens
        self.repositories: dict[str, Repository] = {}
        self.requests: list[str] = []
        self.transfers: list[Transfer] = []
        self.break_after: int | None = None  # bytes of a large file, after which no more come
        self.is_broken_off, self.may_close = threading.Event(), threading.Event()  # such a connection waits for this
        self.may_close.set()
        self.damaged: set[str] = set()  # contents that are sent with a wrong byte
        self.unknown_requests: list[str] = []
        self.lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self.files_endpoint = f"http://localhost:{self._server.server_port}"  # another host, as clients see it

    def __enter__(self) -> "StandInHub":
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self._server.shutdown()
        self._server.server_close()

    def add(self, repo_id: str, files: dict[str, bytes], private: bool = False, commit: str | None = None) -> None:
        """Make a repository with files; the name of a Space begins with "spaces/"."""
        repository = self.repositories[repo_id] = Repository(private)
        stored = {path: self.store(content) for path, content in files.items()}
        repository.commit("main", stored, "initial commit", commit)

    def files(self, repo_id: str, revision: str = "main") -> dict[str, bytes]:
        """Paths and contents of a revision."""
        repository = self.repositories[repo_id]
        files = repository.commits[repository.branches.get(revision, revision)]
        return {path: self.read(sha256) for path, sha256 in files.items()}

    def store(self, content: bytes) -> str:
        """Keep a content; returns its sha256."""
        sha256 = hashlib.sha256(content).hexdigest()
        (self.folder / sha256).write_bytes(content)
        return sha256

    def read(self, sha256: str) -> bytes:
        """A content that was stored."""
        return (self.folder / sha256).read_bytes()

    def describe_file(self, path: str, sha256: str) -> dict:
        """A file as listings show it."""
        content = self.read(sha256)
        entry = {"type": "file", "path": path, "size": len(content), "oid": git_blob_id(content)}
        if len(content) >= LARGE_FILE_BYTES:
            entry["lfs"] = {"oid": sha256, "size": len(content), "pointerSize": 128}
        return entry


def git_blob_id(content: bytes) -> str:
    """The id that git gives a file: the ETag of files that are not large."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class _Handler(FileAnswers, BaseHTTPRequestHandler):
    """Answers one request; `ROUTES` says which method for which."""

    hub: StandInHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_) -> None:
        pass

    def do_GET(self) -> None:
        self._dispatch()

    do_HEAD = do_POST = do_PUT = do_GET

    def _dispatch(self) -> None:
        url = urlsplit(self.path)
        self.query = parse_qs(url.query)
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        request = f"{self.command} {url.path}"
        with self.hub.lock:
            self.hub.requests.append(request)
            try:
                for pattern, answer in ROUTES:
                    match = re.fullmatch(pattern, request)
                    if match:
                        parts = {name: unquote(part) for name, part in match.groupdict().items() if part}
                        kind = parts.pop("kind", "models")
                        if kind != "models":
                            parts["repo_id"] = f"{kind}/{parts['repo_id']}"
                        answer(self, **parts)
                        return
                self.hub.unknown_requests.append(request)
                raise HubError(501, f"The stand-in does not know {request}")
            except HubError as error:
                self._send_error(error)

    def _send_error(self, error: HubError) -> None:
        headers = {"X-Error-Message": str(error)}
        headers |= {"X-Error-Code": error.code} if error.code else {}
        headers |= {"X-Repo-Commit": error.commit} if error.commit else {}
        self._send(json.dumps({"error": str(error)}).encode(), error.status, headers)

    def _send_json(self, content: object) -> None:
        self._send(json.dumps(content).encode(), 200, {"Content-Type": "application/json"})

    def _send(self, content: bytes, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    # Who asks, and for what

    def _user(self) -> dict | None:
        """Whose token the request has; None without one."""
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token and token not in self.hub.tokens:
            raise HubError(401, "Invalid credentials in Authorization header")
        return self.hub.tokens.get(token)

    def _may_write(self, namespace: str) -> bool:
        user = self._user()
        return bool(user and user["write"] and namespace in [user["name"], *user["organisations"]])

    def _repository(self, repo_id: str, to_write: bool = False) -> Repository:
        user, namespace = self._user(), repo_id.split("/")[-2]
        repository = self.hub.repositories.get(repo_id)
        is_member = user is not None and namespace in [user["name"], *user["organisations"]]
        if repository is None or (repository.private and not is_member):  # the Hub does not tell which
            raise HubError(404 if user else 401, "Repository not found", "RepoNotFound")
        if to_write and user is None:
            raise HubError(401, "Invalid username or password.")
        if to_write and not self._may_write(namespace):
            raise HubError(403, f"You don't have write permission on {repo_id}")
        return repository

    def _commit(self, repository: Repository, revision: str) -> str:
        commit = repository.branches.get(revision, revision)
        if commit not in repository.commits:
            raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit

    # Answers

    def whoami(self) -> None:
        user = self._user()
        if user is None:
            raise HubError(401, "Invalid username or password.")
        organisations = [{"name": name} for name in user["organisations"]]
        self._send_json({"type": "user", "name": user["name"], "orgs": organisations})

    def list_harnesses(self) -> None:
        self._send_json({"standardEnvVars": [], "harnesses": {}})

    def create_repository(self) -> None:
        wanted, user = json.loads(self.body), self._user()
        if user is None:
            raise HubError(401, "Invalid username or password.")
        namespace = wanted.get("organization") or user["name"]
        if not self._may_write(namespace):
            raise HubError(403, f"You don't have the rights to create a model under the namespace {namespace!r}")
        repo_id = f"{namespace}/{wanted['name']}"
        address = {"url": f"{self.hub.endpoint}/{repo_id}", "id": repo_id}
        if repo_id in self.hub.repositories:
            self._send(json.dumps({"error": "You already created this model repo", **address}).encode(), 409, {})
            return
        private = wanted.get("private") or wanted.get("visibility") == "private"
        repository = self.hub.repositories[repo_id] = Repository(private=bool(private))
        repository.commit("main", {".gitattributes": self.hub.store(b"*.safetensors filter=lfs\n")}, "initial commit")
        self._send_json(address)

    def validate_card(self) -> None:
        self._send_json({"errors": [], "warnings": []})

    def choose_upload_modes(self, repo_id: str, revision: str) -> None:
        repository = self._repository(repo_id, to_write="create_pr" not in self.query)
        present = repository.commits[self._commit(repository, revision)]
        answers = []
        for file in json.loads(self.body)["files"]:
            mode = "lfs" if file["size"] >= LARGE_FILE_BYTES else "regular"
            answer = {"path": file["path"], "uploadMode": mode, "shouldIgnore": False}
            if file["path"] in present:
                entry = self.hub.describe_file(file["path"], present[file["path"]])
                answer["oid"] = entry["lfs"]["oid"] if "lfs" in entry else entry["oid"]
            answers.append(answer)
        self._send_json({"files": answers})

    def prepare_large_files(self, repo_id: str) -> None:
        self._repository(repo_id)
        answers = []
        for wanted in json.loads(self.body)["objects"]:
            if not (self.hub.folder / wanted["oid"]).exists():
                upload = {"href": f"{self.hub.endpoint}/large-files/{wanted['oid']}"}
                answers.append({**wanted, "actions": {"upload": upload}})
            else:
                answers.append(wanted)
        self._send_json({"transfer": "basic", "objects": answers})

    def receive_large_file(self, sha256: str) -> None:
        if self.hub.store(self.body) != sha256:
            raise HubError(400, "The content is not what was announced")
        self._send(b"", 200, {"ETag": sha256})

    def add_commit(self, repo_id: str, revision: str) -> None:
        is_request = "create_pr" in self.query
        repository = self._repository(repo_id, to_write=not is_request)
        files = dict(repository.commits[self._commit(repository, revision)])
        message = ""
        for line in self.body.decode().splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "header":
                message = value["summary"]
            elif item["key"] == "file":
                files[value["path"]] = self.hub.store(base64.b64decode(value["content"]))
            elif item["key"] == "lfsFile":
                if not (self.hub.folder / value["oid"]).exists():
                    raise HubError(400, f"{value['path']} was not uploaded")
                files[value["path"]] = value["oid"]
            elif item["key"] == "deletedFile":
                del files[value["path"]]
        number = 1 + sum(name.startswith("refs/pr/") for name in repository.branches)
        commit = repository.commit(f"refs/pr/{number}" if is_request else revision, files, message)
        answer = {"commitUrl": f"{self.hub.endpoint}/{repo_id}/commit/{commit}", "commitOid": commit}
        if is_request:
            answer["pullRequestUrl"] = f"{self.hub.endpoint}/{repo_id}/discussions/{number}"
        self._send_json(answer)

    def create_branch(self, repo_id: str, branch: str) -> None:
        repository = self._repository(repo_id, to_write=True)
        if branch in repository.branches:
            raise HubError(409, f"Reference already exists: {branch}")
        start = json.loads(self.body or b"{}").get("startingPoint", "main")
        repository.branches[branch] = self._commit(repository, start)
        self._send_json({})

    def list_branches(self, repo_id: str) -> None:
        branches = self._repository(repo_id).branches.items()
        entries = [{"name": name, "ref": f"refs/heads/{name}", "targetCommit": commit} for name, commit in branches]
        self._send_json({"branches": entries, "tags": [], "converts": []})

    def describe_repository(self, repo_id: str, revision: str = "main") -> None:
        repository = self._repository(repo_id)
        commit = self._commit(repository, revision)
        siblings = [{"rfilename": path} for path in sorted(repository.commits[commit])]
        facts = {"id": repo_id, "sha": commit, "private": repository.private, "siblings": siblings, "tags": []}
        self._send_json({**facts, "author": repo_id.split("/")[0]})

    def not_found(self, commit: str) -> HubError:
        return HubError(404, "Entry not found", "EntryNotFound", commit)

    def list_files(self, repo_id: str, revision: str, folder: str = "") -> None:
        repository = self._repository(repo_id)
        commit = self._commit(repository, revision)
        prefix = f"{folder}/" if folder else ""
        paths = sorted(path for path in repository.commits[commit] if path.startswith(prefix))
        if folder and not paths:
            raise HubError(404, f"{folder} does not exist", "EntryNotFound", commit)
        is_recursive = self.query.get("recursive", ["false"])[0].lower() in ("true", "1")
        entries, folders = [], set()
        for path in paths:
            below, _, rest = path.removeprefix(prefix).partition("/")
            if rest and below not in folders:
                folders.add(below)
                entries.append({"type": "directory", "path": prefix + below, "size": 0, "oid": "0" * 40})
            if not rest or is_recursive:
                entries.append(self.hub.describe_file(path, repository.commits[commit][path]))
        self._send_json(entries)


_REPOSITORY = r"(?P<repo_id>[^/]+/[^/]+)"
_API = f"/api/(?P<kind>models|spaces|datasets)/{_REPOSITORY}"
ROUTES = (
    (r"GET /api/whoami-v2", _Handler.whoami),
    (r"GET /api/agent-harnesses", _Handler.list_harnesses),  # asked once a day, for the client's name
    (r"POST /api/repos/create", _Handler.create_repository),
    (r"POST /api/validate-yaml", _Handler.validate_card),
    (rf"POST {_API}/preupload/(?P<revision>[^/]+)", _Handler.choose_upload_modes),
    (rf"POST /{_REPOSITORY}\.git/info/lfs/objects/batch", _Handler.prepare_large_files),
    (r"PUT /large-files/(?P<sha256>\w+)", _Handler.receive_large_file),
    (rf"POST {_API}/commit/(?P<revision>[^/]+)", _Handler.add_commit),
    (rf"POST {_API}/branch/(?P<branch>[^/]+)", _Handler.create_branch),
    (rf"GET {_API}/refs", _Handler.list_branches),
    (rf"GET {_API}(/revision/(?P<revision>[^/]+))?", _Handler.describe_repository),
    (rf"GET {_API}/tree/(?P<revision>[^/]+)(/(?P<folder>.+))?", _Handler.list_files),
    (rf"POST {_API}/paths-info/(?P<revision>[^/]+)", _Handler.list_paths),
    (r"(GET|HEAD) /large-files/(?P<sha256>\w+)", _Handler.send_large_file),
    (
        rf"(GET|HEAD) /((?P<kind>spaces|datasets)/)?{_REPOSITORY}/resolve/(?P<revision>[^/]+)/(?P<path>.+)",
        _Handler.send_file,
    ),
)
