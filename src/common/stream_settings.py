"""Settings of the streams of balances: how many there may be, and for how long."""

from pydantic import Field

from src.common.deployment import Deployment


class StreamSettings(Deployment):
    """The bounds of `GET /user/{user_id}/credits/stream`."""

    credits_streams_max: int = Field(default=1_000, ge=1)
    """How many streams of balances each server process keeps open at once."""
    credits_streams_per_user_max: int = Field(default=10, ge=1)
    """And how many of these are of one user's balance."""
    credits_stream_max_seconds: int = Field(default=3_600, ge=1)
    """How long one may last. Whoever watches then connects again, and misses nothing."""
