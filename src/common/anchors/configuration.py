"""Makes sinks and keys of what the settings, or a command's options, say."""

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from src.common.anchors.file_sink import FileSink
from src.common.anchors.http_sink import HttpSink
from src.common.anchors.notes import PublicKey, SigningKey, parse_public_key, parse_signing_key
from src.common.anchors.s3_sink import S3Sink
from src.common.anchors.sinks import Sink
from src.common.exceptions import Invalid, SettingsError
from src.common.settings import Settings


def open_sink(address: str, settings: Settings) -> Sink:
    """The sink at an address as ANCHOR_SINKS has them; a plain path is a file.

    Raises:
        Invalid: VALIDATION_ERROR.
    """
    parts = urlsplit(address)
    match parts.scheme:
        case "s3" if parts.netloc:
            retention_days = settings.anchor_retention_days
            return S3Sink(parts.netloc, parts.path, retention_days=retention_days)
        case "http" | "https" if "@" in parts.netloc:
            raise Invalid(
                "An address has no user or password; ANCHOR_HTTP_TOKEN is sent as a bearer token",
                "VALIDATION_ERROR",
                field="anchors",
            )
        case "http" | "https":
            token = settings.anchor_http_token
            return HttpSink(address, token=token.get_secret_value() if token else None)
        case "file":
            return FileSink(Path(address.removeprefix("file:")))
        case "":
            return FileSink(Path(address).absolute())
        case _:
            raise Invalid(
                "Checkpoints are in a file, at s3://bucket/prefix or at https://…",
                "VALIDATION_ERROR",
                field="anchors",
            )


def configured_sinks(settings: Settings) -> list[Sink]:
    """Those of ANCHOR_SINKS, in their order."""
    return [open_sink(address, settings) for address in settings.anchor_sink_addresses]


def configured_signing_key(settings: Settings) -> SigningKey:
    """What signs checkpoints.

    Raises:
        SettingsError: there is none, or it cannot be read.
    """
    given, file = settings.anchor_signing_key, settings.anchor_signing_key_file
    name, line = "ANCHOR_SIGNING_KEY", None if given is None else given.get_secret_value()
    try:
        if file is not None:
            name = "ANCHOR_SIGNING_KEY_FILE"
            line = Path(file).read_text(encoding="utf-8")
        if line is None:
            raise SettingsError(
                f"{name} is not set, nor is ANCHOR_SIGNING_KEY_FILE: nothing can be signed"
            )
        return parse_signing_key(line)
    except Invalid as error:
        raise SettingsError(f"{name}: {error.message}") from None
    except (OSError, UnicodeError) as error:
        raise SettingsError(f"{name} cannot be read ({type(error).__name__})") from None


def believed_keys(settings: Settings, given: Sequence[str] = ()) -> list[PublicKey]:
    """Whose signatures are believed: those given, else those of the settings.

    Raises:
        Invalid: VALIDATION_ERROR, one of those given is none.
        SettingsError: there are none, or one of the settings is none.
    """
    if given:
        return [parse_public_key(each) for each in given]
    written = [each.strip() for each in settings.anchor_public_keys.split(",") if each.strip()]
    try:
        if written:
            return [parse_public_key(each) for each in written]
    except Invalid as error:
        raise SettingsError(f"ANCHOR_PUBLIC_KEYS: {error.message}") from None
    if settings.anchor_signing_key is None and settings.anchor_signing_key_file is None:
        raise SettingsError(
            "Whose signatures are to be believed? Set ANCHOR_PUBLIC_KEYS, or give --public-key"
        )
    return [configured_signing_key(settings).public]
