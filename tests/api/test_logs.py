"""What is logged: JSON in deployments, lines for people at home, never a secret or a person."""

import errno
import io
import json
import logging
import logging.config
from collections.abc import Iterable
from typing import Any

import pytest
import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from uvicorn.config import LOGGING_CONFIG

from src.common.observability import configure_logging
from src.common.settings import Settings, load_settings
from tests.api.tokens import make_token
from tests.fixtures.api import (
    WEBHOOK_SECRET,
    Api,
    logging_restored,
    make_api_key,
    make_user,
)
from tests.stripe.payments import make_event, make_session

PERSON = {
    "email": "augusta.king@example.com",
    "first_name": "Augusta",
    "last_name": "Kingsley",
    "phone": "+442079460000",
}
DEPLOYMENT = {
    "env": "staging",
    "database_host": "nowhere.example",
    "database_password": "long-and-random",
    "auth_jwt_secret": "{}",
    "stripe_secret_key": "sk_live_x",
    "stripe_webhook_secret": "whsec_x",
}


def settings_of(env: str, **others: Any) -> Settings:
    """Settings of a developer's machine or of a deployment."""
    return load_settings(**({"env": "local"} if env == "local" else DEPLOYMENT), **others)


async def all_kinds_of_requests(api: Api) -> list[str]:
    """Make requests that succeed and fail in every way; the secrets that were in them."""
    user = await make_user(**PERSON, preferences={"company": "Difference Engines"})
    token = make_token(user.user_id, email=PERSON["email"])
    expired = make_token(user.user_id, email=PERSON["email"], lifetime=-100)
    key = await make_api_key("users:read")
    path = f"/user/{user.user_id}"
    taken: dict[str, Any] = {
        "email": PERSON["email"],
        "user_metadata": {"full_name": "Augusta Kingsley"},
    }
    session = make_session(user, customer_details={"email": PERSON["email"], "name": "Augusta"})
    for bearer in (token, expired, key, key[:-1] + "x", token[:-1] + "x", PERSON["email"], None):
        await api.get(path, bearer)
        await api.get(f"{path}/transactions", bearer, params={"cursor": PERSON["email"]})
    await api.sign_in(**taken)
    await api.sign_in(user.user_id, **taken)
    await api.sign_in(user.user_id, email=f"{PERSON['first_name']} no e-mail")
    for body in ({"last_name": "Kingsley"}, {"Kingsley": 1}, {"last_name": ["Augusta"]}, "Augusta"):
        await api.call("PATCH", "/update_profile", token, json=body)
    for event in (session, {**session, "currency": "eur"}, {**session, "amount_total": "Augusta"}):
        await api.deliver(make_event(event))
        await api.deliver(make_event(event), secret="whsec_wrong")
    await api.deliver("Augusta")
    await api.client.get("/nowhere", params={"email": PERSON["email"]})
    return [token, expired, key, WEBHOOK_SECRET, "whsec_wrong", "Difference Engines"]


@pytest.mark.parametrize("env", ["local", "staging"])
@pytest.mark.parametrize("level", ["DEBUG", "INFO"])
async def test_no_secret_and_no_person_is_in_the_logs(
    api: Api,
    async_db: AsyncSession,
    capsys: pytest.CaptureFixture[str],
    env: str,
    level: str,
) -> None:
    """After requests of every kind, a defect of ours among them, the logs hold ids only."""
    with logging_restored():
        configure_logging(settings_of(env, log_level=level))
        secrets = await all_kinds_of_requests(api)
        await async_db.execute(text("ALTER TABLE users RENAME COLUMN phone TO telephone"))
        await async_db.commit()
        answer = await api.get("/user/00000000-0000-0000-0000-000000000001", secrets[0])
        assert answer.status_code == 500
    logged = capsys.readouterr().err
    assert "Unexpected error" in logged
    assert "Traceback" in logged or '"exception"' in logged
    persons = [*PERSON.values(), "Kingsley", "augusta"]
    parts = [part for secret in secrets for part in secret.split(".") if len(part) > 8]
    assert [each for each in [*persons, *parts] if each in logged] == []


def lines_of(written: str) -> list[dict[str, Any]]:
    """The JSON objects, one a line; anything else fails."""
    return [json.loads(line) for line in written.splitlines()]


def named(lines: Iterable[dict[str, Any]], sentence: str) -> list[dict[str, Any]]:
    """The lines with this sentence."""
    return [line for line in lines if line["event"] == sentence]


