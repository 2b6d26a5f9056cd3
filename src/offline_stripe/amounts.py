"""Currencies and amounts: which ones Stripe takes, the least it charges, how it writes them.

Source: docs.stripe.com/currencies. Amounts are in a currency's smallest unit.
"""

from decimal import ROUND_HALF_UP, Decimal

from src.offline_stripe.errors import invalid

AMOUNT_MAX = 99_999_999
_PLAIN = """
    aed afn all amd ang aoa ars aud awg azn bam bbd bdt bgn bmd bnd bob brl bsd bwp byn bzd cad cdf
    chf cny cop crc cve czk dkk dop dzd egp etb eur fjd fkp gbp gel gip gmd gtq gyd hkd hnl htg huf
    idr ils inr isk jmd kes kgs khr kyd kzt lak lbp lkr lrd lsl mad mdl mkd mmk mnt mop mur mvr mwk
    mxn myr mzn nad ngn nio nok npr nzd pab pen pgk php pkr pln qar ron rsd rub sar sbd scr sek sgd
    shp sle sos srd std szl thb tjs top try ttd twd tzs uah usd uyu uzs wst xcd xcg yer zar zmw
"""
_WITHOUT_CENTS = "bif clp djf gnf jpy kmf krw mga pyg rwf ugx vnd vuv xaf xof xpf"
_WITH_THOUSANDTHS = "bhd jod kwd omr tnd"
DECIMALS = {
    currency: decimals
    for decimals, currencies in ((2, _PLAIN), (0, _WITHOUT_CENTS), (3, _WITH_THOUSANDTHS))
    for currency in currencies.split()
}
"""Of each currency that Stripe charges in."""
MINIMUM = {
    "aed": 200,
    "aud": 50,
    "bgn": 100,
    "brl": 50,
    "cad": 50,
    "chf": 50,
    "czk": 1_500,
    "dkk": 250,
    "eur": 50,
    "gbp": 30,
    "hkd": 400,
    "huf": 17_500,
    "inr": 50,
    "jpy": 50,
    "mxn": 1_000,
    "myr": 200,
    "nok": 300,
    "nzd": 50,
    "pln": 200,
    "ron": 200,
    "sek": 300,
    "sgd": 50,
    "thb": 1_000,
    "usd": 50,
}
"""Of the others Stripe says only that they come to as much once they are converted."""
_SYMBOLS = {"eur": "€", "gbp": "£", "jpy": "¥", "usd": "$"}


def money(amount: int, currency: str) -> str:
    """As Stripe writes an amount in a message: `$5.00`, `¥500`, `5.00 chf`."""
    decimals = DECIMALS[currency]
    text = f"{amount / 10**decimals:,.{decimals}f}"
    symbol = _SYMBOLS.get(currency)
    return f"{symbol}{text}" if symbol else f"{text} {currency}"


def rounded(amount: Decimal) -> int:
    """To the smallest unit; half of it counts as one."""
    return int(amount.quantize(Decimal(1), ROUND_HALF_UP))


def check_currency(currency: str, param: str) -> None:
    """Refuse what Stripe does not charge in.

    Raises:
        StripeError: 400.
    """
    if currency.lower() not in DECIMALS:
        known = ", ".join(sorted(DECIMALS))
        raise invalid(
            f"Invalid currency: {currency.lower()}. Stripe currently supports these currencies: "
            f"{known}",
            param,
        )


def check_amount(
    amount: int, currency: str, param: str = "amount", says: str = "Amount must be"
) -> None:
    """Refuse to charge less than Stripe does, or more.

    Raises:
        StripeError: amount_too_small, amount_too_large, or no positive number at all.
    """
    least = MINIMUM.get(currency, 1)
    if amount < 1:
        raise invalid(
            "This value must be greater than or equal to 1.", param, "parameter_invalid_integer"
        )
    if amount < least:
        raise invalid(
            f"{says} at least {money(least, currency)} {currency}",
            param,
            "amount_too_small",
        )
    if amount > AMOUNT_MAX:
        raise invalid(
            f"{says} no more than {money(AMOUNT_MAX, currency)} {currency}",
            param,
            "amount_too_large",
        )
