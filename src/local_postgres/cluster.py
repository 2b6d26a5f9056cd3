"""PostgreSQL's data directory: makes it whole or not at all, recognises it, configures it."""

import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from src.local_postgres.accounts import Account, run_as
from src.local_postgres.connection import HOST, SUPERUSER
from src.local_postgres.errors import LocalPostgresError
from src.local_postgres.leases import server_lock
from src.local_postgres.locations import Layout, write_private

_SCRATCH_PREFIX = "pgdata.new-"
_FIRST_MAJOR_WITH_BUILTIN_LOCALES = 17
# macOS allows 103 bytes, Linux 107; the server also makes "<socket>.lock" beside it.
_SOCKET_PATH_BYTES_MAX = 103
_LONGEST_SOCKET_NAME = ".s.PGSQL.65535.lock"
_SETTING_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")


def major_version_of(pgdata: Path) -> int | None:
    """Return the major version of the data in `pgdata`; None where there is none yet.

    Raises:
        LocalPostgresError: if there is something, but no complete data folder.
    """
    if not pgdata.exists() or (pgdata.is_dir() and not any(pgdata.iterdir())):
        return None
    if not (pgdata / "PG_VERSION").is_file() or not (pgdata / "global" / "pg_control").is_file():
        raise LocalPostgresError(
            f"{pgdata} is not a complete PostgreSQL data folder (PG_VERSION or global/pg_control "
            f"is missing). Restore it from a backup, or move it away and a new, empty one is made. "
            f"Nothing was changed."
        )
    version = (pgdata / "PG_VERSION").read_text(encoding="utf-8", errors="replace").strip()
    try:
        return int(version.split(".")[0])
    except ValueError:
        raise LocalPostgresError(
            f"{pgdata / 'PG_VERSION'} holds no version. Restore {pgdata} from a backup, or move it "
            f"away and a new, empty one is made. Nothing was changed."
        ) from None


def create(layout: Layout, bin_dir: Path, major: int, password: str, account: Account) -> None:
    """Make `pgdata` with initdb in a scratch folder and rename it when it is complete.

    An interrupted attempt leaves at most a scratch folder, which the next one removes. An initdb
    that outlives us holds the server's lock, so the next attempt waits for its end.

    Raises:
        LocalPostgresError: with initdb's own words, if it fails.
    """
    with server_lock(layout, account) as lock:
        for leftover in layout.folder.glob(f"{_SCRATCH_PREFIX}*"):
            shutil.rmtree(leftover)
        scratch = Path(tempfile.mkdtemp(dir=layout.folder, prefix=_SCRATCH_PREFIX))
        try:
            account.own(scratch)
            pgdata, password_file = scratch / "pgdata", scratch / "password"
            write_private(password_file, password + "\n", account)
            command = _initdb_command(bin_dir, major, pgdata, password_file)
            result = run_as(account, command, kept_descriptors=[lock])
            if result.returncode != 0:
                raise LocalPostgresError(
                    f"A new database could not be made in {layout.folder}; initdb said: "
                    f"{result.stderr.strip() or result.stdout.strip()}"
                )
            _include_own_settings(pgdata, layout.own_settings.name, account)
            pgdata.rename(layout.pgdata)
            _make_durable(layout.folder)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def set_password(layout: Layout, bin_dir: Path, password: str, account: Account) -> None:
    """Give the superuser a password without knowing the old one; the server must not run.

    Raises:
        LocalPostgresError: with the server's own words, if it fails.
    """
    statement = f"ALTER ROLE {SUPERUSER} PASSWORD '{password}';\n"  # URL-safe characters only
    with server_lock(layout, account) as lock:
        result = run_as(
            account,
            [bin_dir / "postgres", "--single", "-j", "-D", layout.pgdata, "postgres"],
            stdin_text=statement,
            kept_descriptors=[lock],
        )
    if result.returncode != 0 or "ERROR:" in result.stderr:
        raise LocalPostgresError(
            f"{layout.connection} is missing and a new password could not be set; the server said: "
            f"{result.stderr.strip()}"
        )


def write_settings(
    layout: Layout, bin_dir: Path, port: int, extra: Mapping[str, str], account: Account
) -> None:
    """Write the settings of the coming run; `extra` wins over ours.

    Raises:
        LocalPostgresError: if an extra setting cannot be written down.
    """
    settings = {
        "listen_addresses": HOST,
        "port": str(port),
        "unix_socket_directories": _socket_folder(layout.pgdata),
        "max_connections": "120",
        "shared_preload_libraries": _preloaded_libraries(bin_dir, account),
        # PostgreSQL's own defaults, written out: what is committed survives a power cut.
        "fsync": "on",
        "full_page_writes": "on",
        "synchronous_commit": "on",
        "password_encryption": "scram-sha-256",
        "timezone": "UTC",
        "log_timezone": "UTC",
        "lc_messages": "C",
        "log_line_prefix": "%m [%p] %q%u@%d ",
        **extra,
    }
    lines = [f"{name} = {_quoted(name, value)}\n" for name, value in settings.items()]
    write_private(layout.own_settings, "# Written anew at each start.\n" + "".join(lines), account)


def _initdb_command(
    bin_dir: Path, major: int, pgdata: Path, password_file: Path
) -> list[Path | str]:
    if major >= _FIRST_MAJOR_WITH_BUILTIN_LOCALES:
        locale = ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    else:
        locale = ["--locale=C.UTF-8"]
    return [
        bin_dir / "initdb",
        f"--pgdata={pgdata}",
        f"--username={SUPERUSER}",
        f"--pwfile={password_file}",
        "--auth=scram-sha-256",
        "--encoding=UTF8",
        "--data-checksums",
        *locale,
    ]


def _include_own_settings(pgdata: Path, file_name: str, account: Account) -> None:
    path = pgdata / "postgresql.conf"
    text = path.read_text(encoding="utf-8")
    write_private(path, f"{text}\ninclude = '{file_name}'\n", account)
    write_private(pgdata / file_name, "# Written anew at each start.\n", account)


def _make_durable(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _socket_folder(pgdata: Path) -> str:
    """Return where the Unix socket goes; no socket where its path would be too long."""
    longest = os.fsencode(pgdata / _LONGEST_SOCKET_NAME)
    # The setting is a list: a comma would part the path in two.
    fits = len(longest) <= _SOCKET_PATH_BYTES_MAX and "," not in str(pgdata)
    return str(pgdata) if fits else ""


def _preloaded_libraries(bin_dir: Path, account: Account) -> str:
    places = [bin_dir.parent / "lib", bin_dir.parent / "lib" / "postgresql"]
    if (bin_dir / "pg_config").exists():
        answer = run_as(account, [bin_dir / "pg_config", "--pkglibdir"]).stdout.strip()
        places.insert(0, Path(answer))
    for place in places:
        if any((place / f"pg_stat_statements{suffix}").exists() for suffix in (".so", ".dylib")):
            return "pg_stat_statements"
    return ""


def _quoted(name: str, value: str) -> str:
    if not _SETTING_NAME.fullmatch(name) or "\n" in value or "\r" in value:
        raise LocalPostgresError(
            f"The setting {name!r} = {value!r} cannot be written to a configuration file: a name "
            f"has letters, digits and underscores, a value is one line."
        )
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"
