"""Bodies of the health endpoints."""

from typing import Literal

from pydantic import BaseModel


class LivenessOut(BaseModel):
    """The process runs."""

    status: Literal["alive"]


class ReadinessOut(BaseModel):
    """Requests can be served."""

    status: Literal["ready"]
    revision: str
    """The migration the database is at."""
