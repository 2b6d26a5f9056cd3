"""What a replica may answer is marked, function by function; what writes or decides is not."""

import importlib
import inspect
import pkgutil
import re
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

import src.api
import src.cli
import src.common
import src.console
from src.common.postgres.lagging_reads import MayLag, Source
from src.common.replicas import Reader

SOURCES = Path(src.common.__path__[0]).parent
MARKED = {
    "src.common.accounts.search.search_users",
    "src.common.credits.queries.explain",
    "src.common.credits.queries.history",
    "src.common.credits.verification.verify.count_users",
    "src.common.credits.verification.verify.sample_directory",
    "src.common.credits.verification.verify.sample_users",
    "src.common.purchases.queries.list_purchases",
    "src.common.purchases.queries.list_purchases_of",
    "src.common.replicas._nothing",
    "src.common.reports.making.write_whole_report",
    "src.common.reports.making.write_whole_table",
    "src.console.overview_figures._read_credits",
    "src.console.pages.reports._read",
}
"""Each shows somebody something; whoever goes on to act asks the primary, which decides."""
TAKES_STANDBYS = {
    "common/async_replicas.py",
    "common/doctor/context.py",
    "common/postgres/engines.py",
    "common/replicas.py",
}
"""Who opens connections to a standby: for readings that are marked, and for looks that are
limited to `transaction_read_only`."""


def modules() -> Iterator[Any]:
    """Every module of ours that is not a program."""
    for package in (src.common, src.api, src.cli, src.console):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not found.name.endswith("__main__"):
                yield importlib.import_module(found.name)


MODULES = list(modules())


def operations() -> dict[str, Callable[..., Any]]:
    """Every function that takes a session first and is not marked, by name."""
    found: dict[str, Callable[..., Any]] = {}
    for module in MODULES:
        for name, each in inspect.getmembers(module, inspect.isfunction):
            if each.__module__ != module.__name__:
                continue
            parameters = list(inspect.signature(each).parameters)
            if parameters and _takes_session(each, parameters[0]):
                found[f"{module.__name__}.{name}"] = each
    return found


def _takes_session(function: Callable[..., Any], parameter: str) -> bool:
    written = function.__annotations__.get(parameter)
    if isinstance(written, str):
        return written.strip("'\"") in {"Session", "AsyncSession"}
    return written in {Session, AsyncSession}


OPERATIONS = operations()


def test_these_readings_are_marked_and_no_others() -> None:
    """A new one is somebody's decision: that an older answer does no harm."""
    ours = {each.name for each in MayLag.marked if each.name.startswith("src.")}
    assert ours == MARKED


def test_there_are_operations_to_look_at() -> None:
    """Those that write, those that decide, and those that lock, are among what is walked over."""
    assert len(OPERATIONS) > 150
    assert {
        "src.common.accounts.operations.sign_in",
        "src.common.approvals.operations.consent",
        "src.common.credits.ledger.execute",
        "src.common.credits.ledger.lock_users",
        "src.common.credits.queries.balance",
        "src.common.credits.queries.get_hold",
        "src.common.credits.queries.holds",
        "src.common.credits.queries.preview",
        "src.api.src.principals.find_service",
        "src.api.src.principals.find_user",
    } <= OPERATIONS.keys()


@pytest.mark.usefixtures("no_database")
@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_what_writes_or_decides_is_refused(name: str) -> None:
    """Before any server is asked, whatever its arguments are."""
    operation = cast("MayLag[..., Any]", OPERATIONS[name])
    with pytest.raises(TypeError, match="no reading that may lag"):
        Reader(Source.REPLICA).read(operation)


@pytest.fixture
def no_database(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks for one fails."""
    monkeypatch.setenv("DATABASE_HOST", "nobody.invalid")


def test_the_ledgers_own_words_are_refused() -> None:
    """They are made by a function, and so are found by name."""
    from src.common.credits import ledger

    words = {"adjust", "capture", "grant", "open_hold", "release", "renew", "reverse", "spend"}
    for word in words:
        with pytest.raises(TypeError, match="no reading that may lag"):
            Reader(Source.REPLICA).read(getattr(ledger, word))


def test_a_type_checker_refuses_them_too() -> None:
    """`read` takes what is marked, and not any function."""
    taken = typing.get_type_hints(Reader.read)["reading"]
    assert typing.get_origin(taken) is MayLag


def test_nobody_else_opens_connections_to_a_standby() -> None:
    """Nor has a session on one: verifying alone takes many database transactions."""
    texts = {
        str(path.relative_to(SOURCES)): path.read_text("utf-8") for path in SOURCES.rglob("*.py")
    }
    assert {name for name, text in texts.items() if "takes_standbys" in text} == TAKES_STANDBYS
    sessions = {name for name, text in texts.items() if "ReplicaSessionLocal" in text}
    assert sessions == {"common/replicas.py", "cli/verify.py"}
    engines = {
        name for name, text in texts.items() if re.search(r"get_(async_)?replica_engine", text)
    }
    assert engines == {"common/replicas.py", "common/async_replicas.py"}
