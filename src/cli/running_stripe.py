"""Where the offline Stripe of a running `flashslides serve` is, for the commands beside it."""

import secrets
import socket
from collections.abc import Generator
from contextlib import contextmanager
from urllib.parse import urlsplit

from pydantic import SecretStr

from src.common.settings import Settings
from src.local_postgres import data_folder

ADDRESS_FILE = "offline-stripe.url"
CONNECT_TIMEOUT_SECONDS = 2


def offline_key() -> str:
    """A key that an offline Stripe takes: it takes any of test mode."""
    return f"sk_test_offline{secrets.token_hex(12)}"


@contextmanager
def announced(url: str) -> Generator[None]:
    """Say in the data folder where it is, until the block is left.

    Whoever configured all secrets and a database has no such folder, and needs none for this.
    """
    file = data_folder() / ADDRESS_FILE
    if file.parent.exists():
        file.write_text(url, encoding="utf-8")
    try:
        yield
    finally:
        if file.exists() and file.read_text(encoding="utf-8") == url:  # and not somebody else's
            file.unlink()


def with_running_stripe(settings: Settings) -> Settings:
    """The settings, with the offline Stripe that runs here where they name no Stripe at all."""
    if not settings.is_local or settings.stripe_secret_key or settings.stripe_api_base_url:
        return settings
    url = _find()
    if url is None:
        return settings
    return settings.model_copy(
        update={"stripe_secret_key": SecretStr(offline_key()), "stripe_api_base_url": url}
    )


def _find() -> str | None:
    """Its address; None where it is not there, or has been killed."""
    try:
        url = (data_folder() / ADDRESS_FILE).read_text(encoding="utf-8")
        parts = urlsplit(url)
        address = (parts.hostname or "", parts.port or 0)
        socket.create_connection(address, CONNECT_TIMEOUT_SECONDS).close()
    except (OSError, ValueError):
        return None
    return url
