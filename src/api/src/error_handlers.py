"""Turns errors into answers: kind to status, one body, `Retry-After` where waiting helps."""

from typing import TYPE_CHECKING, Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from src.api.src.head_requests import ASKED_AS_HEAD
from src.api.src.request_context import CLIENT_LEFT, current_request_id
from src.common.exceptions import DatabaseBusy, ErrorKind, ExceptionWithErrorType, Unavailable
from src.common.postgres.errors import is_ledger_unbalanced
from src.defects import DefectMiddleware
from src.http_statuses import STATUS_BY_KIND

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.types import ASGIApp, Scope

    from src.common.settings import Settings

logger = structlog.get_logger(__name__)

_ERRORS_TOLD_MAX = 10
_FIELD_LENGTH_MAX = 100
"""Of each part of where an error is: an unknown field's name is whatever somebody sent."""
_MESSAGE_LENGTH_MAX = 250
_ERROR_TYPE_BY_STATUS = {
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    408: "REQUEST_TIMEOUT",
    413: "PAYLOAD_TOO_LARGE",
}


def install_error_handlers(app: FastAPI) -> None:
    """Give every error of `app` the one body, the framework's own included."""
    app.add_exception_handler(ExceptionWithErrorType, _domain_error)
    app.add_exception_handler(PoolTimeoutError, _pool_exhausted)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(ClientDisconnect, _client_left)
    app.add_middleware(DefectMiddleware, answer=_answer_of_defect)


def _answer_of_defect(_scope: "Scope", error: Exception) -> "ASGIApp":
    unbalanced = isinstance(error, DBAPIError) and is_ledger_unbalanced(error)
    error_type = "LEDGER_UNBALANCED" if unbalanced else "INTERNAL_ERROR"
    return error_answer(500, error_type, "Something went wrong on our side")


def error_answer(
    status: int,
    error_type: str,
    message: str,
    headers: dict[str, str] | None = None,
    /,
    **details: Any,
) -> JSONResponse:
    """The one body every error wears."""
    detail = {
        "error_type": error_type,
        "message": message,
        "request_id": current_request_id(),
        **details,
    }
    return JSONResponse({"detail": detail}, status_code=status, headers=headers)


async def _domain_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ExceptionWithErrorType)  # noqa: S101  registered for it
    status = STATUS_BY_KIND[error.kind]
    headers: dict[str, str] = {}
    if error.retry_after_seconds is not None:
        headers["Retry-After"] = str(error.retry_after_seconds)
    if isinstance(error, Unavailable):
        logger.warning("Unavailable", error_type=error.error_type, reason=error.message)
    if status == STATUS_BY_KIND[error.kind.UNAUTHENTICATED]:
        headers["WWW-Authenticate"] = "Bearer"
    details = error.details
    if error.kind is ErrorKind.PAYMENT_REQUIRED and (url := _checkout_url(request)):
        details = {**details, "checkout_url": url}
    return error_answer(status, error.error_type, error.message, headers, **details)


def _checkout_url(request: Request) -> str | None:
    """Where credits are to be had, if the application's settings say."""
    settings: Settings | None = getattr(request.app.state, "settings", None)
    return settings.checkout_url if settings else None


async def _pool_exhausted(request: Request, _error: Exception) -> JSONResponse:
    return await _domain_error(request, DatabaseBusy("All database connections are in use"))


async def _validation_error(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101  registered for it
    found = error.errors()
    problems = [_problem(each) for each in found[:_ERRORS_TOLD_MAX]]
    summary = "; ".join(f"{problem['field']}: {problem['message']}" for problem in problems)
    omitted = len(found) - len(problems)
    return error_answer(
        422,
        "VALIDATION_ERROR",
        summary or "Invalid request",
        errors=problems,
        **({"errors_omitted": omitted} if omitted else {}),
    )


def _problem(found: "Mapping[str, Any]") -> dict[str, str]:
    """Only where and what, never the input: it may be a secret or personal data, and long."""
    message: str = found["msg"]
    if found["type"] == "union_tag_invalid":  # pydantic's sentence quotes the tag
        message = f"{found['ctx']['discriminator']} must be one of {found['ctx']['expected_tags']}"
    field = ".".join(str(part)[:_FIELD_LENGTH_MAX] for part in found["loc"])
    return {"field": field, "message": message[:_MESSAGE_LENGTH_MAX]}


async def _client_left(_request: Request, _error: Exception) -> Response:
    logger.info("Client left before its request was complete")
    return Response(status_code=CLIENT_LEFT)


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101  registered for it
    error_type = _ERROR_TYPE_BY_STATUS.get(error.status_code, "BAD_REQUEST")
    headers = dict(error.headers or {})
    allowed = headers.get("Allow", "").split(", ")
    if "GET" in allowed and not request.scope.get(ASKED_AS_HEAD):  # which the endpoint refused
        headers["Allow"] = ", ".join({"HEAD": None, **dict.fromkeys(allowed)})
    return error_answer(error.status_code, error_type, str(error.detail), headers)
