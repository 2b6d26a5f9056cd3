"""Forms: what proves that one is ours, its idempotency key, and reading its fields."""

import hmac
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from fastapi import Depends, Request
from starlette.datastructures import FormData

from src.common.exceptions import Forbidden, Invalid
from src.common.models.console_action import REASON_LENGTH_MAX
from src.console.people import SESSION
from src.html_pages import decimals_of, in_units, money

TOKEN_FIELD, KEY_FIELD, CONFIRMED_FIELD = "form_token", "form_key", "confirmed"
OWN_FIELDS = frozenset({TOKEN_FIELD, KEY_FIELD, CONFIRMED_FIELD})
FIELDS_MAX = 1_000
_NUMBER = re.compile(r"[+-]?(?:[0-9]+|[0-9]{1,3}(?:,[0-9]{3})+)")
"""A comma stands between thousands only: 12,50 is not 1250."""
_DIGITS = re.compile(r"[0-9]+")


@dataclass(frozen=True)
class Form:
    """A form of ours that somebody sent."""

    fields: FormData
    written_key: uuid.UUID
    """Made with the form: the same at a double click, a reload and after the confirmation."""
    key: uuid.UUID
    """Of this form at this address: a key that somebody writes into another form is another."""
    is_confirmed: bool
    """Whether what it will do was shown before."""

    def text(self, name: str, *, length_max: int = 255) -> str:
        """A field's text, blanks around it left out; empty where the field is not there.

        Raises:
            Invalid: VALIDATION_ERROR, longer than `length_max`.
        """
        value = self.fields.get(name, "")
        written = value.strip() if isinstance(value, str) else ""
        if len(written) > length_max or "\x00" in written:
            raise _invalid(name, f"at most {length_max} characters, and no NUL")
        return written

    def required(self, name: str, *, length_max: int = 255) -> str:
        """As `text`, but not empty.

        Raises:
            Invalid: VALIDATION_ERROR.
        """
        written = self.text(name, length_max=length_max)
        if not written:
            raise _invalid(name, "fill this in")
        return written

    def texts(self, name: str) -> Sequence[str]:
        """All values of a field that may be chosen several times.

        Raises:
            Invalid: VALIDATION_ERROR.
        """
        found = [value for value in self.fields.getlist(name) if isinstance(value, str)]
        if any("\x00" in value for value in found):
            raise _invalid(name, "no NUL")
        return found

    def integer(self, name: str, *, least: int, most: int) -> int:
        """A whole number.

        Raises:
            Invalid: VALIDATION_ERROR, no whole number, or outside `least` to `most`.
        """
        written = self.required(name, length_max=30)
        if not _NUMBER.fullmatch(written):
            raise _invalid(name, "a whole number")
        number = int(written.replace(",", ""))
        if not least <= number <= most:
            raise _invalid(name, f"from {least:,} to {most:,}")
        return number

    def money(self, name: str, currency: str, *, least: int, most: int) -> int:
        """An amount as people write it, such as 4.99: in the currency's smallest unit.

        Raises:
            Invalid: VALIDATION_ERROR, no amount, with more decimals than the currency has, or
                outside `least` to `most` of the smallest unit.
        """
        written = self.required(name, length_max=30)
        whole, point, decimals = written.partition(".")
        places = decimals_of(currency)
        is_number = _NUMBER.fullmatch(whole) and (not point or _DIGITS.fullmatch(decimals))
        if not is_number or len(decimals) > places:
            raise _invalid(
                name, f"an amount in {currency.upper()}, such as {in_units(499, currency)}"
            )
        amount = int(whole.replace(",", "") + decimals.ljust(places, "0"))
        if not least <= amount <= most:
            between = f"{money(least, currency)} to {money(most, currency)}"
            raise _invalid(name, f"from {between}")
        return amount

    def reason(self, name: str = "reason", *, length_max: int = REASON_LENGTH_MAX) -> str:
        """Why, for the audit trail and the journal, which keep it for ever.

        Raises:
            Invalid: VALIDATION_ERROR, none, too long, or it names an e-mail address.
        """
        return _naming_nobody(name, self.required(name, length_max=length_max))

    def note(self, name: str = "note") -> str | None:
        """What there is to say about a decision, kept as a reason is; None where it is empty.

        Raises:
            Invalid: VALIDATION_ERROR, too long, or it names an e-mail address.
        """
        return _naming_nobody(name, self.text(name)) or None


@dataclass(frozen=True)
class Posted:
    """That a form is ours, as a dependency of a route."""

    async def __call__(self, request: Request) -> Form:
        """The form.

        Raises:
            Forbidden: FORBIDDEN, another page sent it, or it is of an earlier session.
            Invalid: VALIDATION_ERROR, it has no key.
        """
        fields = await request.form(max_files=0, max_fields=FIELDS_MAX)
        token = fields.get(TOKEN_FIELD)
        if not isinstance(token, str) or not _is_same(token, token_of(request)):
            raise Forbidden(
                "This form is of an earlier session, or of another page: load the page again, "
                "then repeat it. Nothing was done",
                "FORBIDDEN",
            )
        try:
            key = uuid.UUID(str(fields.get(KEY_FIELD)))
        except ValueError:
            raise _invalid(KEY_FIELD, "not a key of ours; load the page again") from None
        here = uuid.uuid5(key, request.scope["path"])
        return Form(fields, key, here, fields.get(CONFIRMED_FIELD) == "yes")


def posted() -> Any:
    """What a route that changes something asks for to get its form."""
    return Depends(Posted())


def token_of(request: Request) -> str:
    """What a form of this session has in it: nobody who lacks the cookie can make it."""
    secret = str(request.session.get(SESSION, ""))
    return hmac.new(secret.encode(), b"form", sha256).hexdigest()


def hidden_fields(form: Form) -> Sequence[tuple[str, str]]:
    """What the form said, to be said again with the confirmation."""
    return [
        (name, value)
        for name, value in form.fields.multi_items()
        if name not in OWN_FIELDS and isinstance(value, str)
    ]


def field_of(problem: Exception | None) -> str | None:
    """The field that an error is about, if it names one."""
    details: Mapping[str, Any] = getattr(problem, "details", {})
    return details.get("field")


def _is_same(token: str, expected: str) -> bool:
    return hmac.compare_digest(token.encode(), expected.encode())


def _naming_nobody(name: str, written: str) -> str:
    if "@" in written:
        raise _invalid(name, "it is kept for ever, so name no e-mail address in it")
    return written


def _invalid(name: str, sentence: str) -> Invalid:
    return Invalid(f"{name}: {sentence}", "VALIDATION_ERROR", field=name)
