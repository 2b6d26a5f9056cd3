"""The settings of anchors: addresses that can be meant, one key, no token that comes in clear."""

import pytest

from src.common.exceptions import SettingsError
from src.common.settings import load_settings


def test_without_a_sink_there_are_no_anchors() -> None:
    """And with one there are, unless they are switched off."""
    assert not load_settings().has_anchors
    assert load_settings(anchor_sinks="file:/a").has_anchors
    assert not load_settings(anchor_sinks="file:/a", anchor_interval_seconds=0).has_anchors


def test_several_sinks_are_separated_by_commas() -> None:
    """In the order in which they are written, each once."""
    settings = load_settings(
        anchor_sinks="file:/var/anchors.jsonl, s3://bucket/a/b,https://auditor.example/x,file:/a,"
        "file:/a"
    )
    assert settings.anchor_sink_addresses == (
        "file:/var/anchors.jsonl",
        "s3://bucket/a/b",
        "https://auditor.example/x",
        "file:/a",
    )


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"anchor_sinks": "/var/anchors"}, "ANCHOR_SINKS"),
        ({"anchor_sinks": "file:anchors"}, "ANCHOR_SINKS"),
        ({"anchor_sinks": "file:/a,ftp://host/x"}, "ANCHOR_SINKS: number 2 is none; a sink is"),
        ({"anchor_sinks": "file:/a b"}, "ANCHOR_SINKS: number 1 is none"),
        ({"anchor_sinks": "https://host/x?token=secret"}, "ANCHOR_SINKS: number 1 is none"),
        ({"anchor_sinks": "https://user:secret@host/x"}, "ANCHOR_SINKS"),
        ({"anchor_sinks": "http://host/x"}, "ANCHOR_SINKS: an address begins with http://"),
        ({"anchor_sinks": "http://localhost.evil.example/x"}, "ANCHOR_SINKS: an address begins"),
        ({"anchor_interval_seconds": -1}, "ANCHOR_INTERVAL_SECONDS"),
        ({"anchor_signing_key": "a", "anchor_signing_key_file": "b"}, "not both"),
        ({"anchor_retention_days": -1}, "ANCHOR_RETENTION_DAYS"),
    ],
)
def test_what_cannot_be_meant_is_refused(changes: dict[str, object], named: str) -> None:
    """By the names of the variables, and without a secret."""
    with pytest.raises(SettingsError, match=named) as refused:
        load_settings(**changes)
    assert "secret" not in refused.value.message


def test_this_machine_may_be_asked_in_clear() -> None:
    """For a stand-in of somebody's endpoint."""
    for host in ("localhost:1", "127.0.0.1:8000", "[::1]:1"):
        assert load_settings(anchor_sinks=f"http://{host}/anchors").has_anchors
