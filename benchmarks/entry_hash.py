"""An entry's hash as PostgreSQL makes it: decision 0061's encoding, by nothing of the ledger's.

Whoever writes entries in SQL needs it, and the ledger's tests compare with it.
"""

from collections.abc import Mapping

_NUMBERS = ("seq", "amount", "balance_after", "result_balance", "captured", "related_seq")
_INSTANTS = ("hold_expires_at", "effective_at", "created_at")
_OPTIONAL = ("captured", "related_seq", "hold_expires_at", "reference")
_TEXTS = ("kind", "idempotency_key", "request_digest", "reference", "actor")
NO_UUID = "'00000000-0000-0000-0000-000000000000'"


def entry_hash(columns: Mapping[str, str], previous: str, lines: str, made: str) -> str:
    """An expression over expressions: an entry's columns, those left out being NULL.

    `previous` is the hash before, or the ledger's id as octets; `lines` the postings, each as
    `line`; `made` what `lot` is of the lot it made, or nothing.
    """
    missing = {name: columns.get(name, "NULL") for name in (*_NUMBERS, *_INSTANTS, *_TEXTS)}
    values = (*(_octets(name, missing[name]) for name in _TEXTS), lines, made)
    there = " + ".join(
        f"{1 << place} * ({missing[name]} IS NOT NULL)::int" for place, name in enumerate(_OPTIONAL)
    )
    parts = (
        octet("1"),
        octet(f"octet_length({previous})"),
        octet(there),
        f"uuid_send(({columns['user_id']})::uuid)",
        *(f"int4send(coalesce(({missing[name]})::int, 0))" for name in _NUMBERS),
        *(instant(missing[name]) for name in _INSTANTS),
        *(f"int4send(octet_length({value}))" for value in values),
        previous,
        *values,
    )
    return f"sha256({' || '.join(parts)})"


def line(lot_seq: str, amount: str, remaining_after: str) -> str:
    """A posting."""
    return " || ".join(f"int4send(({each})::int)" for each in (lot_seq, amount, remaining_after))


def lot(source: str, priority: str, granted: str, expires_at: str, transaction_id: str) -> str:
    """What never changes of a lot; the last two may be NULL."""
    there = f"({transaction_id} IS NOT NULL)::int + 2 * ({expires_at} IS NOT NULL)::int"
    return (
        f"'l'::bytea || {octet(f'octet_length({source})')} || {octet(there)}"
        f" || int2send(({priority})::smallint) || int4send({granted}) || {instant(expires_at)}"
        f" || uuid_send(coalesce({transaction_id}, {NO_UUID})::uuid)"
        f" || convert_to({source}, 'UTF8')"
    )


def octet(number: str) -> str:
    """A number below 256."""
    return f"substring(int4send({number}) FROM 4)"


def instant(expression: str) -> str:
    """An instant in microseconds since 1970; 0 where it is NULL."""
    since = f"extract(epoch FROM coalesce(({expression})::timestamptz, 'epoch'))"
    return f"int8send(({since} * 1000000)::bigint)"


def _octets(name: str, expression: str) -> str:
    if name == "request_digest":
        return f"({expression})"
    return f"convert_to(coalesce(({expression})::text, ''), 'UTF8')"
