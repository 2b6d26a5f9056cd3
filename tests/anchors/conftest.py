"""Every kind of sink, empty."""

from collections.abc import Generator
from pathlib import Path
from typing import Any, cast

import boto3
import pytest
from moto import mock_aws

from src.common.anchors.configuration import open_sink
from src.common.anchors.sinks import Sink
from src.common.settings import load_settings
from tests.anchors.receiving import receiver

TOKEN = "token-of-a-test"


def s3_client() -> Any:
    """A client of S3's, whose stubs are not installed."""
    return cast("Any", boto3).client("s3")


@pytest.fixture
def aws_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials and a region of nobody's."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")


@pytest.fixture
def bucket(aws_credentials: None) -> Generator[str]:
    """A bucket with object lock, at a stand-in for S3."""
    assert aws_credentials is None
    with mock_aws():
        s3_client().create_bucket(
            Bucket="anchors-of-a-test",
            ObjectLockEnabledForBucket=True,
            CreateBucketConfiguration={"LocationConstraint": "eu-central-1"},
        )
        yield "anchors-of-a-test"


@pytest.fixture(params=["file", "s3", "http"])
def sink(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[Sink]:
    """Each kind in turn."""
    settings = load_settings(anchor_http_token=TOKEN, anchor_retention_days=30)
    if request.param == "file":
        yield open_sink(str(tmp_path / "anchors.jsonl"), settings)
    elif request.param == "s3":
        yield open_sink(f"s3://{request.getfixturevalue('bucket')}/of/ours", settings)
    else:
        with receiver(TOKEN) as receiving:
            yield open_sink(receiving.url, settings)
