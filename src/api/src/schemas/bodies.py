"""What all request bodies have in common: no unknown fields, and not many of any."""

from pydantic import BaseModel, ConfigDict, model_validator

FIELDS_MAX = 50
"""More than any body has: pydantic would write an error about each unknown one, at length."""


class Body(BaseModel):
    """A JSON object of known fields."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _has_few_fields(cls, value: object) -> object:
        if isinstance(value, dict) and len(value) > FIELDS_MAX:  # pyright: ignore[reportUnknownArgumentType]  whatever was sent
            raise ValueError(f"must have at most {FIELDS_MAX} fields")
        return value  # pyright: ignore[reportUnknownVariableType]
