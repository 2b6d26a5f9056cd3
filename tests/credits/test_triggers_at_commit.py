"""The triggers' second form: what it lets through in pieces, and how it is put in place."""

from dataclasses import replace

import pytest
from alembic import command
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from src.common.credits.domain.commands import Result
from src.common.credits.operations import execute
from src.common.credits.verification.recompute import recompute
from src.common.credits.verification.report import Report
from src.common.database import SessionLocal, get_engine
from src.common.database_settings import LedgerTriggers
from src.common.models.ledger_triggers_at_commit import CREATE_AT_COMMIT, REPLACED
from src.common.postgres.errors import is_ledger_unbalanced
from src.common.postgres.ledger_triggers_form import is_in_place, put_in_place
from src.common.postgres.migrations import alembic_config
from src.common.settings import get_settings
from src.local_postgres import ConnectionParameters
from tests.credits import (
    test_forgeries_holds,
    test_forgeries_journal,
    test_forgeries_left,
    test_forgeries_reversals,
)
from tests.credits.books import hash_again, make_user, spend, triggers_off
from tests.credits.committed import make_users
from tests.credits.engine.batching import all_at_once, running
from tests.credits.forging import Forger, Forgery, Write, entry, forging, lot, owning
from tests.fixtures.databases import Server
from tests.postgres.drivers import Driver

COMMIT, STATEMENT = LedgerTriggers.COMMIT, LedgerTriggers.STATEMENT
AT_COMMIT = pytest.mark.parametrize("forger", [COMMIT], indirect=True, ids=str)
LISTS = (test_forgeries_journal, test_forgeries_holds, test_forgeries_reversals)
HONEST = {f"{each.__name__}: {name}": it for each in LISTS for name, it in each.HONEST.items()}
FORGERIES = {name: forged for each in LISTS for name, forged in each.FORGERIES.items()}
CHECKED_BEFORE = ("SET CONSTRAINTS ALL IMMEDIATE", "SET CONSTRAINTS ALL DEFERRED")


def repaying(first: int, *amounts: int, debts: str) -> Write:
    """The debtor, who owes 50, is given what these repayments take, from entry `first` on."""
    given = rest = sum(amounts)
    entries = [entry(first, "grant", given, given)]
    postings = [(first, first, given, given)]
    for seq, amount in enumerate(amounts, first + 1):
        rest -= amount
        entries.append(entry(seq, "debt_repayment", -amount, rest, related_seq=1))
        postings.append((seq, first, -amount, rest))
    last = first + len(amounts)
    new_lot = {**lot(first, given), "remaining": 0, "last_seq": last, "is_open": "false"}
    return Write(entries, postings, [new_lot], debts={1: debts}, user=(0, last))


IN_PIECES = {
    "a debt set to 0 in a statement after its reinstatement": FORGERIES[
        "a debt set to 0 in a statement after its reinstatement"
    ],
    "metadata added to an entry of the previous statement": replace(
        test_forgeries_left.LEFT_TO_OTHERS["a grant that nobody asked for"],
        statements=[
            *test_forgeries_left.LEFT_TO_OTHERS["a grant that nobody asked for"].statements,
            "INSERT INTO credit_entry_metadata VALUES (:who, 14, '{}')",
        ],
        by_at_commit="nobody",
    ),
    "two repayments of a debt that only the second lowers": Forgery(
        [repaying(4, 20, 30, debts="outstanding = 20")], "debtor", by_at_commit="`verify`"
    ),
    "a debt lowered again in a statement after its repayment": Forgery(
        [
            repaying(4, 20, debts="outstanding = 30"),
            *CHECKED_BEFORE,
            "UPDATE credit_debts SET outstanding = 10 WHERE user_id = :who",
        ],
        "debtor",
        by_at_commit="`verify`",
    ),
}
"""What one statement shows, and a database transaction does not."""


def test_the_reference_names_what_sets_the_forms_apart() -> None:
    """Each row of its table is tried below, and who finds it."""
    said = test_forgeries_left.PAGE.read_text(encoding="utf-8").partition(
        f"## {test_forgeries_left.AT_COMMIT}\n"
    )[2]
    rows = test_forgeries_left.rows_of(said.partition("\n## ")[0])
    assert dict(rows) == {name: forged.by_at_commit for name, forged in IN_PIECES.items()}


