"""AWS SSM: pages, refusals, and that AWS stays out of the way where it is not needed."""

import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import boto3
import pytest
from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders

from src.common.exceptions import SettingsError
from src.common.settings import load_settings

ROOT = Path(__file__).parents[2]
NAMES = ("DATABASE_PASSWORD", "AUTH_JWT_SECRET", "STRIPE_SECRET_KEY", "STRIPE_WEBHOOK_SECRET")


class _Body:
    """As much of a urllib3 response as botocore reads."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def stream(self, *_: Any, **__: Any) -> list[bytes]:
        return [self._body]


@pytest.fixture
def answer_with(
    aws_credentials: None, monkeypatch: pytest.MonkeyPatch
) -> Callable[[int, str], list[str]]:
    """Have every request to SSM answered with this error; gives the list of requests made."""
    assert aws_credentials is None

    def answer(status: int, code: str) -> list[str]:
        requests: list[str] = []

        def respond(request: Any, **_: object) -> AWSResponse:
            requests.append(request.url)
            body = f'{{"__type": "{code}", "message": "secret words of AWS"}}'.encode()
            return AWSResponse(request.url, status, HTTPHeaders(), _Body(body))

        session = boto3.Session()
        session.events.register(
            "before-send.ssm.GetParametersByPath", cast("Callable[..., None]", respond)
        )
        monkeypatch.setattr(boto3, "DEFAULT_SESSION", session)
        return requests

    return answer


def test_more_parameters_than_a_page_holds_are_all_read(
    put_parameter: Callable[[str, str], None],
) -> None:
    """The one wanted is found behind thirty others, three pages on."""
    for number in range(30):
        put_parameter(f"/flashslides/prod/api/AAA_{number:02}", "not ours")
    put_parameter("/flashslides/prod/api/DATABASE_PASSWORD", "p@ss/w:rd %#")
    settings = load_settings(env="prod")
    assert settings.database_password is not None
    assert settings.database_password.get_secret_value() == "p@ss/w:rd %#"


def test_a_missing_parameter_is_named_where_it_is_needed(
    put_parameter: Callable[[str, str], None],
) -> None:
    """Production without its password says which parameter to write."""
    put_parameter("/flashslides/prod/app/STRIPE_SECRET_KEY", "sk_live_x")
    with pytest.raises(SettingsError, match="/flashslides/prod/api/DATABASE_PASSWORD"):
        load_settings(env="prod")


def test_a_parameter_that_is_not_needed_may_be_missing(
    put_parameter: Callable[[str, str], None],
) -> None:
    """A process that takes no payments starts without Stripe's secrets."""
    put_parameter("/flashslides/prod/api/DATABASE_PASSWORD", "7f3a-not-a-default")
    settings = load_settings(env="prod")
    assert settings.stripe_secret_key is None
    assert settings.stripe_webhook_secrets == ()


def test_access_denied_names_the_secret_and_the_permission(
    answer_with: Callable[[int, str], list[str]],
) -> None:
    """The operator learns what is missing and what to allow, at the first refusal."""
    requests = answer_with(400, "AccessDeniedException")
    with pytest.raises(
        SettingsError,
        match=r"^DATABASE_PASSWORD, AUTH_JWT_SECRET: .*AccessDenied.*ssm:GetParametersByPath",
    ) as caught:
        load_settings(env="prod")
    assert len(requests) == 1
    assert "secret words" not in str(caught.value)


