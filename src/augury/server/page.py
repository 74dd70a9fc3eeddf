"""The page for people: files that were built beforehand, read once at the start; a request opens none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI, Response

from augury.errors import NotFoundError

FOLDER = Path(__file__).with_name("static")
INDEX, ASSETS = "/", "/assets/"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
TYPES = {
    ".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml", ".png": "image/png", ".ico": "image/x-icon", ".woff2": "font/woff2",
    ".json": "application/json", ".map": "application/json", ".txt": "text/plain; charset=utf-8",
}  # fmt: skip


@dataclass(frozen=True)
class File:
    """A file of the page.

    Attributes:
        body: What it holds.
        kind: Its content type.
        kept: What caches may do with it.
    """

    body: bytes
    kind: str
    kept: str

    @property
    def reply(self) -> Response:
        headers = {"cache-control": self.kept, "content-security-policy": POLICY}
        return Response(self.body, media_type=self.kind, headers=headers)


def is_page(path: str) -> bool:
    """Whether a path is the page's, which whoever may reach the service may read."""
    return path == INDEX or path.startswith(ASSETS)


def read_page(folder: Path) -> Mapping[str, File]:
    """The page's files by their path: `index.html`, and what lies in `assets` itself."""
    found = {INDEX: (folder / "index.html", "no-cache")} if (folder / "index.html").is_file() else {}
    assets = folder / "assets"
    for path in assets.iterdir() if assets.is_dir() else ():
        if path.is_file() and not path.is_symlink():
            found[ASSETS + path.name] = path, "public, max-age=31536000, immutable"
    kinds = {place: TYPES.get(path.suffix, "application/octet-stream") for place, (path, _) in found.items()}
    return {place: File(path.read_bytes(), kinds[place], kept) for place, (path, kept) in found.items()}


def add_page(app: FastAPI, folder: Path) -> None:
    """Let the application serve the page in a folder."""
    files = read_page(folder)

    def reply(path: str) -> Response:
        if path not in files:
            why, instead = "no file of the page is called so", "open /"
            if INDEX not in files:
                why, instead = "it was not built into this installation", "build it in web/, or ask over /v1"
            raise NotFoundError("The page is not here.", why, instead)
        return files[path].reply

    @app.get(INDEX, include_in_schema=False)
    async def index() -> Response:
        return reply(INDEX)

    @app.get(ASSETS + "{name}", include_in_schema=False)
    async def asset(name: str) -> Response:
        return reply(ASSETS + name)
