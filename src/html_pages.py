"""Plain HTML pages in one small style, without scripts and without files of other hosts.

What is formatted into a `Markup` is escaped; the templates here and at our callers' are literals.
"""

from decimal import Decimal

from markupsafe import Markup

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'"
"""The Content-Security-Policy of every such page."""
NOTHING = Markup("")
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
"""Of each currency that Stripe charges in; any other is taken to have two."""

_PAGE = Markup("""<!doctype html><html lang=en><head><meta charset=utf-8><title>{title}</title>\
<meta name=viewport content="width=device-width, initial-scale=1"><style>{style}</style></head>\
<body><main><h1>{heading}</h1>{content}</main></body></html>
""")
_STYLE = Markup("""
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 34rem; margin: 2rem auto; padding: 0 1rem;
  color: #1a1a1a; background: #fff; }
h1 { font-size: 1.75rem; line-height: 1.2; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.5rem; }
dt { color: #595959; }
dd { margin: 0; overflow-wrap: anywhere; }
fieldset { border: 1px solid #767676; border-radius: .5rem; margin: 1rem 0; padding: 1rem; }
label { display: block; padding: .25rem 0; }
form { margin: 1rem 0; }
input[type=email] { font: inherit; padding: .25rem .5rem; width: 100%; box-sizing: border-box; }
button { font: inherit; padding: .5rem 1.25rem; border-radius: .5rem; border: 1px solid #1a1a1a;
  background: #fff; color: #1a1a1a; margin: 0 .25rem .5rem 0; }
button.main { background: #1a4fd0; border-color: #1a4fd0; color: #fff; }
a { color: #1a4fd0; }
[role=alert] { border-left: .3rem solid #b00020; padding-left: .75rem; color: #b00020; }
[role=status] { border-left: .3rem solid #0b6e2e; padding-left: .75rem; }
.note { color: #595959; }
""")
_FACT = Markup("<dt>{name}</dt><dd>{value}</dd>")
_FACTS = Markup("<dl>{facts}</dl>")


def document(heading: str, content: Markup, *, site: str) -> str:
    """A whole page; `site` is whose it is, beside the heading in its title."""
    return _PAGE.format(title=f"{heading} ({site})", heading=heading, style=_STYLE, content=content)


def facts(found: dict[str, str | Markup]) -> Markup:
    """Names and what they are, a line each."""
    lines = (_FACT.format(name=name, value=value) for name, value in found.items())
    return _FACTS.format(facts=NOTHING.join(lines))


def money(amount: int, currency: str) -> str:
    """An amount in a currency's smallest unit, in words: `5.00 USD`, `500 JPY`."""
    return f"{in_units(amount, currency)} {currency.upper()}"


def in_units(amount: int, currency: str) -> str:
    """An amount in a currency's smallest unit, as so many of its whole ones."""
    return f"{whole_units(amount, currency):,.{decimals_of(currency)}f}"


def whole_units(amount: int, currency: str) -> Decimal:
    """The same as a number, with as many decimals as the currency has."""
    return Decimal(amount).scaleb(-decimals_of(currency))


def decimals_of(currency: str) -> int:
    """How many decimals an amount in the currency has."""
    return DECIMALS.get(currency.lower(), 2)
