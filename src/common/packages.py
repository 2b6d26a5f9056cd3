"""What a package of credits is, and those on sale where no setting names others."""

from pydantic import BaseModel, ConfigDict, Field


class Package(BaseModel):
    """So many credits for so much money, once.

    The same credits in another currency are another package.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    package_id: str = Field(pattern=r"^[\w.-]{1,100}$")
    """What the front end and a Checkout Session's metadata call it."""
    name: str = Field(min_length=1, max_length=250)
    credits: int = Field(gt=0, lt=2**31)
    price_cents: int = Field(ge=0, lt=2**31)
    """In the smallest unit of `currency`: cents of a dollar, whole yen."""
    currency: str = Field(default="usd", pattern=r"^[a-z]{3}$")
    """ISO 4217, in lower case. Any will do: no other code has a list of those we take."""


DEFAULT_PACKAGES = (
    Package(package_id="500", name="Starter", credits=500, price_cents=500),
    Package(package_id="1000", name="Basic", credits=1_000, price_cents=900),
    Package(package_id="2500", name="Pro", credits=2_500, price_cents=2_000),
    Package(package_id="5000", name="Business", credits=5_000, price_cents=3_500),
    Package(package_id="10000", name="Enterprise", credits=10_000, price_cents=6_000),
)
