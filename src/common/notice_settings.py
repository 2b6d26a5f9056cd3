"""Settings of notices: how long they are kept, and how long an endpoint may take."""

from pydantic import Field

from src.common.deployment import Deployment


class NoticeSettings(Deployment):
    """What happens to credits and purchases, told to whoever asked for it."""

    notices_kept_days: int = Field(default=30, ge=1, le=3_650)
    """How long notices are kept once they were delivered or given up, and so can be replayed. What
    waits for an endpoint that has been disabled for so long is dropped, too."""
    notices_timeout_seconds: float = Field(default=20, gt=0, le=30)
    """How long an endpoint may take to answer one."""
