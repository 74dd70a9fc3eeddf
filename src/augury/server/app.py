"""The HTTP interface: routes, errors as replies, and answers that are streamed as they come."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.sse import format_sse_event
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from augury._version import __version__
from augury.activations import diff
from augury.errors import AuguryError, InputError
from augury.server.auth import Callers
from augury.server.events import STREAMED, describe
from augury.server.guard import Guard
from augury.server.page import FOLDER, add_page
from augury.server.refused import foreseen
from augury.server.replies import headers_of, status_of
from augury.server.schemas import (
    AnswersOut,
    AskIn,
    CapturedOut,
    CaptureIn,
    DiffIn,
    ErrorOut,
    GeneratedOut,
    GenerateIn,
    HealthOut,
    InfoOut,
    ScanIn,
    ScansOut,
    ScoreIn,
    ScoresOut,
    TokenizeIn,
    TokensOut,
)
from augury.server.service import Service
from augury.server.uploads import read_upload
from augury.server.work import Step, Tokenize

GRACE = 8.5  # seconds in which what was accepted is finished, or told; with the time to read that it makes ten
READ = 2.0  # seconds in which the end of a stream must have been read
UPLOADED = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}
REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorOut} for status in (400, 401, 403, 404, 409, 413, 422, 429, 500, 503, 504, 507)
}


def routes(lifespan: Any = None) -> FastAPI:
    """Everything that may be asked, with nothing behind it yet: what the OpenAPI page describes."""
    app = FastAPI(
        title="augury", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None,
        openapi_url="/v1/openapi.json", responses=REFUSALS,
    )  # fmt: skip
    _add_errors(app)
    _add_routes(app)
    describe(app)
    return app


def make_app(service: Service, callers: Callers, hosts: tuple[str, ...] | None = None, page: Path = FOLDER) -> FastAPI:
    """The service as an ASGI application; its engine runs while the application does.

    Args:
        service: What is served.
        callers: Who may call.
        hosts: Names under which it may be called; None: any.
        page: Where the page for people lies; it may be missing.
    """

    @asynccontextmanager
    async def living(app: FastAPI) -> AsyncIterator[None]:
        service.engine.start()
        try:
            yield
        finally:
            service.stop(GRACE)

    app = routes(living)
    app.state.service = service
    add_page(app, page)
    guarding = {"callers": callers, "limits": service.limits, "let_in": service.let_in, "hosts": hosts}
    app.add_middleware(Guard, **guarding)  # type: ignore[arg-type]
    return app


def _service(request: Request) -> Service:
    return request.app.state.service


def _caller(request: Request) -> str:
    return request.state.caller


Serving = Annotated[Service, Depends(_service)]
Caller = Annotated[str, Depends(_caller)]


def _add_routes(app: FastAPI) -> None:
    _add_state(app)
    _add_contexts(app)
    _add_questions(app)


def _add_state(app: FastAPI) -> None:
    @app.get("/health")
    async def health(service: Serving) -> HealthOut:
        """Whether the service works; asked without a token."""
        status = "stopping" if service.stopping else "ok"
        return HealthOut(status=status, waiting=len(service.engine.queue), kept=len(service.store))

    @app.get("/v1/info")
    async def info(service: Serving) -> InfoOut:
        """What is served, and what one request may ask for."""
        return service.info(__version__)


def _add_contexts(app: FastAPI) -> None:
    @app.post("/v1/tokenize")
    async def tokenize(given: TokenizeIn, service: Serving, caller: Caller, request: Request) -> TokensOut:
        """A context as the target reads it."""
        step = Tokenize(service.context(given.context))
        (found,) = await service.all_parts(caller, step, request.is_disconnected, "tokens")
        return found

    @app.post("/v1/generate", responses=STREAMED)
    async def generate(given: GenerateIn, service: Serving, caller: Caller, request: Request) -> GeneratedOut:
        """Let a target go on from a context; with `stream` what it has written so far comes on the way."""
        step = service.generated(given)
        if given.stream:
            return await _streamed(service, caller, step, request)  # type: ignore[return-value]
        (found,) = await service.all_parts(caller, step, request.is_disconnected, "generated")
        return found

    @app.post("/v1/capture")
    async def capture(given: CaptureIn, service: Serving, caller: Caller, request: Request) -> CapturedOut:
        """Capture a context; its activations stay here, under a handle that is its caller's alone."""
        step = service.captured(given)
        (found,) = await service.all_parts(caller, step, request.is_disconnected, "captured")
        return service.keep(caller, found.acts, found.tokens, step.target)

    @app.post("/v1/activations", openapi_extra=UPLOADED)
    async def upload(service: Serving, caller: Caller, request: Request) -> CapturedOut:
        """Keep activations that were captured elsewhere: the body is a safetensors file of `Activations.save`."""
        tuples = [oracle.contract.layers for oracle in service.oracles.values()]
        known = None if None in tuples else [group for layers in tuples for group in layers or ()]
        body = await request.body()
        most = service.limits.context_tokens
        found = await run_in_threadpool(read_upload, body, service.base.d_model, known, most)
        return await service.keep_shown(caller, found, request.is_disconnected)

    @app.post("/v1/diff")
    async def difference(given: DiffIn, service: Serving, caller: Caller, request: Request) -> CapturedOut:
        """Subtract what is kept under two handles; the difference is kept under a third."""
        finetuned, base = (service.store.get(caller, handle) for handle in (given.finetuned, given.base))
        found = await run_in_threadpool(diff, finetuned, base)
        return await service.keep_shown(caller, found, request.is_disconnected)

    @app.delete("/v1/activations/{handle}", status_code=204)
    async def forget(handle: str, service: Serving, caller: Caller) -> None:
        """Forget what is kept under a handle."""
        service.store.drop(caller, handle)


