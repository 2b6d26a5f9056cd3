"""Checkpoints over users of all groups: one tree, closed, proven and compared with."""

import json
import uuid
from pathlib import Path

import pytest
from sqlalchemy import text, update

from src.cli import exit_codes
from src.common.anchors.findings import FindingKind
from src.common.anchors.leaves import LEAF_OCTETS
from src.common.anchors.snapshot import AnchorContradiction
from src.common.anchors.spooled_leaves import SpooledLeaves
from src.common.anchors.tree import TreeBuilder
from src.common.credits.operations import execute
from src.common.database import SessionLocal
from src.common.models import CreditLedger
from src.common.postgres.routes import routed_to_schema
from src.common.routing import routed_to
from src.common.settings import get_settings
from src.local_postgres import ConnectionParameters
from tests.anchors.anchoring import compared, drain, file_sink, numbers, run
from tests.anchors.made import KEY
from tests.cli.conftest import RunCommand, data_folder, run_command
from tests.credits.books import spend
from tests.sharding.conftest import GROUPS
from tests.sharding.people import user_of

__all__ = ["data_folder", "run_command"]


def people(*numbers_: int) -> list[uuid.UUID]:
    """Users of these ids, one in each group by turns: neighbours in the tree are of others."""
    return [
        user_of(GROUPS[place % len(GROUPS)], 100, user_id=uuid.UUID(int=number << 120))
        for place, number in enumerate(numbers_)
    ]


def use(user_id: uuid.UUID) -> None:
    """The user spends one credit."""
    with routed_to(user_id), SessionLocal.begin() as session:
        execute(session, [spend(user_id, 1)])


def forge(user_id: uuid.UUID, statement: str) -> None:
    """As a superuser would, past the triggers."""
    with routed_to(user_id), SessionLocal.begin() as session:
        session.execute(text("SET LOCAL session_replication_role = replica"))
        session.execute(text(statement), {"user_id": user_id})


def test_one_tree_has_the_users_of_all_groups(groups: ConnectionParameters, tmp_path: Path) -> None:
    """In the order of their ids, whatever their groups; the next one brings who has changed."""
    assert groups
    users = people(9, 1, 7, 2, 200, 5, 3, 100, 4, 6)
    sink = file_sink(tmp_path / "anchors")
    first = run(sink).checkpoint
    assert first is not None
    assert (first.users, first.entries, first.leaves) == (len(users), len(users), len(users))
    late = [user_of(group, 5, user_id=uuid.UUID(int=place)) for place, group in enumerate(GROUPS)]
    for user_id in users[:3]:
        use(user_id)
    second = run(sink).checkpoint
    assert second is not None
    assert second.leaves == len(late) + 3
    for record in sink.records():
        leaves = b"".join(record.leaves)
        told = [leaves[at : at + LEAF_OCTETS] for at in range(0, len(leaves), LEAF_OCTETS)]
        assert told == sorted(told)
    everybody = TreeBuilder()
    with SessionLocal() as session:
        leaf = "uuid_send(user_id) || int8send(version) || last_hash"
        anchored = f"SELECT string_agg({leaf}, '' ORDER BY user_id) FROM anchored_users"  # noqa: S608  ours
        everybody.add(session.scalars(text(anchored)).one())
    assert everybody.root() == second.root
    report = compared(sink)
    assert (report.findings, report.users, report.checkpoints) == (0, len(users) + len(late), 2)


@pytest.mark.parametrize(
    ("statement", "kind"),
    [
        (
            "UPDATE credit_entries SET reference = 'another' WHERE user_id = :user_id",
            FindingKind.ENTRY_CHANGED,
        ),
        ("DELETE FROM users WHERE user_id = :user_id", FindingKind.USER_MISSING),
    ],
    ids=["changed", "removed"],
)
def test_what_is_forged_in_one_group_is_found(
    groups: ConnectionParameters, tmp_path: Path, statement: str, kind: FindingKind
) -> None:
    """It is named; a user who is gone, though the directory knows them, keeps the next back."""
    assert groups
    users = people(3, 1, 2)
    sink = file_sink(tmp_path / "anchors")
    run(sink)
    forge(users[1], statement)
    [finding] = compared(sink).first
    assert (finding.kind, finding.user_id) == (kind, users[1])
    assert compared(sink, user_ids=[users[0]]).findings == 0
    if kind is FindingKind.USER_MISSING:
        with pytest.raises(AnchorContradiction, match=f"User {users[1]}"):
            run(sink)
        assert numbers(sink) == [1]


