"""Which deployment this is: what every group of settings asks before it relaxes a check."""

from pydantic import BaseModel, ConfigDict, Field

from src.common.ssm import ENV_PATTERN


class Deployment(BaseModel):
    """Which deployment this is."""

    model_config = ConfigDict(defer_build=True)  # of those that inherit it one is made use of

    env: str = Field(default="local", pattern=ENV_PATTERN)
    """The deployment, `local`, `staging`, `prod` …; part of the SSM paths and of every Checkout
    Session's metadata. Only `local` relaxes anything."""

    @property
    def is_local(self) -> bool:
        """Whether this is a developer's machine, the only place where checks are relaxed."""
        return self.env == "local"
