"""What has to be told of a storm, read from the journal; and an endpoint with bad days of its own.

The journal's part is worked out here from the entries alone, in other words than the triggers'.
"""

import asyncio
import base64
import datetime as dt
import json
import random
import uuid
from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session
from standardwebhooks import Webhook

from src.cli.reach import in_database
from src.common.database import SessionLocal
from src.common.models.credit_entry import CreditEntry, EntryKind
from src.common.models.credit_hold import CreditDebt
from src.common.models.credit_lot import CreditLot
from src.common.models.credit_notice import CreditNotice, NoticeStatus, NoticeType
from src.common.models.notice_endpoint import NoticeEndpoint, NoticeSecret
from src.common.models.notice_endpoint_state import NoticeEndpointState
from src.common.models.transaction import Transaction
from src.common.notices.delivery.deliver import deliver_due
from src.common.notices.ids import notice_id, parse_notice_id
from src.common.settings import load_settings
from src.local_postgres import free_port
from tests.notices.receiver import Received, receiving

SECRET = b"of an endpoint with bad days ..."
THRESHOLD = 100
OF_THE_JOURNAL = {
    NoticeType.GRANTED,
    NoticeType.SPENT,
    NoticeType.REVERSED,
    NoticeType.HOLD_EXPIRED,
    NoticeType.PURCHASE_CREDITED,
    NoticeType.LOW,
    NoticeType.EXHAUSTED,
}
HOW = {"take": 60, "refuse": 10, "close": 8, "busy": 4, "late": 4, "hang": 2}
"""What the endpoint does with a request, and how often."""
PATIENCE_SECONDS = 0.3
Told = tuple[uuid.UUID, int, str]
"""A user, an entry, and what is told of it."""


class Endpoint:
    """Somebody's receiver: it fails, hangs, answers late, is away, and keeps what it has taken."""

    def __init__(self, seed: int, happened: Counter[str]) -> None:
        self._seed, self._happened = seed, happened
        self._chance = random.Random(f"endpoint {seed}")  # noqa: S311  no secret
        self._port = free_port()
        self._attempts = Counter[str]()
        self.taken: list[Received] = []
        self.given_up: set[str] = set()
        """What was dead once, and was sent again."""
        self.is_calm = False
        types = [str(each) for each in NoticeType if each is not NoticeType.EXPIRING]
        with SessionLocal.begin() as session:
            endpoint = NoticeEndpoint(
                url=f"http://127.0.0.1:{self._port}/hook", types=types, low_threshold=THRESHOLD
            )
            session.add(endpoint)
            session.flush()
            session.add(NoticeSecret(endpoint_id=endpoint.endpoint_id, secret=SECRET))

    def work(self) -> None:
        """The worker's turn, after whatever it has to wait for; the endpoint may be away."""
        with SessionLocal.begin() as session:
            waiting = CreditNotice.status == NoticeStatus.PENDING
            due = {"next_attempt_at": CreditNotice.created_at, "lease_expires_at": None}
            session.execute(update(CreditNotice).where(waiting).values(due))
            session.execute(update(NoticeEndpointState).values(paused_until=None))
        is_away = not self.is_calm and self._chance.random() < 0.2
        asyncio.run(self._deliver(is_away=is_away))

    def clear_up(self) -> None:
        """It takes everything from now on; what was given up is sent again, until all is there."""
        self.is_calm = True
        for _ in range(100):
            with SessionLocal.begin() as session:
                dead = CreditNotice.status == NoticeStatus.DEAD
                rows = session.execute(
                    select(CreditNotice.user_id, CreditNotice.number).where(dead)
                )
                self.given_up |= {notice_id(*row) for row in rows}
                again = {
                    "status": NoticeStatus.PENDING,
                    "attempts": 0,
                    "finished_at": None,
                    "next_attempt_at": func.clock_timestamp(),
                }
                session.execute(update(CreditNotice).where(dead).values(again))
            self.work()
            if self._waiting() == 0:
                return
        raise AssertionError("not everything can be delivered")

    def _waiting(self) -> int:
        with SessionLocal() as session:
            undelivered = CreditNotice.status != NoticeStatus.DELIVERED
            return session.scalars(select(func.count()).where(undelivered)).one()

    async def _deliver(self, *, is_away: bool) -> None:
        settings = load_settings(notices_timeout_seconds=PATIENCE_SECONDS)
        if is_away:
            self._happened["endpoint away"] += 1
            await deliver_due(in_database, settings)
            return
        async with receiving(self._answer, port=self._port):
            await deliver_due(in_database, settings)

    async def _answer(self, request: Received) -> tuple[int, dict[str, str]] | None:
        how = self._how(request)
        self._happened[f"endpoint: {how}"] += 1
        if how in {"take", "late"}:
            self.taken.append(request)
        if how in {"late", "hang"}:
            await asyncio.sleep(2 * PATIENCE_SECONDS)
        if how == "close":
            return None
        return {"refuse": 500, "busy": 503}.get(how, 200), {}

    def _how(self, request: Received) -> str:
        """By chance, and the same whichever request comes first."""
        self._attempts[request.id] += 1
        if self.is_calm:
            return "take"
        found = parse_notice_id(request.id)
        assert found is not None
        chance = random.Random(f"{self._seed}:{found[1]}:{self._attempts[request.id]}")  # noqa: S311
        [how] = chance.choices(list(HOW), list(HOW.values()))
        return how


