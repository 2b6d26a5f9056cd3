"""Many people at once, in several processes: one decision, one execution, exact sums (rule 13)."""

import uuid
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from src.common.approvals import operations
from src.common.approvals.asking import Asked
from src.common.approvals.operations import execute_or_ask
from src.common.approvals.rules import Limits
from src.common.credits.domain.commands import Result
from src.common.credits.domain.own_commands import ByHand
from src.common.credits.operations import execute
from src.common.credits.verification.verify import verify
from src.common.database import SessionLocal, get_engine
from src.common.models.approval import Approval
from src.local_postgres import ConnectionParameters
from tests.approvals.requests import (
    GRACE,
    LIMITS,
    NOTHING_ALONE,
    a_grant,
    a_reversal,
    an_adjustment,
    asked,
)
from tests.credits.books import journal, spend
from tests.credits.committed import balances, look, make_users
from tests.credits.crashes import counting, interrupted
from tests.credits.workers import Crowd, Job, Outcome, crowd

pytestmark = pytest.mark.xdist_group("credits_races")


@dataclass(frozen=True)
class Ask:
    """Do it, or ask for it."""

    command: ByHand
    limits: Limits = NOTHING_ALONE

    def __call__(self, session: Session) -> list[Result]:
        """The result; none where it was asked for."""
        found = execute_or_ask(session, self.command, self.limits)
        return [] if isinstance(found, Asked) else [found]


@dataclass(frozen=True)
class Decide:
    """Consent, refuse or withdraw."""

    decision: Callable[..., Approval]
    approval_id: uuid.UUID
    decider: str

    def __call__(self, session: Session) -> list[Result]:
        """No result."""
        self.decision(session, self.approval_id, decider=self.decider)
        return []


@pytest.fixture(scope="module")
def clients() -> Generator[Crowd]:
    """Three processes of four threads each."""
    with crowd() as processes:
        yield processes


def ask(command: ByHand) -> uuid.UUID:
    """A committed request."""
    with SessionLocal.begin() as session:
        return asked(session, command).approval.approval_id


def counted(outcomes: Sequence[Outcome]) -> Counter[str]:
    """How many were done, asked for or decided, and how many refused with what."""
    return Counter(
        each if isinstance(each, str) else "done" if each else "no result" for each in outcomes
    )


def requests() -> int:
    """How many there are."""
    return look(lambda session: session.scalars(select(func.count(Approval.approval_id))).one())


def journal_of(who: uuid.UUID) -> list[tuple[str, int]]:
    """The user's entries; all books balance."""
    return look(lambda session: journal(session, who))


def test_twenty_people_consent_at_once(
    clients: Crowd, fresh_database: ConnectionParameters
) -> None:
    """One of them did, nineteen are told so; the credits came once, and not before."""
    [who] = make_users(0)
    request = ask(a_grant(who, 500))
    jobs: list[Job] = [
        Decide(operations.consent, request, f"user:{number}") for number in range(20)
    ]
    outcomes = clients.do(fresh_database, jobs)
    assert counted(outcomes) == {"no result": 1, "APPROVAL_DECIDED": 19}
    assert journal_of(who) == [("grant", 500)]


def test_one_person_clicks_twenty_times(
    clients: Crowd, fresh_database: ConnectionParameters
) -> None:
    """Each click is answered the same; one of them did it."""
    [who] = make_users(0)
    request = ask(a_grant(who, 500))
    jobs: list[Job] = [Decide(operations.consent, request, GRACE)] * 20
    assert counted(clients.do(fresh_database, jobs)) == {"no result": 20}
    assert journal_of(who) == [("grant", 500)]


def test_consent_refusal_and_withdrawal_at_once(
    clients: Crowd, fresh_database: ConnectionParameters
) -> None:
    """One of eight wins for each of three requests: the credits came if it was a consent."""
    [who] = make_users(0)
    for _ in range(3):
        request = ask(a_grant(who, 500))
        before = len(journal_of(who))
        jobs: list[Job] = [
            *(Decide(operations.consent, request, f"user:{number}") for number in range(4)),
            *(Decide(operations.refuse, request, f"user:no-{number}") for number in range(3)),
            Decide(operations.withdraw, request, "user:ada"),
        ]
        outcomes = clients.do(fresh_database, jobs)
        assert counted(outcomes) == {"no result": 1, "APPROVAL_DECIDED": 7}
        consented = any(not isinstance(each, str) for each in outcomes[:4])
        assert len(journal_of(who)) == before + consented


