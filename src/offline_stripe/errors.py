"""Errors as Stripe answers them: `{"error": {"type", "code", "message", "param"}}`.

Source: Stripe's API reference, "Errors", "Error codes" and "Idempotent requests".
"""

from http import HTTPStatus
from typing import Any


class StripeError(Exception):
    """An answer that is an error.

    `executed` says whether the request got as far as being carried out; only then its
    idempotency key is used up, as at Stripe.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = HTTPStatus.BAD_REQUEST,
        kind: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        executed: bool = False,
        **more: Any,
    ) -> None:
        super().__init__(message)
        self.status = int(status)
        self.executed = executed
        fields = {"code": code, "message": message, "param": param, "type": kind, **more}
        self.body: dict[str, Any] = {
            "error": {name: value for name, value in fields.items() if value is not None}
        }


def invalid(message: str, param: str | None = None, code: str | None = None) -> StripeError:
    """The request itself is wrong; nothing was tried."""
    return StripeError(message, code=code, param=param)


def refused(message: str, code: str | None = None, param: str | None = None) -> StripeError:
    """The request is right, but not as things stand."""
    return StripeError(message, code=code, param=param, executed=True)


def missing_object(kind: str, object_id: str, param: str | None = None) -> StripeError:
    """No such object: 404 where the address names it, 400 where a parameter does."""
    return StripeError(
        f"No such {kind}: '{object_id}'",
        status=HTTPStatus.NOT_FOUND if param is None else HTTPStatus.BAD_REQUEST,
        code="resource_missing",
        param=param or "id",
    )


def unauthorized(message: str) -> StripeError:
    """No API key, or none of ours."""
    return StripeError(message, status=HTTPStatus.UNAUTHORIZED)
