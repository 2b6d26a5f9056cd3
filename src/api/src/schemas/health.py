"""Bodies of the health endpoints."""

from typing import Literal

from pydantic import BaseModel, ConfigDict


class LivenessOut(BaseModel):
    """The process runs."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    status: Literal["alive"]
    """Always the same."""


class ReadinessOut(BaseModel):
    """Requests can be served."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    status: Literal["ready"]
    """Always the same."""
    revision: str
    """The newest migration of the database."""
