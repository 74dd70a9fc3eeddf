"""Who is calling: bearer tokens from a file, compared in constant time; without any, only this machine's callers."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path

from augury.errors import AccessError, FormatError, NotFoundError
from augury.server.refused import unknown_caller

LEAST_TOKEN = 16  # characters
LOCAL = "local"  # who calls where no tokens are asked for
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_BEARER = "bearer "


@dataclass(frozen=True)
class Callers:
    """The callers that are known, by name, with the SHA-256 of each one's token; none: tokens are not asked for."""

    digests: tuple[tuple[str, bytes], ...] = ()

    def who(self, authorization: str | None) -> str:
        """The name of who sent this header.

        Every token is compared whole, whichever is right, and a refusal says nothing of what was wrong.

        Raises:
            AccessError: No known token was sent.
        """
        if not self.digests:
            return LOCAL
        sent = authorization or ""
        token = sent[len(_BEARER) :] if sent[: len(_BEARER)].lower() == _BEARER else ""
        digest = _digest(token.strip())
        found = [name for name, known in self.digests if hmac.compare_digest(known, digest)]
        if not found:
            raise unknown_caller()
        return found[0]


def read_tokens(path: Path) -> Callers:
    """Tokens of a file: one a line as `name: token`; empty lines and those that begin with # are passed over.

    Raises:
        NotFoundError: There is no such file.
        AccessError: Others than its owner may read it.
        FormatError: A line is no token, or there are none.
    """
    if not path.is_file():
        raise NotFoundError(f"There is no file of tokens at {path}.", "nothing lies there", "check --token-file")
    if path.stat().st_mode & 0o077:
        why = f"its mode is {path.stat().st_mode & 0o777:o}, so others on this machine may read it"
        raise AccessError(f"The tokens in {path} are no secret.", why, f"chmod 600 {path}")
    found: dict[str, bytes] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        text = line.strip()
        if text and not text.startswith("#"):
            name, token = _token(path, number, text)
            if name in found or _digest(token) in found.values():
                raise _broken(path, number, "its name or its token stands above already")
            found[name] = _digest(token)
    if not found:
        raise FormatError(f"{path} holds no tokens.", "it has no line `name: token`", f"write one: {_EXAMPLE}")
    return Callers(tuple(found.items()))


_EXAMPLE = "python -c 'import secrets; print(\"me:\", secrets.token_urlsafe(32))' > tokens"


def _token(path: Path, number: int, text: str) -> tuple[str, str]:
    name, colon, token = (part.strip() for part in text.partition(":"))
    if not colon or _NAME.fullmatch(name) is None:
        raise _broken(path, number, "it is not `name: token`, with a name of letters, digits, dots and dashes")
    if len(token) < LEAST_TOKEN or any(character.isspace() for character in token):
        raise _broken(path, number, f"its token has fewer than {LEAST_TOKEN} characters, or a space")
    return name, token


def _broken(path: Path, number: int, why: str) -> FormatError:
    """The line's number, never its text: that may be a secret."""
    return FormatError(f"Line {number} of {path} is no token.", why, f"write one: {_EXAMPLE}")


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
