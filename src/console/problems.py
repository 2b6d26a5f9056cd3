"""Errors become pages: the sentence, what to do, and the status of their kind."""

from typing import TYPE_CHECKING
from urllib.parse import urlencode

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse, Response
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException

from src.common.exceptions import DatabaseBusy, ErrorKind, ExceptionWithErrorType, Invalid
from src.console.people import ConfirmationNeeded, SignInNeeded, person_at
from src.console.rendering import path_of, render
from src.http_statuses import STATUS_BY_KIND

if TYPE_CHECKING:
    from collections.abc import Mapping

_HEADINGS: "Mapping[ErrorKind, str]" = {
    ErrorKind.FORBIDDEN: "You may not do this",
    ErrorKind.NOT_FOUND: "There is no such thing",
    ErrorKind.UNAVAILABLE: "Not now: try again in a moment",
    ErrorKind.UNAUTHENTICATED: "Sign in first",
    ErrorKind.BAD_GATEWAY: "Stripe did not answer: try again in a moment",
    ErrorKind.MISCONFIGURED: "The service is configured wrongly",
    ErrorKind.INCONSISTENT: "The books do not agree",
}
_SENTENCES = {
    404: "Nothing is at this address.",
    405: "This address does not take what was sent to it.",
}


def install(app: FastAPI) -> None:
    """Give every error of the console a page, the framework's own included."""
    app.add_exception_handler(SignInNeeded, _sign_in)
    app.add_exception_handler(ExceptionWithErrorType, _problem)
    app.add_exception_handler(PoolTimeoutError, _pool_exhausted)
    app.add_exception_handler(RequestValidationError, _wrong_address)
    app.add_exception_handler(HTTPException, _http_error)


async def _sign_in(request: Request, error: Exception) -> Response:
    """A page that needs a sign-in leads to it, and back; an action only says so."""
    assert isinstance(error, SignInNeeded)  # noqa: S101  registered for it
    if request.method not in ("GET", "HEAD"):
        return await _problem(request, error)
    again = isinstance(error, ConfirmationNeeded)
    route = "console_oidc_confirm" if again else "console_sign_in"
    query = urlencode({"next": next_of(request)})
    return RedirectResponse(f"{path_of(request, route)}?{query}", 303)


def next_of(request: Request) -> str:
    """Where somebody wanted to go, below the console."""
    below = str(request.scope["path"]).removeprefix(str(request.scope.get("root_path", "")))
    query = request.url.query
    return f"{below}?{query}" if query else below


async def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, ExceptionWithErrorType)  # noqa: S101  registered for it
    return render(
        request,
        person_at(request),
        "error.html",
        status=STATUS_BY_KIND[error.kind],
        heading=_HEADINGS.get(error.kind, "This cannot be done"),
        sentence=error.message,
        error_type=error.error_type,
        request_id=structlog.contextvars.get_contextvars().get("request_id"),
    )


async def _pool_exhausted(request: Request, _error: Exception) -> Response:
    return await _problem(request, DatabaseBusy("All database connections are in use"))


async def _wrong_address(request: Request, error: Exception) -> Response:
    """An address or field that is none, such as an id that is no UUID."""
    assert isinstance(error, RequestValidationError)  # noqa: S101  registered for it
    names = ", ".join(sorted({str(each["loc"][-1])[:100] for each in error.errors()}))
    return await _problem(request, Invalid(f"{names}: not understood", "VALIDATION_ERROR"))


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101  registered for it
    return render(
        request,
        person_at(request),
        "error.html",
        status=error.status_code,
        heading="There is no such page",
        sentence=_SENTENCES.get(error.status_code, str(error.detail)),
        error_type=None,
        request_id=structlog.contextvars.get_contextvars().get("request_id"),
    )
