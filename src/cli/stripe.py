"""`flashslides stripe …`: payments without Stripe, for a developer's machine."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer
from pydantic import BaseModel, ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session

from src.cli.development import development_keys
from src.cli.output import AsJson, print_record, print_rows
from src.cli.reach import run_operation
from src.common.accounts import operations as accounts
from src.common.exceptions import BadRequest, NotFound, Unavailable
from src.common.models.stripe_event import StripeEvent
from src.common.purchases.packages import PACKAGES, find_package
from src.common.purchases.unmatched import open_unmatched_payments
from src.common.settings import Settings, get_settings
from src.common.stripe import development, inbox
from src.common.stripe.offline import API_VERSION, DEFAULT_PORT
from src.common.stripe.signatures import sign

app = typer.Typer(
    help="Stripe: its events, payments nobody was credited for, test payments.",
    no_args_is_help=True,
)
events = typer.Typer(help="The inbox: every event Stripe sent.", no_args_is_help=True)
unmatched = typer.Typer(help="Payments nobody was credited for.", no_args_is_help=True)
app.add_typer(events, name="events")
app.add_typer(unmatched, name="unmatched")

DEFAULT_URL = "http://127.0.0.1:8000"
TIMEOUT_SECONDS = 30
Limit = Annotated[int, typer.Option(min=1, max=1_000, help="How many at most.")]
Url = Annotated[str, typer.Option(envvar="FLASHSLIDES_URL", help="Where the service listens.")]


@app.command("serve")
def serve_offline(
    *,
    port: Annotated[
        int, typer.Option(min=1, max=65535, help="The port to listen on, on this machine only.")
    ] = DEFAULT_PORT,
    webhook_url: Annotated[
        str | None, typer.Option(help="Where its webhooks go; nowhere if it is not given.")
    ] = None,
    webhook_secret: Annotated[
        str | None,
        typer.Option(
            envvar="STRIPE_WEBHOOK_SECRET",
            help="What signs them; by default what `flashslides serve` accepts on this machine.",
        ),
    ] = None,
    state_file: Annotated[
        Path | None, typer.Option(help="Keep everything in this file, and take it up again.")
    ] = None,
) -> None:
    """Run an offline Stripe: API, pay page and signed webhooks, without an account (ENV=local).

    Any key that begins with sk_test_ will do. Ctrl-C stops it.
    """
    from src.cli import offline_stripe

    settings = get_settings()
    offline_stripe.refuse_outside_local(settings)
    listening = offline_stripe.listen(port)
    offline = offline_stripe.open_account(port, state_file)
    if webhook_url is not None:
        secret = webhook_secret or development_keys(settings).webhook_secret.get_secret_value()
        offline.set_endpoint(webhook_url, secret=secret.split(",")[0].strip())
    url = offline.account.public_url
    typer.echo(
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


@app.command("pay")
def pay(
    email: Annotated[str, typer.Argument(help="Who buys.")],
    *,
    package: Annotated[
        str, typer.Option(help=f"One of {', '.join(each.package_id for each in PACKAGES)}.")
    ] = "500",
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Send the webhook that Stripe would send for a paid checkout, signed (ENV=local)."""
    settings = get_settings()
    sold = find_package(package)
    if sold is None:
        raise NotFound(f"We sell no package {package}", "PACKAGE_NOT_FOUND")
    user = run_operation(settings, lambda session: accounts.find_user_by_email(session, email))
    if user is None:
        raise NotFound(f"No user has the e-mail {email}", "USER_NOT_FOUND")
    session = development.checkout_session(user_id=user.user_id, package=sold, env=settings.env)
    event = development.event(session)
    answer = _deliver(settings, json.dumps(event), url)
    print_record(
        {"event_id": event["id"], "session_id": session["id"], "answer": answer}, as_json=as_json
    )


@app.command("resend")
def resend(
    event_id: Annotated[str, typer.Argument(help="`evt_…`, as `stripe pay` printed it.")],
    *,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Send a stored event again, byte for byte, newly signed (ENV=local)."""
    settings = get_settings()

    def stored_body(session: Session) -> bytes | None:
        return session.scalars(
            select(StripeEvent.body).where(StripeEvent.event_id == event_id)
        ).one_or_none()

    body = run_operation(settings, stored_body)
    if body is None:
        raise NotFound(f"The inbox has no event {event_id}", "EVENT_NOT_FOUND")
    print_record(
        {"event_id": event_id, "answer": _deliver(settings, body.decode(), url)}, as_json=as_json
    )


@events.command("list")
def list_events(*, limit: Limit = 20, as_json: AsJson = False) -> None:
    """List the newest events and what became of them."""
    stored = run_operation(
        get_settings(), lambda session: inbox.events_matching(session, limit=limit)
    )
    rows = [
        {
            "event_id": event.event_id,
            "type": event.type,
            "status": event.status,
            "attempts": event.attempts,
            "received_at": event.received_at,
            "error": event.error,
        }
        for event in stored
    ]
    print_rows(rows, as_json=as_json, empty="The inbox is empty.")


@unmatched.command("list")
def list_unmatched(*, limit: Limit = 20, as_json: AsJson = False) -> None:
    """List the open ones, oldest first, with what is wrong."""
    payments = run_operation(
        get_settings(), lambda session: open_unmatched_payments(session, limit)
    )
    rows = [
        {
            "stripe_object_id": payment.stripe_object_id,
            "reason": payment.reason,
            "explanation": payment.explanation,
            "event_id": payment.event_id,
            "created_at": payment.created_at,
        }
        for payment in payments
    ]
    print_rows(rows, as_json=as_json, empty="Every payment has been credited or resolved.")


def _deliver(settings: Settings, body: str, url: str) -> str:
    """POST a signed event to the running service; the answer's status."""
    import httpx

    secrets = settings.stripe_webhook_secrets
    secret = secrets[0] if secrets else development_keys(settings).webhook_secret.get_secret_value()
    try:
        response = httpx.post(
            f"{url}/api/v1/webhook",
            content=body,
            headers={"Stripe-Signature": sign(body, secret), "Content-Type": "application/json"},
            timeout=TIMEOUT_SECONDS,
        )
    except (httpx.TransportError, httpx.InvalidURL):
        raise Unavailable(
            f"Nothing answers at {url}; start the service with `flashslides serve`",
            "SERVICE_NOT_RUNNING",
        ) from None
    if response.is_client_error:
        raise BadRequest(f"HTTP {response.status_code}: {response.text}", "EVENT_REFUSED")
    try:
        return WebhookAnswer.model_validate_json(response.content).status
    except ValidationError:
        raise Unavailable(
            f"HTTP {response.status_code}: {response.text}", "EVENT_NOT_PROCESSED"
        ) from None


class WebhookAnswer(BaseModel):
    """What the service says became of an event."""

    status: inbox.EventAnswer
