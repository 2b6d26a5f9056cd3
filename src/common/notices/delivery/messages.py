"""What is sent of a notice: body and headers of Standard Webhooks 1.0."""

import datetime as dt
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from standardwebhooks import Webhook

from src.common.notices.ids import notice_id

USER_AGENT = "FlashSlides-Notices/1"


@dataclass(frozen=True, kw_only=True)
class Notice:
    """A notice that is to be sent."""

    user_id: uuid.UUID
    number: int
    type: str
    data: Mapping[str, Any]
    created_at: dt.datetime
    attempts: int
    """How often it was sent, or sending it was begun, before this attempt."""
    is_claimed: bool
    """Whether this attempt is counted already."""

    @property
    def id(self) -> str:
        """The same in every attempt and replay."""
        return notice_id(self.user_id, self.number)


def body_of(notice: Notice) -> str:
    """What is signed and sent: the same text in every attempt."""
    payload = {
        "type": notice.type,
        "timestamp": notice.created_at.astimezone(dt.UTC).isoformat().replace("+00:00", "Z"),
        "data": notice.data,
    }
    return json.dumps(payload, separators=(",", ":"), sort_keys=True)


def headers_of(
    notice: Notice, body: str, secrets: Sequence[bytes], now: dt.datetime
) -> dict[str, str]:
    """The id, the instant of this attempt, and a signature by each secret that is valid."""
    instant = now.astimezone(dt.UTC)
    signatures = [Webhook(secret).sign(notice.id, instant, body) for secret in secrets]
    return {
        "Content-Type": "application/json",
        "User-Agent": USER_AGENT,
        "webhook-id": notice.id,
        "webhook-timestamp": str(int(instant.timestamp())),
        "webhook-signature": " ".join(signatures),
    }