def check_told(endpoint: Endpoint) -> Counter[str]:
    """All that the journal implies arrived, nothing else did, signed, in order for each user."""
    webhook = Webhook("whsec_" + base64.b64encode(SECRET).decode())
    payloads: dict[str, dict[str, Any]] = {}
    for each in endpoint.taken:
        payload = json.loads(each.body)
        assert _is_signed(webhook, each)
        assert payloads.setdefault(each.id, payload) == payload
    with SessionLocal() as session:
        outbox = list(session.scalars(select(CreditNotice).order_by(CreditNotice.number)))
        assert {each.status for each in outbox} == {NoticeStatus.DELIVERED}
        ids = [notice_id(each.user_id, each.number) for each in outbox]
        assert payloads.keys() == set(ids)
        told = Counter[Told](
            (each.user_id, each.seq or 0, each.type)
            for each in outbox
            if each.type in OF_THE_JOURNAL
        )
        assert told == Counter(implied(session))
        _check_money_back(session, payloads)
    _check_order(endpoint, ids)
    return Counter(str(each.type) for each in outbox)


def _is_signed(webhook: Webhook, request: Received) -> bool:
    """Signed as of the attempt, whenever that was."""
    instant = dt.datetime.fromtimestamp(int(request.headers["webhook-timestamp"]), dt.UTC)
    expected = webhook.sign(request.id, instant, request.body.decode())
    return request.headers["webhook-signature"] == expected


def _check_order(endpoint: Endpoint, ids: list[str]) -> None:
    """Of each user in the order of the numbers, but for what was given up and sent again."""
    first: dict[str, int] = {}
    for place, each in enumerate(endpoint.taken):
        first.setdefault(each.id, place)
    by_user: dict[uuid.UUID, list[tuple[int, int]]] = {}
    for name in ids:
        found = parse_notice_id(name)
        assert found is not None
        if name not in endpoint.given_up:
            by_user.setdefault(found[0], []).append((found[1], first[name]))
    for numbered in by_user.values():
        places = [place for _, place in sorted(numbered)]
        assert places == sorted(places)


def implied(session: Session) -> Iterator[Told]:
    """What the journal has to be told by."""
    entries = session.scalars(select(CreditEntry).order_by(CreditEntry.user_id, CreditEntry.seq))
    bought = {
        (lot.user_id, lot.seq)
        for lot in session.scalars(select(CreditLot).where(CreditLot.transaction_id.is_not(None)))
    }
    for _, of_instant in groupby(entries, lambda each: (each.user_id, each.effective_at)):
        together = list(of_instant)
        for each in together:
            if (kind := _told_of(each)) is not None:
                yield each.user_id, each.seq, kind
            if (each.user_id, each.seq) in bought:
                yield each.user_id, each.seq, NoticeType.PURCHASE_CREDITED
        last = together[-1]
        before = together[0].balance_after - together[0].amount
        if last.balance_after < before:
            if before > THRESHOLD >= last.balance_after:
                yield last.user_id, last.seq, NoticeType.LOW
            if last.balance_after == 0:
                yield last.user_id, last.seq, NoticeType.EXHAUSTED


def _told_of(entry: CreditEntry) -> str | None:
    if entry.kind in {EntryKind.GRANT, EntryKind.OPENING}:
        return NoticeType.GRANTED if entry.amount > 0 else None
    if entry.kind == EntryKind.ADJUSTMENT:
        return NoticeType.GRANTED if entry.amount > 0 else NoticeType.SPENT
    return {
        EntryKind.SPEND: NoticeType.SPENT,
        EntryKind.CAPTURE: NoticeType.SPENT,
        EntryKind.REVERSAL: NoticeType.REVERSED,
        EntryKind.HOLD_EXPIRY: NoticeType.HOLD_EXPIRED,
    }.get(EntryKind(entry.kind))


def _check_money_back(session: Session, payloads: dict[str, dict[str, Any]]) -> None:
    """What changed of refunds, disputes and debts adds up to what there is."""
    refunded, disputed = Counter[str](), Counter[str]()
    owed: dict[tuple[str, int], tuple[int, int]] = {}
    for name, payload in payloads.items():
        data = payload["data"]
        if payload["type"] == NoticeType.PURCHASE_REFUNDED:
            refunded[data["transaction_id"]] += data["changed_by_cents"]
        elif payload["type"] == NoticeType.PURCHASE_DISPUTED:
            disputed[data["transaction_id"]] += data["changed_by_cents"]
        elif payload["type"] in {NoticeType.DEBT_OPENED, NoticeType.DEBT_SETTLED}:
            found = parse_notice_id(name)
            assert found is not None
            key = data["user_id"], data["payment_seq"]
            owed[key] = max(owed.get(key, (0, 0)), (found[1], data["outstanding"]))
    for bought in session.scalars(select(Transaction)):
        name = str(bought.transaction_id)
        assert (refunded[name], disputed[name]) == (bought.refunded_cents, bought.disputed_cents)
    for debt in session.scalars(select(CreditDebt)):
        _, outstanding = owed.get((str(debt.user_id), debt.seq), (0, 0))
        assert (outstanding > 0) == (debt.outstanding > 0)
