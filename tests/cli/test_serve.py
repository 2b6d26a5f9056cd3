"""`flashslides serve` from nothing: a fresh folder, a free port, an empty environment."""

import json
import re
import shutil
import signal
import threading
import uuid
from collections.abc import Generator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import update
from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

from src.cli import serve, work, worker
from src.cli.serve import put_offline_stripe_in_place
from src.common.database import SessionLocal
from src.common.models.stripe_event import StripeEvent
from src.common.settings import load_settings
from src.common.stripe.inbox import get_event, store_event
from src.common.stripe.wire import parse_event
from src.local_postgres import ConnectionParameters, free_port, status
from tests.cli.processes import PATIENCE_SECONDS, Program, stop, wait_until_gone
from tests.fixtures.databases import environment_of
from tests.fixtures.folders import copy_data, folder_for_data
from tests.stripe.payments import make_event, make_session

ROOT = Path(__file__).parents[2]

# Two embedded servers that look for their first port at the same moment could find the same one.
one_after_the_other = pytest.mark.xdist_group("embedded servers")


@pytest.fixture
def program() -> Generator[Program]:
    """The command with nothing but a data folder, which the server's account can reach."""
    with folder_for_data() as folder:
        yield Program(folder, {"FLASHSLIDES_DATA_DIR": str(folder / "data")})


@pytest.fixture
def tables(program: Program, migrated_data: Path) -> None:
    """Its data folder as an earlier start left it."""
    copy_data(migrated_data, program.folder / "data")


@one_after_the_other
def test_a_payment_from_an_empty_folder_to_ctrl_c(program: Program) -> None:
    """Server, migrations, keys, user, token, offer, payment: all there, all gone with Ctrl-C."""
    program = replace(program, is_installed=True)
    port = free_port()
    data = Path(program.environment["FLASHSLIDES_DATA_DIR"])
    url = f"http://127.0.0.1:{port}"
    with program.serve(port) as process:
        postmaster = status(data).pid
        assert postmaster is not None
        user = program.run_json("user", "create", "ada@example.com")
        token = program.run("user", "token", "ada@example.com").strip()

        def ask(path: str) -> httpx.Response:
            headers = {"Authorization": f"Bearer {token}"}
            return httpx.get(f"{url}/api/v1/user/{path}", headers=headers, trust_env=False)

        assert ask(user["user_id"]).json()["credits_balance"] == 0
        offer = httpx.post(
            f"{url}/api/v1/create-checkout-session",
            headers={"Authorization": f"Bearer {token}", "Idempotency-Key": "first"},
            json={"credit_option": "1000"},
            trust_env=False,
        )
        assert offer.status_code == 200, offer.text
        page = offer.json()["url"]
        assert httpx.post(page, data={"method": "visa"}, trust_env=False).status_code == 303
        Retrying(
            retry=retry_if_result(lambda balance: balance != 1_000),
            wait=wait_fixed(0.05),
            stop=stop_after_delay(PATIENCE_SECONDS),
        )(lambda: ask(user["user_id"]).json()["credits_balance"])
        (item,) = ask(f"{user['user_id']}/transactions").json()["items"]
        assert page.endswith(item["stripe_session_id"])
        assert overview_behind(program) == [200, 403]  # the link that it prints is used once
        assert stop(process, signal.SIGINT) == 0
    wait_until_gone(postmaster)
    assert not status(data).running
    assert not (secrets_of(data) & set(program.said().split()))


def overview_behind(program: Program) -> list[int]:
    """The answers to two who follow the console's link that `serve` printed."""
    [link] = re.findall(r"Console +(http\S+)", program.said())
    address = link.replace("localhost", "127.0.0.1")
    answers: list[int] = []
    for _ in range(2):
        with httpx.Client(follow_redirects=True, trust_env=False) as browser:
            answers.append(browser.get(address).status_code)
    return answers


@one_after_the_other
@pytest.mark.usefixtures("tables")
def test_a_copy_of_the_example_serves(program: Program) -> None:
    """`cp .env.example .env`, and everything is there; `reconcile` finds the offline Stripe."""
    shutil.copy(ROOT / ".env.example", program.folder / ".env")
    with program.serve(free_port()):
        program.run("user", "create", "ada@example.com")
        compared = program.run_json("stripe", "reconcile", "--since", "2026-01-01")
        assert compared["differences"] == 0


@one_after_the_other
@pytest.mark.usefixtures("tables")
def test_what_was_bought_offline_is_kept(program: Program) -> None:
    """The offline Stripe knows its customers at the next start, as the database knows their ids."""
    port = free_port()
    kept: list[dict[str, Any]] = []
    for _ in range(2):
        with program.serve(port):
            base = re.findall(r"Stripe +(http\S+)", program.said())[-1]
            customers = f"{base}/v1/customers"
            if not kept:
                httpx.post(customers, auth=("sk_test_1", ""), trust_env=False)
            answer = httpx.get(customers, auth=("sk_test_1", ""), trust_env=False)
            kept += answer.json()["data"]
    first, second = kept
    assert first == second


