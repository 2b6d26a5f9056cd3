"""Amounts of money as people write them, in the currency's own decimals."""

import uuid

import pytest
from starlette.datastructures import FormData

from src.common.exceptions import Invalid
from src.console.forms import Form
from src.html_pages import money, whole_units

MOST = 2**31 - 1


def read(written: str, currency: str) -> int:
    """What a form has that says so."""
    form = Form(FormData([("money", written)]), uuid.uuid4(), uuid.uuid4(), is_confirmed=False)
    return form.money("money", currency, least=1, most=MOST)


@pytest.mark.parametrize(
    ("written", "currency", "smallest_units"),
    [
        ("4.99", "usd", 499),
        ("4.9", "USD", 490),
        ("4", "usd", 400),
        ("1,234.50", "eur", 123_450),
        (" 7 ", "usd", 700),
        ("500", "jpy", 500),
        ("1.234", "kwd", 1_234),
        ("1.2", "kwd", 1_200),
        ("0.01", "usd", 1),
        ("21474836.47", "usd", MOST),
    ],
)
def test_an_amount_is_in_the_currency_s_smallest_unit(
    written: str, currency: str, smallest_units: int
) -> None:
    """By its own number of decimals; what is shown is read as the same again."""
    assert read(written, currency) == smallest_units
    assert read(f"{whole_units(smallest_units, currency)}", currency) == smallest_units
    assert money(smallest_units, currency).endswith(currency.upper())


@pytest.mark.parametrize(
    ("written", "currency", "sentence"),
    [
        ("4.999", "usd", "an amount in USD, such as 4.99"),
        ("4,99", "usd", "an amount in USD, such as 4.99"),
        ("4 99", "usd", "an amount in USD, such as 4.99"),
        ("4.", "usd", "an amount in USD, such as 4.99"),
        (".5", "usd", "an amount in USD, such as 4.99"),
        ("4.99", "jpy", "an amount in JPY, such as 499"),
        ("4.-9", "usd", "an amount in USD, such as 4.99"),
        ("1e3", "usd", "an amount in USD, such as 4.99"),
        ("\u0664.99", "usd", "an amount in USD, such as 4.99"),
        ("4.\u0669", "usd", "an amount in USD, such as 4.99"),
        ("0", "usd", "from 0.01 USD to 21,474,836.47 USD"),
        ("-1", "usd", "from 0.01 USD to 21,474,836.47 USD"),
        ("21474836.48", "usd", "from 0.01 USD to 21,474,836.47 USD"),
    ],
)
def test_what_is_no_amount_is_refused_in_words(written: str, currency: str, sentence: str) -> None:
    """With an example in the same currency; nothing is rounded."""
    with pytest.raises(Invalid) as refused:
        read(written, currency)
    assert refused.value.message == f"money: {sentence}"
