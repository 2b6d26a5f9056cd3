"""Search: `status:'succeeded' AND metadata['order_id']:'7'`, and what is asked for by such words.

Source: docs.stripe.com/search, its query language and the fields of each kind of object. What is
new is found at once, where Stripe takes about a minute.
"""

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from src.offline_stripe.account import Account, Object
from src.offline_stripe.errors import StripeError, invalid

LIMIT_DEFAULT = 10
LIMIT_MAX = 100
CLAUSES_MAX = 10
KINDS = {
    "charges": "charge",
    "customers": "customer",
    "invoices": "invoice",
    "payment_intents": "payment_intent",
    "prices": "price",
    "products": "product",
}
"""What can be searched, by the address of its list."""
_CARD = "payment_method_details.card."
_FIELDS = {
    "charge": f"""amount billing_details.address.postal_code created currency customer disputed
        metadata {_CARD}brand {_CARD}exp_month {_CARD}exp_year {_CARD}fingerprint {_CARD}last4
        refunded status""",
    "customer": "created email metadata name phone",
    "invoice": "created currency customer metadata number receipt_number status total",
    "payment_intent": "amount created currency customer metadata status",
    "price": "active currency lookup_key metadata product type",
    "product": "active created description metadata name shippable url",
}
_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_VALUE = r"""(?:"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|[^\s'"]+)"""
_NUMBER = re.compile(r"\d{1,18}")
_CLAUSE = re.compile(
    rf"""(?P<negated>-)?(?P<field>[a-z0-9_.]+)(?:\[(?P<key>{_VALUE})\])?\s*"""
    rf"""(?P<sign>:|~|<=|>=|<|>)\s*(?P<value>{_VALUE})"""
)
_JOINED = re.compile(r"\s+(AND|OR)\s+|\s+", re.IGNORECASE)


@dataclass(frozen=True)
class Clause:
    """One condition on a field, or on a key of its metadata."""

    field: str
    key: str | None
    sign: str
    value: str | None
    """None where it asks for what is not there (`:null`)."""
    negated: bool

    def is_met(self, obj: Object) -> bool:
        """Whether the object is as the condition says."""
        found: object = obj
        for name in (*self.field.split("."), *([] if self.key is None else [self.key])):
            found = _field(found, name)
        return self._agrees(found) is not self.negated

    def _agrees(self, found: object) -> bool:
        if self.value is None or found is None:
            return self.value is found
        if self.sign in _COMPARISONS:
            return isinstance(found, int) and _COMPARISONS[self.sign](found, int(self.value))
        text = str(found).lower()
        wanted = self.value.lower()
        return wanted in text if self.sign == "~" else wanted == text


def _field(value: object, name: str) -> object:
    return cast("Object", value).get(name) if isinstance(value, dict) else None


def search(kind: str, path: str) -> Callable[[Account, Object], Object]:
    """`GET /v1/{path}/search`."""

    def found(account: Account, parameters: Object) -> Object:
        clauses, matches = _parsed(kind, parameters["query"])
        objects = [
            each
            for each in list(account.all(kind))[::-1]
            if not each.get("deleted") and matches(clause.is_met(each) for clause in clauses)
        ]
        limit = parameters.get("limit", LIMIT_DEFAULT)
        if not 1 <= limit <= LIMIT_MAX:
            raise invalid(f"Invalid limit: must be between 1 and {LIMIT_MAX}", "limit")
        start = _start(parameters.get("page"))
        end = start + limit
        has_more = len(objects) > end
        return {
            "object": "search_result",
            "data": objects[start:end],
            "has_more": has_more,
            "next_page": str(end) if has_more else None,
            "url": f"/v1/{path}/search",
        }

    return found


def _start(page: str | None) -> int:
    if page is not None and not _NUMBER.fullmatch(page):
        raise invalid(f"Invalid page: {page}", "page")
    return int(page or 0)


def _parsed(kind: str, query: str) -> tuple[list[Clause], Callable[[Any], bool]]:
    """The conditions of a query, and whether all of them or any must be met."""
    clauses: list[Clause] = []
    joins: set[str] = set()
    position = 0
    text = query.strip()
    while True:
        match = _CLAUSE.match(text, position)
        if match is None:
            raise _misread(text[position:] or text)
        clauses.append(_clause(kind, match))
        position = match.end()
        if position == len(text):
            break
        joined = _JOINED.match(text, position)
        if joined is None:
            raise _misread(text[position:])
        joins.add((joined[1] or "and").lower())
        position = joined.end()
    if len(joins) > 1:
        raise invalid("You can't combine AND and OR in the same query", "query")
    if len(clauses) > CLAUSES_MAX:
        raise invalid(f"A query can have up to {CLAUSES_MAX} clauses", "query")
    return clauses, any if joins == {"or"} else all


def _clause(kind: str, match: re.Match[str]) -> Clause:
    field, sign, value = match["field"], match["sign"], match["value"]
    known = _FIELDS[kind].split()
    if field not in known:
        raise invalid(
            f"Field `{field}` is an unsupported search field for resource `{kind}s`. It has "
            f"{', '.join(known)}.",
            "query",
        )
    if (field == "metadata") is (match["key"] is None):
        raise _misread(match[0])
    if sign in _COMPARISONS and not _NUMBER.fullmatch(_unquoted(value)):
        raise invalid(f"{sign} compares numbers, not {value}", "query")
    is_null = value.lower() == "null" and sign == ":"
    return Clause(
        field=field,
        key=match["key"] and _unquoted(match["key"]),
        sign=sign,
        value=None if is_null else _unquoted(value),
        negated=match["negated"] is not None,
    )


def _unquoted(text: str) -> str:
    if text[0] in "'\"":
        return re.sub(r"\\(.)", r"\1", text[1:-1])
    return text


def _misread(rest: str) -> StripeError:
    return invalid(f"We were unable to parse your search query at `{rest}`", "query")
