"""Settings of anchors: where checkpoints are kept, how often one is closed, and who signs them."""

import re
from typing import Self

from pydantic import Field, SecretStr, model_validator

from src.common.deployment import Deployment

_SINK = re.compile(
    r"file:/[^\s,]+|s3://[a-z0-9][a-z0-9.-]+(/[^\s,]*)?|https?://[^\s/,@?#]+[^\s,@?#]*"
)
_IN_CLEAR = "http://"
_ON_THIS_MACHINE = re.compile(r"http://(localhost|127\.0\.0\.1|\[::1\])(:[0-9]+)?(/.*)?")


class AnchorSettings(Deployment):
    """Checkpoints over all users, which lie outside the database (decision 0062).

    A process that closes none needs no key: the worker alone is given it.
    """

    anchor_sinks: str = ""
    """Where checkpoints are kept, separated by commas: `file:/a/path`, `s3://bucket/prefix`,
    `https://…`. Nowhere: none are closed."""
    anchor_interval_seconds: int = Field(default=3_600, ge=0, le=2_592_000)
    """How often the workers, all together, close one; 0 for never."""
    anchor_signing_key: SecretStr | None = None
    """What signs them, as `flashslides anchors keygen` writes it."""
    anchor_signing_key_file: str | None = None
    """The file that has it, instead."""
    anchor_public_keys: str = ""
    """Whose signatures are believed, separated by commas: also a former key's, after a rotation.
    Not set, those of the signing key alone."""
    anchor_http_token: SecretStr | None = None
    """The bearer token that sinks with https:// ask for."""
    anchor_retention_days: int = Field(default=0, ge=0, le=36_500)
    """For how long S3 keeps each from being changed, in mode COMPLIANCE; 0 for as long as the
    bucket does by itself."""

    @model_validator(mode="after")
    def _refuse_two_signing_keys(self) -> Self:
        if self.anchor_signing_key is not None and self.anchor_signing_key_file is not None:
            raise ValueError("Set ANCHOR_SIGNING_KEY or ANCHOR_SIGNING_KEY_FILE, not both")
        return self

    @model_validator(mode="after")
    def _refuse_what_is_no_sink(self) -> Self:
        for number, sink in enumerate(self.anchor_sink_addresses, start=1):
            if not _SINK.fullmatch(sink):
                raise ValueError(
                    f"ANCHOR_SINKS: number {number} is none; a sink is file:/an/absolute/path, "
                    "s3://bucket/prefix or https://host/path, several are separated by commas"
                )
        return self

    @model_validator(mode="after")
    def _refuse_a_token_in_clear(self) -> Self:
        for sink in self.anchor_sink_addresses:
            if sink.startswith(_IN_CLEAR) and not _ON_THIS_MACHINE.fullmatch(sink):
                raise ValueError("ANCHOR_SINKS: an address begins with http://, and not https://")
        return self

    @property
    def anchor_sink_addresses(self) -> tuple[str, ...]:
        """Where checkpoints are kept; none where there are no anchors."""
        written = self.anchor_sinks.split(",")
        return tuple(dict.fromkeys(each.strip() for each in written if each.strip()))

    @property
    def has_anchors(self) -> bool:
        """Whether workers close checkpoints."""
        return bool(self.anchor_sink_addresses and self.anchor_interval_seconds)
