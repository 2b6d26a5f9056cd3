"""Bodies of the webhook endpoint."""

from pydantic import BaseModel

from src.common.stripe.inbox import EventAnswer


class WebhookOut(BaseModel):
    """What became of the event."""

    status: EventAnswer
