"""Our application with a few routes beside its own, for the same server and the same middleware.

uvicorn benchmarks.http_app:app      (started by benchmarks/contestants/http.py)
"""

import datetime as dt
import uuid
from typing import Annotated

from fastapi import APIRouter, Header, Request

from benchmarks.calls.document_orm import update_credits
from src.api.src.main import create_app
from src.api.src.schemas.credits import GrantIn, ResultOut, SpendIn
from src.api.src.schemas.webhooks import WebhookOut
from src.common.stripe.inbox import EventAnswer

router = APIRouter(prefix="/benchmark")
_NOW = dt.datetime.now(dt.UTC)


def _result(kind: str, amount: int) -> ResultOut:
    return ResultOut(
        seq=1, kind=kind, amount=amount, captured=None, balance=0, created_at=_NOW, expires_at=None
    )


@router.post("/user/{user_id}/echo")
async def echo(
    user_id: uuid.UUID, body: SpendIn, idempotency_key: Annotated[str, Header()]
) -> ResultOut:
    """Parse what a spend sends, check nothing else, answer what a spend answers."""
    del user_id, idempotency_key
    return _result("spend", -body.amount)


@router.post("/user/{user_id}/document/spend")
async def document_spend(user_id: uuid.UUID, body: SpendIn) -> ResultOut:
    """Take credits as the document updates them: no key, no authentication."""
    await update_credits(user_id, -body.amount)
    return _result("spend", -body.amount)


@router.post("/user/{user_id}/document/grant")
async def document_grant(user_id: uuid.UUID, body: GrantIn) -> ResultOut:
    """Give credits the same way."""
    await update_credits(user_id, body.amount)
    return _result("grant", body.amount)


@router.post("/webhook")
async def webhook_echo(request: Request) -> WebhookOut:
    """Read what Stripe sends, check nothing, answer what the webhook answers."""
    await request.body()
    return WebhookOut(status=EventAnswer.PROCESSED)


app = create_app()
app.include_router(router)
