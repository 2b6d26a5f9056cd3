"""Bodies of the webhook endpoint."""

from pydantic import BaseModel, ConfigDict

from src.common.stripe.inbox import EventAnswer


class WebhookOut(BaseModel):
    """What became of the event."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    status: EventAnswer
    """`accepted`: stored and not settled yet; the worker settles it."""
