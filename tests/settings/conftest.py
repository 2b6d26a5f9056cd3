"""A process without settings: an empty working directory, no environment, no AWS of the caller."""

import os
from collections.abc import Callable, Generator
from pathlib import Path

import boto3
import pytest
from moto import mock_aws

from src.common.settings import Settings, get_settings

REGION = "eu-central-1"


@pytest.fixture(autouse=True)
def bare_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Path]:
    """Settings come from what the test itself sets and from nothing else."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(Settings.model_config, "env_file", ".env")  # this folder's
    for name in list(os.environ):
        if name.lower() in Settings.model_fields:  # this worker's database among them
            monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    get_settings.cache_clear()
    yield tmp_path
    get_settings.cache_clear()


@pytest.fixture
def aws_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Name a region and made-up credentials, as a deployment's environment does."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)


@pytest.fixture
def put_parameter(aws_credentials: None) -> Generator[Callable[[str, str], None]]:
    """Store encrypted parameters in an SSM of this test's own."""
    assert aws_credentials is None
    with mock_aws():
        client = boto3.client("ssm", region_name=REGION)

        def put(name: str, value: str) -> None:
            client.put_parameter(Name=name, Value=value, Type="SecureString")

        yield put
