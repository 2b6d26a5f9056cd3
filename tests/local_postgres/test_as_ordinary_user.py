"""What an ordinary user meets; root plays one by changing to the account `nobody`."""

import os
import pwd
import shutil
import stat
from pathlib import Path

import pytest

from src.local_postgres import status
from tests.local_postgres.machine import IS_ROOT, holder, python, read_line, wheel_bin_dir

_ACCOUNT = "nobody" if IS_ROOT else None
_UID = pwd.getpwnam(_ACCOUNT).pw_uid if _ACCOUNT else os.geteuid()

_START = """
try:
    start(Path(sys.argv[1]))
except LocalPostgresError as error:
    print(error)
"""


@pytest.fixture
def programs(parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put programs where every account reaches them, as a home of one's own would be."""
    if IS_ROOT:
        wheel = wheel_bin_dir().parents[1]
        for tree in (wheel, wheel.with_name(f"{wheel.name}.libs")):
            if tree.exists():
                shutil.copytree(tree, parent / tree.name)
        monkeypatch.setenv("FLASHSLIDES_PG_BIN", str(parent / wheel.name / "pginstall" / "bin"))


@pytest.fixture
def home(parent: Path) -> Path:
    """Make a folder that belongs to the ordinary user alone."""
    path = parent / "home"
    path.mkdir(mode=0o700)
    os.chown(path, _UID, -1)
    return path


@pytest.mark.usefixtures("programs")
def test_the_server_runs_as_its_user(home: Path) -> None:
    """Start, share, crash, recover and stop, all without any privilege."""
    folder = home / "data"
    with holder(folder, account=_ACCOUNT) as first, holder(folder, account=_ACCOUNT) as second:
        pids = {int(read_line(process).split()[0]) for process in (first, second)}
        assert len(pids) == 1
        assert {path.stat().st_uid for path in folder.rglob("*")} == {_UID}
        os.kill(pids.pop(), 9)
    with holder(folder, account=_ACCOUNT) as process:
        assert read_line(process).endswith("True\n")
    assert process.returncode == 0
    assert not status(folder).running
    assert stat.S_IMODE((folder / "connection.json").stat().st_mode) == 0o600


@pytest.mark.usefixtures("programs")
def test_the_xdg_data_home_is_the_default(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without FLASHSLIDES_DATA_DIR it is $XDG_DATA_HOME/flashslides, else ~/.local/share."""
    monkeypatch.delenv("FLASHSLIDES_DATA_DIR")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_DATA_HOME", str(home / "xdg"))
    assert said_by("print(data_folder())") == f"{home}/xdg/flashslides"
    monkeypatch.delenv("XDG_DATA_HOME")
    assert said_by("print(data_folder())") == f"{home}/.local/share/flashslides"
    monkeypatch.setenv("FLASHSLIDES_DATA_DIR", "~/elsewhere")
    assert said_by("print(data_folder())") == f"{home}/elsewhere"


def test_a_place_without_permission_is_named(parent: Path) -> None:
    """Nothing can be made in a folder of root's."""
    closed = Path("/")
    if IS_ROOT:
        closed = parent / "of-root"
        closed.mkdir(mode=0o755)
    said = said_by(_START, closed / "flashslides-data")
    assert f"{closed / 'flashslides-data'} may not be used by this account" in said
    assert "FLASHSLIDES_DATA_DIR" in said


def test_the_folder_of_another_account_is_named(parent: Path) -> None:
    """The sentence says whose it is and what else to do."""
    folder = Path("/usr")
    if IS_ROOT:
        folder = parent / "of-root"
        folder.mkdir(mode=0o755)
    said = said_by(_START, folder)
    assert f"{folder} belongs to the account `root`" in said
    assert "name another data folder in FLASHSLIDES_DATA_DIR" in said


def said_by(code: str, *arguments: object) -> str:
    """Run a program of the ordinary user's to its end."""
    with python(code, *arguments, account=_ACCOUNT) as process:
        output, errors = process.communicate()
    assert (process.returncode, errors) == (0, "")
    return output.strip()
