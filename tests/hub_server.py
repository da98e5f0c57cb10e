"""A Hugging Face Hub on loopback: as much of its protocol as its own client, transformers and datasets speak.

Repositories with branches and commits, in memory; owners and tokens; files of git and, by way of LFS, large ones. The
answers' forms and headers were read off huggingface_hub 2.4. `drop` and `refuse` make it fail where a test wants it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

# Who a token stands for, and whether it may write.
TOKENS = {"hf_owner": ("owner", True), "hf_reader": ("owner", False), "hf_other": ("other", True)}
TOKENS |= {"hf_my_name": ("my-name", True)}  # of the documentation
LARGE = (".safetensors", ".parquet")  # endings that go by LFS, as in a new repository's .gitattributes
MODEL_ID = re.compile(r"([\w.-]+/)?[\w.-]+")


@dataclass(frozen=True)
class Commit:
    """files: contents by path, all there are after it."""

    files: dict[str, bytes]
    message: str
    parent: str | None

    @property
    def sha(self) -> str:
        content = hashlib.sha1(f"{self.message} {self.parent}".encode())
        for path, data in sorted(self.files.items()):
            content.update(path.encode() + data)
        return content.hexdigest()


@dataclass
class Repository:
    """commits: by sha. branches: sha by name."""

    private: bool = False
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def commit(self, branch: str, changes: dict[str, bytes | None], message: str) -> str:
        """Change files, None of which are deleted; the new commit's sha."""
        parent = self.branches.get(branch)
        files = dict(self.commits[parent].files) if parent else {}
        for path, content in changes.items():
            files.pop(path, None)
            if content is not None:
                files[path] = content
        made = Commit(files, message, parent)
        self.commits[made.sha] = made
        self.branches[branch] = made.sha
        return made.sha

    def find(self, revision: str) -> tuple[str, Commit] | None:
        """The commit that a branch or a sha means."""
        sha = self.branches.get(revision, revision)
        return (sha, self.commits[sha]) if sha in self.commits else None

    def history(self, branch: str = "main") -> list[str]:
        """Messages of a branch's commits, the newest first."""
        messages, sha = [], self.branches.get(branch)
        while sha is not None:
            messages.append(self.commits[sha].message)
            sha = self.commits[sha].parent
        return messages


class HubServer:
    """The server, running until `stop`. repositories: by kind and id, such as 'models/owner/name'."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.large: dict[str, bytes] = {}  # by SHA-256
        self.requests: list[str] = []  # 'METHOD /path' of each
        self.lines: list[socket.socket] = []
        self.dropped: re.Pattern[str] | None = None
        self.refused: tuple[re.Pattern[str], int, str] | None = None
        hub = self

        class Bound(_Handler):
            server_hub = hub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Bound)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Close the port and all lines: whoever calls is refused."""
        self._server.shutdown()
        self._server.server_close()
        for line in self.lines:
            with suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)

    def drop(self, pattern: str) -> None:
        """Cut the line of requests 'METHOD /path' that match, without an answer."""
        self.dropped = re.compile(pattern)

    def refuse(self, pattern: str, status: int, message: str) -> None:
        """Answer requests that match with an error."""
        self.refused = re.compile(pattern), status, message

    def add(self, kind: str, name: str, folder: Path, private: bool = False) -> Repository:
        """Publish a folder's files."""
        repository = self.repositories[f"{kind}/{name}"] = Repository(private)
        paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
        self.large |= {_sha256(content): content for path, content in files.items() if path.endswith(LARGE)}
        repository.commit("main", files, "first")
        return repository


class _Answer(Exception):  # noqa: N818 (of any status)
    """Ends a request."""

    def __init__(self, status: int, body: Any = b"", **headers: str) -> None:
        super().__init__(status)
        self.status = status
        self.body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def _error(status: int, message: str, code: str | None = None) -> _Answer:
    return _Answer(status, {"error": message}, X_Error_Message=message, **({"X_Error_Code": code} if code else {}))


