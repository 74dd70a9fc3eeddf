"""Print the service's OpenAPI page, from which the page's types are made: `make page` writes it to web/openapi.json."""

from __future__ import annotations

import json

from augury.server.app import routes

print(json.dumps(routes().openapi(), indent=1, sort_keys=True))
