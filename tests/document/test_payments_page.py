"""`docs/explanation/payments.md` and `ledger.md`: their tables have every value that there is."""

import re
from enum import StrEnum
from pathlib import Path

import pytest

from src.common.credits.reservation import ReservationState
from src.common.purchases.rules import Reason
from src.common.stripe.confirmation import CheckoutStatus
from src.common.stripe.inbox import EventAnswer

EXPLANATION = Path(__file__).parents[2] / "docs/explanation"
NEVER_SEEN_AFTER_THE_BLOCK = {ReservationState.NEW}


def first_column(page: str, heading: str) -> set[str]:
    """What a table's first column says, each value as code; the table is found by its head."""
    text = (EXPLANATION / page).read_text(encoding="utf-8")
    table = text.partition(f"\n| {heading} |")[2].partition("\n\n")[0]
    cells = [row.split("|")[1] for row in table.splitlines()[2:]]
    return set(re.findall(r"`(\w+)`", " ".join(cells)))


@pytest.mark.parametrize(
    ("page", "heading", "values"),
    [
        ("payments.md", "the answer", set(EventAnswer)),
        ("payments.md", "`status`", set(CheckoutStatus)),
        ("payments.md", "reason", set(Reason)),
        ("ledger.md", "`state`", set(ReservationState) - NEVER_SEEN_AFTER_THE_BLOCK),
    ],
)
def test_a_table_has_every_value(page: str, heading: str, values: set[StrEnum]) -> None:
    """A value that is added or renamed has its row changed with it."""
    assert first_column(page, heading) == {value.value for value in values}
