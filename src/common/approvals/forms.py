"""How what somebody asks for is stored: a form for each operation, checked whenever it is read.

Each form has a version. A release that changes one reads the old versions too, or refuses them in
words: what an older release was asked for waits for days. None holds a text that a person wrote,
but for what a service is called.
"""

import datetime as dt
import uuid
from collections.abc import Mapping
from typing import Any, Literal, Self, TypeAlias, TypeVar

import msgspec

from src.common.accounts.api_keys import KeyFacts
from src.common.credits.domain.commands import Adjust, Grant, Release, Reverse
from src.common.credits.domain.own_commands import ByHand
from src.common.exceptions import Conflict, ExceptionWithErrorType
from src.common.models.credit_lot import LotSource


class _Form(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    tag_field="operation",
    forbid_unknown_fields=True,
):
    """What all forms have."""

    version: Literal[1] = 1


class GrantForm(_Form, frozen=True, kw_only=True, tag="grant"):
    """Credits that nobody paid for; the reason is their reference."""

    amount: int
    source: LotSource
    priority: int | None
    expires_at: dt.datetime | None


class AdjustmentForm(_Form, frozen=True, kw_only=True, tag="adjustment"):
    """A correction, up or down."""

    amount: int


class ReversalForm(_Form, frozen=True, kw_only=True, tag="reversal"):
    """Credits of an entry that are given back."""

    seq: int
    amount: int


class ReleaseForm(_Form, frozen=True, kw_only=True, tag="release"):
    """A hold that is given up."""

    hold_seq: int
    amount: int
    """What would have come back when it was asked for: what is captured meanwhile stays so."""


class PaymentForm(_Form, frozen=True, kw_only=True, tag="payment"):
    """An unmatched payment that is to be credited by hand; the request names the user."""

    stripe_object_id: str
    amount: int
    """Whole credits."""
    amount_cents: int | None
    """What was paid, where only whoever asks says so; the currency likewise."""
    currency: str | None


class KeyForm(_Form, frozen=True, kw_only=True, tag="api_key"):
    """An API key that can move money. The key itself is known to whoever asked for it."""

    key_id: uuid.UUID
    key_hash: str
    """In hexadecimal digits."""
    last_four: str
    service_name: str
    scopes: tuple[str, ...]
    expires_at: dt.datetime | None

    @classmethod
    def of(cls, facts: KeyFacts) -> Self:
        """The form of a key."""
        return cls(
            key_id=facts.key_id,
            key_hash=facts.key_hash.hex(),
            last_four=facts.last_four,
            service_name=facts.service_name,
            scopes=facts.scopes,
            expires_at=facts.expires_at,
        )

    @property
    def facts(self) -> KeyFacts:
        """What of the key is written."""
        return KeyFacts(
            key_id=self.key_id,
            key_hash=bytes.fromhex(self.key_hash),
            last_four=self.last_four,
            service_name=self.service_name,
            scopes=self.scopes,
            expires_at=self.expires_at,
        )


class RefundForm(_Form, frozen=True, kw_only=True, tag="refund"):
    """Money that is paid back; the request names the purchase."""

    amount_cents: int


CreditsForm: TypeAlias = GrantForm | AdjustmentForm | ReversalForm | ReleaseForm
Form: TypeAlias = CreditsForm | RefundForm | PaymentForm | KeyForm
T = TypeVar("T")


def written(form: Form) -> dict[str, Any]:
    """A form as the database keeps it."""
    kept: dict[str, Any] = msgspec.to_builtins(form)
    return kept


def shown(stored: Mapping[str, Any]) -> dict[str, Any]:
    """What is asked for, as people and the audit trail get it: without a key's hash."""
    return {name: value for name, value in stored.items() if name != "key_hash"}


def read(stored: Mapping[str, Any]) -> Form:
    """The form that was kept.

    Raises:
        Conflict: APPROVAL_UNREADABLE, it is none of the forms that this release knows.
    """
    try:
        found: Form = msgspec.convert(stored, Form)
    except msgspec.ValidationError as error:
        raise unreadable(str(error)) from None
    return found


def unreadable(why: str) -> Conflict:
    """APPROVAL_UNREADABLE: another release wrote the request, and this one cannot do it."""
    return Conflict(
        f"This release cannot do what was asked for ({why}): refuse it, and have it asked for anew",
        "APPROVAL_UNREADABLE",
    )


def form_of(command: ByHand, amount: int) -> CreditsForm:
    """The form of a command that moves `amount` credits, signed."""
    if isinstance(command, Grant):
        return GrantForm(
            amount=amount,
            source=command.source,
            priority=command.priority,
            expires_at=command.expires_at,
        )
    if isinstance(command, Adjust):
        return AdjustmentForm(amount=amount)
    if isinstance(command, Release):
        return ReleaseForm(hold_seq=command.hold_seq, amount=amount)
    return ReversalForm(seq=command.seq, amount=amount)


def command_of(
    form: CreditsForm, *, user_id: uuid.UUID, actor: str, reason: str, key: str
) -> ByHand:
    """The command that does what was asked for.

    Raises:
        Conflict: APPROVAL_UNREADABLE, this release makes no such command.
    """
    asked: dict[str, Any] = {"user_id": user_id, "actor": actor, "key": key}
    try:
        match form:
            case GrantForm():
                return Grant(
                    **asked,
                    reference=reason,
                    amount=form.amount,
                    source=form.source,
                    priority=form.priority,
                    expires_at=form.expires_at,
                )
            case AdjustmentForm():
                return Adjust(**asked, reason=reason, amount=form.amount)
            case ReversalForm():
                return Reverse(**asked, reason=reason, seq=form.seq, amount=form.amount)
            case ReleaseForm():
                return Release(**asked, reference=reason, hold_seq=form.hold_seq)
    except ExceptionWithErrorType as error:
        raise unreadable(error.message) from None
