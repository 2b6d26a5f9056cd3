"""The doctor looks at each group of users, and says which one it found something in."""

import re
from collections.abc import Generator

import psycopg
import pytest

from src.common.database import get_engine
from src.common.doctor.catalogue import named
from src.common.doctor.checks import Status
from src.common.doctor.context import Context
from src.common.doctor.examination import Examined, examine
from src.common.postgres.runtime_role import grant_runtime
from src.common.settings import get_settings
from src.local_postgres import ConnectionParameters
from tests.fixtures.databases import point_to
from tests.sharding.conftest import GROUPS
from tests.sharding.divided import connect

EVERYWHERE = "Everywhere: "
OF_PSQL = re.compile(r'-c "([^"]*)"')
BROKEN = {
    # check, the group, how it is broken, what is seen
    "schema-drift": ("g0002", "ALTER TABLE g0002.credit_lots ADD COLUMN more int", "more"),
    "indexes-missing": ("g0003", "DROP INDEX g0003.ix_users_created_at", "ix_users_created_at"),
    "preferences-indexes": ("g0004", "DROP INDEX g0004.ix_users_company", "ix_users_company"),
    "triggers": (
        "g0005",
        "ALTER TABLE g0005.credit_lots DISABLE TRIGGER credit_lots_fixed",
        "credit_lots_fixed on credit_lots",
    ),
    "vacuum-lag": (
        "g0006",
        "ALTER TABLE g0006.credit_entries SET (autovacuum_enabled = off)",
        "credit_entries",
    ),
    "chain": ("g0007", "UPDATE g0007.credit_ledgers SET chained_at = NULL", "no hash"),
}
BESIDES = {"schema-drift", "indexes-missing"}
"""They see what is broken for others too: an index is one."""
MENDED = {"indexes-missing", "preferences-indexes", "triggers", "vacuum-lag"}
"""Of these the next step is a statement."""

DROPPED = {
    "g0002": "ALTER TABLE {}.stripe_reversals DROP CONSTRAINT "
    "fk_stripe_reversals_transaction_id_transactions",
    "g0003": "ALTER TABLE {}.users DROP CONSTRAINT fk_users_user_id_users_directory",
    "g0004": "ALTER TABLE {}.users DROP COLUMN home",
}
LOST = {
    "g0002": "no foreign key fk_stripe_reversals_transaction_id_transactions",
    "g0003": "no constraint fk_users_user_id_users_directory",
    "g0004": "no column users.home",
}


@pytest.fixture
def admin(groups: ConnectionParameters) -> Generator[psycopg.Connection]:
    """The server's superuser, past all triggers."""
    with connect(groups) as connection:
        connection.commit()
        connection.autocommit = True
        yield connection


def examined(*names: str) -> dict[str, Examined]:
    """What these checks find, or all."""
    context = Context()
    try:
        return {each.name: each for each in examine(named(names), context)}
    finally:
        context.close()


@pytest.mark.usefixtures("groups")
def test_every_check_looks_at_all_groups() -> None:
    """None is unknown, and none fails for groups; what is everybody's is looked at once."""
    found = examined()
    unknown = {name: each.seen for name, each in found.items() if each.status is Status.UNKNOWN}
    assert unknown == {}
    of_groups = {each.name for each in named([]) if each.sides}
    for name in of_groups:
        seen = found[name].seen
        assert found[name].status in {Status.OK, Status.SKIPPED}, (name, seen)
        assert seen.startswith(EVERYWHERE) or "g0001: " in seen, (name, seen)
    for name in found.keys() - of_groups:
        assert not re.search("g0001|NOT_ROUTED|does not exist", found[name].seen), name


def test_it_names_the_group_and_mends_it_there(admin: psycopg.Connection) -> None:
    """Each thing in another group; a statement that it says to run is for that group's table."""
    for _, breaking, _ in BROKEN.values():
        admin.execute(breaking.encode())
    found = examined(*BROKEN)
    for name, (group, _, what) in BROKEN.items():
        seen = found[name].seen
        assert found[name].status in {Status.FAIL, Status.WARN}, name
        assert seen.startswith(f"{group}: "), (name, seen)
        assert what in seen, (name, seen)
        others = [each for each in GROUPS if each != group and each in seen]
        assert not others or name in BESIDES, (name, seen)
    for name in MENDED:
        for statement in OF_PSQL.findall(str(found[name].next)):
            admin.execute(statement.encode())
    assert {each.status for each in examined(*MENDED).values()} == {Status.OK}


def test_what_division_changes_is_expected_on_its_own_side(admin: psycopg.Connection) -> None:
    """A group has its reversals' key, which `public` lacks, and what leads to the directory."""
    for group, statement in DROPPED.items():
        admin.execute(statement.format(group).encode())
    found = examined("schema-drift")["schema-drift"]
    assert found.status is Status.FAIL
    for group, lost in LOST.items():
        [seen] = [each for each in re.split(r" (?=g\d{4}: )", found.seen) if each.startswith(group)]
        assert lost in seen


def test_what_many_groups_have_is_said_of_some(admin: psycopg.Connection) -> None:
    """A hundred sentences help nobody."""
    for group in GROUPS[1:]:
        admin.execute(f"ALTER TABLE {group}.users SET (autovacuum_enabled = off)".encode())
    seen = examined("vacuum-lag")["vacuum-lag"].seen
    off = "Autovacuum is off for users."
    assert seen == f"g0002: {off} g0003: {off} g0004: {off} And 4 more."


def test_the_role_of_the_service_is_looked_at_in_each_group(
    groups: ConnectionParameters, admin: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has what it needs, and no more; one privilege less in one group is found there."""
    role = f"service_{groups.database}"[:60]
    with get_engine().begin() as connection:
        grant_runtime(connection, role)
    admin.execute(f"ALTER ROLE {role} PASSWORD 'of-the-service'".encode())
    try:
        monkeypatch.setenv("DATABASE_USER", role)
        monkeypatch.setenv("DATABASE_PASSWORD", "of-the-service")
        get_settings.cache_clear()
        found = examined()
        enough = f"Everywhere: {role} has what it needs, and no more."
        assert found["runtime-role"].seen == enough
        assert not [name for name, each in found.items() if each.status is Status.UNKNOWN]
        admin.execute(f"REVOKE INSERT ON g0005.credit_lots FROM {role}".encode())
        lacking = f"g0005: {role} lacks INSERT on credit_lots."
        assert examined("runtime-role")["runtime-role"].seen == lacking
    finally:
        point_to(monkeypatch, groups)
        get_settings.cache_clear()
        admin.execute(f"DROP OWNED BY {role}".encode())
        admin.execute(f"DROP ROLE {role}".encode())
