"""A Hugging Face hub and a web server on 127.0.0.1, with faults on demand, for tests of whole builds.

    with LoopbackHub(tmp_path / "hub") as hub:
        hub.add_dataset("org/name", {"data/a.jsonl": b"...", "README.md": b"..."}, revision="0123...", gated=False)
        hub.add_model("org/tok", {"tokenizer.json": b"..."})
        hub.add_url("https://host.example/dir/file.jsonl.gz", b"...")
        hub.faults.status("a.jsonl", 503, times=2)
        subprocess.run([...], env={**os.environ, **hub.environment()})

`hub.environment()` gives the variables that point this project (and huggingface_hub) here: HF_ENDPOINT,
CORPUS_URLS_ENDPOINT (plain URLs are read from `<endpoint>/<host>/<path>`), and no token, proxy or telemetry.
In-process tests set the same variables with monkeypatch before they call.

Repositories. The API (`/api/{datasets,models}/...`: info, paginated tree, auth-check) and the resolve routes answer
as the hub does. Files above `lfs_over` bytes are LFS files: `resolve` answers 302 with X-Repo-Commit, X-Linked-Size and
X-Linked-Etag, and the bytes come from a second port, as from a CDN; smaller ones are served in place with their git
hash as ETag. HEAD, Range, If-Range and ETag work everywhere. A gated repository lists its files to everybody but serves
them (401/403, X-Error-Code GatedRepo) only to tokens in `hub.tokens`; `hide_tree=True` hides the listing too. An
unknown repository is 401 RepoNotFound without a token and 404 with one. Any revision but the repository's own commit,
the first 7 or more digits of it, or "main" is 404 RevisionNotFound.

Files lie under `root` laid out as `--mirror` wants them (`datasets/<org>/<repo>/<path>`, `urls/<host>/<path>`), so
`root` serves as a mirror as well.

Faults (`hub.faults`), each for the next `times` requests whose path contains `match` (the file's path is in the CDN's
URLs too): `status` (with Retry-After if given), `cut` (close the connection after so many bytes of the body),
`corrupt` (right length, wrong bytes), `slow` (seconds to wait before every 64 KiB).
`add_dataset(..., hashes={"path": "<sha256>"})` announces a wrong hash for good.

Log: `hub.requests` (method, path, port, token, range, status, bytes sent); `hub.sent(match)` sums the body bytes,
`hub.count(match, method)` counts requests.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

PIECE = 64 << 10


@dataclass
class Request:
    """One request as it was answered."""

    method: str
    path: str
    """With query, percent-decoded."""
    port: int
    token: str | None
    """The bearer token sent along."""
    range: str | None
    status: int = 0
    sent: int = 0
    """Bytes of body sent."""


@dataclass
class Fault:
    """Something that goes wrong with the next ``times`` requests that match."""

    kind: str
    match: str
    times: int
    code: int = 0
    retry_after: str | None = None
    after: int = 0
    seconds: float = 0.0


class Faults:
    """The faults still to come."""

    def __init__(self) -> None:
        self._pending: list[Fault] = []
        self._guard = threading.Lock()

    def status(self, match: str, code: int, *, times: int = 1, retry_after: float | str | None = None) -> None:
        """Answer with an HTTP status instead."""
        header = None if retry_after is None else str(retry_after)
        self._add(Fault("status", match, times, code=code, retry_after=header))

    def cut(self, match: str, *, after: int, times: int = 1) -> None:
        """Close the connection after that many bytes of the body."""
        self._add(Fault("cut", match, times, after=after))

    def corrupt(self, match: str, *, times: int = 1) -> None:
        """Send as many bytes as announced, but wrong ones."""
        self._add(Fault("corrupt", match, times))

    def slow(self, match: str, *, seconds: float, times: int = 1) -> None:
        """Wait before every 64 KiB of the body."""
        self._add(Fault("slow", match, times, seconds=seconds))

    def clear(self) -> None:
        """Forget the faults still to come."""
        with self._guard:
            self._pending.clear()

    def _add(self, fault: Fault) -> None:
        with self._guard:
            self._pending.append(fault)

    def take(self, path: str, *kinds: str) -> Fault | None:
        """The next fault of these kinds for a request, used up by one."""
        with self._guard:
            for fault in self._pending:
                if fault.kind in kinds and fault.match in path and fault.times > 0:
                    fault.times -= 1
                    return fault
        return None


@dataclass
class StoredFile:
    """A file of a repository: where it lies, and the hashes the hub announces for it."""

    path: Path
    size: int
    sha256: str
    blob: str


@dataclass
class Repo:
    """A repository at one commit."""

    kind: str
    name: str
    commit: str
    gated: bool
    hide_tree: bool
    files: dict[str, StoredFile] = field(default_factory=dict)


class LoopbackHub:
    """The server; see the module's docstring. ``page`` is the number of entries per page of a listing."""

    def __init__(self, root: Path, *, lfs_over: int = 1024, page: int = 1000) -> None:
        self.root, self.lfs_over, self.page = root, lfs_over, page
        self.faults = Faults()
        self.requests: list[Request] = []
        self.tokens: set[str] = set()
        self.repos: dict[tuple[str, str], Repo] = {}
        self._servers: list[ThreadingHTTPServer] = []

    def __enter__(self) -> LoopbackHub:
        handler = type("Handler", (_Handler,), {"hub": self})
        for _ in ("hub", "cdn"):
            server = _Server(("127.0.0.1", 0), handler)
            self._servers.append(server)
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    @property
    def endpoint(self) -> str:
        """Value for HF_ENDPOINT."""
        return f"http://127.0.0.1:{self._servers[0].server_address[1]}"

    @property
    def urls_endpoint(self) -> str:
        """Value for CORPUS_URLS_ENDPOINT."""
        return f"{self.endpoint}/urls"

    @property
    def cdn(self) -> str:
        """Where the bytes of LFS files come from: another port, so another origin."""
        return f"http://127.0.0.1:{self._servers[1].server_address[1]}"

    def environment(self) -> dict[str, str]:
        """Environment variables that make a process read from here, and from nowhere else."""
        return {
            "HF_ENDPOINT": self.endpoint,
            "CORPUS_URLS_ENDPOINT": self.urls_endpoint,
            "HF_TOKEN": "",
            "HF_TOKEN_PATH": str(self.root / "no-token"),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_XET": "1",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }

    def add_dataset(
        self,
        name: str,
        files: Mapping[str, bytes],
        *,
        revision: str | None = None,
        gated: bool = False,
        hide_tree: bool = False,
        hashes: Mapping[str, str] | None = None,
    ) -> str:
        """Serve a dataset repository; returns its commit (made up from its contents when not given)."""
        return self._add_repo("datasets", name, files, revision, gated, hide_tree, hashes or {})

    def add_model(self, name: str, files: Mapping[str, bytes], *, revision: str | None = None) -> str:
        """Serve a model repository (tokenizer files); returns its commit."""
        return self._add_repo("models", name, files, revision, False, False, {})

    def add_url(self, url: str, data: bytes) -> str:
        """Serve a plain URL; returns the address it has here (through CORPUS_URLS_ENDPOINT it keeps its own)."""
        parts = urlsplit(url)
        name = f"{parts.netloc}/{unquote(parts.path).lstrip('/')}"
        self._store(self.root / "urls" / name, data)
        return f"{self.urls_endpoint}/{quote(name)}"

    def sent(self, match: str) -> int:
        """Bytes of body sent for paths that contain ``match``."""
        return sum(request.sent for request in self.requests if match in request.path)

    def count(self, match: str, method: str | None = None) -> int:
        """Requests for paths that contain ``match``."""
        return sum(match in r.path and method in (None, r.method) for r in self.requests)

    def _add_repo(
        self,
        kind: str,
        name: str,
        files: Mapping[str, bytes],
        commit: str | None,
        gated: bool,
        hide_tree: bool,
        hashes: Mapping[str, str],
    ) -> str:
        stored = {}
        for path, data in sorted(files.items()):
            # A hostile name is announced as it is, but lies under a harmless one here.
            safe = path if all(part not in ("", ".", "..") for part in path.split("/")) and "\0" not in path else None
            place = self.root / kind / name / (safe or f"unsafe-{hashlib.sha256(path.encode()).hexdigest()[:8]}")
            self._store(place, data)
            sha256 = hashes.get(path) or hashlib.sha256(data).hexdigest()
            blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()  # noqa: S324 - git's hash
            stored[path] = StoredFile(place, len(data), sha256, blob)
        made_up = hashlib.sha256("".join(f"{p}{f.sha256}" for p, f in stored.items()).encode()).hexdigest()[:40]
        self.repos[kind, name] = Repo(kind, name, commit or made_up, gated, hide_tree, stored)
        return commit or made_up

    def _store(self, place: Path, data: bytes) -> None:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are part of the tests; anything else is printed."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 600
    hub: LoopbackHub
    log: Request

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are kept in hub.requests instead."""

    def _answer(self) -> None:
        bearer = self.headers.get("Authorization", "")
        token = bearer.removeprefix("Bearer ") if bearer else None
        port = self.connection.getsockname()[1]
        self.log = Request(self.command, unquote(self.path), port, token, self.headers.get("Range"))
        self.hub.requests.append(self.log)
        fault = self.hub.faults.take(self.log.path, "status")
        if fault:
            extra = {"Retry-After": fault.retry_after} if fault.retry_after is not None else {}
            return self._plain(fault.code, b"fault", extra)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._route()

    def _route(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if path.startswith("/urls/"):
            place = self.hub.root / path.lstrip("/")
            if ".." in path.split("/") or not place.is_file():
                return self._plain(404, b"not found")
            etag = f'"{hashlib.sha256(place.read_bytes()).hexdigest()[:32]}"'
            return self._file(place, {"ETag": etag})
        if found := re.fullmatch(r"/lfs/(datasets|models)/([^/]+/[^/]+)/([0-9a-f]{64})/(.+)", path):
            file = self.hub.repos[found[1], found[2]].files[found[4]]
            return self._file(file.path, {"ETag": f'"{file.sha256}"'})
        if found := re.fullmatch(
            r"/api/(datasets|models)/([^/]+/[^/]+)(?:/(revision|tree|auth-check)(?:/(.+))?)?", path
        ):
            return self._api(found[1], found[2], found[3], found[4] or "main")
        if found := re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self._resolve("datasets" if found[1] else "models", found[2], found[3], found[4])
        return self._plain(404, b"not found")

    def _repo(self, kind: str, name: str) -> Repo | None:
        repo = self.hub.repos.get((kind, name))
        if repo is None:
            self._plain(404 if self.log.token else 401, b"", {"X-Error-Code": "RepoNotFound"})
        return repo

    def _may_read(self, repo: Repo) -> bool:
        if not repo.gated or self.log.token in self.hub.tokens:
            return True
        self._plain(403 if self.log.token else 401, b"", {"X-Error-Code": "GatedRepo"})
        return False

    def _has_revision(self, repo: Repo, revision: str) -> bool:
        if revision == "main" or (len(revision) >= 7 and repo.commit.startswith(revision)):
            return True
        self._plain(404, b"", {"X-Error-Code": "RevisionNotFound"})
        return False

    def _api(self, kind: str, name: str, what: str | None, rest: str) -> None:
        repo = self._repo(kind, name)
        if repo is None:
            return
        if what == "auth-check":
            if self._may_read(repo):
                self._json({})
            return
        revision, _, folder = rest.partition("/")
        if not self._has_revision(repo, revision):
            return
        if what == "tree":
            if not repo.hide_tree or self._may_read(repo):
                self._tree(repo, folder)
            return
        siblings = [{"rfilename": path} for path in repo.files]
        gated = "auto" if repo.gated else False
        self._json({"_id": "0", "id": name, "sha": repo.commit, "private": False, "gated": gated, "siblings": siblings})

    def _tree(self, repo: Repo, folder: str) -> None:
        query = parse_qs(urlsplit(self.path).query)
        deep = query.get("recursive", [""])[0].lower() in ("true", "1")
        entries: dict[str, dict[str, Any]] = {}
        inside = f"{folder}/" if folder else ""
        for path, file in repo.files.items():
            if not path.startswith(inside):
                continue
            parts = path[len(inside) :].split("/")
            for depth in range(1, len(parts)):
                above = inside + "/".join(parts[:depth])
                entries[above] = {"type": "directory", "oid": "0" * 40, "size": 0, "path": above}
                if not deep:
                    break
            if deep or len(parts) == 1:
                entry = {"type": "file", "oid": file.blob, "size": file.size, "path": path}
                if file.size > self.hub.lfs_over:
                    entry["lfs"] = {"oid": file.sha256, "size": file.size, "pointerSize": 130}
                entries[path] = entry
        if folder and not entries:
            return self._plain(404, b"", {"X-Error-Code": "EntryNotFound"})
        start = int(query.get("cursor", ["0"])[0])
        page = list(entries.values())[start : start + self.hub.page]
        extra = {}
        if start + self.hub.page < len(entries):
            more = f"{self.hub.endpoint}{urlsplit(self.path).path}?recursive={deep}&cursor={start + self.hub.page}"
            extra["Link"] = f'<{more}>; rel="next"'
        self._json(page, extra)

    def _resolve(self, kind: str, name: str, revision: str, path: str) -> None:
        repo = self._repo(kind, name)
        if repo is None or not self._has_revision(repo, revision):
            return
        file = repo.files.get(path)
        if file is None:
            return self._plain(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": repo.commit})
        if not self._may_read(repo):
            return
        extra = {"X-Repo-Commit": repo.commit}
        if file.size <= self.hub.lfs_over:
            return self._file(file.path, {**extra, "ETag": f'"{file.blob}"'})
        extra |= {"X-Linked-Size": str(file.size), "X-Linked-Etag": f'"{file.sha256}"', "ETag": f'"{file.sha256}"'}
        extra["Location"] = f"{self.hub.cdn}/lfs/{kind}/{name}/{file.sha256}/{quote(path)}?signature=made-up"
        self._plain(302, b"", extra)

    def _file(self, place: Path, extra: dict[str, str]) -> None:
        """A file or the range of it asked for, with the fault that is due."""
        size = place.stat().st_size
        start, end, status = 0, size, 200
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted and self.headers.get("If-Range", extra["ETag"]) == extra["ETag"]:
            start, end = int(wanted[1]), min(size, int(wanted[2]) + 1) if wanted[2] else size
            if start >= size:
                return self._plain(416, b"", {**extra, "Content-Range": f"bytes */{size}"})
            status = 206
            extra = {**extra, "Content-Range": f"bytes {start}-{end - 1}/{size}"}
        self._head(status, end - start, {**extra, "Accept-Ranges": "bytes"})
        if self.command == "HEAD":
            return
        fault = self.hub.faults.take(self.log.path, "cut", "corrupt", "slow") or Fault("", "", 0)
        for piece in _pieces(place, start, end):
            if fault.kind == "slow":
                time.sleep(fault.seconds)
            if fault.kind == "corrupt":
                piece = bytes(byte ^ 0xFF for byte in piece)
            if fault.kind == "cut" and self.log.sent + len(piece) > fault.after:
                piece = piece[: fault.after - self.log.sent]
                self.close_connection = True
            self.wfile.write(piece)
            self.log.sent += len(piece)
            if self.close_connection and fault.kind == "cut":
                return

    def _json(self, data: Any, extra: Mapping[str, str] | None = None) -> None:
        self._plain(200, json.dumps(data).encode(), {"Content-Type": "application/json", **(extra or {})})

    def _plain(self, status: int, body: bytes, extra: Mapping[str, str] | None = None) -> None:
        self._head(status, len(body), extra or {})
        if self.command != "HEAD":
            self.wfile.write(body)

    def _head(self, status: int, length: int, extra: Mapping[str, str]) -> None:
        self.log.status = status
        self.send_response(status)
        for name, value in {**extra, "Content-Length": str(length)}.items():
            self.send_header(name, value)
        self.end_headers()


def _pieces(place: Path, start: int, end: int) -> Iterator[bytes]:
    with place.open("rb") as stream:
        stream.seek(start)
        while start < end and (piece := stream.read(min(PIECE, end - start))):
            start += len(piece)
            yield piece
