"""Which addresses are connected to: public ones, and the very one that was checked."""

import asyncio
import socket
from ipaddress import ip_address
from typing import Any

import httpcore
import pytest

from src.common.notices.delivery.addresses import (
    AddressRefused,
    CheckedBackend,
    may_be_connected_to,
)
from tests.notices.receiver import receiving
from tests.notices.sent import add_endpoint, add_users, deliver, give, outbox, state_of

REFUSED = (
    "0.0.0.0",  # noqa: S104  not bound to
    "10.1.2.3",
    "100.64.0.1",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.169.254",
    "172.16.0.1",
    "192.0.0.1",
    "192.0.2.1",
    "192.168.1.1",
    "198.18.0.1",
    "203.0.113.7",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:10.0.0.1",
    "::127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%1",
    "fec0::1",
    "ff02::1",
)
ALLOWED = ("8.8.8.8", "93.184.215.14", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808")


@pytest.mark.parametrize("address", REFUSED)
def test_what_is_not_of_the_public_internet_is_refused(address: str) -> None:
    """Also where an IPv6 address stands for it."""
    assert not may_be_connected_to(ip_address(address))


@pytest.mark.parametrize("address", ALLOWED)
def test_public_addresses_are_allowed(address: str) -> None:
    """IPv4 and IPv6, and IPv4 behind a translation."""
    assert may_be_connected_to(ip_address(address))


class Names:
    """A resolver that answers something else each time, and notes what was connected to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.connected: list[str] = []
        monkeypatch.setattr(socket, "getaddrinfo", self.look_up)
        monkeypatch.setattr(httpcore.AnyIOBackend, "connect_tcp", self.connect)

    def look_up(self, host: str, port: int, **_: Any) -> list[Any]:
        """The next answer; once there is none, loopback, as whoever rebinds a name does."""
        assert host == "endpoint.example"
        found = self.answers.pop(0) if self.answers else ["127.0.0.1"]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in found]

    async def connect(self, host: str, *_: Any, **__: Any) -> httpcore.AsyncNetworkStream:
        """Note it."""
        self.connected.append(host)
        raise httpcore.ConnectError("nobody is there")


async def test_the_address_that_was_checked_is_connected_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The name is looked up once: a second answer would be loopback, and is never asked for."""
    names = Names(monkeypatch, ["8.8.8.8", "10.0.0.1", "9.9.9.9"])
    with pytest.raises(httpcore.ConnectError):
        await CheckedBackend(allows_all=False).connect_tcp("endpoint.example", 443, 1.0)
    assert names.connected == ["8.8.8.8", "9.9.9.9"]
    with pytest.raises(AddressRefused):
        await CheckedBackend(allows_all=False).connect_tcp("endpoint.example", 443, 1.0)
    assert names.connected == ["8.8.8.8", "9.9.9.9"]
    with pytest.raises(httpcore.ConnectError):
        await CheckedBackend(allows_all=True).connect_tcp("endpoint.example", 443, 1.0)
    assert names.connected[2:] == ["127.0.0.1"]


async def test_a_resolver_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that is not found in time, or not at all, is a connection that failed."""
    hung = asyncio.Event()
    loop = asyncio.get_running_loop()

    def hang(*_: Any, **__: Any) -> list[Any]:
        asyncio.run_coroutine_threadsafe(hung.wait(), loop).result()
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    with pytest.raises(httpcore.ConnectTimeout):
        await CheckedBackend(allows_all=True).connect_tcp("endpoint.example", 443, 0.01)
    hung.set()

    def fail(*_: Any, **__: Any) -> list[Any]:
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(httpcore.ConnectError):
        await CheckedBackend(allows_all=True).connect_tcp("endpoint.example", 443, 1.0)


@pytest.mark.usefixtures("fresh_database")
async def test_outside_of_a_developer_s_machine_loopback_is_not_sent_to() -> None:
    """By a name or an address, over https; over http nothing is sent at all."""
    async with receiving() as receiver:
        for url, why in (
            (f"https://127.0.0.1:{receiver.port}/hook", "ADDRESS_REFUSED"),
            (f"https://localhost:{receiver.port}/hook", "ADDRESS_REFUSED"),
            (f"https://[::ffff:127.0.0.1]:{receiver.port}/hook", "ADDRESS_REFUSED"),
            (f"http://127.0.0.1:{receiver.port}/hook", "URL_REFUSED"),
        ):
            endpoint_id = add_endpoint(url)
            give(add_users(1))
            await deliver(env="staging", **REQUIRED)
            error = state_of(endpoint_id).last_error
            assert error is not None
            assert error.startswith(why), url
        assert receiver.connections == 0
        assert all(each.status == "pending" for each in outbox())


REQUIRED = {
    "database_password": "a-long-password-of-this-test",
    "auth_jwt_issuer": "https://issuer.example",
    "auth_jwt_secret": "{}",
}
