"""API keys that can move credits or pay money back: made with another person's consent (rule 13).

A service with such a key moves money without asking. So two people make it, and what it does
afterwards is a machine's doing.
"""

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass, field

from sqlalchemy.orm import Session

from src.common.accounts import api_keys
from src.common.accounts.api_keys import MOVING_MONEY, IssuedKey
from src.common.approvals import asking, rules
from src.common.approvals.asking import Asked, Request
from src.common.approvals.forms import KeyForm
from src.common.approvals.rules import Limits
from src.common.credits.domain.arguments import check_text
from src.common.credits.domain.commands import REFERENCE_LENGTH_MAX
from src.common.credits.domain.digest import digest_of


@dataclass(frozen=True)
class AskedKey:
    """A key that works once another person has consented; this is when it is known in clear."""

    asked: Asked
    key: str = field(repr=False)


def create_or_ask(
    session: Session,
    *,
    service_name: str,
    scopes: Iterable[str],
    expires_at: dt.datetime | None,
    requester: str,
    reason: str | None,
    request_key: str,
    limits: Limits | None,
) -> IssuedKey | AskedKey:
    """Make a key, or ask for another person's consent where it can move money.

    Args:
        session: The caller's.
        service_name: Who calls with it.
        scopes: What it may do.
        expires_at: From when on it is refused; None is never.
        requester: Who makes it.
        reason: What for; a request needs one.
        request_key: The request's idempotency key.
        limits: How long somebody may consent; None where nobody has to.

    Raises:
        Invalid: VALIDATION_ERROR, as `create_api_key`, or there is no reason, or too long a one.
    """
    facts, key = api_keys.new_api_key(
        service_name=service_name, scopes=scopes, expires_at=expires_at
    )
    if limits is None or MOVING_MONEY.isdisjoint(facts.scopes):
        return IssuedKey(api_keys.write_api_key(session, facts), key)
    why = rules.check_reason(reason, "reason")
    check_text("reason", why, REFERENCE_LENGTH_MAX)
    request = Request(
        user_id=None,
        form=KeyForm.of(facts),
        reason=why,
        requester=requester,
        key=request_key,
        digest=digest_of(requester, "api_key", "", facts.key_hash.hex()),
    )
    return AskedKey(asking.ask(session, request, limits), key)
