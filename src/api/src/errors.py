"""Every error of the API: its status, what it means, and the one body all errors have.

docs/reference/errors.md is made from it. A test compares it with what the endpoints answer.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict

ERRORS: dict[str, tuple[int, str]] = {
    "BAD_REQUEST": (400, "The body cannot be read"),
    "IDEMPOTENCY_KEY_REQUIRED": (400, "A request that moves credits needs a key"),
    "WEBHOOK_SIGNATURE_INVALID": (
        400,
        "The body is not signed with one of the secrets in `STRIPE_WEBHOOK_SECRET`",
    ),
    "WEBHOOK_PAYLOAD_INVALID": (400, "The signed body is not a Stripe event"),
    "AUTHENTICATION_FAILURE": (401, "No bearer token, or one of an unknown kind"),
    "AUTH_TOKEN_EXPIRED": (401, "The token has expired"),
    "AUTH_TOKEN_INVALID": (
        401,
        "The token's signature, issuer or audience is wrong, or the API key is not valid",
    ),
    "INSUFFICIENT_CREDITS": (402, "`required` credits are more than the `available` ones"),
    "FORBIDDEN": (403, "The token may not do this"),
    "USER_INACTIVE": (403, "The account is deactivated"),
    "USER_NOT_FOUND": (404, "No such user"),
    "CHECKOUT_SESSION_NOT_FOUND": (404, "The user has no such Checkout Session"),
    "TRANSACTION_NOT_FOUND": (404, "No such purchase"),
    "HOLD_NOT_FOUND": (404, "The user has no such hold"),
    "ENTRY_NOT_FOUND": (404, "The user has no such entry"),
    "NOT_FOUND": (404, "No such endpoint"),
    "METHOD_NOT_ALLOWED": (405, "The endpoint does not take this method"),
    "REQUEST_TIMEOUT": (408, "The request did not arrive in time; nothing was done"),
    "IDEMPOTENCY_KEY_REUSED": (409, "The key was used for another request; nothing was done"),
    "REQUEST_IN_PROGRESS": (409, "The same request is still being done; see `Retry-After`"),
    "ALREADY_CHARGED": (
        409,
        "The request was done and charged before; its answer is not kept",
    ),
    "HOLD_CLOSED": (409, "The hold was captured or released already"),
    "HOLD_EXPIRED": (409, "The hold has expired; its credits are back in the balance"),
    "TOO_MANY_HOLDS": (409, "The user has the most open holds that are allowed"),
    "ENTRY_NOT_REVERSIBLE": (409, "Entries of this `kind` cannot be reversed"),
    "REFUND_REFUSED": (409, "Stripe refuses this refund for good; `code` says why"),
    "EMAIL_TAKEN": (409, "Another account has this e-mail address"),
    "PAYLOAD_TOO_LARGE": (413, "The body is larger than `API_MAX_BODY_BYTES`"),
    "VALIDATION_ERROR": (422, "A field is missing or wrong; `errors` names it"),
    "CONSENT_NEEDED": (
        422,
        "A person's token, and more than one person may give or pay back alone",
    ),
    "CAPTURE_EXCEEDS_HOLD": (422, "More than the `uncaptured` credits that are left in the hold"),
    "REVERSAL_EXCEEDS_ENTRY": (
        422,
        "More than the `reversible` credits that are left of the entry",
    ),
    "REFUND_EXCEEDS_PAYMENT": (
        422,
        "More than the `refundable_cents` that are left of the payment",
    ),
    "BALANCE_LIMIT_EXCEEDED": (
        422,
        "The balance and the held credits together would exceed `limit`",
    ),
    "HEADERS_TOO_LARGE": (431, "The request line and headers are too large"),
    "LEDGER_UNBALANCED": (500, "A change that the ledger's triggers refuse; nothing was done"),
    "FIGURES_DIFFER": (
        500,
        "A report's figures do not tie; run `flashslides verify`, which names what is wrong",
    ),
    "INTERNAL_ERROR": (500, "A defect of the service; `request_id` finds it in the logs"),
    "SETTINGS_INVALID": (500, "The service is configured wrongly; the message says how"),
    "STRIPE_GATEWAY_ERROR": (
        502,
        "Stripe failed or did not answer; send the request again with the same key",
    ),
    "AUTH_KEYS_UNAVAILABLE": (
        503,
        "The keys that sign tokens cannot be fetched; see `Retry-After`",
    ),
    "STRIPE_NOT_CONFIGURED": (503, "`STRIPE_SECRET_KEY` is not set"),
    "ENGINE_BUSY": (503, "Too many operations are waiting; nothing was done; see `Retry-After`"),
    "REPORTS_BUSY": (503, "As many reports are being made as may be; see `Retry-After`"),
    "STREAMS_BUSY": (
        503,
        "The user, or the process, has as many streams open as may be; see `Retry-After`",
    ),
    "DATABASE_BUSY": (503, "The database is busy or out of reach; see `Retry-After`"),
    "NOT_READY": (503, "The database does not have every migration yet"),
    "WEBHOOK_NOT_CONFIGURED": (
        503,
        "`STRIPE_WEBHOOK_SECRET` is not set, so no event can be verified",
    ),
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
    """The body of every error."""

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
