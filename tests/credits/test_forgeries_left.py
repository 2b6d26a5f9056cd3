"""What the database lets the service's own role write, and `verify` or the hash chain must find."""

import re
import uuid

import pytest

from src.common.credits.domain import own_commands
from src.common.credits.domain.commands import LEDGER_ACTOR, Command, Grant
from src.common.credits.verification.recompute import recompute
from src.common.credits.verification.report import Report
from tests.approvals import test_triggers
from tests.console import test_audit_forgeries
from tests.credits import test_forgeries_holds, test_forgeries_journal
from tests.credits.books import hash_again
from tests.credits.forging import Forgery, Write, entry, forging, lot, owning
from tests.document.document import REPOSITORY
from tests.fixtures.databases import Server

PAGE = REPOSITORY / "docs" / "reference" / "what-the-database-refuses.md"
ROW = re.compile(r"^\| (?P<what>.+?) \| (?P<by>.+?) \|$", re.MULTILINE)
LEFT = "`verify`"
NOBODY = "nobody"
HEAD = "what is tried"
AT_COMMIT = "Where the triggers look at COMMIT"

SPEND = entry(14, "spend", -10, 555)


SOMEBODY = uuid.UUID(int=0)
A_GRANT = Grant(user_id=SOMEBODY, key="any", actor="key:forger", amount=10)


def digest(command: Command) -> str:
    """The digest that the ledger would write, as SQL: whose it is makes no difference."""
    return f"decode('{command.digest.hex()}', 'hex')"


def a_spend(**others: object) -> Forgery:
    """A spend of 10 from lot 1, but for these columns."""
    return Forgery(
        [Write([{**SPEND, **others}], [(14, 1, -10, 35)], lots={1: (35, 14)}, user=(555, 14))],
        by=LEFT,
    )


LEFT_TO_OTHERS = {
    "a spend that takes from lots in a wrong order": Forgery(
        [Write([SPEND], [(14, 7, -10, 490)], lots={7: (490, 14)}, user=(555, 14))], by=LEFT
    ),
    "credits of a hold given back to lots in a wrong order": Forgery(
        [
            Write(
                [
                    entry(14, "hold", -90, 475, hold_expires_at="'2020-01-02T01:00Z'"),
                    entry(15, "capture", 10, 485, captured=80, related_seq=14),
                ],
                [(14, 1, -45, 0), (14, 2, -20, 0), (14, 7, -25, 475), (15, 1, 10, 10)],
                lots={1: (10, 15), 2: (0, 14), 7: (475, 14)},
                new_holds=[
                    {
                        "seq": 14,
                        "amount": 90,
                        "captured": 80,
                        "status": "'captured'",
                        "expires_at": "'2020-01-02T01:00Z'",
                    }
                ],
                user=(485, 15),
            )
        ],
        by=LEFT,
    ),
    "a wrong `result_balance`": a_spend(result_balance=999),
    "a wrong `request_digest`": a_spend(request_digest="decode(repeat('11', 32), 'hex')"),
    "a wrong `entry_hash`": a_spend(),
    "a spend with a key of the ledger's own (`~purchase:…`)": a_spend(
        idempotency_key="'~purchase:cs_1'"
    ),
    "a clawback without a refund": Forgery(
        [
            Write(
                [entry(14, "clawback", -10, 555)],
                [(14, 7, -10, 490)],
                lots={7: (490, 14)},
                user=(555, 14),
            )
        ],
        by=LEFT,
    ),
    "a clawback that raises a debt without a refund": Forgery(
        [
            Write(
                [entry(4, "clawback", 0, 0, related_seq=1)],
                debts={1: "outstanding = 60"},
                user=(0, 4),
            )
        ],
        "debtor",
        LEFT,
    ),
    "a reinstatement that lowers a debt while its refund stands": Forgery(
        [
            Write(
                [entry(4, "reinstatement", 0, 0, related_seq=1)],
                debts={1: "outstanding = 0"},
                user=(0, 4),
            )
        ],
        "debtor",
        LEFT,
    ),
    "UPDATE of a purchase's `refunded_cents` or `disputed_cents`": Forgery(
        ["UPDATE transactions SET refunded_cents = 1 WHERE user_id = :who"], by=LEFT
    ),
    "an opening entry of another balance than there was": Forgery(
        [
            Write(
                [
                    entry(
                        1,
                        "opening",
                        40,
                        40,
                        idempotency_key="'~opening'",
                        actor=f"'{LEDGER_ACTOR}'",
                        request_digest=digest(own_commands.opening(SOMEBODY, 40)),
                    )
                ],
                [(1, 1, 40, 40)],
                [lot(1, 40, source="'opening'", priority=100)],
                user=(40, 1),
            )
        ],
        "before",
        NOBODY,
    ),
    "another `reference`, `actor` or key of a caller": a_spend(
        reference="'x'", actor="'user:somebody'", idempotency_key="'x'"
    ),
    "an entry with a `created_at` in the past": a_spend(),
    "a grant that nobody asked for": Forgery(
        [
            Write(
                [entry(14, "grant", 10, 575, request_digest=digest(A_GRANT))],
                [(14, 14, 10, 10)],
                [lot(14, 10)],
                user=(575, 14),
            )
        ],
        by=NOBODY,
    ),
}


@pytest.mark.parametrize("name", LEFT_TO_OTHERS)
def test_it_passes_the_database(server: Server, name: str) -> None:
    """So that the reference does not promise too little either; and who is to find it does."""
    forgery = LEFT_TO_OTHERS[name]
    with forging(server) as forger:
        assert forger.attempt(forgery, stays=True) is None
        with owning(forger.database) as session:
            if name != "a wrong `entry_hash`":
                hash_again(session, getattr(forger.people, forgery.whose))
            report = Report()
            recompute(session, report, list(vars(forger.people).values())[:6])
    whose = {getattr(forger.people, forgery.whose)}
    assert {each.user_id for each in report.first} == (whose if forgery.by == LEFT else set())


def rows_of(text: str) -> list[tuple[str, str]]:
    """What its tables say is tried, and by whom it is refused or found."""
    return [(what, by) for what, by in ROW.findall(text) if what.strip("-") and what != HEAD]


def test_the_reference_names_every_statement_and_what_refuses_it() -> None:
    """Each row of its table is a test, and each test a row."""
    tried = {
        **test_forgeries_journal.FORGERIES,
        **test_forgeries_holds.FORGERIES,
        **LEFT_TO_OTHERS,
    }
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(f"## {AT_COMMIT}\n")
    said = dict(rows_of(before + rest.partition("\n## ")[2]))
    requests = {name: forged.by for name, forged in test_triggers.FORGERIES.items()}
    trail = {name: by for name, (_, by) in test_audit_forgeries.FORGERIES.items()}
    assert said == requests | trail | {name: forgery.by for name, forgery in tried.items()}
