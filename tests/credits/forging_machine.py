"""What somebody with the service's role tries, whatever the books are by then: always refused.

The last of the machine's rules. Each forgery is made for the user as the model has them, so that
only what is wrong with it can refuse it.
"""

import datetime as dt
import secrets
from collections.abc import Mapping
from functools import partial
from random import Random

import pytest
from hypothesis.stateful import rule
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from src.common.postgres.errors import sqlstate_of
from src.common.postgres.runtime_role import PRIVILEGES
from tests.credits.forging import BY_SQLSTATE, Write, entry, lot
from tests.credits.machine import seeds, users
from tests.credits.model import Person
from tests.credits.session_machine import SessionMachine, has_due

_FIXED = {
    "credit_entries": "amount",
    "credit_postings": "amount",
    "credit_lots": "granted",
    "credit_holds": "amount",
    "credit_debts": "opening_debt",
    "transactions": "credits_added",
}
"""By table, a column that the service may not write."""
_A_LOT = {
    "seq": 1,
    "source": "'promo'",
    "priority": 10,
    "granted": 5,
    "remaining": 5,
    "last_seq": 1,
    "is_open": "true",
}
_A_PURCHASE = {
    "stripe_session_id": "'cs_forged'",
    "amount_paid_cents": 1,
    "credits_added": 1,
    "predates_ledger": "true",
}


class ForgingMachine(SessionMachine):
    """Whatever is forged is refused and changes nothing."""

    role = f"forger_{secrets.token_hex(4)}"

    @classmethod
    def make_role(cls, connection: Connection) -> None:
        """A role with the service's privileges, gone with the database transaction."""
        connection.exec_driver_sql(f"CREATE ROLE {cls.role}")
        for table, privileges in PRIVILEGES.items():
            connection.exec_driver_sql(f"GRANT {privileges} ON {table} TO {cls.role}")

    @rule(user=users, seed=seeds)
    def somebody_forges(self, user: int, seed: int) -> None:
        """One statement, at the latest refused when it is to be committed."""
        person, random = self.people[self.ids[user]], Random(seed)  # noqa: S311  to be repeatable
        forgeries = _forgeries(person, self.now)
        name = random.choice(list(forgeries))
        with pytest.raises(DBAPIError) as refused:
            self._write_as_service(user, forgeries[name])
        assert sqlstate_of(refused.value) in BY_SQLSTATE, (name, refused.value)
        instant = _next_instant(person, self.now)
        if person.journal and not person.debts and not has_due(person, instant):
            self._write_as_service(user, _a_grant(person, instant, person.balance + 5))
        self._count(["forgery"])
        self._finish({})

    def _write_as_service(self, user: int, statement: str) -> None:
        """As far as a commit; nothing stays."""
        connection = self.session.connection()
        savepoint = connection.begin_nested()
        try:
            connection.exec_driver_sql(f"SET LOCAL ROLE {self.role}")
            who = f"'{self.ids[user]}'::uuid"
            connection.exec_driver_sql(statement.replace(":who", who))
            connection.exec_driver_sql("SET CONSTRAINTS ALL IMMEDIATE")
        finally:
            savepoint.rollback()


def _forgeries(person: Person, now: dt.datetime) -> dict[str, str]:
    """By name, what can be tried on these books."""
    if person.journal:
        forgeries = _of_the_journal(person, now) | _of_lots_holds_and_debts(person)
    else:
        forgeries = {
            "a first balance": _on("users", "credits_balance = credits_balance + 1"),
            "a first version": _on("users", "credits_version = 1"),
            "a lot of no entry": _into("credit_lots", _A_LOT),
        }
    forgeries["a purchase from before"] = _into("transactions", _A_PURCHASE)
    for table, column in _FIXED.items():
        forgeries[f"{table} changed"] = _on(table, f"{column} = {column} + 1")
        forgeries[f"{table} deleted"] = f"DELETE FROM {table} WHERE user_id = :who"  # noqa: S608  ours
    return forgeries


def _next_instant(person: Person, now: dt.datetime) -> dt.datetime:
    return max([now, *(line.effective_at for line in person.journal[-1:])])


def _dated(instant: dt.datetime) -> dict[str, object]:
    return {name: f"timestamptz '{instant.isoformat()}'" for name in ("effective_at", "created_at")}


def _a_grant(person: Person, instant: dt.datetime, after: int, **wrong: object) -> str:
    """The next entry, which gives 5."""
    seq = len(person.journal) + 1
    return Write(
        entries=[entry(seq, "grant", 5, after, **{**_dated(instant), **wrong})],
        new_lots=[lot(seq, 5)],
        postings=[(seq, seq, 5, 5)],
        user=(after, seq),
    ).sql()


def _of_the_journal(person: Person, now: dt.datetime) -> dict[str, str]:
    seq, balance, instant = len(person.journal) + 1, person.balance, _next_instant(person, now)
    a_grant, columns = partial(_a_grant, person, instant), _dated(instant)

    return {
        "a balance": _on("users", "credits_balance = credits_balance + 1"),
        "a version": _on("users", "credits_version = credits_version + 1"),
        "a version of before": _on("users", "credits_version = credits_version - 1"),
        "a grant of more than its lot": a_grant(balance + 6),
        "a grant of tomorrow": a_grant(balance + 5, created_at="now() + interval '1 day'"),
        "a grant of the past": a_grant(balance + 5, effective_at="timestamptz '2019-01-01'"),
        "a grant that captures": a_grant(balance + 5, captured=1),
        "an entry alone": Write([entry(seq, "grant", 5, balance + 5, **columns)]).sql(),
        "an entry twice": Write([entry(seq - 1, "grant", 5, balance + 5, **columns)]).sql(),
        "metadata of long ago": _into("credit_entry_metadata", {"seq": 1, "document": "'{}'"}),
    }


def _of_lots_holds_and_debts(person: Person) -> dict[str, str]:
    forgeries: dict[str, str] = {}
    for each in person.lots[-1:]:
        forgeries["what remains"] = _on("credit_lots", "remaining = remaining + 1", each.seq)
        forgeries["a debt"] = _into("credit_debts", {"seq": each.seq, "outstanding": 1})
    for hold in person.holds[-1:]:
        status = "released" if hold.status == "open" else "open"
        forgeries |= {
            "what it captured": _on("credit_holds", "captured = captured + 1", hold.seq),
            "how it stands": _on("credit_holds", f"status = '{status}'", hold.seq),
            "how long it lasts": _on("credit_holds", "expires_at = now()", hold.seq),
        }
    for seq, owed in person.debts.items():
        change = "outstanding = outstanding - 1" if owed else "outstanding = 1"
        forgeries["what is owed"] = _on("credit_debts", change, seq)
    rich = [each for each in person.lots if each.left][:2]
    if len(rich) > 1:
        one, other = rich
        last = len(person.journal)
        forgeries["credits moved between lots"] = Write(
            postings=[(last, one.seq, -1, one.left - 1), (last, other.seq, 1, other.left + 1)],
            lots={one.seq: (one.left - 1, last), other.seq: (other.left + 1, last)},
        ).sql()
    return forgeries


def _on(table: str, change: str, seq: int | None = None) -> str:
    of_seq = "" if seq is None else f" AND seq = {seq}"
    return f"UPDATE {table} SET {change} WHERE user_id = :who{of_seq}"  # noqa: S608  ours


def _into(table: str, row: Mapping[str, object]) -> str:
    names, values = ", ".join(row), ", ".join(map(str, row.values()))
    return f"INSERT INTO {table} (user_id, {names}) VALUES (:who, {values})"  # noqa: S608  ours
