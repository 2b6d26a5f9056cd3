"""`docs/how-to/back-up-and-restore.md`: back to an instant, by an archive of the server's log."""

import os
import re
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import Engine, NullPool, create_engine, select, text
from sqlalchemy.orm import Session
from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

from src.common.credits import ledger
from src.common.models import User
from src.common.postgres.engines import database_url
from src.common.settings import Settings
from src.local_postgres import ConnectionParameters, free_port, running_server
from src.local_postgres.accounts import Account, account_for, is_root
from tests.credits.books import check_books
from tests.fixtures.api import PATIENCE_SECONDS
from tests.fixtures.databases import environment_of
from tests.migrations.commands import PROGRAMS
from tests.migrations.test_backups import BACK_UP, PAGE, blocks
from tests.models.examples import a_user

SECTION = "Go back to a point in time"
COPY, RESTORE, VERIFY = blocks(SECTION)


@dataclass(frozen=True)
class Archiving:
    """A server that archives its log as the page says, in a folder its account may use."""

    folder: Path
    account: Account
    connection: ConnectionParameters
    bin_dir: Path
    restored_port: int

    def here(self, block: str) -> str:
        """A block of the page with this test's folders and port."""
        placed = block.replace("/backup", f"{self.folder}/backup")
        placed = placed.replace("/restored", f"{self.folder}/restored")
        return placed.replace("5433", str(self.restored_port))

    def shell(self, *blocks: str, as_account: bool = False, **variables: str) -> str:
        """Run blocks in one shell, by the account that PostgreSQL runs as, or by ourselves."""
        path = f"{self.bin_dir}:{PROGRAMS}:/usr/local/bin:/usr/bin:/bin"
        switched = self.account if as_account and is_root() else None
        done = subprocess.run(
            ["/bin/bash", "-euo", "pipefail", "-c", "".join(map(self.here, blocks))],
            cwd=self.folder,
            env={**os.environ, **environment_of(self.connection), "PATH": path, **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            user=switched.uid if switched else None,
            group=switched.gid if switched else None,
            extra_groups=switched.groups if switched else None,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def engine(self, port: int) -> Engine:
        """Connections to one of the two servers."""
        named = {name.lower(): each for name, each in environment_of(self.connection).items()}
        settings = Settings.model_validate(named | {"database_port": port})
        return create_engine(database_url(settings), poolclass=NullPool)


@pytest.fixture
def archiving() -> Generator[Archiving]:
    """The page's settings on the embedded server's own binaries; both servers end with the test."""
    folder = Path(tempfile.mkdtemp(prefix="flashslides-archive-"))
    folder.chmod(0o755)
    account = account_for()
    for name in ("backup", "backup/wal", "restored", "server"):
        (folder / name).mkdir()
        account.own(folder / name)
    [written] = re.findall(r"^```ini\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    settings = dict(re.findall(r"^(\w+) = '?(.+?)'?$", written, re.MULTILINE))
    settings["archive_command"] = settings["archive_command"].replace("/backup", f"{folder}/backup")
    try:
        with running_server(
            folder / "server", port=free_port(), settings=settings | {"fsync": "off"}
        ) as server:
            made = Archiving(folder, account, server.connection, server.bin_dir, free_port())
            yield made
            if (folder / "restored/data/postmaster.pid").exists():
                stop = "pg_ctl --pgdata=/restored/data --mode=immediate --wait stop\n"
                made.shell(stop, as_account=True)
    finally:
        shutil.rmtree(folder)


def balance(engine: Engine, user_id: uuid.UUID) -> int:
    """A user's booked credits; every user's books balance."""
    with Session(engine) as session:
        check_books(session)
        return session.scalars(select(User.credits_balance).where(User.user_id == user_id)).one()


def archived(session: Session) -> bool:
    """Whether everything up to now is in the archive, once a new segment of the log was begun."""
    last = text("SELECT last_archived_wal >= :wal FROM pg_stat_archiver")
    wal = session.execute(text("SELECT pg_walfile_name(pg_switch_wal())")).scalar_one()
    session.commit()

    def is_there() -> bool:
        found = session.execute(last, {"wal": wal}).scalar_one()
        session.commit()
        return bool(found)

    trying = Retrying(
        retry=retry_if_result(lambda found: not found),
        wait=wait_fixed(0.1),
        stop=stop_after_delay(PATIENCE_SECONDS),
    )
    return bool(trying(is_there))


def test_the_server_is_as_it_was_at_the_instant(archiving: Archiving) -> None:
    """What was booked after the copy and before the instant is there; what came after is not."""
    archiving.shell("flashslides db upgrade\n")
    engine = archiving.engine(archiving.connection.port)
    user = a_user()
    with Session(engine, expire_on_commit=False) as session:
        session.add(user)
        session.flush()
        ledger.grant(session, user.user_id, 100, key="start")
        session.commit()
        archiving.shell(BACK_UP[0], COPY, as_account=True)
        ledger.spend(session, user.user_id, 30, key="slides")
        session.commit()
        instant = session.execute(text("SELECT clock_timestamp()::text")).scalar_one()
        session.commit()
        ledger.spend(session, user.user_id, 60, key="a mistake")
        session.commit()
        assert archived(session)
    archiving.shell(BACK_UP[0], RESTORE, as_account=True, INSTANT=instant)
    told = archiving.shell(VERIFY)
    assert told.endswith("All books balance. Users verified: 1.\n")
    assert balance(archiving.engine(archiving.restored_port), user.user_id) == 70
    assert balance(engine, user.user_id) == 10
