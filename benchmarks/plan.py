"""What a run measures: contestants, loads, and which of them are compared side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec

from benchmarks.calls.http_reads import USERS_SIGNED_IN
from benchmarks.checkouts import Checkout
from benchmarks.contestants.backlog import Backlog
from benchmarks.contestants.base import Contestant, Database, Load, Spread
from benchmarks.contestants.commands import USER, CommandContestant
from benchmarks.contestants.http import HttpContestant
from benchmarks.contestants.pgbench import Pgbench
from benchmarks.contestants.processes import PythonContestant
from benchmarks.contestants.reconcile import Reconcile
from benchmarks.contestants.scripts import DOCUMENT_SQL, SAME_ROWS
from benchmarks.runner import Turn
from src.local_postgres import RunningServer

FLUSH_DELAY_US = 1_000
PEER_USERS = 1_000
"""Their own interfaces make them, one by one."""


@dataclass(frozen=True)
class Peer:
    """A package of the group `peers`."""

    name: str
    package: str
    """What is imported."""
    calls: str
    database: Database


PEERS = (
    Peer(
        "credit-ledger",
        "credit_ledger",
        "benchmarks.peers.credit_ledger:CreditLedger",
        Database.CREDIT_LEDGER,
    ),
    Peer("gringotts-api", "gringotts", "benchmarks.peers.gringotts:Gringotts", Database.GRINGOTTS),
    Peer("hf-nostro", "nostro", "benchmarks.peers.nostro:Nostro", Database.NOSTRO),
)

_IN_PYTHON = {
    "document-orm": "benchmarks.calls.document_orm:DocumentOrm",
    "orm-purchase": "benchmarks.calls.orm_purchase:OrmPurchase",
    "ledger-sync": "benchmarks.calls.ledger:LedgerSync",
    "ledger-async": "benchmarks.calls.ledger:LedgerAsync",
    "engine": "benchmarks.calls.engine:EngineCalls",
    "engine-reverse": "benchmarks.calls.engine:EngineReversals",
}
_WITHOUT_LEDGER = {
    "plain-purchase": "benchmarks.calls.purchases:PlainPurchase",
    "raw-purchase": "benchmarks.calls.purchases:RawPurchase",
}
_OVER_HTTP = {
    "http-echo": "benchmarks.calls.http:HttpEcho",
    "http-spend": "benchmarks.calls.http:HttpSpend",
    "http-document": "benchmarks.calls.http:HttpDocument",
    "http-webhook": "benchmarks.calls.webhooks:HttpWebhook",
    "http-webhook-echo": "benchmarks.calls.webhooks:HttpWebhookEcho",
    "http-balance": "benchmarks.calls.http_reads:HttpBalance",
    "http-entries": "benchmarks.calls.http_reads:HttpEntries",
    "http-sign-in": "benchmarks.calls.http_reads:HttpSignIn",
}
_BACKLOG_EVENTS = 20_000
_RECONCILED_PAYMENTS = 5_000
_READS = ("http-balance", "http-entries", "http-sign-in")
_WRITES_NOTHING = ("http-echo", "http-webhook-echo", *_READS)
_COMMANDS = {
    "start-up-help": ("--help",),
    "start-up-credits": ("credits", "show", USER),
}
DESCRIPTIONS = {
    "document-sql": "pgbench: the document's five statements, on its schema before the ledger",
    "same-rows": "pgbench: one database transaction that writes the rows our spend writes",
    "document-orm": "the document's async ORM update, on our schema and engine settings",
    "orm-purchase": "the document's purchase, credits beside a transaction, on our models",
    "plain-purchase": "the same code on the document's models and schema, without a ledger",
    "raw-purchase": "its statements on asyncpg, on the same schema",
    "ledger-sync": "src.common.credits.ledger, a database transaction each, threads",
    "ledger-async": "the same, tasks of one event loop",
    "engine": "src.common.credits.engine.engine, batches",
    "engine-reverse": "the same engine undoes spends that it did before, a credit at a time",
    "credit-ledger": "metering.decrement, threads",
    "gringotts-api": "what its charge() dependency does, threads, no keys",
    "hf-nostro": "AsyncLedger.debit, tasks of one event loop",
    "http-echo": "a route of our application that parses the body and answers",
    "http-spend": "POST /api/v1/user/{id}/credits/spend with an API key",
    "http-document": "a route that runs the document's update, no authentication",
    "http-webhook": "POST /api/v1/webhook: a signed event of a first payment each",
    "http-webhook-echo": "a route of our application that reads the same event and answers",
    "backlog": f"a worker that finds {_BACKLOG_EVENTS} stored events, a first payment each",
    "reconcile": f"`flashslides stripe reconcile` of {2 * _RECONCILED_PAYMENTS} objects that agree",
    "verify": "`flashslides verify`, of every user",
    "http-balance": "GET /api/v1/user/{id}/credits with the user's token",
    "http-entries": "GET /api/v1/user/{id}/credits/entries?limit=10 with the user's token",
    "http-sign-in": "POST /api/v1/authenticate-jwt of a user who is known",
    "start-up-help": "`flashslides --help`, a process each",
    "start-up-credits": "`flashslides credits show` of one user, a process each",
}
AGAINST = " (against)"
"""After the name of a contestant of the revision that is compared with."""


def installed_peers() -> list[Peer]:
    """Return the peers of which the packages are there."""
    return [peer for peer in PEERS if find_spec(peer.package) is not None]


def contestants_of(
    server: RunningServer, api_key: str, *, quick: bool = False
) -> dict[str, Contestant]:
    """Return everybody who can take part, by name."""
    program = server.bin_dir / "pgbench"

    def pgbench(name: str, database: Database, script: str) -> Pgbench:
        connection = replace(server.connection, database=database)
        return Pgbench(name, database, script, program, connection)

    everybody: list[Contestant] = [
        pgbench("document-sql", Database.DOCUMENT, DOCUMENT_SQL),
        pgbench("same-rows", Database.LEDGER, SAME_ROWS),
        *(PythonContestant(name, calls) for name, calls in _IN_PYTHON.items()),
        *(
            PythonContestant(name, calls, Database.DOCUMENT)
            for name, calls in _WITHOUT_LEDGER.items()
        ),
        *(PythonContestant(peer.name, peer.calls, peer.database) for peer in installed_peers()),
        *(
            HttpContestant(name, calls, api_key, writes=name not in _WRITES_NOTHING)
            for name, calls in _OVER_HTTP.items()
        ),
        Backlog(500 if quick else _BACKLOG_EVENTS),
        Reconcile(100 if quick else _RECONCILED_PAYMENTS),
        CommandContestant("verify", ["verify"], is_for_all=True),
        *(CommandContestant(name, arguments) for name, arguments in _COMMANDS.items()),
    ]
    return {contestant.name: contestant for contestant in everybody}


_Ours = Backlog | CommandContestant | HttpContestant | PythonContestant | Reconcile


def with_twins(everybody: Mapping[str, Contestant], checkout: Checkout) -> dict[str, Contestant]:
    """Return everybody, and beside each whose code is ours the same of another checkout."""
    return {
        each.name: each
        for contestant in everybody.values()
        for each in (contestant, *_twins(contestant, checkout))
    }


def _twins(contestant: Contestant, checkout: Checkout) -> list[Contestant]:
    if not isinstance(contestant, _Ours):
        return []
    if contestant.database is not Database.LEDGER:  # somebody else's package
        return []
    return [replace(contestant, name=f"{contestant.name}{AGAINST}", checkout=checkout)]


@dataclass(frozen=True)
class Sizes:
    """How long, how often, over how many users."""

    seconds: float
    repeats: int
    users: int
    quick: bool = False


_PEER_NAMES = tuple(peer.name for peer in PEERS)
_Row = tuple[tuple[str, ...], Spread, int, int, int]
"""Contestants, users, callers, processes, microseconds added to a flush."""

_UNIFORM, _HOT = Spread.UNIFORM, Spread.HOT
_ONE_OF_OURS = (
    "document-sql",
    "same-rows",
    "document-orm",
    "ledger-sync",
    "ledger-async",
    "engine",
)
_PURCHASES = ("raw-purchase", "plain-purchase", "orm-purchase")
_WEBHOOKS = ("http-webhook-echo", "http-webhook")
_QUICK_GROUPS: tuple[tuple[_Row, ...], ...] = (
    ((("document-sql", "same-rows", "document-orm", "engine", *_PEER_NAMES), _UNIFORM, 32, 1, 0),),
    ((("document-sql", "same-rows", "document-orm", "engine", *_PEER_NAMES), _HOT, 32, 1, 0),),
    ((("document-sql", "engine"), _HOT, 32, 1, FLUSH_DELAY_US),),
    ((("http-echo", "http-spend", "http-document", *_READS), _UNIFORM, 32, 1, 0),),
    ((_WEBHOOKS, _UNIFORM, 32, 1, 0), (_WEBHOOKS, _UNIFORM, 32, 2, 0)),
    ((tuple(_COMMANDS), _UNIFORM, 1, 1, 0),),
    ((_PURCHASES, _UNIFORM, 1, 1, 0),),
    ((("verify",), _UNIFORM, 1, 1, 0),),
    ((("backlog", "reconcile"), _UNIFORM, 1, 1, 0),),
)
_GROUPS: tuple[tuple[_Row, ...], ...] = (
    ((_ONE_OF_OURS, _UNIFORM, 1, 1, 0),),
    ((_PURCHASES, _UNIFORM, 1, 1, 0), (_PURCHASES, _UNIFORM, 32, 1, 0)),
    (((*_ONE_OF_OURS, *_PEER_NAMES), _UNIFORM, 32, 1, 0),),
    (
        (("document-sql",), _UNIFORM, 8, 1, 0),
        (("document-sql",), _UNIFORM, 64, 1, 0),
        (("document-sql", "same-rows", "engine", "engine-reverse"), _UNIFORM, 256, 1, 0),
        (("engine",), _UNIFORM, 256, 2, 0),
    ),
    ((("document-sql", "same-rows", "engine"), _HOT, 1, 1, 0),),
    (
        (
            ("document-sql", "same-rows", "document-orm", "ledger-async", "engine", *_PEER_NAMES),
            *(_HOT, 32, 1, 0),
        ),
    ),
    ((("document-sql", "engine"), _HOT, 256, 1, 0), (("engine",), _HOT, 256, 2, 0)),
    ((("engine",), _HOT, 128, 1, 0), (("engine",), _HOT, 128, 4, 0)),
    ((("document-sql", "engine"), _HOT, 32, 1, FLUSH_DELAY_US),),
    (
        (("http-echo", "http-spend", "http-document", *_READS), _UNIFORM, 32, 1, 0),
        (("http-spend", "http-document"), _HOT, 32, 1, 0),
        (("http-echo", "http-spend"), _UNIFORM, 32, 2, 0),
    ),
    (
        (_WEBHOOKS, _UNIFORM, 1, 1, 0),
        (_WEBHOOKS, _UNIFORM, 32, 1, 0),
        (_WEBHOOKS, _UNIFORM, 32, 2, 0),
        (("backlog",), _UNIFORM, 1, 1, 0),
    ),
    ((("verify",), _UNIFORM, 1, 1, 0),),
    ((("reconcile",), _UNIFORM, 1, 1, 0),),
    ((tuple(_COMMANDS), _UNIFORM, 1, 1, 0),),
)


def groups_of(
    contestants: Mapping[str, Contestant], sizes: Sizes, only: Sequence[str] = ()
) -> list[list[Turn]]:
    """Return what is measured, in groups that run side by side; `only` names contestants."""
    groups = [
        [
            Turn(contestants[each], _load(name, row, sizes))
            for row in group
            for name in row[0]
            for each in (name, f"{name}{AGAINST}")
            if each in contestants and (not only or name in only)
        ]
        for group in (_QUICK_GROUPS if sizes.quick else _GROUPS)
    ]
    return [group for group in groups if group]


def _load(name: str, row: _Row, sizes: Sizes) -> Load:
    _, spread, callers, processes, flush_delay_us = row
    users = sizes.users
    if name in _PEER_NAMES:
        users = min(users, PEER_USERS)
    if name in _READS:
        users = min(users, USERS_SIGNED_IN)
    return Load(spread, users, callers, sizes.seconds, processes, flush_delay_us)
