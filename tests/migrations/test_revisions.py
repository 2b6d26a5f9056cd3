"""Which revisions of a database this release can serve on."""

from collections.abc import Generator
from pathlib import Path

import pytest

from src.common.postgres import migrations
from src.common.postgres.migrations import head_revision, is_behind
from tests.migrations.commands import revisions


@pytest.mark.parametrize("found", [None, *(migration.revision for migration in revisions()[:-1])])
def test_every_revision_before_the_newest_is_behind(found: str | None) -> None:
    """A database without migrations, or with some of ours missing, is behind."""
    assert is_behind(found)


@pytest.mark.parametrize("found", [head_revision(), "a-newer-release-made-this"])
def test_our_newest_revision_and_any_later_one_are_not(found: str) -> None:
    """A revision that this release does not know is a newer release's, which migrated first."""
    assert not is_behind(found)


_AS_WRITTEN = {
    "by Alembic's template": "revision = 'b2'\ndown_revision = 'a1'\n",
    "formatted": 'revision = "b2"\ndown_revision = "a1"\n',
    "with types": 'revision: str = "b2"\ndown_revision: str | None = "a1"\n',
}


@pytest.fixture
def lineage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Path]:
    """Where the migrations' files are."""
    monkeypatch.setattr(migrations, "ALEMBIC_INI", tmp_path / "alembic.ini")
    migrations._lineage.cache_clear()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    folder = tmp_path / "alembic" / "versions"
    folder.mkdir(parents=True)
    (folder / "0001.py").write_text("revision = 'a1'\ndown_revision = None\n")
    yield folder
    migrations._lineage.cache_clear()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]


@pytest.mark.parametrize("written", _AS_WRITTEN.values(), ids=_AS_WRITTEN)
def test_a_migration_s_revision_is_found_however_it_is_written(lineage: Path, written: str) -> None:
    """A file that no formatter has seen, too."""
    (lineage / "0002.py").write_text(written)
    assert head_revision() == "b2"
    assert is_behind("a1")


def test_a_merge_of_two_migrations_is_above_both(lineage: Path) -> None:
    """Two were made at the same time, and `alembic merge` joined them."""
    (lineage / "0002.py").write_text("revision = 'b2'\ndown_revision = 'a1'\n")
    (lineage / "0003.py").write_text("revision = 'c3'\ndown_revision = 'a1'\n")
    (lineage / "0004.py").write_text("revision = 'd4'\ndown_revision = ('b2', 'c3')\n")
    assert head_revision() == "d4"
    assert is_behind("b2")
    assert is_behind("c3")