async def test_a_deployment_logs_json(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    """Each line is an object: sentence, level, logger, instant, request id; one line a request."""
    with logging_restored():
        configure_logging(settings_of("staging"))
        await api.client.get("/nowhere?secret=1", headers={"X-Request-ID": "one"})
        logging.getLogger("uvicorn.error").warning("Something of uvicorn's: %s", 7)
    lines = lines_of(capsys.readouterr().err)
    (request,) = named(lines, "Request")
    assert request["request_id"] == "one"
    assert (request["method"], request["path"], request["status"]) == ("GET", "/nowhere", 404)
    assert request["level"] == "info"
    assert request["timestamp"].endswith("Z")
    assert request["duration_ms"] >= 0
    assert named(lines, "Something of uvicorn's: 7")


async def test_a_defect_is_logged_once_with_request_id_and_traceback(
    api: Api, async_db: AsyncSession, capsys: pytest.CaptureFixture[str]
) -> None:
    """The id in the answer finds the line, the line says where."""
    user = await make_user()
    await async_db.execute(text("ALTER TABLE users RENAME COLUMN phone TO telephone"))
    await async_db.commit()
    with logging_restored():
        configure_logging(settings_of("staging"))
        await api.get(
            f"/user/{user.user_id}", make_token(user.user_id), headers={"X-Request-ID": "x1"}
        )
    lines = lines_of(capsys.readouterr().err)
    (defect,) = [line for line in lines if line["level"] == "error"]
    assert (defect["event"], defect["request_id"]) == ("Unexpected error", "x1")
    assert "UndefinedColumn" in json.dumps(defect["exception"])
    assert "locals" not in json.dumps(defect["exception"])
    assert [line["status"] for line in named(lines, "Request")] == [500]


def test_a_developer_reads_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """At home a line is text, not JSON."""
    with logging_restored():
        configure_logging(settings_of("local"))
        logging.getLogger("x").warning("Hello")
    line = capsys.readouterr().err
    assert "Hello" in line
    assert not line.startswith("{")


def test_uvicorns_own_lines_become_ours(capsys: pytest.CaptureFixture[str]) -> None:
    """Under plain `uvicorn src.api.src.main:app` its lines are JSON too, and hold no query."""
    names = ("uvicorn", "uvicorn.error", "uvicorn.access")
    loggers = [logging.getLogger(name) for name in names]
    before = [(logger.handlers[:], logger.propagate, logger.level) for logger in loggers]
    with logging_restored():
        logging.config.dictConfig(LOGGING_CONFIG)
        configure_logging(settings_of("staging"))
        loggers[1].warning("from uvicorn")
        loggers[2].info("GET /?secret=1")
    for logger, (handlers, propagate, level) in zip(loggers, before, strict=True):
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(level)
    captured = capsys.readouterr()
    assert [line["event"] for line in lines_of(captured.err)] == ["from uvicorn"]
    assert captured.out == ""


def test_calls_to_stripe_are_not_logged_one_by_one(capsys: pytest.CaptureFixture[str]) -> None:
    """Its library writes two lines a call, and at DEBUG what it sent: a command drowns in them."""
    with logging_restored():
        configure_logging(settings_of("local", log_level="DEBUG"))
        logging.getLogger("stripe").info("Request to Stripe api")
        logging.getLogger("stripe").debug("Post details")
    assert capsys.readouterr().err == ""


class FullDisk(io.StringIO):
    """What stderr is where nothing can be written any more."""

    def write(self, text: str, /) -> int:
        """Fail as the operating system does."""
        raise OSError(errno.ENOSPC, "No space left on device", text[:0])


async def test_a_log_that_cannot_be_written_fails_no_request(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests are answered while the line about them is lost."""
    with logging_restored():
        monkeypatch.setattr("sys.stderr", FullDisk())
        configure_logging(settings_of("staging"))
        answer = await api.client.get("/livez")
    assert answer.status_code == 200


def test_the_level_is_that_of_all_loggers(capsys: pytest.CaptureFixture[str]) -> None:
    """Ours and the standard library's are silent below LOG_LEVEL, and not at it."""
    with logging_restored():
        configure_logging(settings_of("staging", log_level="WARNING"))
        for logger in (structlog.get_logger("ours"), logging.getLogger("theirs")):
            logger.info("quiet")
            logger.warning("loud")
    lines = lines_of(capsys.readouterr().err)
    assert [(line["logger"], line["level"], line["event"]) for line in lines] == [
        ("ours", "warning", "loud"),
        ("theirs", "warning", "loud"),
    ]
