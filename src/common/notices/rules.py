"""What an endpoint may be: its address, what it is told of, and what that needs. No I/O."""

from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from src.common.exceptions import Invalid
from src.common.models.credit_notice import NoticeType
from src.common.models.notice_endpoint import EXPIRING_LEAD_SECONDS_MAX, URL_LENGTH_MAX

THRESHOLD_MAX = 2**31 - 1
EXPIRING_LEAD_SECONDS_MIN = 3_600
"""Rounds look for expiring credits every few minutes (`expiring.py`)."""


@dataclass(frozen=True, kw_only=True)
class Subscription:
    """An address and what it is told of, checked."""

    url: str
    types: tuple[NoticeType, ...]
    """One or more, in the order of `NoticeType`."""
    low_threshold: int | None
    """Whole credits, 1 or more; with `credits.low` and never without."""
    expiring_lead_seconds: int | None
    """With `credits.expiring` and never without."""


def subscription(
    *,
    url: str,
    types: Iterable[str] | None,
    low_threshold: int | None,
    expiring_lead_seconds: int | None,
    is_local: bool,
) -> Subscription:
    """A subscription to these types.

    Without `types` it is all of them, but for `credits.spent`, which is as much as everybody
    spends, and those whose threshold or lead is not given. `is_local` allows `http`.

    Raises:
        Invalid: VALIDATION_ERROR, naming the field.
    """
    _check_url(url, is_local=is_local)
    _check_range("low_threshold", low_threshold, 1, THRESHOLD_MAX)
    _check_range(
        "expiring_lead_seconds",
        expiring_lead_seconds,
        EXPIRING_LEAD_SECONDS_MIN,
        EXPIRING_LEAD_SECONDS_MAX,
    )
    missing = {
        kind
        for kind, value in (
            (NoticeType.LOW, low_threshold),
            (NoticeType.EXPIRING, expiring_lead_seconds),
        )
        if value is None
    }
    if types is None:
        wanted = set(NoticeType) - {NoticeType.SPENT} - missing
    else:
        wanted = {_known_type(each) for each in types}
        if not wanted:
            raise invalid("types", "name at least one")
    _check_goes_with("low_threshold", low_threshold, NoticeType.LOW, wanted)
    _check_goes_with("expiring_lead_seconds", expiring_lead_seconds, NoticeType.EXPIRING, wanted)
    return Subscription(
        url=url,
        types=tuple(each for each in NoticeType if each in wanted),
        low_threshold=low_threshold,
        expiring_lead_seconds=expiring_lead_seconds,
    )


def invalid(name: str, problem: str) -> Invalid:
    """The refusal of the argument `name`."""
    return Invalid(f"{name}: {problem}", "VALIDATION_ERROR", field=name)


def _known_type(name: str) -> NoticeType:
    try:
        return NoticeType(name)
    except ValueError:
        raise invalid("types", f"each must be one of {', '.join(NoticeType)}") from None


def _check_range(name: str, value: object, least: int, most: int) -> None:
    if value is None:
        return
    if type(value) is not int or not least <= value <= most:
        raise invalid(name, f"must be an integer, {least} to {most}")


def _check_goes_with(
    name: str, value: int | None, kind: NoticeType, wanted: set[NoticeType]
) -> None:
    if kind in wanted and value is None:
        raise invalid(name, f"is needed for {kind}")
    if kind not in wanted and value is not None:
        raise invalid(name, f"is for {kind} alone, which is not among the types")


def _check_url(url: object, *, is_local: bool) -> None:
    """An absolute address without credentials: whoever reads the list would read them.

    Where its name leads is looked at when something is sent there.
    """
    if not isinstance(url, str) or not 1 <= len(url) <= URL_LENGTH_MAX:
        raise invalid("url", f"must be text of 1 to {URL_LENGTH_MAX} characters")
    if not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        raise invalid("url", "must be of printable ASCII without blanks and backslashes")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise invalid("url", "is no address of a web page") from None
    if parts.scheme != "https" and not (is_local and parts.scheme == "http"):
        raise invalid("url", "must begin with https:// (with ENV=local, http:// will do)")
    if "@" in parts.netloc:
        raise invalid("url", "must name no user and no password")
    if not host or port == 0:
        raise invalid("url", "must name a host, and no port or one of 1 to 65535")
    if "#" in url:
        raise invalid("url", "must have no fragment")
