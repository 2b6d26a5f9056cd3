"""The replica's settings: one that belongs to nobody, or whose port is a guess, is refused."""

import pytest

from src.common.exceptions import SettingsError
from src.common.settings import load_settings


def test_without_one_there_is_no_address() -> None:
    """The primary answers everything, and nothing else need be set."""
    assert load_settings().replica_address is None


def test_it_may_be_several_hosts_with_a_port_for_each() -> None:
    """Or one for all, as of the primary."""
    settings = load_settings(
        database_host="primary", database_replica_host="a, b", database_replica_port="1,2"
    )
    assert settings.replica_address == "a:1, b:2"
    one = load_settings(database_host="primary", database_replica_host="a,b")
    assert one.replica_address == "a:5432, b:5432"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"database_host": None}, "DATABASE_HOST, its primary, is not"),
        ({"database_replica_port": "1,2"}, "DATABASE_REPLICA_PORT and DATABASE_REPLICA_HOST"),
        ({"database_replica_host": "a,,b"}, "DATABASE_REPLICA_HOST: .* has no name"),
        ({"database_replica_lag_max_seconds": -1}, "DATABASE_REPLICA_LAG_MAX_SECONDS"),
        ({"database_replica_timeout_seconds": 1}, "DATABASE_REPLICA_TIMEOUT_SECONDS"),
    ],
)
def test_what_cannot_be_meant_is_refused(changes: dict[str, object], named: str) -> None:
    """By the names of the variables."""
    given: dict[str, object] = {"database_host": "primary", "database_replica_host": "a"}
    with pytest.raises(SettingsError, match=named):
        load_settings(**(given | changes))
