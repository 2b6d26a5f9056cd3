"""A bucket of S3 with object lock: an object a checkpoint, which nobody can change or remove.

boto3 comes with the extra `aws`; credentials, region and another endpoint are boto3's own to find
(`AWS_…`). The bucket is made with object lock. It is only ever asked to keep what is not there yet
(`If-None-Match: *`).
"""

import datetime as dt
import importlib.util
import tempfile
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from functools import cached_property
from typing import Any, cast

from src.common.anchors.records import (
    LINE_OCTETS_MAX,
    Record,
    checkpoint_of,
    lines_of,
    note_in,
    read_record,
    unreadable,
)
from src.common.anchors.sinks import SinkTaken, SinkUnavailable
from src.common.exceptions import SettingsError

_DIGITS = 12
_SUFFIX = ".jsonl"
_IN_MEMORY_OCTETS = 8 << 20
_TAKEN = {"PreconditionFailed", "ConditionalRequestConflict"}


class S3Sink:
    """A bucket, and the prefix below which the checkpoints are."""

    def __init__(self, bucket: str, prefix: str, *, retention_days: int) -> None:
        """Lock each object for so many days, or, if 0, as the bucket does by itself."""
        self._bucket = bucket
        self._prefix = f"{prefix.strip('/')}/".lstrip("/")
        self._retention_days = retention_days

    @property
    def name(self) -> str:
        """`s3:`, the bucket and the prefix."""
        return f"s3://{self._bucket}/{self._prefix}".rstrip("/")

    def newest(self, known: int | None) -> str | None:
        """As `Sink.newest`; without a list of all objects, where `known` is there."""
        with self._translated():
            numbers = list(self._numbers(known - 1)) if known else []
            if not numbers:
                numbers = list(self._numbers(0))
            if not numbers:
                return None
            found = self._client.get_object(Bucket=self._bucket, Key=self._key(numbers[-1]))
            with closing(found["Body"]) as body:
                note = note_in(next(body.iter_lines(LINE_OCTETS_MAX, keepends=True), b""))
            if note is None:
                raise unreadable(f"object {self._key(numbers[-1])} does not begin with a note")
            return note

    def append(self, note: str, leaves: Iterable[bytes]) -> None:
        """As `Sink.append`.

        Raises:
            SinkUnavailable: also where the bucket has no object lock.
        """
        number = checkpoint_of(note).number
        with self._translated(number), tempfile.SpooledTemporaryFile(_IN_MEMORY_OCTETS) as body:
            self._require_lock()
            for line in lines_of(note, leaves):
                body.write(line)
            body.seek(0)
            self._client.put_object(
                Bucket=self._bucket,
                Key=self._key(number),
                Body=body,
                ContentType="application/jsonl",
                ChecksumAlgorithm="SHA256",
                IfNoneMatch="*",
                **self._retention(),
            )

    def records(self) -> Iterator[Record]:
        """As `Sink.records`."""
        with self._translated():
            for number in self._numbers(0):
                found = self._client.get_object(Bucket=self._bucket, Key=self._key(number))
                yield read_record(found["Body"].iter_lines(LINE_OCTETS_MAX, keepends=True))

    @cached_property
    def _client(self) -> Any:
        if importlib.util.find_spec("boto3") is None:
            raise SettingsError(f"{self.name}: install flashslides[aws]")
        import boto3  # heavy, and not installed everywhere
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError

        config = Config(
            retries={"mode": "standard", "total_max_attempts": 3},
            connect_timeout=5,
            read_timeout=30,
        )
        try:
            return cast("Any", boto3).client("s3", config=config)
        except (BotoCoreError, ValueError) as error:  # a profile or an endpoint that is none
            raise SinkUnavailable(self.name, type(error).__name__) from None

    def _key(self, number: int) -> str:
        return f"{self._prefix}{number:0{_DIGITS}d}{_SUFFIX}"

    def _numbers(self, after: int) -> Iterator[int]:
        """The checkpoints there are, from the one after `after` on."""
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=self._prefix, StartAfter=self._key(after)
        )
        for page in pages:
            for each in page.get("Contents", ()):
                name = str(each["Key"]).removeprefix(self._prefix).removesuffix(_SUFFIX)
                if name.isdecimal() and len(name) == _DIGITS:
                    yield int(name)

    def _require_lock(self) -> None:
        """Raise where whoever may write could also overwrite."""
        from botocore.exceptions import ClientError

        try:
            self._client.get_object_lock_configuration(Bucket=self._bucket)
        except ClientError as error:
            if _code(error) != "ObjectLockConfigurationNotFoundError":
                raise
            raise SinkUnavailable(self.name, "the bucket has no object lock") from None

    def _retention(self) -> dict[str, Any]:
        if not self._retention_days:
            return {}
        until = dt.datetime.now(dt.UTC) + dt.timedelta(days=self._retention_days)
        return {"ObjectLockMode": "COMPLIANCE", "ObjectLockRetainUntilDate": until}

    @contextmanager
    def _translated(self, number: int = 0) -> Generator[None]:
        client = self._client
        assert client is not None  # noqa: S101  it is made first: botocore may not be there
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except ClientError as error:
            if _code(error) in _TAKEN:
                raise SinkTaken(self.name, number) from None
            raise SinkUnavailable(self.name, f"S3 answers {_code(error)}") from None
        except BotoCoreError as error:
            raise SinkUnavailable(self.name, type(error).__name__) from None


def _code(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Code", "unknown"))
