"""The replica's settings: one that belongs to nobody is refused."""

import pytest

from src.common.exceptions import SettingsError
from src.common.settings import load_settings


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"database_host": None}, "DATABASE_HOST, its primary, is not"),
        ({"database_replica_lag_max_seconds": -1}, "DATABASE_REPLICA_LAG_MAX_SECONDS"),
        ({"database_replica_timeout_seconds": 1}, "DATABASE_REPLICA_TIMEOUT_SECONDS"),
    ],
)
def test_what_cannot_be_meant_is_refused(changes: dict[str, object], named: str) -> None:
    """By the names of the variables."""
    given: dict[str, object] = {"database_host": "primary", "database_replica_host": "a"}
    with pytest.raises(SettingsError, match=named):
        load_settings(**(given | changes))
