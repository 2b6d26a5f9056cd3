"""Secrets never show, and a production start without a real password is refused."""

import os
import sys
import traceback

import pytest
from pydantic import SecretStr
from sqlalchemy import make_url

from src.common.exceptions import SettingsError
from src.common.postgres.engines import ASYNC_DRIVER, database_url
from src.common.settings import Settings, load_settings
from src.common.stripe.checkout import check_pages

SECRETS = {
    "DATABASE_PASSWORD": "hush-database",
    "AUTH_JWT_SECRET": "hush-jwt",
    "STRIPE_SECRET_KEY": "sk_live_hush-stripe",
    "STRIPE_WEBHOOK_SECRET": "hush-webhook",
    "METRICS_TOKEN": "hush-metrics",
    "CONSOLE_SESSION_SECRET": "hush-console-session-and-32-characters",
    "CONSOLE_OIDC_CLIENT_SECRET": "hush-console-client",
    "ANCHOR_SIGNING_KEY": "hush-anchor",
    "ANCHOR_HTTP_TOKEN": "hush-anchor-token",
}


@pytest.fixture
def secrets_in_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every secret is set, each to a value that is easy to find in a text."""
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CONSOLE_ENABLED", "false")  # its sign-in would want more than secrets


@pytest.mark.usefixtures("secrets_in_environment")
def test_no_secret_shows_in_any_text_of_the_settings() -> None:
    """repr, str, a dump and its JSON all mask every secret."""
    settings = load_settings(database_host="db")
    texts = [repr(settings), str(settings), str(settings.model_dump()), settings.model_dump_json()]
    texts += [repr(database_url(settings)), str(database_url(settings)), repr(vars(settings))]
    assert not [text for text in texts if "hush" in text]
    assert "**********" in repr(settings)


@pytest.mark.usefixtures("secrets_in_environment")
def test_no_input_shows_in_an_error() -> None:
    """Neither the sentence, nor the repr, nor the printed traceback quotes a value."""
    with pytest.raises(SettingsError) as caught:
        load_settings(database_port="hush-port", env="hush env", database_pooler="hush-pooler")
    shown = [str(caught.value), repr(caught.value), repr(caught.value.details)]
    shown += traceback.format_exception(caught.value)
    assert "hush" not in "".join(line for line in shown if "load_settings(" not in line)


@pytest.mark.usefixtures("secrets_in_environment")
def test_every_secret_is_a_setting_that_masks_itself() -> None:
    """A new secret that is a plain string fails here."""
    named = {
        name
        for name in Settings.model_fields
        if name.endswith(("_password", "_secret", "_key", "_token"))
    }
    assert named == {name.lower() for name in SECRETS}
    dumped = load_settings().model_dump(mode="json", include=named)
    assert set(dumped.values()) == {"**********"}


@pytest.mark.parametrize(
    "password",
    [None, "", " ", "postgres", "Postgres", "POSTGRES", " postgres\t", "ChangeMe", "secret"],
)
@pytest.mark.parametrize("env", ["prod", "production", "staging", "dev"])
def test_production_refuses_a_missing_or_well_known_password(
    env: str, password: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Case and surrounding blanks make a default no better; the next step names the parameter."""
    _without_boto3(monkeypatch)
    monkeypatch.setenv("ENV", env)
    with pytest.raises(SettingsError, match=f"DATABASE_PASSWORD.*/flashslides/{env}/api/"):
        load_settings(**{} if password is None else {"database_password": password})


@pytest.mark.parametrize("password", ["flash_app", "FLASH_APP", " flash_app "])
def test_production_refuses_the_user_s_name_as_password(password: str) -> None:
    """The first thing anybody tries is no password."""
    with pytest.raises(SettingsError, match="the user's name"):
        _production(database_user="flash_app", database_password=password)


def test_production_accepts_a_real_password() -> None:
    """A password that merely contains a default is a password."""
    settings = _production(database_password="postgres-7f3a")
    assert settings.env == "prod"
    assert not settings.is_local


def test_a_developer_s_machine_accepts_the_document_s_password() -> None:
    """`postgres` for `postgres` is what the document's own `.env` says."""
    assert load_settings(database_password="postgres").is_local


@pytest.mark.parametrize(
    ("written", "accepted"),
    [
        ("whsec_one", ("whsec_one",)),
        ("whsec_new,whsec_old", ("whsec_new", "whsec_old")),
        (" whsec_new , whsec_old ,", ("whsec_new", "whsec_old")),
        (" , ", ()),
        (None, ()),
    ],
)
def test_several_webhook_secrets_are_accepted_while_one_is_rotated(
    written: str | None, accepted: tuple[str, ...]
) -> None:
    """Commas separate them, blanks do not matter, and none at all is none."""
    assert load_settings(stripe_webhook_secret=written).stripe_webhook_secrets == accepted


