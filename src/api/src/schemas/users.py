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
    """A user as the API shows them: without the password hash."""

    model_config = ConfigDict(from_attributes=True, use_attribute_docstrings=True)

    user_id: uuid.UUID
    """Ours, also the `sub` of the user's token."""
    email: str
    """As the person writes it."""
    first_name: str | None
    """Changed by `update_profile`."""
    last_name: str | None
    """Changed by `update_profile`."""
    profile_image_url: str | None
    """What `update_profile` calls `avatar_url`."""
    phone: str | None
    """A telephone number."""
    stripe_customer_id: str | None
    """`cus_…`, once the user has started a checkout."""
    credits_balance: int
    """Credits the user may spend, as booked. `…/credits` tells what they are at this instant."""
    preferences: dict[str, Any]
    """Free JSON, among it `company`."""
    timezone: str | None
    """A name such as `Europe/Berlin`."""
    language_preference: str | None
    """A language tag such as `en`."""
    user_type: str
    """`admin`, `member`, `guest` or `individual`. An `admin` has every scope."""
    is_active: bool
    """Whether the user may sign in and spend."""
    last_login_at: dt.datetime | None
    """When the user last signed in."""
    created_at: dt.datetime
    """When the user was created here."""
    updated_at: dt.datetime | None
    """When the account's data last changed; null: never."""


class TransactionOut(BaseModel):
    """One purchase; amounts in the currency's smallest unit."""

    model_config = ConfigDict(from_attributes=True, use_attribute_docstrings=True)

    transaction_id: uuid.UUID
    """Ours."""
    user_id: uuid.UUID
    """Who bought."""
    stripe_session_id: str
    """`cs_…`; `in_…` or `pi_…` of a payment without a Checkout Session."""
    payment_intent_id: str | None
    """`pi_…`; null where nothing was charged."""
    invoice_id: str | None
    """`in_…` of a subscription's payment."""
    amount_paid_cents: int
    """What the customer paid in total."""
    currency: str
    """ISO 4217, in lower case."""
    livemode: bool | None
    """Whether real money moved; null where the writer of the purchase did not say."""
    credits_added: int
    """Credits that were bought."""
    refunded_cents: int
    """What was refunded so far."""
    disputed_cents: int
    """What disputes hold back now."""
    created_at: dt.datetime
    """When the purchase was written here."""
    state: PurchaseState
    """The first of these that holds. `uncredited`: the purchase was written and credited nobody."""
    package_id: Annotated[
        str | None,
        Field(description="What was bought; null without an order of ours."),
    ]
    credits_left: Annotated[
        int | None,
        Field(
            description="How many of `credits_added` are left; null where the purchase has no lot "
            "of its own."
        ),
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
    """A page of purchases, newest first."""

    model_config = ConfigDict(from_attributes=True, use_attribute_docstrings=True)

    items: list[TransactionOut]
    """The purchases of this page."""
    next_cursor: str | None
    """Send it as `cursor` for the next page; null on the last."""


class ProfileIn(Body):
    """What to change. A field that is left out stays as it is; null clears it."""

    model_config = ConfigDict(strict=True)

    first_name: NameText | None = None
    """The first name."""
    last_name: NameText | None = None
    """The last name."""
    avatar_url: UrlText | None = None
    """An `http` or `https` address; `profile_image_url` in answers."""
    company: NameText | None = None
    """`preferences.company` in answers."""


class SignInOut(BaseModel):
    """The user who signed in."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    internal_id: uuid.UUID
    """The `user_id` of all other operations."""
    status: Literal["created", "authenticated"]
    """`created` at the first sign-in."""
    is_new_user: bool
    """The same as a boolean."""
