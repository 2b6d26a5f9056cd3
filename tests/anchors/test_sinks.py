"""Sinks keep what they are given, in order and for good; a crash leaves nothing that passes."""

import os
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from src.common.anchors.checkpoints import Checkpoint
from src.common.anchors.configuration import open_sink
from src.common.anchors.records import lines_of
from src.common.anchors.sinks import Sink, SinkTaken, SinkUnavailable
from src.common.exceptions import Inconsistent
from src.common.settings import load_settings
from tests.anchors.conftest import TOKEN, s3_client
from tests.anchors.made import KEY, checkpoint_over, crowd, in_pieces
from tests.anchors.receiving import receiver

EVERYBODY = crowd(2_500)


def history(length: int) -> list[tuple[str, list[bytes], Checkpoint]]:
    """Notes, pieces of leaves and checkpoints, one after the other."""
    found: list[tuple[str, list[bytes], Checkpoint]] = []
    before: Checkpoint | None = None
    for number in range(length):
        coming = EVERYBODY if before is None else EVERYBODY[number : 2 * number]
        checkpoint = checkpoint_over(EVERYBODY, coming if before else None, before=before)
        found.append((KEY.sign(checkpoint.text), in_pieces(coming), checkpoint))
        before = checkpoint
    return found


def kept(sink: Sink) -> list[tuple[str, list[bytes]]]:
    """All that a sink has."""
    return [(record.note, list(record.leaves)) for record in sink.records()]


def test_a_sink_gives_back_what_it_was_given(sink: Sink) -> None:
    """Every checkpoint with its leaves, the oldest first; one has none."""
    assert sink.newest(None) is None
    given = history(4)
    for place, (note, pieces, checkpoint) in enumerate(given):
        sink.append(note, pieces)
        for known in (None, 1, place, checkpoint.number):
            assert sink.newest(known) == note
    assert kept(sink) == [(note, pieces) for note, pieces, _ in given]


def test_nothing_is_overwritten(sink: Sink) -> None:
    """Whoever comes with the same number is told, and changes nothing."""
    [(note, pieces, _), following] = history(2)
    sink.append(note, pieces)
    sink.append(*following[:2])
    other = checkpoint_over(crowd(3))
    for again in (note, KEY.sign(other.text)):
        with pytest.raises(SinkTaken):
            sink.append(again, in_pieces(crowd(3)))
    assert kept(sink)[0] == (note, pieces)


def test_an_address_holds_nothing_secret(sink: Sink) -> None:
    """It is written down, logged and shown."""
    assert TOKEN not in sink.name


@pytest.mark.parametrize("cut", [1, 14, 400, -2, -100, -90_000])
def test_what_a_crash_cut_off_is_no_checkpoint(tmp_path: Path, cut: int) -> None:
    """Wherever the last record ends too soon: it is appended again, and nothing is removed."""
    sink = open_sink(str(tmp_path / "anchors.jsonl"), load_settings())
    first, *_ = history(1)
    second = checkpoint_over(EVERYBODY, EVERYBODY, before=first[2])
    note, pieces = KEY.sign(second.text), in_pieces(EVERYBODY)
    sink.append(*first[:2])
    file = tmp_path / "anchors.jsonl"
    torn = file.read_bytes() + b"".join(lines_of(note, pieces))[:cut]
    file.write_bytes(torn)
    assert sink.newest(None) == first[0]
    assert [each for each, _ in kept(sink)] == [first[0]]
    third = checkpoint_over(EVERYBODY, [], before=second)
    sink.append(note, pieces)
    sink.append(KEY.sign(third.text), [])
    assert [each for each, _ in kept(sink)] == [first[0], note, KEY.sign(third.text)]
    assert file.read_bytes().startswith(torn)


def test_a_record_that_lacks_its_last_newline_is_there_once(tmp_path: Path) -> None:
    """The newline is all that is added to it; whoever would append it again is told."""
    sink = open_sink(str(tmp_path / "anchors.jsonl"), load_settings())
    first, second = history(2)
    sink.append(*first[:2])
    file = tmp_path / "anchors.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    with pytest.raises(SinkTaken):
        sink.append(*first[:2])
    assert file.read_bytes() == whole
    sink.append(*second[:2])
    assert [note for note, _ in kept(sink)] == [first[0], second[0]]


def test_a_file_that_was_emptied_is_not_gone_on_with(tmp_path: Path) -> None:
    """Also where that happened after it was looked at: only all leaves can begin a file."""
    sink = open_sink(str(tmp_path / "anchors.jsonl"), load_settings())
    first, second = history(2)
    sink.append(*first[:2])
    (tmp_path / "anchors.jsonl").write_bytes(b"")
    with pytest.raises(SinkTaken):
        sink.append(*second[:2])
    assert kept(sink) == []


