"""Several hosts and ports in the settings: as libpq writes them, refused where they disagree."""

import pytest

from src.common.database_settings import Address
from src.common.exceptions import SettingsError
from src.common.postgres.engines import ASYNC_DRIVER, build_async_engine, build_engine, database_url
from src.common.settings import load_settings


@pytest.mark.parametrize(
    ("host", "port", "addresses"),
    [
        ("a", "5433", ["a:5433"]),
        ("a, b,c", "5433", ["a:5433", "b:5433", "c:5433"]),
        ("a,::1,/run/pg", "1, 2,3", ["a:1", "[::1]:2", "/run/pg:3"]),
    ],
)
def test_hosts_and_ports_are_read_as_libpq_does(host: str, port: str, addresses: list[str]) -> None:
    """One port is every host's."""
    settings = load_settings(database_host=host, database_port=port)
    assert [str(each) for each in settings.database_addresses] == addresses
    assert settings.session_attrs == ("any" if len(addresses) == 1 else "primary")


@pytest.mark.parametrize(
    ("variable", "value", "named"),
    [
        ("DATABASE_PORT", "1,2", "DATABASE_PORT names 2 ports, and DATABASE_HOST 3 hosts"),
        ("DATABASE_PORT", "1,2,3,4", "DATABASE_PORT names 4 ports"),
        ("DATABASE_PORT", "1,,3", "DATABASE_PORT: "),
        ("DATABASE_PORT", "1,2,65536", "DATABASE_PORT: "),
        ("DATABASE_PORT", "٣", "DATABASE_PORT: "),
        ("DATABASE_HOST", "a,,c", "DATABASE_HOST: "),
        ("DATABASE_DIRECT_HOST", "a,", "DATABASE_DIRECT_HOST: "),
        ("DATABASE_DIRECT_PORT", "1,2", "DATABASE_DIRECT_PORT names 2 ports, and .* 0 hosts"),
        ("DATABASE_TARGET_SESSION_ATTRS", "master", "DATABASE_TARGET_SESSION_ATTRS: "),
        ("DATABASE_TARGET_SESSION_ATTRS", "standby", "DATABASE_TARGET_SESSION_ATTRS: "),
    ],
)
def test_what_does_not_fit_together_stops_the_start(
    variable: str, value: str, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sentence names the variable."""
    monkeypatch.setenv("DATABASE_HOST", "a,b,c")
    monkeypatch.setenv("DATABASE_PORT", "5432")
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match=named):
        load_settings()


def test_ports_without_a_host_are_refused() -> None:
    """The embedded server has one of its own."""
    with pytest.raises(SettingsError, match="DATABASE_PORT names 2 ports, and DATABASE_HOST 0"):
        load_settings(database_port="1,2")


def test_both_drivers_are_handed_all_hosts() -> None:
    """The URL has them in the form that either takes, and an application's own engine too."""
    settings = load_settings(database_host="a,::1", database_port="1,2", database_name="shop")
    url = database_url(settings)
    assert (
        url.render_as_string() == "postgresql+psycopg://postgres@/shop?host=a%2C%3A%3A1&port=1%2C2"
    )
    _, for_psycopg = build_engine(settings).dialect.create_connect_args(url)
    assert (for_psycopg["host"], for_psycopg["port"]) == ("a,::1", "1,2")
    asynchronous = build_async_engine(settings).dialect
    _, for_asyncpg = asynchronous.create_connect_args(database_url(settings, ASYNC_DRIVER))
    assert (for_asyncpg["host"], for_asyncpg["port"]) == (["a", "::1"], [1, 2])


def test_an_address_is_written_as_in_a_url() -> None:
    """An IPv6 address has brackets."""
    assert str(Address("::1", 5432)) == "[::1]:5432"