@AT_COMMIT
@pytest.mark.parametrize("name", HONEST)
def test_an_honest_write_may_come_in_pieces(forger: Forger, name: str) -> None:
    """A statement for each table, in any order but for foreign keys: the entry comes first."""
    honest = HONEST[name]
    pieces = honest.in_pieces()
    assert forger.attempt(pieces) is None
    if isinstance(honest.statements[0], Write):
        first, *others = pieces.statements
        assert forger.attempt(replace(pieces, statements=[first, *reversed(others)])) is None


@AT_COMMIT
@pytest.mark.parametrize("name", FORGERIES)
def test_a_forgery_in_pieces_is_refused(forger: Forger, name: str) -> None:
    """By what refuses it whole."""
    assert forger.attempt(FORGERIES[name].in_pieces()) == FORGERIES[name].refused_by(COMMIT)


@pytest.mark.parametrize("name", IN_PIECES)
def test_what_only_one_statement_shows_is_refused_there(server: Server, name: str) -> None:
    """The second form leaves it to `verify`, or to nobody, where it is as if never in pieces."""
    forgery = IN_PIECES[name]
    with forging(server, COMMIT) as forger:
        assert forger.attempt(forgery, stays=True) is None
        with owning(forger.database) as session:
            hash_again(session, getattr(forger.people, forgery.whose))
            report = Report()
            recompute(session, report, list(vars(forger.people).values())[:6])
            whose = {getattr(forger.people, forgery.whose)}
            assert {each.user_id for each in report.first} == (
                whose if forgery.by_at_commit == "`verify`" else set()
            )


@pytest.mark.parametrize("forger", [STATEMENT], indirect=True, ids=str)
@pytest.mark.parametrize("name", IN_PIECES)
def test_the_first_form_refuses_that(forger: Forger, name: str) -> None:
    """So that the list above is what sets the two apart."""
    assert forger.attempt(IN_PIECES[name]) == "trigger"


@AT_COMMIT
def test_what_was_checked_before_is_no_way_in(forger: Forger) -> None:
    """Lines added to an entry that was found right already are refused."""
    honest = Write(
        [entry(14, "spend", -10, 555)], [(14, 7, -10, 490)], lots={7: (490, 14)}, user=(555, 14)
    )
    more = Write(postings=[(14, 1, 5, 50), (14, 2, -5, 15)], lots={1: (50, 14), 2: (15, 14)})
    assert forger.attempt(Forgery([honest, *CHECKED_BEFORE, more])) == "trigger"
    assert forger.attempt(Forgery([honest, *CHECKED_BEFORE])) is None


def test_what_was_written_now_is_told_from_the_rest(
    fresh_database: ConnectionParameters,
) -> None:
    """Savepoints count; what others committed since, numbers to come and numbers of old do not."""
    assert fresh_database
    _put(COMMIT)
    is_new = text("SELECT credit_written_now(xmin) FROM users WHERE user_id = :who")
    with SessionLocal() as session, SessionLocal() as other:
        mine = make_user(session).user_id
        theirs = make_user(other).user_id
        other.commit()
        with session.begin_nested():
            nested = make_user(session).user_id
        with session.begin_nested():
            last = make_user(session).user_id
            assert [
                session.scalars(is_new, {"who": who}).one() for who in (mine, nested, last, theirs)
            ] == [True, True, True, False]
        numbers = "SELECT credit_written_now(((:base + :n) & 4294967295)::text::xid)"
        base = session.scalars(text("SELECT pg_current_xact_id()::text::bigint")).one()
        for n in (-1_000_000_000, -1, 1_000_000, 2_000_000_000):
            assert not session.scalars(text(numbers), {"base": base, "n": n}).one()


async def test_a_refusal_at_commit_reaches_the_one_whose_books_are_wrong(
    fresh_database: ConnectionParameters,
) -> None:
    """In a batch too: the others' operations are done, and the error is the one it always was."""
    assert fresh_database
    _put(COMMIT)
    people = make_users(100, 100, 100)
    with SessionLocal.begin() as session, triggers_off(session, "credit_lots"):
        session.execute(
            text("UPDATE credit_lots SET remaining = 99 WHERE user_id = :who"), {"who": people[1]}
        )
    async with running() as engine:
        outcomes = await all_at_once(engine, [spend(who, 10) for who in people])
    assert isinstance(outcomes[0], Result)
    assert isinstance(outcomes[2], Result)
    assert isinstance(outcomes[1], DBAPIError)
    assert is_ledger_unbalanced(outcomes[1])


