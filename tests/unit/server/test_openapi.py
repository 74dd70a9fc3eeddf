"""The page's types are those of the service: `make page` makes them from what stands here."""

from __future__ import annotations

import json

from augury.server.app import routes
from augury.server.events import EVENTS


def test_the_pages_types_are_made_from_these_schemas(root):
    written = json.loads((root / "web" / "openapi.json").read_text(encoding="utf-8"))
    assert json.loads(json.dumps(routes().openapi())) == written, "the schemas have changed: make page"


def test_every_event_and_every_reply_is_in_the_types(root):
    types = (root / "web" / "src" / "api.ts").read_text(encoding="utf-8")
    known = routes().openapi()["components"]["schemas"]
    assert {model.__name__ for model in EVENTS.values()} <= set(known)
    assert [name for name in known if f"        {name}: " not in types] == []
