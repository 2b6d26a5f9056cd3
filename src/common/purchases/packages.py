"""The packages of credits on sale: the one table of what is offered at which price."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Package:
    """So many credits for so much."""

    package_id: str
    """What the front end and a Checkout Session's metadata call it."""
    name: str
    credits: int
    price_cents: int
    currency: str = "usd"


PACKAGES = (
    Package("500", "Starter", credits=500, price_cents=500),
    Package("1000", "Basic", credits=1_000, price_cents=900),
    Package("2500", "Pro", credits=2_500, price_cents=2_000),
    Package("5000", "Business", credits=5_000, price_cents=3_500),
    Package("10000", "Enterprise", credits=10_000, price_cents=6_000),
)

_BY_ID = {package.package_id: package for package in PACKAGES}


def find_package(package_id: str | None) -> Package | None:
    """The package of this id, or None if we sell no such thing."""
    return _BY_ID.get(package_id or "")