async def test_what_another_node_refuses_is_the_same_error(
    fresh_database: ConnectionParameters, driver: Driver
) -> None:
    """Citus warns in that node's words, and then reports an internal error at COMMIT."""
    assert fresh_database
    [who] = make_users(100)
    with SessionLocal.begin() as session:
        for statement in _AS_CITUS:
            session.execute(text(statement))
    with pytest.raises(DBAPIError) as refused:
        await driver.transact(lambda session: execute(session, [spend(who, 10)]))
    assert is_ledger_unbalanced(refused.value)
    assert "of another node" in str(refused.value.orig)
    async with running() as engine:
        [outcome] = await all_at_once(engine, [spend(who, 10)])
    assert isinstance(outcome, DBAPIError)
    with SessionLocal.begin() as session:
        session.execute(text("DROP TRIGGER as_citus ON users"))
    await driver.transact(lambda session: execute(session, [spend(who, 10)]))


_AS_CITUS = (
    """CREATE FUNCTION as_citus() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    RAISE WARNING USING ERRCODE = 'P0001', MESSAGE = 'LEDGER_UNBALANCED: of another node';
    RAISE EXCEPTION USING ERRCODE = 'XX000', MESSAGE = 'could not commit'; END $$""",
    """CREATE CONSTRAINT TRIGGER as_citus AFTER UPDATE ON users
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION as_citus()""",
)


def _put(form: LedgerTriggers) -> None:
    with SessionLocal.begin() as session:
        put_in_place(session.connection(), form)


_DEFINED = text("""
    SELECT tgname, tgenabled, pg_get_triggerdef(pg_trigger.oid) FROM pg_trigger
    WHERE NOT tgisinternal ORDER BY 1, 3
""")


def _triggers(session: Session) -> list[tuple[str, str, str]]:
    return [(name, str(on), definition) for name, on, definition in session.execute(_DEFINED)]


def test_each_form_can_be_put_in_place_of_the_other(db: Session) -> None:
    """The way back leaves what was before; a form that is in place is left alone."""
    connection, before = db.connection(), _triggers(db)
    assert is_in_place(connection, STATEMENT)
    assert not put_in_place(connection, STATEMENT)
    assert put_in_place(connection, COMMIT)
    assert is_in_place(connection, COMMIT)
    assert not is_in_place(connection, STATEMENT)
    assert not put_in_place(connection, COMMIT)
    added = {name for name, _, _ in _triggers(db)} - {name for name, _, _ in before}
    assert added == {name for name, _ in CREATE_AT_COMMIT}
    off = {name for name, on, _ in _triggers(db) if on == "D"}
    assert off == {name for name, _ in REPLACED}
    assert put_in_place(connection, STATEMENT)
    assert _triggers(db) == before


@pytest.mark.parametrize(
    "damage",
    [
        "DROP TRIGGER credit_lots_at_commit ON credit_lots",
        "ALTER TABLE users DISABLE TRIGGER users_at_commit",
        "ALTER TABLE users ENABLE TRIGGER users_balanced",
        (
            "CREATE OR REPLACE FUNCTION credit_written_now(writer xid) RETURNS boolean"
            " LANGUAGE sql AS 'SELECT true'"
        ),
    ],
)
def test_what_is_not_whole_is_made_whole(db: Session, damage: str) -> None:
    """A trigger too few, switched off or too many, or another function."""
    connection = db.connection()
    put_in_place(connection, COMMIT)
    db.execute(text(damage))
    assert not is_in_place(connection, COMMIT)
    assert put_in_place(connection, COMMIT)
    assert is_in_place(connection, COMMIT)


def test_migrating_puts_the_form_in_place_that_the_settings_name(
    fresh_database: ConnectionParameters,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """On the way up; on the way down it is the first form, which the migrations know."""
    assert fresh_database

    def stands(form: LedgerTriggers) -> bool:
        with get_engine().connect() as connection:
            return is_in_place(connection, form)

    def choose(form: LedgerTriggers) -> None:
        monkeypatch.setenv("DATABASE_LEDGER_TRIGGERS", form)
        get_settings.cache_clear()
        command.upgrade(alembic_config(), "head")

    choose(COMMIT)
    assert stands(COMMIT)
    assert "The ledger's triggers now look at each commit" in capfd.readouterr().err
    choose(COMMIT)
    assert "triggers" not in capfd.readouterr().err
    command.downgrade(alembic_config(), "-1")
    assert stands(STATEMENT)
    choose(COMMIT)
    assert stands(COMMIT)
    choose(STATEMENT)
    assert stands(STATEMENT)
