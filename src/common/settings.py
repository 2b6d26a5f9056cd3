"""Every setting of FlashSlides, where it comes from, and the checks that stop an unsafe start.

Sources, first wins: arguments, the environment, `.env` in the working directory, and, where `ENV`
is not `local`, AWS SSM parameters (`src/common/ssm.py`). `docs/reference/settings.md` lists them.
"""

import re
from functools import lru_cache
from ipaddress import ip_address
from typing import Literal, Self

from pydantic import (
    Field,
    HttpUrl,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from src.common.anchor_settings import AnchorSettings
from src.common.console_settings import ConsoleSettings
from src.common.database_settings import Sharding
from src.common.exceptions import SettingsError
from src.common.notice_settings import NoticeSettings
from src.common.packages import DEFAULT_PACKAGES, Package
from src.common.replica_settings import ReplicaSettings
from src.common.ssm import SsmSource
from src.common.stream_settings import StreamSettings

_STRIPE_KEY = re.compile(r"[sr]k_(?P<mode>live|test)_\S+")


_ORIGINS = r"^(({0})( *, *({0}))*)?$".format(r"[a-z][a-z0-9+.-]*://[^/\s,*A-Z]+")
"""As browsers name them (RFC 6454): in small letters, without a path."""


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


class Settings(  # pyright: ignore[reportIncompatibleVariableOverride]  pydantic merges theirs
    AnchorSettings,
    ConsoleSettings,
    NoticeSettings,
    StreamSettings,
    ReplicaSettings,
    BaseSettings,
):
    """The configuration of one process; frozen, secrets masked in every repr."""

    model_config = SettingsConfigDict(
        env_file=".env",
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
        env_ignore_empty=True,
    )

    web_concurrency: int = Field(default=1, ge=1)
    """How many server processes run; only used to add up the connections they may open."""

    credits_engine_lanes: int = Field(default=2, ge=1, le=16)
    """Batches of credit operations that are written at once, in each process; two connections
    each."""
    credits_engine_side_lanes: int = Field(default=2, ge=1, le=16)
    """Connections beside them, and one more, for users whose rows somebody else keeps locked."""
    credits_engine_groups: int = Field(default=8, ge=1, le=64)
    """Where SHARDING is `schemas`: how many groups of users are served at once, each by lanes of
    its own."""
    credits_engine_batch_max: int = Field(default=256, ge=1, le=1_000)
    """The most operations one batch takes along."""
    credits_engine_queue_max: int = Field(default=4_096, ge=1)
    """How many operations may wait before further ones are answered ENGINE_BUSY."""
    credits_engine_lock_timeout_ms: int = Field(default=2_000, ge=1)
    """How long an operation waits for its user's row that somebody else keeps locked."""

    credits_manual_limit: int = Field(default=100_000, ge=0)
    """The most credits given at once by a grant or adjustment over HTTP, or by a command without
    `--yes`."""

    approvals_required: bool = False
    """Whether commands and persons' tokens obey the limits below too; the console always does."""
    approvals_credits_above: int = Field(default=10_000, ge=0)
    """How many credits one person gives a user within a day, or takes, without another's consent.
    `credits_manual_limit` guards against slips of one's own, and holds beside it."""
    approvals_refund_cents_above: int = Field(default=10_000, ge=0)
    """How much of one currency one person pays back to a user within a day likewise, in its
    smallest unit."""
    approvals_lifetime_seconds: int = Field(default=259_200, ge=60, le=2_592_000)
    """How long somebody else may consent to what was asked for."""

    charge_replay_seconds: int = Field(default=86_400, ge=0, le=2_592_000)
    """How long the answer of a charged request is kept for whoever sends it again; 0 for never."""
    charge_replay_max_bytes: int = Field(default=262_144, ge=1, le=16_777_216)
    """The largest answer that is kept, headers included; the table takes no larger one."""

    credits_verify_interval_seconds: int = Field(default=5, ge=0, le=86_400)
    """How often, all workers together, the next users' books are verified; 0 means never."""
    credits_verify_slice_users: int = Field(default=200, ge=1, le=10_000)
    """How many users' books at a time."""

    auth_jwt_secret: SecretStr | None = None
    """A JWK set as JSON: the public ES256 keys that sign users' tokens (Supabase)."""
    auth_jwt_jwks_url: str | None = None
    """Where the set is published instead; then `auth_jwt_secret` is not looked at."""
    auth_jwt_issuer: str | None = None
    auth_jwt_audience: str = "authenticated"

    stripe_secret_key: SecretStr | None = None
    """`sk_…` or `rk_…`, of the mode that `stripe_mode` says."""
    stripe_mode: Literal["live", "test"] | None = None
    """Whether payments are real. Not set it is what the key says where `ENV` is `local`, and `live`
    everywhere else: a deployment that is to take Stripe's test payments says `test`."""
    stripe_webhook_secret: SecretStr | None = None
    """One signing secret, or several separated by commas while one is being rotated out."""
    stripe_api_base_url: str | None = Field(default=None, pattern=r"^https?://[^/]+$")
    """Where Stripe's API is instead of at Stripe: the offline Stripe, for ENV=local only."""

    stripe_timeout_seconds: float = Field(default=10, gt=0)
    """How long one call to Stripe may take, repetitions included, before STRIPE_GATEWAY_ERROR."""
    stripe_require_order: bool = False
    """Whether only Checkout Sessions that we made ourselves are credited."""
    stripe_connected_accounts: str = Field(default="", pattern=r"^(acct_\w+( *, *acct_\w+)*)?$")
    """Connected accounts (`acct_…`), separated by commas, that we act for; the events of any other
    account are kept and ignored."""
    stripe_allow_promotion_codes: bool = False
    stripe_automatic_tax: bool = False
    stripe_tax_behavior: Literal["exclusive", "inclusive"] = "exclusive"
    """Whether taxes come on top of a package's price, or are within it."""
    stripe_payment_method_types: str = Field(
        default="card", pattern=r"^[a-z][a-z0-9_]*( *, *[a-z][a-z0-9_]*)*$"
    )
    """What the pay page offers, separated by commas (`card, link, sepa_debit`), as far as the
    Stripe account has it for that customer."""
    stripe_reconcile_interval_seconds: int = Field(default=3_600, ge=0)
    """How often the worker compares the last days with Stripe; 0 means never."""
    credit_packages: tuple[Package, ...] | None = Field(default=None, min_length=1)
    """What is on sale, as JSON; not set means the five of `DEFAULT_PACKAGES`."""
    checkout_success_url: str | None = None
    """Where Stripe sends a customer who has paid; `{CHECKOUT_SESSION_ID}` is filled in."""
    checkout_cancel_url: str | None = None
    checkout_url: str | None = Field(default=None, pattern=r"^https?://\S+$")
    """Where customers buy credits: told to whoever has too few."""
    checkout_allowed_origins: str = ""
    """Origins, separated by commas, of other pages a request may ask to be sent to."""

    api_key_cache_seconds: float = Field(default=5, ge=0, le=5)
    """How long a process may believe that an API key it has seen is still valid."""
    cors_origins: str = Field(default="", pattern=_ORIGINS)
    """Origins, separated by commas, whose pages may call the API from a browser."""
    api_max_body_bytes: int = Field(default=1_048_576, ge=1_024)
    api_head_timeout_seconds: float = Field(default=10, gt=0)
    """How long a request's line and headers may take to come, where `flashslides serve` serves."""
    api_body_timeout_seconds: float = Field(default=15, gt=0)
    """How long a whole body may take to come."""
    api_port: int = Field(default=8_000, ge=1, le=65_535)
    """Where `serve` listens, and where the doctor and sign-in links look for the API."""
    api_shutdown_timeout_seconds: int = Field(default=40, ge=1)
    """How long after SIGTERM requests may take to be answered; what takes longer is cut off. More
    than a statement and its locks may take, and less than what stops the process waits."""
    api_hang_timeout_seconds: int = Field(default=60, ge=5)
    """How long a server process, of several, may give no sign of life before it is replaced."""
    metrics_token: SecretStr | None = None
    """The bearer token that `/metrics` asks for; not set, it answers everybody who reaches it."""
    metrics_cache_seconds: float = Field(default=10, ge=0)
    """How old what `/metrics` tells of the database may be."""
    log_level: str = Field(default="INFO", pattern=r"^(DEBUG|INFO|WARNING|ERROR)$")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003  the signature is pydantic's
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, environment, `.env`, SSM: the first that has a value wins."""
        return init_settings, env_settings, dotenv_settings, SsmSource(settings_cls)

    @field_validator("env", "log_level", mode="before")
    @classmethod
    def _strip(cls, value: object) -> object:
        return value.strip() if isinstance(value, str) else value

    @field_validator(
        "auth_jwt_secret",
        "stripe_secret_key",
        "stripe_webhook_secret",
        "metrics_token",
        "console_session_secret",
        "console_oidc_client_secret",
        "anchor_signing_key",
        "anchor_http_token",
        mode="before",
    )
    @classmethod
    def _strip_secret(cls, value: object) -> object:
        """None of them has blanks; what reads a secret from a file often adds a newline."""
        return value.strip() if isinstance(value, str) else value

    @model_validator(mode="after")
    def _refuse_keys_that_come_in_clear(self) -> Self:
        """Whoever can change the set on its way can sign tokens."""
        if self.auth_jwt_jwks_url is None:
            return self
        try:
            url = HttpUrl(self.auth_jwt_jwks_url)
        except ValidationError:
            raise ValueError("AUTH_JWT_JWKS_URL is no address of a web page") from None
        if url.scheme != "https" and not (self.is_local or _is_loopback(url.host or "")):
            raise ValueError(
                f"AUTH_JWT_JWKS_URL does not begin with https://, which ENV={self.env} refuses: "
                "whoever changes the keys on their way could sign tokens"
            )
        return self

    @model_validator(mode="after")
    def _refuse_another_stripe(self) -> Self:
        if self.stripe_api_base_url is not None and not self.is_local:
            raise ValueError(
                f"STRIPE_API_BASE_URL is set, which ENV={self.env} refuses: payments that somebody "
                "else confirms would be credited"
            )
        return self

    @model_validator(mode="after")
    def _refuse_the_other_modes_key(self) -> Self:
        """Payments nobody made are credited with a test key, and real ones are not with it."""
        if self.stripe_secret_key is None:
            return self
        key = _STRIPE_KEY.fullmatch(self.stripe_secret_key.get_secret_value())
        if key is None:
            raise ValueError(
                "STRIPE_SECRET_KEY is no secret key of Stripe's: those begin with sk_live_, "
                "sk_test_, rk_live_ or rk_test_"
            )
        if (key["mode"] == "live") != self.stripe_livemode:
            raise ValueError(
                f"STRIPE_SECRET_KEY is a {key['mode']} key, which ENV={self.env} refuses where "
                f"STRIPE_MODE is {self.stripe_mode or 'not set'}; set the other key, or "
                f"STRIPE_MODE={key['mode']}"
            )
        return self

    @property
    def credits_engine_connections(self) -> int:
        """The most connections the batch engine opens in one process.

        Two a lane, one a side lane, and one that looks at those who wait for a side lane. Where
        groups of users have schemas, so many lanes for each group that is served at once.
        """
        groups = 1 if self.sharding is Sharding.NONE else self.credits_engine_groups
        return 2 * self.credits_engine_lanes * groups + self.credits_engine_side_lanes + 1

    @property
    def stripe_webhook_secrets(self) -> tuple[str, ...]:
        """The signing secrets to accept, newest first as written; empty where none is set."""
        if self.stripe_webhook_secret is None:
            return ()
        written = self.stripe_webhook_secret.get_secret_value()
        return tuple(part.strip() for part in written.split(",") if part.strip())

    @property
    def payment_method_types(self) -> tuple[str, ...]:
        """What the pay page offers."""
        return tuple(each.strip() for each in self.stripe_payment_method_types.split(","))

    @property
    def connected_accounts(self) -> frozenset[str]:
        """The accounts beside our own whose events we act on (Stripe Connect)."""
        written = self.stripe_connected_accounts.split(",")
        return frozenset(each.strip() for each in written if each.strip())

    @property
    def allowed_cors_origins(self) -> frozenset[str]:
        """The origins whose pages may call the API; empty where none may."""
        return frozenset(each.strip() for each in self.cors_origins.split(",") if each.strip())

    @property
    def accounts(self) -> tuple[str | None, ...]:
        """All whose payments we take: our own account, which is None, and the connected ones."""
        return None, *sorted(self.connected_accounts)

    @property
    def packages(self) -> tuple[Package, ...]:
        """What is on sale."""
        return self.credit_packages or DEFAULT_PACKAGES

    @property
    def stripe_livemode(self) -> bool | None:
        """Whether payments are real; None where nothing says, on a developer's machine only."""
        if self.stripe_mode is not None:
            return self.stripe_mode == "live"
        if not self.is_local:
            return True
        if self.stripe_secret_key is None:
            return None
        return "_live_" in self.stripe_secret_key.get_secret_value()


def load_settings(**arguments: object) -> Settings:
    """Read the settings afresh.

    Raises:
        SettingsError: naming each variable that is missing or wrong, never its value.
    """
    try:
        return Settings(**arguments)  # type: ignore[arg-type]  # pydantic checks them
    except ValidationError as error:
        problems = [
            f"{'.'.join(map(str, problem['loc'])).upper() or 'Settings'}: {problem['msg']}"
            for problem in error.errors(include_input=False, include_url=False)
        ]
        raise SettingsError("; ".join(problems)) from None
    except (OSError, UnicodeError) as error:
        raise SettingsError(
            f".env cannot be read ({type(error).__name__}); it is text in UTF-8, one NAME=value a "
            "line, readable by this account"
        ) from None


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """The settings of this process, read once; `get_settings.cache_clear()` forgets them."""
    return load_settings()
