"""Where the console is on, and which starts are refused."""

import pytest

from src.common.exceptions import SettingsError
from src.common.settings import load_settings

DEPLOYED = {
    "env": "prod",
    "database_host": "db.internal",
    "database_password": "a-long-password-of-this-test",
}
SIGN_IN = {
    "console_url": "https://api.example.com/console",
    "console_session_secret": "s" * 32,
    "console_oidc_issuer": "https://id.example.com",
    "console_oidc_client_id": "flashslides",
    "console_oidc_client_secret": "hush",
    "console_oidc_email_domains": "example.com, example.org",
}


def test_it_is_on_with_env_local_and_can_be_switched_off() -> None:
    """A developer has it without a setting."""
    assert load_settings().has_console
    assert not load_settings(console_enabled=False).has_console


def test_elsewhere_it_is_off_until_sign_in_is_configured() -> None:
    """Whole, and then it is on."""
    assert not load_settings(**DEPLOYED).has_console
    settings = load_settings(**DEPLOYED, **SIGN_IN)
    assert settings.has_console
    assert settings.console_domains == {"example.com", "example.org"}


@pytest.mark.parametrize("name", SIGN_IN)
@pytest.mark.parametrize("deployed", [DEPLOYED, {"env": "local"}])
def test_half_a_sign_in_is_refused(deployed: dict[str, str], name: str) -> None:
    """The sentence names what is missing and nothing that is there."""
    half = {key: value for key, value in SIGN_IN.items() if key != name}
    with pytest.raises(SettingsError, match=f": {name.upper()} not set;"):
        load_settings(**deployed, **half)
    assert not load_settings(**deployed, **half, console_enabled=False).has_console


def test_an_open_console_is_refused() -> None:
    """Switched on where nobody can sign in, it names all that is missing."""
    with pytest.raises(SettingsError, match="CONSOLE_OIDC_ISSUER, CONSOLE_OIDC_CLIENT_ID"):
        load_settings(**DEPLOYED, console_enabled=True)


@pytest.mark.parametrize("name", ["console_url", "console_oidc_issuer"])
def test_what_comes_in_clear_is_refused(name: str) -> None:
    """But on this machine."""
    clear = SIGN_IN[name].replace("https://", "http://")
    with pytest.raises(SettingsError, match=f"{name.upper()} does not begin with https"):
        load_settings(**DEPLOYED, **{**SIGN_IN, name: clear})
    near = clear.replace("api.example.com", "localhost:8000").replace(
        "id.example.com", "localhost:9000"
    )
    assert load_settings(**{**SIGN_IN, name: near}).console_has_oidc
