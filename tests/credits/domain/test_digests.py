"""Digests are stored, and compared for ever: no release may come to others."""

import datetime as dt
import uuid

import pytest

from src.common.credits.domain.commands import (
    Adjust,
    Capture,
    Command,
    OpenHold,
    Release,
    Renew,
    Spend,
)
from src.common.credits.domain.digest import digest_of
from src.common.credits.domain.own_commands import Assignment, Opening, Purchase

INSTANT = dt.datetime(2030, 1, 2, 3, 4, 5, 600_000, tzinfo=dt.timezone(dt.timedelta(hours=2)))
KNOWN: list[tuple[type[Command], dict[str, object], str]] = [
    (
        Spend,
        {"amount": 7},
        "388c16c3e758eee353bff5ab798a63db3884829145bbd537e44c3ef13241e7d0",
    ),
    (
        Spend,
        {"amount": 7, "reference": "ü🙂"},
        "64012d61c40d9bf88d7c1e2b2376d01e19ebd603bd1ec1f44b269f7663b41f0c",
    ),
    (
        Purchase,
        {
            "amount": 7,
            "priority": 0,
            "expires_at": INSTANT,
            "transaction_id": uuid.UUID(int=2),
        },
        "c9a663e4d4fb0b45895824195648946a376c48f9d418a3dde326d25d0bd68d39",
    ),
    (
        Opening,
        {"amount": 1},
        "034f191ab76a6d3cb300e69460453e3be22c17641bbd537dcd68236a6d1ed686",
    ),
    (
        Adjust,
        {"amount": -7, "reason": "r"},
        "1c02ab7d9c8e61b2a12e9cfae2fd7799a4a36c6616e86a6705f1b31eb9653682",
    ),
    (
        Assignment,
        {"amount": -7, "reason": "r"},
        "1c02ab7d9c8e61b2a12e9cfae2fd7799a4a36c6616e86a6705f1b31eb9653682",
    ),
    (
        OpenHold,
        {"amount": 7, "expires_in_seconds": 60},
        "38a69e069ffbe50c053217166e7ae10e13a534133d06503b28b9b185be4a6652",
    ),
    (
        Capture,
        {"hold_seq": 3, "amount": 7, "final": False, "if_expired": "retake"},
        "8c73760640907d92152fcbef6ac57a1e3acc817dff9c4941ffc6cfbfa69f8496",
    ),
    (
        Capture,
        {"hold_seq": 3, "amount": 7},
        "2e24b8d590c90681da9e8ab08bad4375cff0c1e48fa18d4a4c1b9b1f77e1f7c6",
    ),
    (
        Release,
        {"hold_seq": 3},
        "ae7f16cfd2341111ec84574e916b6b8f6e3ce5c0ff14204fbd8f6205eba694e5",
    ),
    (
        Renew,
        {"hold_seq": 3, "expires_in_seconds": 60},
        "8a2ca213ca7f7c665162628877097c43b0d6aa46080cc9f0e4b0f46e1a9549e1",
    ),
]


@pytest.mark.parametrize(("kind", "fields", "digest"), KNOWN)
def test_a_request_has_the_digest_it_always_had(
    kind: type[Command], fields: dict[str, object], digest: str
) -> None:
    """Every kind of command, and every kind of value in one."""
    command = kind(user_id=uuid.UUID(int=1), key="k", actor="key:a", **fields)  # type: ignore[arg-type]  # fields of any kind
    assert command.digest.hex() == digest


def test_the_ledgers_own_entries_have_the_digests_they_always_had() -> None:
    """They come from no command."""
    digest = digest_of("system:ledger", "", "debt_repayment", "~debt_repayment:9")
    assert digest.hex() == "17fd55280cbd15ed23a42aa54c81d720090e14bc747733abfd7c24dc85a58812"
