"""`flashslides stripe …`: payments without Stripe, for a developer's machine."""

import json
from typing import Annotated

import typer
from sqlalchemy import select
from sqlalchemy.orm import Session

from src.cli.development import development_keys
from src.cli.output import AsJson, print_record
from src.cli.reach import run_operation
from src.common.accounts import operations as accounts
from src.common.exceptions import NotFound, Unavailable
from src.common.models.stripe_event import StripeEvent
from src.common.purchases.packages import PACKAGES, find_package
from src.common.settings import Settings, get_settings
from src.common.stripe import development
from src.common.stripe.signatures import sign

app = typer.Typer(help="Stripe: test payments (ENV=local).", no_args_is_help=True)

DEFAULT_URL = "http://127.0.0.1:8000"
TIMEOUT_SECONDS = 30
Url = Annotated[str, typer.Option(help="Where the service listens.")]


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
    except httpx.TransportError:
        raise Unavailable(
            f"Nothing answers at {url}; start the service with `flashslides serve`",
            "SERVICE_NOT_RUNNING",
        ) from None
    if response.is_success:
        return str(response.json()["status"])
    return f"HTTP {response.status_code}: {response.text}"