def _add_questions(app: FastAPI) -> None:
    @app.post("/v1/ask", responses=STREAMED)
    async def ask(given: AskIn, service: Serving, caller: Caller, request: Request) -> AnswersOut:
        """Ask questions; with `stream` texts come as they are written, and answers again as controls come."""
        step = service.asked(caller, given)
        return await _results(service, caller, step, request, "answer", given.stream)  # type: ignore[return-value]

    @app.post("/v1/score", responses=STREAMED)
    async def score(given: ScoreIn, service: Serving, caller: Caller, request: Request) -> ScoresOut:
        """Score questions with given choices; with `stream` as in `/v1/ask`."""
        step = service.scored(caller, given)
        return await _results(service, caller, step, request, "score", given.stream)  # type: ignore[return-value]

    @app.post("/v1/scan", responses=STREAMED)
    async def scan(given: ScanIn, service: Serving, caller: Caller, request: Request) -> ScansOut:
        """Score yes/no questions at every position; with `stream` progress comes on the way."""
        step = service.scanned(caller, given)
        return await _results(service, caller, step, request, "scan", given.stream)  # type: ignore[return-value]


async def _results(
    service: Service, caller: str, step: Step, request: Request, name: str, stream: bool
) -> Response | dict[str, Any]:
    """All results of a name, or a stream of them as they come."""
    if stream:
        return await _streamed(service, caller, step, request)
    found = await service.all_parts(caller, step, request.is_disconnected, name)
    return {f"{name}s": [result.to_dict() for result in found]}


class _Stream(StreamingResponse):
    """Server-sent events; who does not read them holds the place of a request no longer than the request may take."""

    def __init__(self, events: AsyncIterator[bytes], seconds: float) -> None:
        super().__init__(events, media_type="text/event-stream", headers={"x-accel-buffering": "no"})
        self.seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self.seconds):
                await super().__call__(scope, receive, send)


async def _streamed(service: Service, caller: str, step: Step, request: Request) -> Response:
    """Parts as server-sent events; what fails before the first is refused as any other request is."""
    parts = service.parts(caller, step, request.is_disconnected)
    first = await anext(parts, None)

    async def events() -> AsyncIterator[bytes]:
        try:
            if first is not None:
                yield _event(*first)
            async for what, value in parts:
                yield _event(what, value)
            yield format_sse_event(event="done", data_str="{}")
        except Exception as error:  # the status has been sent; what remains is to tell it
            yield format_sse_event(event="error", data_str=json.dumps(foreseen(error).as_dict()))
        finally:
            await parts.aclose()

    return _Stream(events(), service.limits.seconds + READ)


def _event(what: str, value: Any) -> bytes:
    """A part as one of `EVENTS`; results come with their number."""
    if isinstance(value, BaseModel):
        return format_sse_event(event=what, data_str=value.model_dump_json())
    number, result = value
    return format_sse_event(event=what, data_str=json.dumps({"number": number, what: result.to_dict()}))


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        places = [f"{'.'.join(map(str, row['loc']))[:100]}: {row['msg'][:200]}" for row in error.errors()[:5]]
        told = InputError("The request cannot be read.", "; ".join(places), "see /v1/openapi.json for its form")
        return JSONResponse(told.as_dict(), 422)

    @app.exception_handler(HTTPException)
    async def other(request: Request, error: HTTPException) -> JSONResponse:
        told = AuguryError("There is nothing here.", str(error.detail)[:200], "see /v1/openapi.json for what there is")
        return JSONResponse(told.as_dict(), error.status_code, headers=error.headers)

    @app.exception_handler(AuguryError)
    async def failed(request: Request, error: AuguryError) -> JSONResponse:
        return JSONResponse(error.as_dict(), status_of(error), headers=headers_of(error))
