"""What Stripe sends: paid sessions and events about them, changed where a test says so."""

import json
import uuid
from typing import Any

from src.common.models.user import User
from src.common.purchases.packages import PACKAGES, Package
from tests.stripe import development

STARTER = PACKAGES[0]
COMPLETED = "checkout.session.completed"
SUCCEEDED = "checkout.session.async_payment_succeeded"


def make_session(
    user: User | uuid.UUID, package: Package = STARTER, **changes: Any
) -> dict[str, Any]:
    """A paid Checkout Session of this user; `metadata` is merged, everything else replaced."""
    user_id = user.user_id if isinstance(user, User) else user
    session = development.checkout_session(user_id=user_id, package=package, env="local")
    metadata: dict[str, str] = session["metadata"] | changes.pop("metadata", {})
    return {**session, "metadata": metadata, **changes}


def make_event(
    session: dict[str, Any], event_type: str = COMPLETED, **changes: Any
) -> dict[str, Any]:
    """A new event about the session."""
    return {**development.event(session, event_type), **changes}


def to_body(event: dict[str, Any]) -> bytes:
    """As it is sent."""
    return json.dumps(event).encode()
