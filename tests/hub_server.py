"""A model hub on this machine: as much of the hub's API as its own client needs to write and read a repository."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import huggingface_hub.constants
import pytest

WRITER, READER, UNKNOWN = "hf_writer", "hf_reader", "hf_unknown"


def git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass
class Repository:
    """Commits by their hash, and branches by their name."""

    private: bool
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def commit(self, branch: str, files: dict[str, bytes], message: str) -> str:
        oid = hashlib.sha1(f"{len(self.commits)} {message}".encode()).hexdigest()
        self.commits[oid], self.branches[branch] = files, oid
        self.messages.append(message)
        return oid

    def find(self, revision: str) -> str | None:
        return self.branches.get(revision) or (revision if revision in self.commits else None)

    def files(self, revision: str = "main") -> dict[str, bytes]:
        return self.commits[self.find(revision) or ""]


@dataclass
class ScriptedHub:
    """What the server holds and was asked, and how it is made to misbehave.

    Attributes:
        repositories: By `owner/name`; `me` may be written to by the token `WRITER`.
        asked: Every request, as `METHOD path`.
        large: Names that are stored as large files.
        ignored: Names that a repository's .gitignore has.
        bad_card: What the hub finds wrong with every model card.
        meanwhile: Called before a commit is made.
    """

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    large: tuple[str, ...] = ("adapter_model.safetensors",)
    ignored: tuple[str, ...] = ()
    bad_card: str = ""
    meanwhile: Any = None

    def make(self, name: str, files: dict[str, bytes], private: bool = False) -> Repository:
        repository = Repository(private)
        repository.commit("main", {".gitattributes": b"", **files}, "initial commit")
        self.repositories[name] = repository
        return repository

    def environment(self, home: Path, token: str | None = WRITER) -> dict[str, str]:
        """For a process of its own that should talk to this hub."""
        told = {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}
        return {**told, "HF_TOKEN": token or ""}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: ScriptedHub

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def answer(self, content: Any, status: int = 200, **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, status: int, code: str = "", message: str = "") -> None:
        self.answer({"error": message}, status, X_Error_Code=code, X_Error_Message=message)

    def handle_any(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = urlsplit(self.path).path
        self.hub.asked.append(f"{self.command} {path}")
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        writes = self.command in ("POST", "PUT") and "paths-info" not in path and "/lfs-store/" not in path
        if token == UNKNOWN:
            self.refuse(401, message="Invalid credentials in Authorization header")
        elif writes and token != WRITER:
            self.refuse(403 if token else 401, message="You don't have the required permissions")
        else:
            self.route([unquote(part) for part in path.strip("/").split("/")])

    do_GET = do_POST = do_PUT = do_HEAD = handle_any

    def route(self, parts: list[str]) -> None:
        match parts:
            case ["api", "repos", "create"]:
                self.create(json.loads(self.body))
            case ["api", "validate-yaml"]:
                errors = [{"message": self.hub.bad_card}] if self.hub.bad_card else []
                self.answer({"errors": errors, "warnings": []}, 400 if errors else 200)
            case ["api", "models", owner, name, *rest]:
                self.repository(f"{owner}/{name}", rest)
            case [owner, name, "info", "lfs", "objects", "batch"]:
                self.batch(json.loads(self.body))
            case ["lfs-store", oid]:
                self.hub.blobs[oid] = self.body
                self.answer(b"")
            case [owner, name, "resolve", revision, *path]:
                self.resolve(f"{owner}/{name}", revision, "/".join(path))
            case _:
                self.refuse(404)

    def create(self, asked: dict[str, Any]) -> None:
        name = f"{asked['organization']}/{asked['name']}"
        if asked["organization"] != "me":
            self.refuse(403, message=f"You don't have the rights to create a model under {asked['organization']}")
        elif name in self.hub.repositories:
            self.answer({"url": f"{self.hub.url}/{name}"}, 409)
        else:
            self.hub.make(name, {}, asked.get("visibility") == "private" or asked.get("private") is True)
            self.answer({"url": f"{self.hub.url}/{name}"})

    def repository(self, name: str, rest: list[str]) -> None:
        repository = self.hub.repositories.get(name)
        signed = "Authorization" in self.headers
        if repository is None or (repository.private and not signed):
            self.refuse(404 if signed else 401, "RepoNotFound", "Repository not found")
            return
        verb, revision = (rest[0], rest[1]) if rest else ("revision", "main")
        if verb == "branch":
            repository.branches.setdefault(revision, repository.branches["main"])
            self.answer({})
            return
        oid = repository.find(revision)
        if oid is None:
            self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return
        getattr(self, f"at_{verb.replace('-', '_')}")(name, repository, revision, oid)

    def at_revision(self, name: str, repository: Repository, revision: str, oid: str) -> None:
        siblings = [{"rfilename": path} for path in repository.commits[oid]]
        self.answer({"_id": name, "id": name, "sha": oid, "private": repository.private, "siblings": siblings})

    def at_tree(self, name: str, repository: Repository, revision: str, oid: str) -> None:
        self.answer([self.described(path, content) for path, content in repository.commits[oid].items()])

    def at_paths_info(self, name: str, repository: Repository, revision: str, oid: str) -> None:
        files = repository.commits[oid]
        asked = parse_qs(self.body.decode())["paths"]
        self.answer([self.described(path, files[path]) for path in asked if path in files])

    def described(self, path: str, content: bytes) -> dict[str, Any]:
        told: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": git_hash(content)}
        if path in self.hub.large:
            sha256 = hashlib.sha256(content).hexdigest()
            told |= {"oid": git_hash(b"pointer"), "lfs": {"oid": sha256, "size": len(content), "pointerSize": 134}}
        return told

    def at_preupload(self, name: str, repository: Repository, revision: str, oid: str) -> None:
        told = []
        for file in json.loads(self.body)["files"]:
            mode = "lfs" if file["path"] in self.hub.large else "regular"
            old = repository.commits[oid].get(file["path"])
            ignored = file["path"] in self.hub.ignored
            known = {"oid": git_hash(old)} if old is not None and mode == "regular" else {}
            told.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": ignored, **known})
        self.answer({"files": told})

    def batch(self, asked: dict[str, Any]) -> None:
        objects = []
        for item in asked["objects"]:
            upload = {"upload": {"href": f"{self.hub.url}/lfs-store/{item['oid']}"}}
            objects.append({**item, **({} if item["oid"] in self.hub.blobs else {"actions": upload})})
        self.answer({"objects": objects, "transfer": "basic"})

    def at_commit(self, name: str, repository: Repository, revision: str, oid: str) -> None:
        if self.hub.meanwhile is not None:
            self.hub.meanwhile(repository)
        files = dict(repository.commits[repository.branches[revision]])
        message, parent = "", None
        for line in self.body.decode().splitlines():
            told = json.loads(line)
            value = told["value"]
            if told["key"] == "header":
                message, parent = value["summary"], value.get("parentCommit")
            elif told["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif told["key"] == "lfsFile":
                files[value["path"]] = self.hub.blobs[value["oid"]]
            elif told["key"] == "deletedFile":
                files.pop(value["path"])
        if parent is not None and parent != repository.branches[revision]:
            self.refuse(412, message="A commit has happened since. Please refresh and try again.")
            return
        new = repository.commit(revision, files, message)
        self.answer({"success": True, "commitOid": new, "commitUrl": f"{self.hub.url}/{name}/commit/{new}"})

    def resolve(self, name: str, revision: str, path: str) -> None:
        repository = self.hub.repositories.get(name)
        oid = repository.find(revision) if repository is not None else None
        if repository is None or oid is None or path not in repository.commits[oid]:
            self.refuse(404, "EntryNotFound" if oid else "RepoNotFound")
            return
        content = repository.commits[oid][path]
        etag = hashlib.sha256(content).hexdigest() if path in self.hub.large else git_hash(content)
        self.answer(content, ETag=f'"{etag}"', X_Repo_Commit=oid)


@contextmanager
def serving() -> Iterator[ScriptedHub]:
    """The hub, on a port of its own."""
    hub = ScriptedHub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def use(hub: ScriptedHub, patch: pytest.MonkeyPatch, home: Path, token: str | None = WRITER) -> None:
    """Let the hub's client in this process talk to this hub, with a cache of its own and this token."""
    constants = huggingface_hub.constants
    patch.setattr(constants, "ENDPOINT", hub.url)
    patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
    patch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    patch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
    patch.setattr(constants, "HF_STORED_TOKENS_PATH", str(home / "stored_tokens"))
    patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    patch.setattr(constants, "HF_HUB_OFFLINE", False)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_OIDC_RESOURCE"):
        patch.delenv(name, raising=False)
    if token is not None:
        patch.setenv("HF_TOKEN", token)


def folder_bytes(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, by its name."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
