"""Where the data folder is and what lies in it."""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from src.local_postgres.accounts import ROOT, Account, account_for, can_enter, is_root, name_of
from src.local_postgres.errors import LocalPostgresError, explained

DATA_FOLDER_VARIABLE = "FLASHSLIDES_DATA_DIR"
FOLDER_FOR_ROOT = Path("/var/lib/flashslides")
_PRIVATE_FOLDER = 0o700
_PASSABLE_FOLDER = 0o755
# pg_ctl starts the server through a shell, with the path between double quotes.
_CHARACTERS_PG_CTL_CANNOT_QUOTE = frozenset('"`$\\\n\r')


@dataclass(frozen=True)
class Layout:
    """The names of everything in one data folder."""

    folder: Path

    @property
    def pgdata(self) -> Path:
        """PostgreSQL's own folder (initdb makes it, complete or not at all)."""
        return self.folder / "pgdata"

    @property
    def own_settings(self) -> Path:
        """The settings we write at each start; postgresql.conf includes this file."""
        return self.pgdata / "flashslides.conf"

    @property
    def connection(self) -> Path:
        """Port and password, readable by the owner only."""
        return self.folder / "connection.json"

    @property
    def log(self) -> Path:
        """What the server says."""
        return self.folder / "server.log"

    @property
    def main_lock(self) -> Path:
        """Locked while somebody starts, attaches, leaves or stops."""
        return self.folder / "lock"

    @property
    def server_lock(self) -> Path:
        """Locked by the processes of the server themselves, as long as one of them lives."""
        return self.folder / "server.lock"

    @property
    def leases(self) -> Path:
        """One locked file for each process that uses the server."""
        return self.folder / "leases"

    @property
    def keep_running(self) -> Path:
        """Names the run of the server that outlives its last user (`flashslides db start`)."""
        return self.folder / "keep-running"

    @property
    def binaries(self) -> Path:
        """Copies of programs that the server's account could not reach where they are."""
        return self.folder / "binaries"

    @property
    def account(self) -> Account:
        """Who runs the server in this folder."""
        return account_for(self.pgdata, self.folder)


def data_folder() -> Path:
    """Return the data folder of this user: FLASHSLIDES_DATA_DIR, else the XDG data home's.

    For root it is /var/lib/flashslides where the server's account could not reach root's own.
    """
    configured = os.environ.get(DATA_FOLDER_VARIABLE)
    if configured:
        return _absolute(Path(configured))
    import platformdirs  # importing this package has to stay cheap

    folder = _absolute(Path(platformdirs.user_data_dir("flashslides", appauthor=False)))
    if is_root() and not _is_reachable(Layout(folder)):
        return FOLDER_FOR_ROOT
    return folder


def holds_database() -> bool:
    """Whether this user's data folder has a database, running or not."""
    return layout_of(None).pgdata.exists()


def layout_of(folder: Path | None) -> Layout:
    """Return the layout of the given folder, of the user's own without one.

    Raises:
        LocalPostgresError: if its path holds a character that pg_ctl cannot quote.
    """
    path = data_folder() if folder is None else _absolute(folder)
    if _CHARACTERS_PG_CTL_CANNOT_QUOTE & set(str(path)):
        raise LocalPostgresError(
            f"The path of the data folder, {str(path)!r}, holds a quote, a dollar sign, a "
            f"backslash or a line break. Name another one in {DATA_FOLDER_VARIABLE}."
        )
    return Layout(path)


def prepare(layout: Layout) -> Account:
    """Make the data folder where it is missing and return the account the server runs under.

    Parents that are missing are made; the permissions of those that exist are never changed. An
    empty folder of root's is given to the account; any other is taken as it is.

    Raises:
        LocalPostgresError: if the account cannot reach the folder, or this user cannot write it.
    """
    account = layout.account
    folder = layout.folder
    if folder.exists() and not folder.is_dir():
        raise LocalPostgresError(
            f"{folder} is a file, not a folder. Name another data folder in {DATA_FOLDER_VARIABLE}."
        )
    if is_root() and not _is_reachable(layout):
        raise LocalPostgresError(
            f"The server runs as the account `{account.name}`, which cannot enter {folder}: one of "
            f"its parent folders is closed to it. Name a folder it can reach, such as "
            f"{FOLDER_FOR_ROOT}, in {DATA_FOLDER_VARIABLE}, or run this command as an ordinary "
            f"user."
        )
    if not folder.exists():
        _make(folder, account)
    elif _awaits_adoption(folder):
        account.own(folder)
    _check_usable(layout, account)
    return account


def make_data_folder() -> None:
    """Make this user's data folder, where it is missing, so that the server can live in it.

    Unlike `prepare` this asks for nothing else: what is only kept there needs no server.

    Raises:
        LocalPostgresError: if the operating system refuses.
    """
    layout = layout_of(None)
    with explained(layout.folder):
        _make(layout.folder, layout.account)


def write_private(path: Path, text: str, account: Account) -> None:
    """Replace a file whole; only the account (and root) may read it."""
    descriptor, scratch = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # 0600
    try:
        with open(descriptor, "w", encoding="utf-8") as file:  # noqa: PTH123  # a descriptor
            account.own(descriptor)
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        Path(scratch).replace(path)
    except BaseException:
        Path(scratch).unlink(missing_ok=True)
        raise


def make_private_folder(path: Path, account: Account) -> None:
    """Make a folder of the account's own, if it is not there yet."""
    path.mkdir(mode=_PRIVATE_FOLDER, exist_ok=True)
    if _awaits_adoption(path):  # made just now, by us or by a process that starts with us
        account.own(path)


def _absolute(path: Path) -> Path:
    return path.expanduser().resolve()


def _make(folder: Path, account: Account) -> None:
    missing = [parent for parent in folder.parents if not parent.exists()]
    for parent in reversed(missing):
        parent.mkdir(exist_ok=True)
        if is_root():
            parent.chmod(_PASSABLE_FOLDER)  # whatever root's umask: the account has to pass
    make_private_folder(folder, account)


def _awaits_adoption(folder: Path) -> bool:
    """Whether root made this folder for us and left it empty."""
    return is_root() and folder.stat().st_uid == ROOT and not any(folder.iterdir())


def _is_reachable(layout: Layout) -> bool:
    folder = layout.folder
    if folder.exists() and not _awaits_adoption(folder):
        return can_enter(layout.account, folder)
    existing = next(parent for parent in folder.parents if parent.exists())
    return can_enter(layout.account, existing)


def _check_usable(layout: Layout, account: Account) -> None:
    folder = layout.folder
    other_choice = f"name another data folder in {DATA_FOLDER_VARIABLE}"
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise LocalPostgresError(
            f"{folder} belongs to the account `{name_of(folder.stat().st_uid)}` and this one may "
            f"not write it. Run this command as that account, or {other_choice}."
        )
    if layout.pgdata.exists() and (owner := layout.pgdata.stat().st_uid) != account.uid:
        raise LocalPostgresError(
            f"{layout.pgdata} belongs to the account `{name_of(owner)}`, but the server would run "
            f"as `{account.name}`. Run this command as its owner, give the folder to "
            f"`{account.name}` with chown -R, or {other_choice}."
        )
