"""What of a request's path is logged: which route it was, never what somebody wrote into it."""

import json

import pytest

from src.common.observability import configure_logging
from src.common.settings import load_settings
from tests.fixtures.api import Api, logging_restored


@pytest.mark.parametrize(
    ("path", "logged"),
    [
        ("/api/v1/user/zoe@example.com", "/api/v1/user/{user_id}"),
        ("/api/v1/user/00000000-0000-0000-0000-000000000001", "/api/v1/user/{user_id}"),
        ("/api/v1/nowhere/zoe@example.com", "/api/v1/nowhere/*"),
        ("/api/v1/nowhere/zoe%40example.com?email=zoe@example.com", "/api/v1/nowhere/*"),
        ("/livez", "/livez"),
    ],
)
async def test_a_path_is_logged_without_its_values(
    api: Api, capsys: pytest.CaptureFixture[str], path: str, logged: str
) -> None:
    """The route's template where one matched, a masked path elsewhere."""
    with logging_restored():
        configure_logging(
            load_settings(env="staging", **dict.fromkeys(SECRETS, "sk_live_long-and-random"))
        )
        await api.client.get(path)
    written = capsys.readouterr().err
    lines = [json.loads(line) for line in written.splitlines()]
    assert [line["path"] for line in lines if line["event"] == "Request"] == [logged]
    assert "zoe" not in written  # no letters of a request id, which is hexadecimal


SECRETS = ("database_password", "auth_jwt_secret", "stripe_secret_key", "stripe_webhook_secret")
