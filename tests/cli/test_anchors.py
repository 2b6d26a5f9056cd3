"""`flashslides anchors …` and `verify --anchors`: what they print, what their exit codes say."""

import json
import stat
import uuid
from pathlib import Path
from typing import Any

import pytest

from src.common.credits.domain.commands import Grant
from src.common.database import SessionLocal
from src.common.settings import get_settings
from src.local_postgres import ConnectionParameters
from tests.anchors.anchoring import make_hashes_anew, spend
from tests.cli.conftest import RunCommand
from tests.credits.ledger import do, someone
from tests.credits.verification.test_verify import corrupt

ADA = "ada@example.com"


@pytest.fixture
def anchored(
    fresh_database: ConnectionParameters,
    run_command: RunCommand,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> uuid.UUID:
    """Ada, with an entry, a key to sign with and a file for checkpoints; none is closed yet."""
    assert fresh_database
    made = run_command("anchors", "keygen", str(tmp_path / "key"), "--json")
    monkeypatch.setenv("ANCHOR_SIGNING_KEY_FILE", str(tmp_path / "key"))
    monkeypatch.setenv("ANCHOR_SINKS", f"file:{tmp_path / 'anchors'}")
    monkeypatch.setenv("ANCHOR_PUBLIC_KEYS", made.json["public_key"])
    get_settings.cache_clear()
    with SessionLocal.begin() as session:
        user_id = someone(session, email=ADA)
        do(session, Grant, user_id, amount=50)
    return user_id


def test_a_key_is_made_for_its_owner_alone(run_command: RunCommand, tmp_path: Path) -> None:
    """The file is theirs, and is not written over; what is printed is public."""
    file = tmp_path / "key"
    made = run_command("anchors", "keygen", str(file), "--name", "ours", "--json")
    assert made.json["public_key"].startswith("ours+")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    secret = file.read_text()
    assert secret.startswith("PRIVATE+KEY+ours+")
    assert secret.rpartition("+")[2].strip() not in made.out
    again = run_command("anchors", "keygen", str(file))
    assert (again.exit_code, file.read_text()) == (2, secret)
    assert "cannot be written: File exists" in again.err
    assert run_command("anchors", "keygen", str(tmp_path / "other"), "--name", "a b").exit_code == 2


def test_a_checkpoint_is_closed_listed_and_verified(
    run_command: RunCommand, anchored: uuid.UUID, tmp_path: Path
) -> None:
    """For people and programs."""
    closed = run_command("anchors", "close", "--json")
    assert closed.exit_code == 0, closed.err
    checkpoint, [sink] = closed.json["checkpoint"], closed.json["sinks"]
    assert (checkpoint["number"], checkpoint["users"], checkpoint["entries"]) == (1, 1, 1)
    assert sink == {
        "sink": f"file:{tmp_path / 'anchors'}",
        "number": 1,
        "problem": None,
        "explanation": None,
    }
    spend(anchored)
    assert f"file:{tmp_path / 'anchors'} has checkpoint 2" in run_command("anchors", "close").out
    page = run_command("anchors", "list", "--limit", "1", "--json").json
    assert [(it["number"], it["leaves"], it["sinks"]) for it in page["items"]] == [
        (2, 1, [f"file:{tmp_path / 'anchors'}"])
    ]
    rest = run_command("anchors", "list", "--cursor", page["next_cursor"], "--json").json
    assert [it["checkpoint_hash"] for it in rest["items"]] == [checkpoint["checkpoint_hash"]]
    for source in (str(tmp_path / "anchors"), f"file:{tmp_path / 'anchors'}"):
        verified = run_command("verify", "--anchors", source)
        assert verified.exit_code == 0, verified.err
        assert (
            "All entries fit the anchors. Checkpoints: 1 to 2; users compared: 1." in verified.out
        )


def test_what_does_not_fit_is_named(
    run_command: RunCommand, anchored: uuid.UUID, tmp_path: Path
) -> None:
    """Where the database by itself fits: exit code 1 for `close` and `verify`."""
    run_command("anchors", "close")
    corrupt("UPDATE credit_entries SET idempotency_key = 'x' WHERE user_id = :user_id", anchored)
    make_hashes_anew(anchored)
    assert run_command("verify").exit_code == 0
    source = str(tmp_path / "anchors")
    verified = run_command("verify", "--anchors", source, "--user", ADA, "--json")
    assert verified.exit_code == 1
    found: dict[str, Any] = verified.json["anchors"]
    assert (found["findings"], found["checkpoints"], found["users"]) == (1, 1, 1)
    assert found["first"] == [
        {
            "checkpoint": 1,
            "kind": "ENTRY_CHANGED",
            "user_id": str(anchored),
            "seq": 1,
            "explanation": "One of the entries 1 to 1 is not what it was, and all hashes were made "
            "anew.",
        }
    ]
    people = run_command("verify", "--anchors", source)
    assert "This does not fit the anchors: 1 findings" in people.out
    spend(anchored)
    closed = run_command("anchors", "close")
    assert (closed.exit_code, "ANCHOR_CONTRADICTION" in closed.err) == (1, True)


def test_a_proof_is_checked_without_a_database(
    run_command: RunCommand, anchored: uuid.UUID, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the public key alone; what was changed in it is refused."""
    run_command("anchors", "close")
    public = get_settings().anchor_public_keys
    proof = run_command("anchors", "prove", ADA, "1")
    assert proof.exit_code == 0, proof.err
    file = tmp_path / "proof.json"
    file.write_text(proof.out)
    monkeypatch.delenv("ANCHOR_PUBLIC_KEYS")
    monkeypatch.delenv("ANCHOR_SIGNING_KEY_FILE")
    monkeypatch.setenv("DATABASE_PORT", "1")
    get_settings.cache_clear()
    checked = run_command("anchors", "check", str(file), "--public-key", public, "--json")
    assert checked.exit_code == 0, checked.err
    assert (checked.json["user_id"], checked.json["amount"]) == (str(anchored), 50)
    assert run_command("anchors", "check", str(file)).exit_code == 78
    written = json.loads(proof.out)
    written["entries"][0]["amount"] = 51
    file.write_text(json.dumps(written))
    assert run_command("anchors", "check", str(file), "--public-key", public).exit_code == 1
    for wrong in (["--public-key", "x"], []):
        assert run_command("anchors", "check", str(tmp_path / "none"), *wrong).exit_code in (2, 78)


@pytest.mark.parametrize(
    ("variable", "value", "code", "said"),
    [
        ("ANCHOR_SINKS", "", 78, "ANCHOR_SINKS is not set"),
        ("ANCHOR_SIGNING_KEY_FILE", "/nowhere", 78, "ANCHOR_SIGNING_KEY_FILE cannot be read"),
        ("ANCHOR_SIGNING_KEY_FILE", "", 78, "ANCHOR_SIGNING_KEY is not set"),
        ("ANCHOR_SINKS", "file:/nowhere/file", 1, "No such file or directory"),
    ],
)
def test_what_is_missing_to_close_one_is_said(
    run_command: RunCommand,
    anchored: uuid.UUID,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    value: str,
    code: int,
    said: str,
) -> None:
    """By the name of the setting, or by what a sink answers."""
    assert anchored
    monkeypatch.setenv(variable, value)
    get_settings.cache_clear()
    closed = run_command("anchors", "close")
    assert closed.exit_code == code
    assert said in closed.err + closed.out


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ("/nowhere/file", 75),
        ("/dev/null", 1),
        ("ftp://example.com/x", 2),
        ("s3://", 2),
        ("https://me:secret@example.com/x", 2),
    ],
)
def test_a_source_that_cannot_be_read_is_said(
    run_command: RunCommand, anchored: uuid.UUID, source: str, code: int
) -> None:
    """And is not taken for one that fits."""
    assert anchored
    assert run_command("verify", "--anchors", source).exit_code == code


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--anchors", "ftp://example.com/x"), "Checkpoints are in a file"),
        (("--anchors", "/nowhere/file", "--public-key", "x"), "A public key is written"),
        (("--public-key", "x"), "--public-key is for --anchors"),
    ],
)
def test_what_is_mistyped_is_said_before_any_book_is_read(
    run_command: RunCommand, anchored: uuid.UUID, arguments: tuple[str, ...], said: str
) -> None:
    """Reading all of them may take hours."""
    assert anchored
    verified = run_command("verify", *arguments)
    assert (verified.exit_code, said in verified.err) == (2, True)
    assert "Users verified" not in verified.out + verified.err
