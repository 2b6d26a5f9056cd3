"""Every error of the API: its status, what it means, and the one body all errors have.

DESIGN §6 has the list; a test compares it with what the endpoints answer and document.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict

from src.common.exceptions import ErrorKind

STATUS_BY_KIND = {
    ErrorKind.BAD_REQUEST: 400,
    ErrorKind.UNAUTHENTICATED: 401,
    ErrorKind.PAYMENT_REQUIRED: 402,
    ErrorKind.FORBIDDEN: 403,
    ErrorKind.NOT_FOUND: 404,
    ErrorKind.CONFLICT: 409,
    ErrorKind.INVALID: 422,
    ErrorKind.BAD_GATEWAY: 502,
    ErrorKind.UNAVAILABLE: 503,
    ErrorKind.MISCONFIGURED: 500,
}

ERRORS: dict[str, tuple[int, str]] = {
    "BAD_REQUEST": (400, "The body cannot be read"),
    "IDEMPOTENCY_KEY_REQUIRED": (400, "A request that moves credits needs a key"),
    "WEBHOOK_SIGNATURE_INVALID": (400, "The body is not signed by Stripe with one of our secrets"),
    "WEBHOOK_PAYLOAD_INVALID": (400, "The signed body is no Stripe event"),
    "AUTHENTICATION_FAILURE": (401, "No bearer token, or one of a kind we do not know"),
    "AUTH_TOKEN_EXPIRED": (401, "The token has expired"),
    "AUTH_TOKEN_INVALID": (401, "The token was not issued to us by someone we trust"),
    "INSUFFICIENT_CREDITS": (402, "`required` credits are more than the `available` ones"),
    "FORBIDDEN": (403, "The token may not do this"),
    "USER_INACTIVE": (403, "The account is deactivated"),
    "USER_NOT_FOUND": (404, "No such user"),
    "CHECKOUT_SESSION_NOT_FOUND": (404, "The user has no such Checkout Session"),
    "TRANSACTION_NOT_FOUND": (404, "No such purchase"),
    "HOLD_NOT_FOUND": (404, "The user has no such hold"),
    "NOT_FOUND": (404, "No such endpoint"),
    "METHOD_NOT_ALLOWED": (405, "The endpoint does not take this method"),
    "REQUEST_TIMEOUT": (408, "The request did not come in time; nothing was done"),
    "IDEMPOTENCY_KEY_REUSED": (409, "The key belongs to another request; nothing was done"),
    "REQUEST_IN_PROGRESS": (409, "The same request is being done; see Retry-After"),
    "ALREADY_CHARGED": (409, "The request was done and charged; its answer is not kept"),
    "HOLD_CLOSED": (409, "The hold was captured or released already"),
    "HOLD_EXPIRED": (409, "The hold has expired; its credits went back"),
    "TOO_MANY_HOLDS": (409, "The user has as many open holds as anybody may"),
    "REFUND_REFUSED": (409, "Stripe refuses this refund for good; `code` says why"),
    "EMAIL_TAKEN": (409, "Another account has this e-mail"),
    "PAYLOAD_TOO_LARGE": (413, "The body is larger than we read"),
    "VALIDATION_ERROR": (422, "A field is missing or wrong; `errors` names it"),
    "CAPTURE_EXCEEDS_HOLD": (422, "The hold has only `uncaptured` credits left"),
    "REFUND_EXCEEDS_PAYMENT": (422, "More than the `refundable_cents` left of the payment"),
    "BALANCE_LIMIT_EXCEEDED": (422, "Balance and held credits would exceed `limit`"),
    "HEADERS_TOO_LARGE": (431, "Request line and headers are larger than we read"),
    "LEDGER_UNBALANCED": (500, "A change the ledger's books do not explain; nothing was done"),
    "INTERNAL_ERROR": (500, "A defect of ours; the request id finds it in the logs"),
    "SETTINGS_INVALID": (500, "The service is configured wrongly; the message says how"),
    "STRIPE_GATEWAY_ERROR": (502, "Stripe did not answer as it should; the same key asks again"),
    "AUTH_KEYS_UNAVAILABLE": (503, "Nobody can tell now who signed the token; see Retry-After"),
    "STRIPE_NOT_CONFIGURED": (503, "No Stripe key is set"),
    "ENGINE_BUSY": (503, "Too many operations wait already; nothing was done; see Retry-After"),
    "DATABASE_BUSY": (503, "A passing condition of the database; see Retry-After"),
    "NOT_READY": (503, "The service cannot take requests yet"),
    "WEBHOOK_NOT_CONFIGURED": (503, "No webhook secret is set; nothing is accepted unsigned"),
}

_ERROR_BODY = {"$ref": "#/components/schemas/ErrorBody"}
_RETRY_AFTER = {
    "Retry-After": {
        "description": "Seconds after which the same request may succeed",
        "schema": {"type": "integer"},
    }
}
_HEADERS_BY_STATUS: dict[int, dict[str, Any]] = {
    401: {
        "WWW-Authenticate": {
            "description": "The scheme to authenticate with: `Bearer`",
            "schema": {"type": "string"},
        }
    },
    503: _RETRY_AFTER,
}


class ErrorDetail(BaseModel):
    """What went wrong."""

    model_config = ConfigDict(extra="allow")

    error_type: str
    message: str
    request_id: str | None


class ErrorBody(BaseModel):
    """The one body every error wears."""

    detail: ErrorDetail


def error_responses(*error_types: str) -> dict[int | str, dict[str, Any]]:
    """The `responses=` of an endpoint that may answer these errors."""
    by_status: dict[int | str, dict[str, Any]] = {}
    for error_type in error_types:
        status, meaning = ERRORS[error_type]
        response = by_status.setdefault(
            status,
            {
                "model": ErrorBody,
                "description": "",
                # Said here as well: beside a plain-text answer FastAPI would call it plain text.
                "content": {"application/json": {"schema": _ERROR_BODY, "examples": {}}},
                "headers": {**_HEADERS_BY_STATUS.get(status, {})},
            },
        )
        if error_type == "REQUEST_IN_PROGRESS":
            response["headers"] |= _RETRY_AFTER
        response["description"] = "; ".join(
            filter(None, [response["description"], f"`{error_type}`: {meaning}"])
        )
        response["content"]["application/json"]["examples"][error_type] = {
            "value": {"detail": {"error_type": error_type, "message": meaning, "request_id": "…"}}
        }
    return by_status


ALWAYS = ("REQUEST_TIMEOUT", "PAYLOAD_TOO_LARGE", "HEADERS_TOO_LARGE", "INTERNAL_ERROR")
"""What any endpoint at all may answer."""
DATABASE = ("SETTINGS_INVALID", "LEDGER_UNBALANCED", "DATABASE_BUSY")
"""What any endpoint that needs the database may answer besides."""
EVERYWHERE = (*ALWAYS, *DATABASE, "VALIDATION_ERROR")
"""What any endpoint that reads a request and the database may answer."""
AUTHENTICATED = (
    "AUTHENTICATION_FAILURE",
    "AUTH_TOKEN_EXPIRED",
    "AUTH_TOKEN_INVALID",
    "AUTH_KEYS_UNAVAILABLE",
    "FORBIDDEN",
    "USER_INACTIVE",
)
"""What any endpoint with a bearer token may answer besides."""
