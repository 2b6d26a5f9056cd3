"""What a check cannot look at is unknown, and never ok; what is right is ok."""

import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from src.common import worker_heartbeats
from src.common.doctor import (
    clocks,
    operations,
)
from src.common.doctor.catalogue import named
from src.common.doctor.context import Context
from src.common.doctor.examination import examine
from src.common.models import (
    WorkerHeartbeat,
)
from src.common.settings import get_settings
from src.local_postgres import free_port
from tests.doctor.system import System, asked
from tests.fixtures.databases import Server


@contextmanager
def _api(metrics: str, status: int = 200) -> Generator[str]:
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(metrics.encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  its name there
            """Say nothing."""

    listener = HTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=listener.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{listener.server_port}"
    listener.shutdown()
    listener.server_close()
    thread.join()


@pytest.mark.parametrize(
    ("queued", "status", "expected", "says"),
    [
        (4_000, 200, "warn", "4000 of 4096 operations wait"),
        (1, 200, "ok", "1 of 4096 operations wait"),
        (0, 401, "unknown", "METRICS_TOKEN"),
    ],
)
def test_the_engine_s_queue_is_what_the_api_says(
    db: Session, queued: int, status: int, expected: str, says: str
) -> None:
    """Asked over HTTP, as only its processes know."""
    assert db
    with _api(f"flashslides_credits_engine_queued {queued}\n", status) as url:
        found = asked("engine-queue", url)
    assert found.status == expected
    assert says in found.seen


@pytest.mark.parametrize("env", ["local", "prod"])
def test_the_api_is_looked_for_where_it_listens(
    db: Session, monkeypatch: pytest.MonkeyPatch, env: str
) -> None:
    """At API_PORT of this machine, which `serve` says; elsewhere than locally only where set."""
    assert db
    with _api("flashslides_credits_engine_queued 1\n") as url:
        monkeypatch.setenv("ENV", env)
        monkeypatch.setenv("DATABASE_PASSWORD", "x")
        if env != "local":
            get_settings.cache_clear()
            assert asked("engine-queue").status == "skipped"
        monkeypatch.setenv("API_PORT", url.rpartition(":")[2])
        get_settings.cache_clear()
        found = asked("engine-queue")
    assert (found.status, "1 of 4096" in found.seen) == ("ok", True), found.seen


def test_an_api_without_figures_of_the_engine_is_unknown(db: Session) -> None:
    """Whatever else it tells."""
    assert db
    with _api("other 1\n") as url:
        found = asked("engine-queue", url)
    assert (found.status, "no figures of the engine" in found.seen) == ("unknown", True)


def test_without_an_api_the_queue_is_not_looked_at(db: Session) -> None:
    """Never ok."""
    assert db
    assert asked("engine-queue", f"http://127.0.0.1:{free_port()}").status == "unknown"


def test_the_address_of_the_api_is_shown_without_its_password(db: Session) -> None:
    """Whatever it answers, and where nobody does."""
    assert db
    of_nobody = f"http://ada:s3cret@127.0.0.1:{free_port()}"
    with _api("", 401) as url:
        refusing = url.replace("//", "//ada:s3cret@")
        found = [asked("engine-queue", each) for each in (of_nobody, refusing, "ada:s3cret@nobody")]
    assert {each.status for each in found} == {"unknown"}
    assert "s3cret" not in str(found)
    assert "127.0.0.1" in found[0].seen


def test_an_api_that_dribbles_is_given_up(db: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte comes in time, the answer never."""
    assert db
    monkeypatch.setattr(operations, "_API_TIMEOUT_SECONDS", 0.3)
    with _dribbling_api() as url:
        found = asked("engine-queue", url)
    assert (found.status, "TimeoutError" in found.seen) == ("unknown", True), found.seen


@contextmanager
def _dribbling_api() -> Generator[str]:
    ended = threading.Event()

    def answer() -> None:
        with suppress(OSError):
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                while not ended.wait(0.05):
                    connection.sendall(b"#")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        ended.set()
        thread.join()


def test_a_stripe_that_tells_nothing_is_unknown_to_what_asks_it(system: System) -> None:
    """The one check says why, the others that they could not look."""
    system.set(STRIPE_SECRET_KEY="sk_test_1", STRIPE_API_BASE_URL=f"http://127.0.0.1:{free_port()}")
    context = Context()
    names = ["stripe", "stripe-endpoint-events", "stripe-endpoint-version", "stripe-clock"]
    statuses = [each.status for each in examine(named(names), context)]
    context.close()
    assert statuses == ["fail", "unknown", "unknown", "unknown"]


def test_a_stripe_that_is_right_is_ok(system: System) -> None:
    """All that is asked of it."""
    assert system.loop
    names = ["stripe", "stripe-endpoint-events", "stripe-endpoint-version", "stripe-clock"]
    assert [asked(name).status for name in names] == ["ok"] * 4


def test_a_living_worker_is_ok(system: System) -> None:
    """As soon as it has left its first sign."""
    worker_heartbeats.beat(
        system.db, WorkerHeartbeat.__mapper__.c.worker_id.type.python_type(int=7)
    )
    system.db.commit()
    assert asked("worker").status == "ok"


def test_a_defect_of_a_check_is_unknown(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    """And no other check's business."""
    monkeypatch.setattr(clocks, "_judge", None)
    assert system
    found = asked("database-clock")
    assert found.status == "unknown"
    assert "TypeError" in found.seen


def test_what_a_role_may_not_see_is_unknown(system: System) -> None:
    """A role without privileges looks at no table, and is told so."""
    system.run("CREATE ROLE stranger_of_doctor")
    system.run("SET LOCAL ROLE stranger_of_doctor")
    found = asked("worker")
    assert found.status == "unknown"
    assert "permission denied" in found.seen


def test_a_look_changes_nothing_and_reads_no_table_of_the_ledger_whole(
    db: Session, server: Server
) -> None:
    """No database transaction of a check may write, and none scans a table of the ledger."""
    assert server
    context = Context()
    with context.looking() as session:
        shown = session.execute(text("SHOW transaction_read_only")).scalar_one()
        scans = session.execute(text("SHOW enable_seqscan")).scalar_one()
    context.close()
    assert (shown, scans) == ("on", "off")
    assert db
