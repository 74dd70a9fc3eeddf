"""Refusals as replies: each kind's status, and what its headers say."""

from __future__ import annotations

import math

from augury.errors import AccessError, AuguryError, ContractError, FormatError, InputError, NotFoundError
from augury.server.refused import BusyError, FullError, LateError, StoppedError

STATUS: tuple[tuple[type[AuguryError], int], ...] = (
    (BusyError, 429), (LateError, 504), (StoppedError, 503), (AccessError, 401), (NotFoundError, 404),
    (ContractError, 409), (FormatError, 400), (InputError, 400), (FullError, 507),
)  # fmt: skip


def status_of(error: AuguryError) -> int:
    """The status of a refusal."""
    return next((status for kind, status in STATUS if isinstance(error, kind)), 500)


def headers_of(error: AuguryError) -> dict[str, str]:
    """What a refusal's headers say beside its status."""
    if isinstance(error, BusyError):
        return {"retry-after": str(max(1, math.ceil(error.after)))}
    return {"www-authenticate": "Bearer"} if isinstance(error, AccessError) else {}
