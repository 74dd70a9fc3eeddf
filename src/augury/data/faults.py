"""What went wrong with an endpoint, as refusals that say what to do and what is kept."""

from __future__ import annotations

from typing import Any

from augury.data.requests import EndpointSettings
from augury.errors import AuguryError, InputError, NetworkError, NotFoundError


def refusal(error: Any, why: str, settings: EndpointSettings, key_set: bool, kept: str) -> AuguryError:
    """The refusal that an error of the `openai` library becomes.

    Args:
        error: What the library raised after its retries.
        why: What it says, without the key.
        settings: Of the endpoint.
        key_set: Whether a key was sent.
        kept: What a further run need not ask again.
    """
    import openai

    tries = f"after {settings.retries} retries: {why}"
    kind: type[AuguryError] = NetworkError
    if isinstance(error, openai.APITimeoutError):
        what, why, instead = "does not answer in time", f"{settings.timeout_s:g} s a try, {tries}", "raise timeout_s"
    elif isinstance(error, openai.APIConnectionError):
        what, why, instead = "cannot be reached", tries, "start it, or mend its url"
    elif isinstance(error, (openai.AuthenticationError, openai.PermissionDeniedError)):
        what, why, instead = "refuses the key", f"{_state(settings, key_set)}; it says: {why}", "set a valid key there"
    elif isinstance(error, openai.NotFoundError):
        kind, what = NotFoundError, f"has no {settings.model}"
        instead = "name a model that it serves, and a url that ends as its documentation says, often in /v1"
    elif isinstance(error, (openai.BadRequestError, openai.UnprocessableEntityError)):
        kind, what, instead = InputError, "does not take the request", "mend what it names"
    else:
        what, why, instead = "gives no reply", tries, "wait, or lower concurrency"
    return kind(f"The endpoint {settings.url} {what}.", why, f"{instead}; then run it again: {kept}")


def no_reply(why: str, settings: EndpointSettings, kept: str) -> NetworkError:
    """The refusal where what comes back is no chat completion."""
    what = f"The endpoint {settings.url} gives replies that are none."
    return NetworkError(what, f"after {settings.retries} retries: {why}", f"check what serves there; {kept}")


def _state(settings: EndpointSettings, key_set: bool) -> str:
    if not settings.key_env:
        return "key_env names no variable"
    return f"the variable {settings.key_env} is {'set' if key_set else 'not set'}"