def test_commands_and_the_worker_anchor_all_groups(
    groups: ConnectionParameters,
    run_command: RunCommand,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Closed, compared with, proven of a user of any group and checked."""
    assert groups
    users = people(3, 1, 2)
    sink = str(tmp_path / "anchors")
    monkeypatch.setenv("ANCHOR_SIGNING_KEY", KEY.written())
    monkeypatch.setenv("ANCHOR_SINKS", f"file:{sink}")
    get_settings.cache_clear()
    closed = run_command("anchors", "close", "--json")
    assert closed.exit_code == exit_codes.DONE, closed.err
    assert closed.json["checkpoint"]["users"] == len(users)
    use(users[2])
    monkeypatch.setenv("ANCHOR_INTERVAL_SECONDS", "60")
    get_settings.cache_clear()
    with SessionLocal.begin() as session:
        session.execute(text("UPDATE anchor_turns SET attempted_at = now() - interval '1 day'"))
    assert run_command("worker", "--once").exit_code == exit_codes.DONE
    assert numbers(file_sink(Path(sink))) == [1, 2]
    compared_with = run_command("verify", "--anchors", sink, "--json")
    assert compared_with.json["anchors"]["users"] == 3
    assert compared_with.json["anchors"]["findings"] == 0
    one = run_command("verify", "--anchors", sink, "--user", str(users[2]), "--json")
    assert (one.exit_code, one.json["anchors"]["users"]) == (exit_codes.DONE, 1)
    proof = run_command("anchors", "prove", str(users[2]), "2")
    assert proof.exit_code == exit_codes.DONE, proof.err
    (tmp_path / "proof").write_text(json.dumps(proof.json))
    checked = run_command("anchors", "check", str(tmp_path / "proof"), "--json")
    assert checked.exit_code == exit_codes.DONE, checked.err


def test_a_group_that_is_not_chained_keeps_the_checkpoint_back(
    groups: ConnectionParameters, run_command: RunCommand, tmp_path: Path
) -> None:
    """`db chain` gives hashes group after group, and says of each that it is done."""
    assert groups
    users = people(3, 1, 2)
    for group in GROUPS[1:]:
        with routed_to_schema(group), SessionLocal.begin() as session:
            session.execute(text("SET LOCAL session_replication_role = replica"))
            session.execute(update(CreditLedger).values(chained_at=None))
            session.execute(text("UPDATE credit_entries SET entry_hash = NULL"))
    sink = file_sink(tmp_path / "anchors")
    with pytest.raises(Exception, match="db chain"):
        run(sink)
    done = run_command("db", "chain", "--json")
    told = {"users": 3, "locked_users": 0, "entries": 2, "is_complete": True}
    assert (done.exit_code, done.json) == (exit_codes.DONE, told), done.err
    again = run_command("db", "chain", "--json")
    assert again.json == told | {"entries": 0}
    checkpoint = run(sink).checkpoint
    assert checkpoint is not None
    assert checkpoint.users == len(users)
    assert run_command("verify").exit_code == exit_codes.DONE


def test_runs_of_leaves_are_merged() -> None:
    """Any number of runs, longer than what is read ahead and empty ones: all, in order."""
    leaves = [uuid.uuid4().bytes + bytes(LEAF_OCTETS - 16) for _ in range(1_000)]
    runs = [leaves[:1], leaves[1:300], [], leaves[300:301], leaves[301:]]
    with SpooledLeaves() as spooled:
        for each in runs:
            spooled.add(b"".join(sorted(each)))
            spooled.end_run()
        drain(spooled.sort())
        assert spooled.count() == len(leaves)
        assert b"".join(spooled.pieces()) == b"".join(sorted(leaves))
