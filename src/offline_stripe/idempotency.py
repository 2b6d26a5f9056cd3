"""`Idempotency-Key`: the same request twice is done once, and answered the same.

Source: Stripe's API reference, "Idempotent requests": kept for a day or more; the same key with
other parameters is an error; what failed validation is not kept, so it may be mended and repeated.
"""

import hashlib
import json
from typing import Any

from src.offline_stripe.account import Account, Object
from src.offline_stripe.errors import StripeError, invalid
from src.offline_stripe.wire import Request

KEPT_SECONDS = 86_400
KEY_LENGTH_MAX = 255


def fingerprint(request: Request, form: Any) -> str:
    """What must be the same for the key to mean the same request."""
    text = json.dumps([request.method, request.path, form], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def earlier_reply(account: Account, key: str, found: str) -> Object | None:
    """What this request was answered before.

    Raises:
        StripeError: the key was another request's, or is too long.
    """
    if len(key) > KEY_LENGTH_MAX:
        raise invalid(f"Idempotency keys can be up to {KEY_LENGTH_MAX} characters long")
    reply = account.state.replies.get(key)
    if reply is None or reply["at"] + KEPT_SECONDS <= account.now():
        return None
    if reply["fingerprint"] != found:
        raise StripeError(
            "Keys for idempotent requests can only be used with the same parameters they were "
            f"first used with. Try using a key other than '{key}' if you meant to execute a "
            "different request.",
            kind="idempotency_error",
        )
    return reply


def keep_reply(
    account: Account, key: str, found: str, *, status: int, body: Any, request_id: str
) -> None:
    """Remember the answer."""
    account.state.replies[key] = {
        "at": account.now(),
        "body": body,
        "fingerprint": found,
        "request_id": request_id,
        "status": status,
    }


def forget_old_replies(account: Account) -> None:
    """Keys are free again after a day."""
    oldest = account.now() - KEPT_SECONDS
    replies = account.state.replies
    for key in [key for key, reply in replies.items() if reply["at"] <= oldest]:
        del replies[key]