@pytest.mark.parametrize("code", ["AccessDeniedException", "InternalServerError"])
def test_a_failing_aws_does_not_stop_who_needs_nothing_from_it(
    code: str,
    answer_with: Callable[[int, str], list[str]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """With the database's password given, the optional secrets stay unset, with a warning each."""
    pauses: list[float] = []
    monkeypatch.setattr("botocore.endpoint.time", types.SimpleNamespace(sleep=pauses.append))
    requests = answer_with(400, code)
    settings = load_settings(env="prod", database_password="7f3a-not-a-default")
    assert settings.stripe_secret_key is None
    assert requests
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert "AUTH_JWT_SECRET: not set" in caplog.text
    assert "STRIPE_SECRET_KEY, STRIPE_WEBHOOK_SECRET: not set" in caplog.text
    assert "secret words" not in caplog.text


def test_throttling_is_retried_before_it_is_reported(
    answer_with: Callable[[int, str], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Standard mode asks five times with a pause between, then the sentence comes."""
    pauses: list[float] = []
    monkeypatch.setattr("botocore.endpoint.time", types.SimpleNamespace(sleep=pauses.append))
    requests = answer_with(400, "ThrottlingException")
    with pytest.raises(SettingsError, match=r"DATABASE_PASSWORD.*ThrottlingException.*start again"):
        load_settings(env="prod")
    assert len(requests) == 5
    assert len(pauses) == 4


@pytest.mark.parametrize("given", [{}, {"AWS_DEFAULT_REGION": "eu-central-1"}])
def test_aws_without_region_or_credentials_is_a_clear_error(
    given: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sentence names the secrets that are missing, AWS_REGION and the way without AWS."""
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(
        SettingsError, match=r"DATABASE_PASSWORD.*AWS_REGION.*credentials.*in the environment"
    ):
        load_settings(env="prod")


def test_without_boto3_the_missing_password_names_the_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever wants SSM learns what to install."""
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(SettingsError, match=r"DATABASE_PASSWORD.*flashslides\[aws\]"):
        load_settings(env="staging")


def test_without_boto3_a_deployment_may_hand_its_secrets_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A host outside AWS sets its password in the environment and starts."""
    monkeypatch.setitem(sys.modules, "boto3", None)
    monkeypatch.setenv("ENV", "prod")
    monkeypatch.setenv("DATABASE_PASSWORD", "7f3a-not-a-default")
    assert load_settings().stripe_secret_key is None


def test_with_every_secret_given_aws_is_not_asked(
    answer_with: Callable[[int, str], list[str]],
) -> None:
    """No request is made, so none can fail the start."""
    requests = answer_with(400, "AccessDeniedException")
    load_settings(env="prod", **{name.lower(): "sk_live_7f3a-not-a-default" for name in NAMES})
    assert requests == []


def test_the_console_s_secrets_are_asked_for_where_people_sign_in(
    put_parameter: Callable[[str, str], None],
) -> None:
    """Else they are not looked at, and a start is not refused for them."""
    for name in ("DATABASE_PASSWORD", "CONSOLE_SESSION_SECRET", "CONSOLE_OIDC_CLIENT_SECRET"):
        put_parameter(f"/flashslides/prod/api/{name}", f"the secret {name} of many characters")
    without = load_settings(env="prod")
    assert (without.console_session_secret, without.has_console) == (None, False)
    settings = load_settings(
        env="prod",
        console_url="https://api.example.com/console",
        console_oidc_issuer="https://id.example.com",
        console_oidc_client_id="flashslides",
        console_oidc_email_domains="example.com",
    )
    assert settings.console_has_oidc
    assert settings.console_oidc_client_secret is not None
    assert settings.console_oidc_client_secret.get_secret_value().startswith("the secret CONSOLE_O")
    assert settings.console_cookie_secret().startswith("the secret CONSOLE_S")


def test_a_local_process_never_asks_aws(answer_with: Callable[[int, str], list[str]]) -> None:
    """Not even where credentials for AWS are lying about."""
    requests = answer_with(400, "AccessDeniedException")
    assert load_settings().database_password is None
    assert requests == []


@pytest.mark.parametrize("env", ["LOCAL", "no/path", "*"])
def test_an_env_that_is_none_is_refused_before_aws_is_asked(
    env: str, answer_with: Callable[[int, str], list[str]]
) -> None:
    """A typing mistake never becomes part of a path."""
    requests = answer_with(400, "AccessDeniedException")
    with pytest.raises(SettingsError, match=r"^ENV: "):
        load_settings(env=env)
    assert requests == []


def test_a_local_process_never_imports_boto3(bare_process: Path) -> None:
    """The start of a developer's process is not slowed down by AWS."""
    program = (
        "import sys; from src.common.settings import load_settings; load_settings();"
        "sys.exit('boto3' in sys.modules or 'botocore' in sys.modules)"
    )
    assert _run(program, bare_process, ENV="local") == 0


def test_importing_the_database_reads_no_settings(bare_process: Path) -> None:
    """Both modules import where the settings could not be loaded at all."""
    program = (
        "import sys; import src.common.database, src.common.async_database;"
        "from src.common.settings import get_settings;"
        "sys.exit('boto3' in sys.modules or get_settings.cache_info().misses)"
    )
    assert _run(program, bare_process, ENV="not an env", DATABASE_PORT="no port") == 0


def _run(program: str, folder: Path, **environment: str) -> int:
    """Run the program in a process of its own, away from any `.env`; gives its exit code."""
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), **environment},
        check=False,
    ).returncode
