"""Who asked, when another person consents: whether they may ask for it still (rule 13).

Of people who sign in to the console we know what the identity provider said of them last.
"""

import re
import uuid
from collections.abc import Mapping

from sqlalchemy import select
from sqlalchemy.orm import Session

from src.common.exceptions import Conflict
from src.common.models.approval import Approval, ApprovalOperation
from src.common.models.console_session import ConsolePerson

_CREDITS = frozenset({"support", "admin"})
MAY_ASK: Mapping[str, frozenset[str]] = {
    ApprovalOperation.GRANT: _CREDITS,
    ApprovalOperation.ADJUSTMENT: _CREDITS,
    ApprovalOperation.REVERSAL: _CREDITS,
    ApprovalOperation.RELEASE: _CREDITS,
    ApprovalOperation.REFUND: _CREDITS,
    ApprovalOperation.PAYMENT: frozenset({"finance", "admin"}),
    ApprovalOperation.API_KEY: frozenset({"admin"}),
}
"""The roles that may ask for each, as the console's matrix has them."""
_IS_PERSON = re.compile(r"user:([0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})")


def check_asker(session: Session, approval: Approval) -> None:
    """Refuse to do what somebody asked for who may not ask for it any more.

    Who never signed in to the console asked by a command: an account of a machine has no role here.
    Until this database transaction ends, nobody notes that the person lost one.

    Raises:
        Conflict: APPROVAL_ASKER_LEFT.
    """
    named = _IS_PERSON.fullmatch(approval.requester)
    if named is None:
        return
    roles = session.scalars(
        select(ConsolePerson.roles)
        .where(ConsolePerson.person_id == uuid.UUID(named[1]))
        .with_for_update(read=True)
    ).one_or_none()
    may_ask = MAY_ASK.get(str(approval.command.get("operation")), frozenset())
    if roles is not None and may_ask.isdisjoint(roles):
        raise Conflict(
            "Whoever asked for this has no role any more that may: refuse it, and have it asked "
            "for by somebody who has",
            "APPROVAL_ASKER_LEFT",
        )