def test_twenty_askers_with_one_key(clients: Crowd, fresh_database: ConnectionParameters) -> None:
    """One request; with twenty keys there are twenty."""
    [who] = make_users(0)
    jobs: list[Job] = [Ask(a_grant(who, 500, key="one"))] * 20
    assert counted(clients.do(fresh_database, jobs)) == {"no result": 20}
    assert requests() == 1
    each_own: list[Job] = [Ask(a_grant(who, 500)) for _ in range(20)]
    assert counted(clients.do(fresh_database, each_own)) == {"no result": 20}
    assert requests() == 21
    assert journal_of(who) == []


def test_thirty_small_gifts_at_once_give_no_more_than_the_limit(
    clients: Crowd, fresh_database: ConnectionParameters
) -> None:
    """Ten of 10 are 100, and twenty take another's consent; others have limits of their own."""
    [who] = make_users(0)
    jobs: list[Job] = [Ask(a_grant(who, 10), LIMITS) for _ in range(30)]
    assert counted(clients.do(fresh_database, jobs)) == {"done": 10, "no result": 20}
    assert (requests(), balances([who])) == (20, [100])
    others: list[Job] = [Ask(a_grant(who, 10, actor=GRACE), LIMITS) for _ in range(12)]
    assert counted(clients.do(fresh_database, others)) == {"done": 10, "no result": 2}


def test_two_requests_for_the_last_credits(
    clients: Crowd, fresh_database: ConnectionParameters
) -> None:
    """Consent to both at once: the second is refused, and stays open."""
    [who] = make_users(100)
    first, second = (ask(an_adjustment(who, -100)) for _ in range(2))
    jobs: list[Job] = [Decide(operations.consent, each, GRACE) for each in (first, second)]
    assert counted(clients.do(fresh_database, jobs)) == {
        "no result": 1,
        "INSUFFICIENT_CREDITS": 1,
    }
    assert balances([who]) == [0]
    open_requests = select(func.count()).where(Approval.status == "open")
    assert look(lambda session: session.scalars(open_requests).one()) == 1


class _Killed(BaseException):
    """Nothing of ours may catch it; the database undoes what was not committed."""


def _kill(_connection: object) -> None:
    raise _Killed


@pytest.mark.parametrize("kind", ["grant", "adjustment", "reversal"])
def test_whoever_consents_dies_at_any_statement(
    fresh_database: ConnectionParameters, kind: str
) -> None:
    """Before each in turn, COMMIT too: nothing is decided, and the next consent does it once."""
    assert fresh_database
    [who] = make_users(5_000)
    with SessionLocal.begin() as session:
        execute(session, [spend(who, 1_000)])
    make: dict[str, Callable[[], ByHand]] = {
        "grant": lambda: a_grant(who, 10),
        "adjustment": lambda: an_adjustment(who, -10),
        "reversal": lambda: a_reversal(who, 2, 10),
    }

    def consent(request: uuid.UUID) -> None:
        with SessionLocal.begin() as session:
            operations.consent(session, request, decider=GRACE)

    with counting(get_engine()) as statements:
        consent(ask(make[kind]()))
    last = statements()
    assert last > 5, "it locks, reads, writes and commits"
    for number in range(1, last + 1):
        request = ask(make[kind]())
        before = journal_of(who)
        with interrupted(get_engine(), number, _kill):
            try:
                consent(request)
            except _Killed:
                pass
            else:  # fewer statements than the first time, which prepared some
                continue
        assert journal_of(who) == before
        consent(request)
        assert len(journal_of(who)) == len(before) + 1
    *_, report = verify(SessionLocal)
    assert report.differing_users == 0
