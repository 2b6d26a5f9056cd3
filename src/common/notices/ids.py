"""The id of a notice: the same in every attempt to send it, and in every replay."""

import re
import uuid

_ID = re.compile(r"ntc_(?P<user>[0-9a-f]{32})_(?P<number>[1-9][0-9]{0,18})")
_NUMBER_MAX = 2**63 - 1


def notice_id(user_id: uuid.UUID, number: int) -> str:
    """The id by which everybody names this notice."""
    return f"ntc_{user_id.hex}_{number}"


def parse_notice_id(text: str) -> tuple[uuid.UUID, int] | None:
    """User and number of the notice with this id; None where it is no notice's id."""
    match = _ID.fullmatch(text)
    if match is None or int(match["number"]) > _NUMBER_MAX:
        return None
    return uuid.UUID(match["user"]), int(match["number"])