@pytest.mark.parametrize(
    "configured",
    [
        {"stripe_secret_key": "sk_test_real"},
        {"stripe_api_base_url": "http://127.0.0.1:1"},
        {"env": "staging", "database_password": "long"},
    ],
)
def test_what_is_configured_is_not_replaced_by_the_offline_stripe(
    configured: dict[str, str],
) -> None:
    """Whoever has an account at Stripe, or is no developer's machine, is never sent elsewhere."""
    settings = load_settings(**configured)
    with ExitStack() as stack:
        assert put_offline_stripe_in_place(settings, stack, "127.0.0.1", 8_000) is settings


def secrets_of(data: Path) -> set[str]:
    """The values of the development keys that must stay secret."""
    keys = json.loads((data / "development-keys.json").read_text())
    return {keys["webhook_secret"], json.loads(keys["private_jwk"])["d"]}


@one_after_the_other
@pytest.mark.usefixtures("tables")
def test_sigterm_ends_it_as_ctrl_c_does_and_a_second_start_finds_everything(
    program: Program,
) -> None:
    """Exit code 0, the server stopped; the next start has the same keys and users."""
    data = Path(program.environment["FLASHSLIDES_DATA_DIR"])
    port = free_port()
    with program.serve(port) as process:
        postmaster = status(data).pid
        assert postmaster is not None
        program.run("user", "create", "ada@example.com")
        assert stop(process, signal.SIGTERM) == 0
    wait_until_gone(postmaster)
    keys = data / "development-keys.json"
    assert keys.stat().st_mode & 0o777 == 0o600
    assert program.run_json("user", "show", "ada@example.com")["email"] == "ada@example.com"
    assert not status(data).running


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_several_processes_end_with_one_signal(
    by: signal.Signals, tmp_path: Path, fresh_database: ConnectionParameters
) -> None:
    """`--workers 2` stops its processes and exits 0; a configured database is left alone."""
    environment = environment_of(fresh_database) | {"FLASHSLIDES_DATA_DIR": str(tmp_path / "data")}
    program = Program(tmp_path, environment, is_installed=True)
    port = free_port()
    with program.serve(port, "--workers", "2") as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert len(children) >= 2
        assert stop(process, by) == 0
    for child in children:
        wait_until_gone(int(child))
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/livez", trust_env=False)


def stored_event() -> str:
    """An event that somebody stored and died over."""
    event = make_event(make_session(uuid.UUID(int=9)))
    body = json.dumps(event).encode()
    with SessionLocal.begin() as session:
        store_event(session, parse_event(body), body)
        session.execute(update(StripeEvent).values(lease_expires_at=None))
    return str(event["id"])


def status_of(event_id: str) -> str:
    """What has become of an event."""
    with SessionLocal() as session:
        return get_event(session, event_id).status


def test_one_local_process_does_the_workers_work(
    tmp_path: Path, fresh_database: ConnectionParameters
) -> None:
    """What waits in the inbox is settled without another command; with two processes it is not."""
    environment = environment_of(fresh_database) | {"FLASHSLIDES_DATA_DIR": str(tmp_path / "data")}
    program = Program(tmp_path, environment)
    event_id = stored_event()
    with program.serve(free_port(), "--workers", "2") as process:
        assert stop(process, signal.SIGTERM) == 0
    assert "`flashslides worker`" in program.said()
    assert status_of(event_id) == "received"
    with program.serve(free_port()) as process:
        assert "in this process" in program.said()
        Retrying(
            retry=retry_if_result(lambda status: status == "received"),
            wait=wait_fixed(0.05),
            stop=stop_after_delay(PATIENCE_SECONDS),
        )(lambda: status_of(event_id))
        assert stop(process, signal.SIGTERM) == 0
    assert status_of(event_id) == "unmatched"


@pytest.mark.usefixtures("fresh_database")  # for the signs of life
def test_a_worker_that_fails_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a step raises is logged, and the next one works; leaving the block ends it."""
    steps = threading.Semaphore(0)

    def fail() -> bool:
        steps.release()
        raise RuntimeError("a bug")

    monkeypatch.setattr(worker, "INTERVAL_SECONDS", 0.01)

    def count_nothing(*_: object) -> None:
        """Failures of no real work."""

    monkeypatch.setattr(worker, "_count", count_nothing)
    for name in work.WORK:
        monkeypatch.setitem(work.WORK, name, fail)
    with worker.working():
        assert all(steps.acquire(timeout=PATIENCE_SECONDS) for _ in range(3 * len(work.WORK)))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("worker")]


@pytest.mark.parametrize(("env", "processes"), [("local", 2), ("dev", 1)])
def test_more_processes_or_another_env_leave_the_work_to_the_worker(
    env: str, processes: int
) -> None:
    """There it is a deployment's own process, which is watched."""
    assert not serve.does_the_workers_work(
        load_settings().model_copy(update={"env": env}), processes
    )