class _Handler(BaseHTTPRequestHandler):
    """Finds the route of a request and answers."""

    server_hub: HubServer
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        self.server_hub.lines.append(self.connection)

    def log_message(self, *_: Any) -> None:
        pass

    def handle_any(self) -> None:
        hub = self.server_hub
        self.path = unquote(self.path)
        request = f"{self.command} {self.path}"
        hub.requests.append(request)
        if hub.dropped is not None and hub.dropped.search(request):
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.content = self._read()
        try:
            if hub.refused is not None and hub.refused[0].search(request):
                raise _error(*hub.refused[1:])
            self._route()
            raise _error(404, f"no route for {request}")
        except _Answer as answer:
            self._send(answer)

    do_GET = do_HEAD = do_POST = do_PUT = handle_any  # noqa: N815

    def _read(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        content = b""
        while size := int(self.rfile.readline(), 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content

    def _send(self, answer: _Answer) -> None:
        self.send_response(answer.status)
        headers = {"Content-Type": "application/json", "Content-Length": str(len(answer.body)), **answer.headers}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    def _route(self) -> None:
        for method, pattern, handle in _ROUTES:
            match = re.fullmatch(pattern, urlsplit(self.path).path)
            if match and self.command in method.split():
                handle(self, **match.groupdict())

    @property
    def json(self) -> Any:
        return json.loads(self.content)

    @property
    def user(self) -> tuple[str, bool]:
        """Name and right to write."""
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token and token not in TOKENS:
            raise _error(401, "Invalid credentials in Authorization header")
        return TOKENS.get(token, ("", False))

    def repository(self, kind: str, name: str, write: bool = False) -> Repository:
        """One that the token may see, and change."""
        user, may_write = self.user
        found = self.server_hub.repositories.get(f"{kind}/{name}")
        owned = name.split("/")[0] == user
        if found is None or (found.private and not owned):
            raise _error(404 if user else 401, "Repository not found", "RepoNotFound")
        if write and not (owned and may_write):
            raise _error(403, "You do not have write access to this repository")
        return found

    def commit(self, kind: str, name: str, revision: str) -> tuple[Repository, str, Commit]:
        repository = self.repository(kind, name)
        found = repository.find(revision)
        if found is None:
            raise _error(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return repository, *found

    # --- repositories

    def create(self) -> None:
        user, may_write = self.user
        if not user:
            raise _error(401, "Invalid username or password.")
        owner = self.json["organization"] or user
        kind, name = f"{self.json.get('type', 'model')}s", f"{owner}/{self.json['name']}"
        if owner != user or not may_write:
            raise _error(403, f'You don\'t have the rights to create a model under the namespace "{owner}"')
        page = {"url": f"{self.server_hub.url}/{name}", "name": name}
        if f"{kind}/{name}" in self.server_hub.repositories:
            raise _Answer(409, {"error": "You already created this model repo", **page})
        repository = Repository(self.json.get("visibility") == "private")
        repository.commit("main", {".gitattributes": b"*.safetensors filter=lfs\n"}, "initial commit")
        self.server_hub.repositories[f"{kind}/{name}"] = repository
        raise _Answer(200, page)

    def branch(self, kind: str, name: str, branch: str) -> None:
        repository = self.repository(kind, name, write=True)
        if branch in repository.branches:
            raise _error(409, f"Reference already exists: {branch}")
        repository.branches[branch] = repository.branches["main"]
        raise _Answer(200, {})

    def auth_check(self, kind: str, name: str) -> None:
        """Whether the token may write to the repository."""
        self.repository(kind, name, write=True)
        raise _Answer(200, {})

    def info(self, kind: str, name: str, revision: str | None = None) -> None:
        repository, sha, commit = self.commit(kind, name, revision or "main")
        siblings = [{"rfilename": path, "size": len(commit.files[path])} for path in sorted(commit.files)]
        raise _Answer(
            200,
            {"id": name, "sha": sha, "private": repository.private, "siblings": siblings, "tags": [], "cardData": {}},
        )

    def tree(self, kind: str, name: str, revision: str, folder: str | None = None) -> None:
        """Files of a folder; with ?recursive=True those below as well."""
        _, _, commit = self.commit(kind, name, revision)
        start = f"{folder}/" if folder else ""
        deep = parse_qs(urlsplit(self.path).query).get("recursive", ["false"])[0].lower() == "true"
        paths = [path for path in sorted(commit.files) if path.startswith(start)]
        if start and not paths:
            raise _error(404, "Not a folder", "EntryNotFound")
        files = [_entry(path, commit.files[path]) for path in paths if deep or "/" not in path.removeprefix(start)]
        below = {start + path.removeprefix(start).split("/")[0] for path in paths if "/" in path.removeprefix(start)}
        folders = [{"type": "directory", "path": path, "oid": "0" * 40, "size": 0} for path in sorted(below)]
        raise _Answer(200, folders + files)

    def paths_info(self, kind: str, name: str, revision: str) -> None:
        _, _, commit = self.commit(kind, name, revision)
        asked = [path.strip("/") for path in parse_qs(self.content.decode()).get("paths", [])]
        folders = [path for path in asked if any(own.startswith(f"{path}/") for own in commit.files)]
        raise _Answer(
            200,
            [_entry(path, commit.files[path]) for path in asked if path in commit.files]
            + [{"type": "directory", "path": path, "oid": "0" * 40, "size": 0} for path in folders],
        )

    # --- up

    def validate(self) -> None:
        errors = [{"message": error} for error in card_errors(self.json["content"])]
        raise _Answer(400 if errors else 200, {"errors": errors, "warnings": []})

    def preupload(self, kind: str, name: str, revision: str) -> None:
        self.repository(kind, name, write=True)
        _, _, commit = self.commit(kind, name, revision)
        answers = []
        for file in self.json["files"]:
            path, old = file["path"], commit.files.get(file["path"])
            answers.append({"path": path, "uploadMode": _mode(path), "shouldIgnore": False})
            if old is not None:
                answers[-1]["oid"] = _sha256(old) if path.endswith(LARGE) else _git_oid(old)
        raise _Answer(200, {"files": answers})

    def lfs_batch(self, name: str) -> None:
        self.repository("models", name, write=True)
        objects = []
        for item in self.json["objects"]:
            there = item["oid"] in self.server_hub.large
            actions = {"upload": {"href": f"{self.server_hub.url}/lfs/{item['oid']}"}}
            objects.append(item if there else {**item, "actions": actions})
        raise _Answer(200, {"transfer": "basic", "objects": objects})

    def lfs_put(self, oid: str) -> None:
        if _sha256(self.content) != oid:
            raise _error(400, "content does not match its oid")
        self.server_hub.large[oid] = self.content
        raise _Answer(200)

    def take_commit(self, kind: str, name: str, revision: str) -> None:
        repository = self.repository(kind, name, write=True)
        if revision not in repository.branches:
            raise _error(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        lines = [json.loads(line) for line in self.content.splitlines()]
        header = lines[0]["value"]
        if header.get("parentCommit") not in (None, repository.branches[revision]):
            raise _error(412, "A commit has happened since. Please refresh and try again.")
        sha = repository.commit(revision, dict(self._changes(lines[1:])), header["summary"])
        url = f"{self.server_hub.url}/{name}/commit/{sha}"
        raise _Answer(200, {"success": True, "commitUrl": url, "commitOid": sha, "hookOutput": ""})

    def _changes(self, lines: list[Any]) -> Iterator[tuple[str, bytes | None]]:
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                yield value["path"], base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                if value["oid"] not in self.server_hub.large:
                    raise _error(400, f"LFS pointer of {value['path']} points to a file that does not exist")
                yield value["path"], self.server_hub.large[value["oid"]]
            else:
                assert line["key"] == "deletedFile", line
                yield value["path"], None

    # --- down

    def resolve(self, name: str, revision: str, path: str, datasets: str | None = None) -> None:
        _, sha, commit = self.commit("datasets" if datasets else "models", name, revision)
        if path not in commit.files:
            raise _Answer(404, {"error": "Entry not found"}, X_Error_Code="EntryNotFound", X_Repo_Commit=sha)
        content = commit.files[path]
        if not path.endswith(LARGE):
            raise self._file(content, _git_oid(content), X_Repo_Commit=sha)
        oid = _sha256(content)
        linked = {"X_Linked_Size": str(len(content)), "X_Linked_Etag": f'"{oid}"', "X_Repo_Commit": sha}
        storage = self.server_hub.url.replace("127.0.0.1", "localhost")  # another host, as the Hub's storage is
        raise _Answer(302, Location=f"{storage}/lfs/{oid}", **linked)

    def lfs_get(self, oid: str) -> None:
        raise self._file(self.server_hub.large[oid], oid)

    def _file(self, content: bytes, oid: str, **headers: str) -> _Answer:
        headers |= {"ETag": f'"{oid}"', "Accept_Ranges": "bytes", "Content_Type": "application/octet-stream"}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not asked:
            return _Answer(200, content, **headers)
        first, last = int(asked[1]), min(int(asked[2] or len(content)), len(content) - 1)
        headers["Content_Range"] = f"bytes {first}-{last}/{len(content)}"
        return _Answer(206, content[first : last + 1], **headers)


_REPO = r"/api/(?P<kind>models|datasets)/(?P<name>[^/]+/[^/]+)"
_ROUTES: list[tuple[str, str, Callable[..., None]]] = [
    ("POST", "/api/repos/create", _Handler.create),
    ("POST", "/api/validate-yaml", _Handler.validate),
    ("GET", _REPO, _Handler.info),
    ("GET", _REPO + r"/auth-check/write", _Handler.auth_check),
    ("GET", _REPO + r"/revision/(?P<revision>.+)", _Handler.info),
    ("GET", _REPO + r"/tree/(?P<revision>[^/]+)(/(?P<folder>.+))?", _Handler.tree),
    ("POST", _REPO + r"/paths-info/(?P<revision>.+)", _Handler.paths_info),
    ("POST", _REPO + r"/branch/(?P<branch>.+)", _Handler.branch),
    ("POST", _REPO + r"/preupload/(?P<revision>.+)", _Handler.preupload),
    ("POST", _REPO + r"/commit/(?P<revision>.+)", _Handler.take_commit),
    ("POST", r"/(?P<name>[^/]+/[^/]+)\.git/info/lfs/objects/batch", _Handler.lfs_batch),
    ("PUT", "/lfs/(?P<oid>[0-9a-f]{64})", _Handler.lfs_put),
    ("GET HEAD", "/lfs/(?P<oid>[0-9a-f]{64})", _Handler.lfs_get),
    (
        "GET HEAD",
        r"(?P<datasets>/datasets)?/(?P<name>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)",
        _Handler.resolve,
    ),
]


def card_errors(content: str) -> list[str]:
    """What the Hub would not take in a model card's metadata."""
    block = re.match(r"---\n(.*?)\n---\n", content, flags=re.DOTALL)
    data = yaml.safe_load(block[1]) if block else None
    if not isinstance(data, dict):
        return ["there is no metadata"]
    errors = []
    for key in ("base_model", "datasets"):
        values = data.get(key, [])
        for value in [values] if isinstance(values, str) else values:
            if not MODEL_ID.fullmatch(value):
                errors.append(f'"{key}" with value "{value}" is not valid. Use an id from https://hf.co/models.')
    for key in ("license", "library_name", "pipeline_tag"):
        if key in data and not re.fullmatch(r"[a-z0-9.-]+", str(data[key])):
            errors.append(f'"{key}" is not valid')
    if not all(isinstance(tag, str) for tag in data.get("tags", [])):
        errors.append('"tags" must be strings')
    for result in (result for model in data.get("model-index", []) for result in model["results"]):
        if not MODEL_ID.fullmatch(result["dataset"]["type"]):
            errors.append(f'"dataset.type" with value "{result["dataset"]["type"]}" fails to match the pattern')
        if not all({"type", "value"} <= metric.keys() for metric in result["metrics"]):
            errors.append("a metric has no type or no value")
    return errors


def _entry(path: str, content: bytes) -> dict[str, Any]:
    entry = {"type": "file", "path": path, "size": len(content), "oid": _git_oid(content)}
    if path.endswith(LARGE):
        entry["lfs"] = {"oid": _sha256(content), "size": len(content), "pointerSize": 130}
    return entry


def _mode(path: str) -> str:
    return "lfs" if path.endswith(LARGE) else "regular"


def _git_oid(content: bytes) -> str:
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