def test_a_newest_checkpoint_is_found_far_from_the_end(tmp_path: Path) -> None:
    """Behind more torn leaves than are read at a time; and at the edge of two reads."""
    sink = open_sink(str(tmp_path / "anchors.jsonl"), load_settings())
    [first] = history(1)
    sink.append(*first[:2])
    file = tmp_path / "anchors.jsonl"
    whole = file.read_bytes()
    for size in (2**20 - 20, 2**20 - 10, 2**20, 3 * 2**20):
        file.write_bytes(whole + b"x" * size)
        assert sink.newest(None) == first[0]
        file.write_bytes(b"x" * (len(whole) % 7) + b"\n" + whole + b"x" * size)
        assert sink.newest(None) == first[0]


def test_a_file_out_of_reach_is_a_sink_that_is_down(tmp_path: Path) -> None:
    """The folder is missing, or the path is a folder."""
    [first] = history(1)
    for path in (tmp_path / "missing" / "file", tmp_path):
        with pytest.raises(SinkUnavailable):
            open_sink(str(path), load_settings()).append(*first[:2])


def test_a_file_is_on_the_disk_when_append_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is synced, and so is the folder that names it."""
    synced: list[str] = []
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    [first] = history(1)
    open_sink(str(tmp_path / "anchors.jsonl"), load_settings()).append(*first[:2])
    assert synced == [str(tmp_path / "anchors.jsonl"), str(tmp_path)]


def test_s3_keeps_a_checkpoint_from_being_removed(bucket: str) -> None:
    """Until its time is over, whoever asks."""
    sink = open_sink(f"s3://{bucket}/of/ours", load_settings(anchor_retention_days=30))
    [first] = history(1)
    sink.append(*first[:2])
    client = s3_client()
    [version] = client.list_object_versions(Bucket=bucket)["Versions"]
    named: dict[str, Any] = {
        "Bucket": bucket,
        "Key": version["Key"],
        "VersionId": version["VersionId"],
    }
    with pytest.raises(ClientError, match="Access Denied"):
        client.delete_object(**named)
    assert version["Key"] == "of/ours/000000000001.jsonl"


def test_a_bucket_without_object_lock_is_refused(bucket: str) -> None:
    """Whoever may write there could overwrite."""
    s3_client().create_bucket(
        Bucket="unlocked", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"}
    )
    [first] = history(1)
    with pytest.raises(SinkUnavailable, match="no object lock"):
        open_sink("s3://unlocked", load_settings()).append(*first[:2])
    with pytest.raises(SinkUnavailable, match="NoSuchBucket"):
        open_sink("s3://nobody", load_settings()).newest(None)
    assert bucket


@pytest.mark.parametrize(
    ("variable", "said"),
    [("AWS_PROFILE", "ProfileNotFound"), ("AWS_ENDPOINT_URL", "ValueError")],
)
def test_s3_that_is_misconfigured_is_down(
    bucket: str, monkeypatch: pytest.MonkeyPatch, variable: str, said: str
) -> None:
    """The other sinks go on."""
    monkeypatch.setenv(variable, "nobody-s")
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # which has read the environment
    with pytest.raises(SinkUnavailable, match=said):
        open_sink(f"s3://{bucket}", load_settings()).newest(None)


def test_an_endpoint_that_fails_or_refuses_is_down() -> None:
    """Nothing is taken for kept that it did not say it has."""
    [first] = history(1)
    settings = load_settings(anchor_http_token="another")
    with receiver(TOKEN) as receiving:
        sink = open_sink(receiving.url, settings)
        with pytest.raises(SinkUnavailable, match="503"):
            sink.append(*first[:2])
        with pytest.raises(SinkUnavailable, match="503"):
            sink.newest(None)
    with pytest.raises(SinkUnavailable, match="ConnectError"):
        sink.newest(None)


@pytest.mark.parametrize("damage", [b'{"leaves": "AAAA"}\n', b"", b"x\n"])
def test_a_damaged_object_is_no_checkpoint(bucket: str, damage: bytes) -> None:
    """It does not begin with a note, or has too few leaves."""
    sink = open_sink(f"s3://{bucket}", load_settings())
    client = s3_client()
    client.put_object(Bucket=bucket, Key="000000000001.jsonl", Body=damage)
    with pytest.raises(Inconsistent):
        sink.newest(None)
    [first] = history(1)
    line = next(lines_of(first[0], []))
    client.put_object(Bucket=bucket, Key="000000000001.jsonl", Body=line + damage)
    assert sink.newest(None) == first[0]
    with pytest.raises(Inconsistent):
        kept(sink)
