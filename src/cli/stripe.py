"""`flashslides stripe …`: the inbox, unmatched payments, the offline Stripe."""

from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from src.cli import reconcile, stripe_inbox, unmatched
from src.cli.choices import OFFLINE_STRIPE_PORT
from src.cli.output import say
from src.cli.reach import get_settings

app = typer.Typer(
    help="Stripe: events, unmatched payments, reconciliation, an offline Stripe.",
    no_args_is_help=True,
)
app.add_typer(stripe_inbox.events, name="events")
app.add_typer(unmatched.app, name="unmatched")
app.command("reconcile")(reconcile.reconcile)


@app.command("serve")
def serve_offline(
    *,
    port: Annotated[
        int, typer.Option(min=1, max=65535, help="The port. Only this machine can reach it.")
    ] = OFFLINE_STRIPE_PORT,
    webhook_url: Annotated[
        str | None, typer.Option(help="Where it sends webhooks. Default: nowhere.")
    ] = None,
    webhook_secret: Annotated[
        str | None,
        typer.Option(
            envvar="STRIPE_WEBHOOK_SECRET",
            help="The secret that signs webhooks. "
            "Default: the one that `flashslides serve` accepts on this machine.",
        ),
    ] = None,
    state_file: Annotated[
        Path | None, typer.Option(help="Keep its state in this file, and begin with what is in it.")
    ] = None,
) -> None:
    """Run an offline Stripe, with API, pay page and signed webhooks. With ENV=local only.

    It needs no account at Stripe. It accepts any API key that begins with sk_test_. Ctrl-C stops
    it.
    """
    from src.cli import offline_stripe
    from src.cli.development import development_keys
    from src.offline_stripe import API_VERSION

    settings = get_settings()
    offline_stripe.refuse_outside_local(settings)
    listening = offline_stripe.listen(port)
    offline = offline_stripe.open_account(port, state_file)
    if webhook_url is not None:
        secret = webhook_secret or development_keys(settings).webhook_secret.get_secret_value()
        offline.set_endpoint(webhook_url, secret=secret.split(",")[0].strip())
    url = offline.account.public_url
    say(
        f"Offline Stripe ({API_VERSION})\n"
        f"  API        {url}  (STRIPE_API_BASE_URL={url} STRIPE_SECRET_KEY=sk_test_anything)\n"
        f"  Pay pages  {url}/c/pay/cs_test_…, a session's `url`; {url}/ lists them\n"
        f"  Webhooks   {webhook_url or 'none: give --webhook-url'}\n"
        f"  By hand    curl -d method=visa {url}/_offline/sessions/cs_test_…/pay\n"
        f"  Stripe CLI stripe trigger checkout.session.completed --api-base {url} "
        "--api-key sk_test_anything1234567\n"
        "Ctrl-C stops it.",
        err=True,
    )
    with suppress(KeyboardInterrupt):
        offline_stripe.server_of(offline, state_file).run(sockets=[listening])
