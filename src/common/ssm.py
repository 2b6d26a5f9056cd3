"""Secrets from AWS SSM Parameter Store, where `ENV` is not `local`.

One parameter a secret, under `/flashslides/{ENV}/api/` and `/flashslides/{ENV}/app/` (document,
"SSM Parameter"). boto3 comes with the extra `aws`. It is imported only here, and only when a secret
is still missing after the environment and `.env`.
"""

import importlib.util
import logging
import re
from typing import TYPE_CHECKING, Any

from pydantic.fields import FieldInfo
from pydantic_settings import PydanticBaseSettingsSource

from src.common.exceptions import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator

# Not structlog's: settings are read before it is set up, and its default writes to stdout.
logger = logging.getLogger(__name__)

ENV_PATTERN = r"^[a-z][a-z0-9-]{0,30}$"
"""What `ENV` may be: it is a part of every path."""
FOLDER_BY_FIELD = {
    "database_password": "api",
    "auth_jwt_secret": "api",
    "stripe_secret_key": "app",
    "stripe_webhook_secret": "app",
    "console_session_secret": "api",
    "console_oidc_client_secret": "api",
    "anchor_signing_key": "api",
    "anchor_http_token": "api",
}
_WHERE_NEEDED = {
    "console_session_secret": "console_oidc_issuer",
    "console_oidc_client_secret": "console_oidc_issuer",
    "anchor_signing_key": "anchor_sinks",
    "anchor_http_token": "anchor_sinks",
}
"""Secrets that are asked for only where another setting is given."""


class SsmSource(PydanticBaseSettingsSource):
    """The last source: whatever secret no other source has given."""

    def get_field_value(
        self,
        field: FieldInfo,  # noqa: ARG002  the signature is pydantic's
        field_name: str,
    ) -> tuple[Any, str, bool]:
        """Part of pydantic's protocol; `__call__` looks folders up whole instead."""
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        """The missing secrets that have a parameter, by field name.

        Raises:
            SettingsError: AWS refuses, throttles or cannot be reached, and the database's password
                was to come from there. For the others that is a warning: what needs one of them
                says so itself.
        """
        given = self.current_state
        env = str(given.get("env") or "local").strip()
        missing = [
            field
            for field in FOLDER_BY_FIELD
            if field not in given and _WHERE_NEEDED.get(field, "env") in {*given, "env"}
        ]
        if env == "local" or not re.match(ENV_PATTERN, env) or not missing:
            return {}
        if importlib.util.find_spec("boto3") is None:
            if "database_password" not in missing:
                return {}  # this deployment hands its secrets over in the environment
            raise SettingsError(
                f"ENV={env} has no DATABASE_PASSWORD; to read it from SSM "
                f"(/flashslides/{env}/api/DATABASE_PASSWORD) install flashslides[aws]"
            )
        found: dict[str, Any] = {}
        for folder in sorted({FOLDER_BY_FIELD[field] for field in missing}):
            wanted = {field.upper(): field for field in missing if FOLDER_BY_FIELD[field] == folder}
            try:
                for name, value in _parameters(f"/flashslides/{env}/{folder}/", ", ".join(wanted)):
                    if name in wanted:
                        found[wanted[name]] = value
            except SettingsError as error:
                if "DATABASE_PASSWORD" in wanted and "database_password" not in found:
                    raise
                logger.warning("%s", error)
        return found


def _parameters(path: str, wanted: str) -> "Iterator[tuple[str, str]]":
    """Every parameter directly under `path`: its last name and decrypted value, page by page."""
    import boto3  # heavy, and not installed everywhere
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    config = Config(
        retries={"mode": "standard", "total_max_attempts": 5}, connect_timeout=5, read_timeout=10
    )
    try:
        client = boto3.client("ssm", config=config)
        pages = client.get_paginator("get_parameters_by_path").paginate(
            Path=path, WithDecryption=True
        )
        for page in pages:
            for parameter in page["Parameters"]:
                yield parameter.get("Name", "").rpartition("/")[2], parameter.get("Value", "")
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "unknown")
        raise SettingsError(
            f"{wanted}: not set, and SSM refused {path}: {code}. {_advice(code, path)}"
        ) from None
    except BotoCoreError as error:
        raise SettingsError(
            f"{wanted}: not set, and SSM could not be asked for {path} ({type(error).__name__}). "
            "Check AWS_REGION and the credentials, or set the secrets in the environment."
        ) from None


def _advice(code: str, path: str) -> str:
    if "Throttling" in code or "TooManyRequests" in code:
        return "Too many requests, retried without success: start again in a moment."
    if "AccessDenied" in code:
        return f"Allow ssm:GetParametersByPath on {path}* and kms:Decrypt on its key."
    return "Check the parameter, its key and the role of this process."
