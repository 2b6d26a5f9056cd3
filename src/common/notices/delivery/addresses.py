"""Which addresses may be connected to, decided for the very address that is connected to.

An endpoint's name may lead anywhere, and elsewhere a moment later. So a name is looked up once,
what it leads to is checked, and the connection is made to an address that was checked.
"""

import asyncio
import socket
import threading
from collections.abc import Iterable
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Any

import httpcore

_NAT64 = IPv6Network("64:ff9b::/96")
_GLOBAL_UNICAST = IPv6Network("2000::/3")
Address = IPv4Address | IPv6Address


class AddressRefused(Exception):
    """The endpoint's name leads to no address that may be connected to."""


def may_be_connected_to(address: Address) -> bool:
    """Whether this is an address of the public internet.

    Not private, shared, loopback, link-local, multicast or reserved; and none that stands for such
    an IPv4 address.
    """
    if isinstance(address, IPv4Address):
        return address.is_global and not address.is_multicast and not address.is_reserved
    if address.scope_id is not None or address.sixtofour is not None or address.teredo is not None:
        return False
    inner = address.ipv4_mapped
    if inner is None and address in _NAT64:
        inner = IPv4Address(int(address) & 0xFFFF_FFFF)
    if inner is not None:
        return may_be_connected_to(inner)
    return address in _GLOBAL_UNICAST and address.is_global and not address.is_reserved


class CheckedBackend(httpcore.AsyncNetworkBackend):
    """httpcore's way to the network, to public addresses only unless `allows_all`."""

    def __init__(self, *, allows_all: bool) -> None:
        self._allows_all = allows_all
        self._backend: httpcore.AsyncNetworkBackend = httpcore.AnyIOBackend()  # pyright: ignore[reportAttributeAccessIssue]  it reads the stand-in for a lack of anyio

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  httpcore's
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to the first address of `host` that lets us.

        Raises:
            AddressRefused: there is none that may be connected to.
            ConnectError, ConnectTimeout: httpcore's.
        """
        try:
            async with asyncio.timeout(timeout):
                found = await resolve(host, port)
        except TimeoutError:
            raise httpcore.ConnectTimeout("The name was not found in time") from None
        except (OSError, UnicodeError):
            raise httpcore.ConnectError("The name leads to no address") from None
        allowed = [each for each in found if self._allows_all or may_be_connected_to(each)]
        if not allowed:
            raise AddressRefused
        failure: Exception = httpcore.ConnectError("There is no address")
        for address in allowed:
            try:
                return await self._backend.connect_tcp(
                    str(address), port, timeout, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure

    async def connect_unix_socket(
        self,
        path: str,  # noqa: ARG002  httpcore's
        timeout: float | None = None,  # noqa: ARG002, ASYNC109  httpcore's
        socket_options: Iterable[Any] | None = None,  # noqa: ARG002  httpcore's
    ) -> httpcore.AsyncNetworkStream:
        """Never: an endpoint is an address."""
        raise AddressRefused

    async def sleep(self, seconds: float) -> None:
        """As httpcore asks for."""
        await self._backend.sleep(seconds)


async def resolve(host: str, port: int) -> list[Address]:
    """The addresses of a name, in the resolver's order, each once.

    In a thread of its own, which holds up no other look-up and nobody's end, however long it takes.

    Raises:
        OSError: there are none.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[list[Address]] = loop.create_future()

    def tell(found: list[Address] | None, error: Exception | None) -> None:
        if answer.done():  # nobody waits any more
            return
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(found or [])

    def look_up() -> None:
        found, failure = None, None
        try:
            infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            found = list(dict.fromkeys(ip_address(info[4][0]) for info in infos))
        except Exception as error:  # noqa: BLE001  whoever waits for it is told
            failure = error
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(tell, found, failure)

    threading.Thread(target=look_up, name="notices: resolver", daemon=True).start()
    return await answer
