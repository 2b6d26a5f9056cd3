"""Settings of the console, and the check that its sign-in is configured whole or not at all."""

import secrets
from typing import Self

from pydantic import Field, SecretStr, model_validator

from src.common.deployment import Deployment

SESSION_SECRET_LENGTH_MIN = 32
_DOMAINS = r"^([a-z0-9-]+(\.[a-z0-9-]+)+( *, *[a-z0-9-]+(\.[a-z0-9-]+)+)*)?$"
_ON_THIS_MACHINE = ("http://localhost:", "http://127.0.0.1:", "http://[::1]:")


class ConsoleSettings(Deployment):
    """The console: whether it is there, and who may come in.

    With ENV=local it is on, and `flashslides serve` prints a link that signs in. Elsewhere it is on
    once sign-in by OpenID Connect is configured.
    """

    console_enabled: bool | None = None
    """Whether the API serves the console; not set it does with ENV=local, and elsewhere where
    sign-in is configured."""
    console_url: str | None = Field(default=None, pattern=r"^https?://[^/?#]+(/[^?#]*)?/console$")
    """Where browsers reach it, such as `https://api.example.com/console`."""
    console_session_secret: SecretStr | None = Field(
        default=None, min_length=SESSION_SECRET_LENGTH_MIN
    )
    """What signs the cookie; whoever changes it signs everybody out."""
    console_oidc_issuer: str | None = Field(default=None, pattern=r"^https?://\S+$")
    """The identity provider: `{issuer}/.well-known/openid-configuration` describes it."""
    console_oidc_client_id: str | None = None
    console_oidc_client_secret: SecretStr | None = None
    console_oidc_scope: str = Field(default="openid email", pattern=r"^openid( \S+)*$")
    """What is asked for, separated by blanks; the role's claim may need more."""
    console_oidc_email_domains: str = Field(default="", pattern=_DOMAINS)
    """The domains, separated by commas, of the verified addresses that may come in."""
    console_oidc_role_claim: str = Field(default="flashslides_role", min_length=1)
    """The claim of the ID token that gives the role, or a list with several: `viewer`, `support`,
    `finance`, `admin`. Who has none does not come in."""

    @model_validator(mode="after")
    def _refuse_half_a_sign_in(self) -> Self:
        """An open console, or one nobody can enter, is noticed at the start."""
        needed = self._sign_in_needs()
        missing = [name for name, value in needed.items() if not value]
        is_begun = any(
            value
            for name, value in needed.items()
            if name.startswith("CONSOLE_OIDC") or not self.is_local
        )
        is_wanted = self.console_enabled is True and not self.is_local
        if missing and self.console_enabled is not False and (is_begun or is_wanted):
            raise ValueError(
                f"The console's sign-in is configured in part: {', '.join(missing)} not set; set "
                "what is missing, or CONSOLE_ENABLED=false"
            )
        for name, url in (
            ("CONSOLE_URL", self.console_url),
            ("CONSOLE_OIDC_ISSUER", self.console_oidc_issuer),
        ):
            if url and not url.startswith(("https://", *_ON_THIS_MACHINE)):
                raise ValueError(f"{name} does not begin with https://: cookies and tokens need it")
        return self

    def _sign_in_needs(self) -> dict[str, object]:
        return {
            "CONSOLE_URL": self.console_url,
            "CONSOLE_SESSION_SECRET": self.console_session_secret,
            "CONSOLE_OIDC_ISSUER": self.console_oidc_issuer,
            "CONSOLE_OIDC_CLIENT_ID": self.console_oidc_client_id,
            "CONSOLE_OIDC_CLIENT_SECRET": self.console_oidc_client_secret,
            "CONSOLE_OIDC_EMAIL_DOMAINS": self.console_oidc_email_domains,
        }

    @property
    def has_console(self) -> bool:
        """Whether the API serves the console."""
        if self.console_enabled is not None:
            return self.console_enabled
        return self.is_local or self.console_has_oidc

    @property
    def console_has_oidc(self) -> bool:
        """Whether people sign in at an identity provider."""
        return self.console_oidc_issuer is not None

    @property
    def console_domains(self) -> frozenset[str]:
        """The domains of those who may come in."""
        written = self.console_oidc_email_domains.split(",")
        return frozenset(each.strip() for each in written if each.strip())

    def console_cookie_secret(self) -> str:
        """What signs the cookie: with ENV=local one of this process alone, where none is set."""
        if self.console_session_secret is not None:
            return self.console_session_secret.get_secret_value()
        return secrets.token_urlsafe(SESSION_SECRET_LENGTH_MIN)
