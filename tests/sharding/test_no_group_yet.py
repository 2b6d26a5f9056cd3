"""Between `db upgrade` and `shards create`: nothing goes wrong, and what needs a group says so."""

import re
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import pytest_asyncio
from alembic import command

from src.cli import exit_codes
from src.common.database import SessionLocal
from src.common.doctor.catalogue import named
from src.common.doctor.checks import Status
from src.common.models.credit_notice import NoticeType
from src.common.postgres.migrations import alembic_config
from src.common.reports.catalogue import ReportName
from src.common.settings import get_settings
from src.common.sharding.groups import NO_GROUPS
from src.console.pages.payments import TABS
from src.console.permissions import Role
from src.local_postgres import ConnectionParameters
from tests.anchors.made import KEY
from tests.approvals.test_askers import ask_for_key
from tests.cli.conftest import RunCommand, data_folder, run_command
from tests.cli.every_command import arguments_of
from tests.fixtures.api import client_of, starting
from tests.fixtures.console import Console
from tests.fixtures.databases import forget_engines
from tests.notices.outbox import add_endpoint
from tests.sharding.conftest import IN_SCHEMAS
from tests.sharding.test_console import LISTS, OF_EVERYBODY, SAYS_GROUPS
from tests.sharding.test_doctor import examined
from tests.sharding.test_every_command import IN_GROUPS
from tests.stripe.loop import start_loop
from tests.stripe.simulation import BEGINNING, LATER, LONG_AGO

__all__ = ["data_folder", "run_command"]
NEEDS_A_GROUP = {"user create"}
OF_GROUPS = {"shards assign", "shards balance", "shards list"}


@pytest_asyncio.fixture
async def no_group(
    empty_database: ConnectionParameters, monkeypatch: pytest.MonkeyPatch
) -> AsyncGenerator[None]:
    """A database that is to have groups."""
    assert empty_database
    await forget_engines()
    for name, value in IN_SCHEMAS.items():
        monkeypatch.setenv(name, value)
    get_settings.cache_clear()
    command.upgrade(alembic_config(), "head")
    yield
    await forget_engines()


@pytest.mark.usefixtures("no_group")
def test_every_command_answers_without_a_group(
    run_command: RunCommand, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It finds nobody, or says what to run; of nobody there are reports and a checkpoint too."""
    monkeypatch.setenv("ANCHOR_SIGNING_KEY", KEY.written())
    monkeypatch.setenv("ANCHOR_SINKS", f"file:{tmp_path / 'anchors'}")
    get_settings.cache_clear()
    answers = {exit_codes.DONE, exit_codes.NOT_FOUND, exit_codes.REFUSED}
    wrong: dict[str, tuple[int, str]] = {}
    for name in sorted(IN_GROUPS | OF_GROUPS):
        result = run_command(*arguments_of(name))
        needs_one = NO_GROUPS in " ".join(result.err.split())
        is_right = needs_one if name in NEEDS_A_GROUP else result.exit_code in answers
        if not is_right or re.search("NOT_ROUTED|does not exist", result.err):
            wrong[name] = (result.exit_code, result.err)
    reports = [f"report {name}" for name in ReportName if name is not ReportName.JOURNAL]
    others = ["report journal --format beancount", "verify --sample 1", "worker --once"]
    for line in (*reports, *others, "anchors close"):
        result = run_command(*line.split())
        if result.exit_code:
            wrong[line] = (result.exit_code, result.err)
    assert wrong == {}


@pytest.mark.usefixtures("no_group")
def test_a_request_that_is_about_nobody_says_what_to_run(run_command: RunCommand) -> None:
    """What became of it is looked up beside tables of users."""
    with SessionLocal.begin() as session:
        approval_id = ask_for_key(session).approval_id
    result = run_command("approvals", "show", str(approval_id))
    assert result.exit_code == exit_codes.MISCONFIGURED
    assert "flashslides shards create" in " ".join(result.err.split())


@pytest.mark.usefixtures("no_group")
def test_comparing_with_stripe_finds_nothing_without_a_group() -> None:
    """Stripe has nothing either."""
    run = start_loop("shop", clock=lambda: BEGINNING).reconcile(LONG_AGO, until=LATER, repairs=True)
    assert run.findings == []


@pytest.mark.usefixtures("no_group")
async def test_the_console_and_the_figures_answer_without_a_group(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Lists are empty; an endpoint is there before anybody it could be told of."""
    with SessionLocal.begin() as session:
        endpoint_id = str(add_endpoint(session, NoticeType.GRANTED))
    async with starting(monkeypatch) as start:
        api = await start(CONSOLE_ENABLED="true", METRICS_TOKEN="of-a-test")
        metrics = await api.client.get("/metrics", headers={"Authorization": "Bearer of-a-test"})
        assert endpoint_id in metrics.text
        async with client_of(api.app) as browser:
            console = Console(browser.client)
            await console.sign_in(Role.ADMIN, name="Grace")
            wrong: dict[str, int] = {}
            tabs = [f"/payments?tab={tab}" for tab in TABS]
            for address in (*LISTS.values(), *OF_EVERYBODY.values(), *tabs):
                answer = await console.get(address)
                if answer.status_code != 200 or SAYS_GROUPS.search(answer.text):
                    wrong[address] = answer.status_code
            assert wrong == {}
            assert endpoint_id in (await console.get("/notices")).text


@pytest.mark.usefixtures("no_group")
def test_the_doctor_does_not_take_no_group_for_no_division() -> None:
    """What is everybody's is as it should be; of users there is nothing to look at."""
    found = examined()
    wrong = {
        name: each.seen
        for name, each in found.items()
        if each.status is Status.UNKNOWN or "users" in (each.next or "")
    }
    assert wrong == {}
    for check in named([]):
        if check.sides:
            assert found[check.name].status in {Status.OK, Status.SKIPPED}, found[check.name]
    assert "shards create" in found["vacuum-lag"].seen