@pytest.mark.parametrize(
    ("key", "livemode"),
    [("sk_live_1", True), ("rk_live_1", True), ("sk_test_1", False), (None, None)],
)
def test_the_stripe_key_says_whether_money_is_real(
    key: str | None, *, livemode: bool | None
) -> None:
    """A live key is known by its own prefix, and no key says nothing."""
    assert load_settings(stripe_secret_key=key).stripe_livemode is livemode


@pytest.mark.parametrize("env", ["prod", "staging", "local"])
@pytest.mark.parametrize("key", ["pk_live_1", "pk_test_1", "whsec_1", "nonsense", "sk_live", "sk_"])
def test_what_is_no_secret_key_is_refused(env: str, key: str) -> None:
    """Stripe would refuse it too, but only once somebody wants to pay."""
    with pytest.raises(SettingsError, match="STRIPE_SECRET_KEY is no secret key"):
        _production(env=env, stripe_secret_key=key)


@pytest.mark.parametrize("env", ["prod", "staging"])
def test_a_key_of_the_other_mode_is_refused(env: str) -> None:
    """Every deployment takes real money, unless it says that it takes none."""
    with pytest.raises(SettingsError, match=rf"is a test key.*ENV={env}.*STRIPE_MODE=test"):
        _production(env=env, stripe_secret_key="sk_test_1")
    with pytest.raises(SettingsError, match=r"is a live key.*STRIPE_MODE is test"):
        _production(env=env, stripe_secret_key="rk_live_1", stripe_mode="test")
    assert _production(env=env, stripe_secret_key="sk_live_1").stripe_livemode is True
    tested = _production(env=env, stripe_secret_key="rk_test_1", stripe_mode="test")
    assert tested.stripe_livemode is False


def test_without_a_key_a_deployment_credits_no_test_payment() -> None:
    """A webhook secret alone does not make play money real."""
    assert _production(stripe_secret_key=None).stripe_livemode is True
    assert _production(stripe_secret_key=None, stripe_mode="test").stripe_livemode is False


@pytest.mark.parametrize("missing", ["checkout_success_url", "checkout_cancel_url"])
def test_a_deployment_that_sells_has_pages_to_return_to(missing: str) -> None:
    """Found out at the start and not by the first customer; a developer's machine has its own."""
    pages = {
        "checkout_success_url": "https://app.test/paid",
        "checkout_cancel_url": "https://app.test/",
    }
    check_pages(_production(**pages))
    with pytest.raises(SettingsError, match=missing.upper()):
        check_pages(_production(**{**pages, missing: None}))
    check_pages(_production(stripe_secret_key=None))
    check_pages(load_settings(stripe_secret_key="sk_test_1"))


def test_a_newline_around_a_secret_is_no_part_of_it() -> None:
    """Files and shells add one; a password's blanks are its own."""
    settings = load_settings(
        database_password=" p w \r\n",
        auth_jwt_secret='{"keys": []}\n',
        stripe_secret_key="\nsk_test_1 \n",
        stripe_webhook_secret="whsec_1\n",
    )
    assert settings.database_password == SecretStr(" p w ")
    assert settings.auth_jwt_secret == SecretStr('{"keys": []}')
    assert settings.stripe_secret_key == SecretStr("sk_test_1")
    assert settings.stripe_webhook_secrets == ("whsec_1",)


def test_another_stripe_is_refused_outside_a_developer_s_machine() -> None:
    """Whoever answers there could confirm payments that nobody made."""
    url = "http://127.0.0.1:12111"
    assert load_settings(stripe_api_base_url=url).stripe_api_base_url == url
    with pytest.raises(SettingsError, match="STRIPE_API_BASE_URL"):
        load_settings(env="staging", database_password="long", stripe_api_base_url=url)
    with pytest.raises(SettingsError, match="STRIPE_API_BASE_URL"):
        load_settings(stripe_api_base_url="127.0.0.1:12111")


@pytest.mark.parametrize("password", ["p@ss", "a/b", "a:b", "50%", "a#b", "a b", "ü?&=+\\'\""])
@pytest.mark.parametrize("driver", ["postgresql+psycopg", ASYNC_DRIVER])
def test_any_password_survives_the_url(password: str, driver: str) -> None:
    """What a URL would read as a separator arrives unchanged, also through the URL's text."""
    settings = load_settings(database_host="db", database_password=password)
    url = database_url(settings, driver)
    assert url.password == password
    assert make_url(url.render_as_string(hide_password=False)) == url
    assert (url.host, url.port, url.database) == ("db", 5432, "flashslides")


def test_no_secret_is_left_in_the_environment_of_the_tests() -> None:
    """The developer's own secrets do not reach the tests."""
    assert not set(SECRETS) & set(os.environ)


def _production(**arguments: object) -> Settings:
    """Load settings of a production process that was handed every secret."""
    handed = {name.lower(): value for name, value in SECRETS.items()}
    return load_settings(**{**handed, "env": "prod", "console_enabled": False, **arguments})


def _without_boto3(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
