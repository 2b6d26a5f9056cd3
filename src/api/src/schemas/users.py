"""Bodies of the user endpoints."""

import datetime as dt
import uuid
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    HttpUrl,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from src.api.src.schemas.bodies import Body
from src.common.purchases.queries import Purchase, PurchaseState


def without_nul(text: str) -> str:
    """Refuse what PostgreSQL cannot store."""
    if "\x00" in text:
        raise ValueError("must not contain a NUL character")
    return text


def web_address(text: str) -> str:
    """Refuse what is no http(s) address: whoever shows it would run a `javascript:`."""
    try:
        _WEB_ADDRESS.validate_python(text)
    except ValidationError:
        is_address = False
    else:  # what browsers leave out of an address is none of its parts
        is_address = text.isascii() and text.isprintable() and " " not in text
    if not is_address:
        raise ValueError("must be an http or https address, in ASCII without spaces")
    return text


_WEB_ADDRESS = TypeAdapter[HttpUrl](HttpUrl)
NameText = Annotated[str, Field(max_length=200), AfterValidator(without_nul)]
UrlText = Annotated[str, Field(max_length=2_000), AfterValidator(web_address)]


class UserOut(BaseModel):
    """A user as the API shows them; there is no password hash here, and never will be."""

    model_config = ConfigDict(from_attributes=True)

    user_id: uuid.UUID
    email: str
    first_name: str | None
    last_name: str | None
    profile_image_url: str | None
    phone: str | None
    stripe_customer_id: str | None
    credits_balance: int
    preferences: dict[str, Any]
    timezone: str | None
    language_preference: str | None
    user_type: str
    is_active: bool
    last_login_at: dt.datetime | None
    created_at: dt.datetime
    updated_at: dt.datetime | None


class TransactionOut(BaseModel):
    """One purchase; amounts in the currency's smallest unit."""

    model_config = ConfigDict(from_attributes=True)

    transaction_id: uuid.UUID
    user_id: uuid.UUID
    stripe_session_id: str
    payment_intent_id: str | None
    invoice_id: str | None
    amount_paid_cents: int
    currency: str
    livemode: bool | None
    credits_added: int
    refunded_cents: int
    disputed_cents: int
    created_at: dt.datetime
    state: PurchaseState
    package_id: Annotated[str | None, Field(description="Null where it was no order of ours.")]
    credits_left: Annotated[
        int | None,
        Field(description="Of `credits_added`; null where no lot of its own holds them."),
    ]

    @model_validator(mode="before")
    @classmethod
    def _side_by_side(cls, found: object) -> object:
        if not isinstance(found, Purchase):
            return found
        stands = {"state", "package_id", "credits_left"}
        return {
            name: getattr(found if name in stands else found.transaction, name)
            for name in cls.model_fields
        }


class TransactionPage(BaseModel):
    """Purchases, newest first; `next_cursor` fetches the next page, null on the last."""

    model_config = ConfigDict(from_attributes=True)

    items: list[TransactionOut]
    next_cursor: str | None


class ProfileIn(Body):
    """What a user may change of their profile; what is left out stays, null clears."""

    model_config = ConfigDict(strict=True)

    first_name: NameText | None = None
    last_name: NameText | None = None
    avatar_url: UrlText | None = None
    company: NameText | None = None


class SignInOut(BaseModel):
    """Our id of the user who signed in, and whether this was the first time."""

    internal_id: uuid.UUID
    status: Literal["created", "authenticated"]
    is_new_user: bool
