"""Where settings come from, and who wins."""

from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from src.common.exceptions import ErrorKind, SettingsError
from src.common.settings import get_settings, load_settings

PASSWORD = "/flashslides/staging/api/DATABASE_PASSWORD"


def test_arguments_beat_the_environment_beats_dotenv_beats_ssm(
    put_parameter: Callable[[str, str], None],
    bare_process: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each source is used when every source before it is silent."""
    monkeypatch.setenv("ENV", "staging")
    put_parameter(PASSWORD, "from SSM")
    assert _password() == "from SSM"
    (bare_process / ".env").write_text("DATABASE_PASSWORD='from .env'\n")
    assert _password() == "from .env"
    monkeypatch.setenv("DATABASE_PASSWORD", "from the environment")
    assert _password() == "from the environment"
    assert _password(database_password="an argument") == "an argument"


def test_ssm_adds_only_what_is_still_missing(
    put_parameter: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A secret given nearer by stays, the others are fetched, each from its own folder."""
    put_parameter(PASSWORD, "from SSM")
    put_parameter("/flashslides/staging/api/AUTH_JWT_SECRET", '{"keys": []}')
    put_parameter("/flashslides/staging/app/STRIPE_SECRET_KEY", "sk_live_from_ssm")
    put_parameter("/flashslides/staging/api/STRIPE_WEBHOOK_SECRET", "whsec_in_the_wrong_folder")
    put_parameter("/flashslides/prod/app/STRIPE_WEBHOOK_SECRET", "whsec_of_another_environment")
    monkeypatch.setenv("ENV", "staging")
    monkeypatch.setenv("DATABASE_PASSWORD", "nearer by")
    settings = load_settings()
    assert settings.database_password is not None
    assert settings.database_password.get_secret_value() == "nearer by"
    assert settings.auth_jwt_secret is not None
    assert settings.auth_jwt_secret.get_secret_value() == '{"keys": []}'
    assert settings.stripe_secret_key is not None
    assert settings.stripe_secret_key.get_secret_value() == "sk_live_from_ssm"
    assert settings.stripe_webhook_secret is None


def test_an_empty_variable_counts_as_not_set(
    bare_process: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`DATABASE_HOST=` in a compose file does not hide the value in `.env`, nor the default."""
    (bare_process / ".env").write_text("DATABASE_HOST=db.internal\nDATABASE_PORT=\n")
    monkeypatch.setenv("DATABASE_HOST", "")
    settings = load_settings()
    assert settings.database_host == "db.internal"
    assert settings.database_port == "5432"


def test_names_of_others_in_dotenv_are_left_alone(bare_process: Path) -> None:
    """A `.env` that other programs share does not stop the start."""
    (bare_process / ".env").write_text("COMPOSE_PROJECT_NAME=x\nDATABASE_NAME=mine\n")
    assert load_settings().database_name == "mine"


def test_settings_cannot_be_changed() -> None:
    """What was checked at the start stays as it was checked."""
    settings = load_settings()
    with pytest.raises(ValidationError):
        settings.database_host = "elsewhere"  # type: ignore[misc]  # the very point


def test_the_process_reads_its_settings_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A later change of the environment shows only after `cache_clear`."""
    monkeypatch.setenv("DATABASE_NAME", "first")
    first = get_settings()
    monkeypatch.setenv("DATABASE_NAME", "second")
    assert get_settings() is first
    get_settings.cache_clear()
    assert get_settings().database_name == "second"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("DATABASE_PORT", "no number"),
        ("DATABASE_PORT", "70000"),
        ("DATABASE_POOL_SIZE", "0"),
        ("DATABASE_POOLER", "pgcat"),
        ("DATABASE_POOL_PRE_PING", "perhaps"),
        ("DATABASE_LOCK_TIMEOUT_MS", "-1"),
        ("LOG_LEVEL", "LOUD"),
        ("ENV", "No Such/Thing"),
    ],
)
def test_a_wrong_value_is_refused_by_the_variable_s_name(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the variable as it is written in the environment, and not its value."""
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match=f"^{variable}: ") as caught:
        load_settings()
    assert value not in str(caught.value)
    assert caught.value.kind is ErrorKind.MISCONFIGURED


def test_every_wrong_variable_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has to start again for each mistake."""
    monkeypatch.setenv("DATABASE_PORT", "x")
    monkeypatch.setenv("WEB_CONCURRENCY", "0")
    with pytest.raises(SettingsError, match=r"DATABASE_PORT: .*; WEB_CONCURRENCY: "):
        load_settings()


def test_a_dotenv_that_is_no_text_is_refused_by_name(bare_process: Path) -> None:
    """The sentence says which file, and shows nothing of what is in it."""
    (bare_process / ".env").write_bytes(b"DATABASE_PASSWORD=hush\xff\n")
    with pytest.raises(SettingsError, match=r"^\.env cannot be read") as caught:
        load_settings()
    assert "hush" not in str(caught.value)


def _password(**arguments: object) -> str:
    password = load_settings(**arguments).database_password
    assert password is not None
    return password.get_secret_value()
