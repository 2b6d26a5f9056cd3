"""Which revisions of a database this release can serve on."""

import pytest

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
