"""Which packages of credits are on sale: the settings say it (`settings.Package`)."""

from collections.abc import Iterable

from src.common.packages import DEFAULT_PACKAGES, Package

__all__ = ["PACKAGES", "Package", "find_package"]

PACKAGES = DEFAULT_PACKAGES
"""What is sold where the settings say nothing else."""


def find_package(package_id: str | None, packages: Iterable[Package] = PACKAGES) -> Package | None:
    """The package of this id, or None if we sell no such thing."""
    return next((each for each in packages if each.package_id == package_id), None)
