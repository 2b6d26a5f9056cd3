"""Pages for a browser: plain HTML in one small style, no script, nothing from elsewhere.

What is formatted into a `Markup` is escaped; the templates here and at our callers' are literals.
"""

from markupsafe import Markup

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'"
"""The Content-Security-Policy of every such page."""
NOTHING = Markup("")

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
    """As Stripe writes an amount: in whole units where the currency has cents."""
    return f"{amount // 100}.{amount % 100:02} {currency.upper()}"
