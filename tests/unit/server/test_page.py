"""The page for people: its own files and nothing else, for whoever may reach the service."""

from __future__ import annotations

import socket

import httpx2
import pytest

from augury.server.app import make_app
from augury.server.auth import Callers, read_tokens
from augury.server.guard import HEADERS
from augury.server.limits import Limits
from augury.server.service import Service
from tests.unit.server.test_app import serving

REFUSAL = {"code", "what", "why", "instead"}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
FILES = {
    "app-1a2b.js": ("text/javascript; charset=utf-8", b"export {}"),
    "app-1a2b.css": ("text/css; charset=utf-8", b"a{}"),
    "icon.svg": ("image/svg+xml", b"<svg/>"), "a.woff2": ("font/woff2", b"\x00\xff"),
    "other.bin": ("application/octet-stream", b"\x00"),
}  # fmt: skip
SECRET = b"what no request may read"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("built") / "static"
    (folder / "assets" / "deep").mkdir(parents=True)
    (folder / "index.html").write_bytes(b"<!doctype html>")
    for name, (_, body) in FILES.items():
        (folder / "assets" / name).write_bytes(body)
    for place in (folder.parent / "secret.js", folder / "beside.js", folder / "assets" / "deep" / "x.js"):
        place.write_bytes(SECRET)
    (folder / "assets" / "link.js").symlink_to(folder.parent / "secret.js")
    return folder


@pytest.fixture(scope="module")
def client(oracle, folder, tmp_path_factory):
    tokens = tmp_path_factory.mktemp("tokens") / "tokens"
    tokens.write_text("ana: the-token-of-ana-1\n")
    tokens.chmod(0o600)
    service = Service({"base": oracle.base}, {"o": oracle}, Limits(per_minute=1, burst=1))
    with serving(service, read_tokens(tokens), page=folder) as url, httpx2.Client(base_url=url) as found:
        yield found


def told(found) -> tuple[str, ...]:
    names = ("content-type", "cache-control", "content-security-policy", "x-content-type-options")
    return tuple(found.headers[name] for name in names)


def test_the_page_is_read_without_a_token_and_as_often_as_one_likes(client):
    for _ in range(5):
        found = client.get("/")
        assert (found.status_code, found.content) == (200, b"<!doctype html>")
        assert told(found) == ("text/html; charset=utf-8", "no-cache", POLICY, "nosniff")
    for name, (kind, body) in FILES.items():
        found = client.get(f"/assets/{name}")
        assert (found.status_code, found.content) == (200, body)
        assert told(found) == (kind, "public, max-age=31536000, immutable", POLICY, "nosniff")
    assert client.get("/v1/info").status_code == 401


def test_the_interface_keeps_its_own_headers(client):
    found = client.get("/v1/info", headers={"authorization": "Bearer the-token-of-ana-1"})
    assert found.status_code == 200
    for name, value in HEADERS:
        assert found.headers.get_list(name.decode()) == [value.decode()]
    page = client.get("/")
    for name, value in HEADERS:
        if name not in (b"cache-control", b"content-security-policy"):
            assert page.headers.get_list(name.decode()) == [value.decode()]


@pytest.mark.parametrize("name", [
    "none.js", "link.js", "deep", "deep/x.js", "deep%2Fx.js", "..%2Fbeside.js", "%2e%2e/beside.js", "../beside.js",
    "..%2f..%2fsecret.js", "%2fetc%2fpasswd", "app-1a2b.js%00", "APP-1A2B.JS", "..\\beside.js", "", ".", "..",
    "%c0%ae%c0%ae/secret.js", "app-1a2b.js/",
])  # fmt: skip
def test_nothing_else_is_ever_read(client, name):
    with socket.create_connection(("127.0.0.1", client.base_url.port), timeout=10) as raw:  # clients mend paths
        raw.sendall(f"GET /assets/{name} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode())
        reply = b"".join(iter(lambda: raw.recv(65536), b""))
    assert reply.split(b" ")[1] in (b"404", b"307", b"401") and SECRET not in reply


def test_the_page_is_under_the_check_of_names(client):
    for path in ("/", "/assets/icon.svg"):
        assert client.get(path, headers={"host": "evil.example"}).status_code == 403
        assert client.get(path, headers={"origin": "https://evil.example"}).status_code == 403


def test_a_service_without_the_page_says_so(oracle, tmp_path):
    with serving(Service({"base": oracle.base}, {}), page=tmp_path) as url:
        found = httpx2.get(url)
        assert found.status_code == 404 and set(found.json()) == REFUSAL and "not built" in found.json()["why"]
        assert found.headers["content-security-policy"] == dict(HEADERS)[b"content-security-policy"].decode()


def test_the_page_is_no_part_of_the_interface(oracle, folder):
    app = make_app(Service({"base": oracle.base}, {}), Callers(), page=folder)
    assert not [path for path in app.openapi()["paths"] if not path.startswith(("/v1/", "/health"))]
