"""How the stand-in Hub sends files: large ones from another host, and broken off or damaged where a test wants it."""

from dataclasses import dataclass
from urllib.parse import parse_qs


@dataclass
class Transfer:
    """A large file that was asked for.

    Args:
        sha256: of its content.
        start: first byte that was asked for.
        num_bytes: how many were sent.
        has_token: whether the request carried an access token, which the other host must not see.
    """

    sha256: str
    start: int
    num_bytes: int
    has_token: bool


class FileAnswers:
    """Answers about contents; a part of the stand-in's handler."""

    def list_paths(self, repo_id: str, revision: str) -> None:
        """Those of the wanted paths that are there, as files or folders."""
        repository = self._repository(repo_id)
        present = repository.commits[self._commit(repository, revision)]
        entries = []
        for path in parse_qs(self.body.decode()).get("paths", []):
            if path in present:
                entries.append(self.hub.describe_file(path, present[path]))
            elif any(other.startswith(f"{path}/") for other in present):
                entries.append({"type": "directory", "path": path, "size": 0, "oid": "0" * 40})
        self._send_json(entries)

    def send_file(self, repo_id: str, revision: str, path: str) -> None:
        """A small file, or where a large one is."""
        repository = self._repository(repo_id)
        commit = self._commit(repository, revision)
        sha256 = repository.commits[commit].get(path)
        if sha256 is None:
            self._send_error(self.not_found(commit))
            return
        entry = self.hub.describe_file(path, sha256)
        headers = {"X-Repo-Commit": commit}
        if "lfs" not in entry:
            self._send(self.hub.read(sha256), 200, {**headers, "ETag": f'"{entry["oid"]}"'})
            return
        headers |= {"X-Linked-Size": str(entry["size"]), "X-Linked-Etag": f'"{sha256}"'}
        self._send(b"", 302, {**headers, "Location": f"{self.hub.files_endpoint}/large-files/{sha256}"})

    def send_large_file(self, sha256: str) -> None:
        """A large file from a first byte on; it ends early or has a wrong byte where the test wants that."""
        content = bytearray(self.hub.read(sha256))
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
        if sha256 in self.hub.damaged:
            content[-1] ^= 1
        rest = bytes(content[start:])
        sent = rest if self.hub.break_after is None else rest[: self.hub.break_after]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(rest)))
        self.send_header("ETag", f'"{sha256}"')
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if self.command == "HEAD":
            return
        self.hub.transfers.append(Transfer(sha256, start, len(sent), "Authorization" in self.headers))
        self.wfile.write(sent)
        if len(sent) < len(rest):
            self.hub.is_broken_off.set()
            self.hub.may_close.wait()
            self.close_connection = True
