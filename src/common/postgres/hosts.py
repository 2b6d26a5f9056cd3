"""Opens a connection to the first of several hosts that will do, the same over both drivers.

Each host has its own time-out. So one that accepts connections and never answers, or whose packets
are dropped, is passed. psycopg does that by itself; asyncpg has one time-out for all hosts
together, so it is asked for one host at a time.

The host that served last is tried first: a frozen one costs its time-out once, and not with every
connection.
"""

import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from src.common.postgres.errors import READ_ONLY, SERVER_READ_ONLY, RetryableDatabaseError

if TYPE_CHECKING:
    import asyncpg

    from src.common.settings import Settings

# A host that is gone is noticed within a minute also by who waits without a limit, and a
# connection is not forgotten by a firewall. The systems' own defaults are hours.
_KEEPALIVE_IDLE_SECONDS = 30
_KEEPALIVE_INTERVAL_SECONDS = 10
_KEEPALIVE_COUNT = 3
_PASSING = ("08", "53", "57")
"""Classes of SQLSTATE with which a server refuses whom it may welcome in a moment."""


class HostOrder:
    """In which order one engine tries its hosts."""

    def __init__(self) -> None:
        self._served: tuple[str, int] | None = None

    def arranged(
        self, hosts: str | Sequence[str], ports: str | int | Sequence[int]
    ) -> list[tuple[str, int]]:
        """The hosts with their ports, the one that served last before the others.

        They come as SQLAlchemy hands them to a driver: one text or number for all, or a list.
        """
        named = hosts.split(",") if isinstance(hosts, str) else hosts
        numbered = ports if isinstance(ports, list) else str(ports).split(",")
        addresses = [(host, int(port)) for host, port in zip(named, numbered, strict=True)]
        return sorted(addresses, key=lambda address: address != self._served)

    def for_libpq(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """A copy of libpq's parameters in which the hosts are in this order."""
        if "," not in parameters.get("host", ""):
            return parameters
        addresses = self.arranged(parameters["host"], parameters["port"])
        return parameters | {
            "host": ",".join(host for host, _ in addresses),
            "port": ",".join(str(port) for _, port in addresses),
        }

    def note(self, host: str, port: int) -> None:
        """This one has let us in."""
        self._served = (host, port)


def libpq_parameters(settings: "Settings") -> dict[str, Any]:
    """What libpq is told of a connection beside where and who: its name, and when to give up."""
    return {
        "application_name": settings.database_application_name,
        "connect_timeout": settings.database_connect_timeout_seconds,
        "target_session_attrs": settings.session_attrs,
        "keepalives_idle": _KEEPALIVE_IDLE_SECONDS,
        "keepalives_interval": _KEEPALIVE_INTERVAL_SECONDS,
        "keepalives_count": _KEEPALIVE_COUNT,
        "tcp_user_timeout": settings.database_tcp_user_timeout_ms,
    }


async def connect_in_turn(
    order: HostOrder,
    tcp_user_timeout_ms: int,
    *,
    host: str | list[str],
    port: int | list[int],
    **parameters: Any,
) -> "asyncpg.Connection":
    """Open a connection of asyncpg's as psycopg does: host by host, each with its own time-out.

    Raises:
        RetryableDatabaseError: none of them is the primary.
        OSError, asyncpg.PostgresError, asyncpg.InterfaceError: what says most of why none will do.
    """
    import asyncpg

    failures: list[Exception] = []
    for each_host, each_port in order.arranged(host, port):
        try:
            connection = await asyncpg.connect(host=each_host, port=each_port, **parameters)
        except (
            OSError,
            asyncpg.PostgresError,
            asyncpg.InterfaceError,
            asyncpg.InternalClientError,
        ) as error:
            failures.append(error)
        else:
            order.note(each_host, each_port)
            _bound_silence(connection, tcp_user_timeout_ms)
            return connection
    raise _most_telling(failures)


def _most_telling(failures: Sequence[Exception]) -> Exception:
    """What passes before what does not, and what a server says before what none did.

    psycopg's error has the sentences of all hosts, and `errors` reads it in the same order.
    """
    import asyncpg

    if any(isinstance(each, asyncpg.TargetServerAttributeNotMatched) for each in failures):
        return RetryableDatabaseError(READ_ONLY, None, SERVER_READ_ONLY)
    answers = [each for each in failures if isinstance(each, asyncpg.PostgresError)]
    passing = [each for each in answers if (each.sqlstate or "").startswith(_PASSING)]
    return [*failures, *answers[-1:], *passing[-1:]][-1]


def _bound_silence(connection: "asyncpg.Connection", tcp_user_timeout_ms: int) -> None:
    """Have the system notice a host that is gone as it does for libpq, which sets the same."""
    opened: socket.socket = connection._transport.get_extra_info("socket")  # noqa: SLF001  no public way
    if opened.family not in {socket.AF_INET, socket.AF_INET6}:
        return
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    options = {
        "TCP_KEEPIDLE": _KEEPALIVE_IDLE_SECONDS,
        "TCP_KEEPINTVL": _KEEPALIVE_INTERVAL_SECONDS,
        "TCP_KEEPCNT": _KEEPALIVE_COUNT,
        "TCP_USER_TIMEOUT": tcp_user_timeout_ms,
    }
    for name, value in options.items():
        if (option := getattr(socket, name, None)) is not None:  # not every system has each
            opened.setsockopt(socket.IPPROTO_TCP, option, value)
