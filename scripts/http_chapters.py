"""What the OpenAPI document does not say of the API: the order to read it in, and who may do what.

A test asks every operation with every kind of token, and does what the example shows.
"""

from dataclasses import dataclass

from src.common.accounts.api_keys import Scope


@dataclass(frozen=True)
class Access:
    """Who may use an operation."""

    text: str
    is_open: bool = False
    """Whether no token is needed."""
    users: str = "none"
    """Which users may: `none`, `own` (about themselves), `any`."""
    scopes: tuple[Scope, ...] = ()
    """Each of them is enough."""


@dataclass(frozen=True)
class Operation:
    """One operation, by method and path."""

    address: str
    access: Access


@dataclass(frozen=True)
class Chapter:
    """Operations that belong together."""

    title: str
    introduction: str
    operations: tuple[Operation, ...]


def _own_or(scope: Scope) -> Access:
    text = f"users, about themselves. Callers with the scope `{scope}`, about anybody."
    return Access(text, users="own", scopes=(scope,))


def _with(*scopes: Scope) -> Access:
    return Access(
        f"callers with the scope {' or '.join(f'`{it}`' for it in scopes)}.", scopes=scopes
    )


EVERYBODY = Access("everybody, without a token.", is_open=True)
A_USER = Access("a user, with their own token. API keys are refused.", users="any")
STRIPE = Access("Stripe: the signature takes the place of a token.", is_open=True)
A_SCRAPER = Access(
    "everybody. If `METRICS_TOKEN` is set, only who sends it as the bearer token.", is_open=True
)

_USER = "/api/v1/user/{user_id}"
_CREDITS = f"{_USER}/credits"
_HOLD = f"{_CREDITS}/holds/{{seq}}"

CHAPTERS = (
    Chapter(
        "Users",
        "A user signs in with a token of your identity provider. The first sign-in creates the "
        "user here.",
        (
            Operation("POST /api/v1/authenticate-jwt", A_USER),
            Operation(f"GET {_USER}", _own_or(Scope.USERS_READ)),
            Operation("PATCH /api/v1/update_profile", A_USER),
        ),
    ),
    Chapter(
        "Buying and refunds",
        "A purchase goes through these in this order: list the packages, start a checkout, send "
        "the customer to its `url`, and ask on the success page what became of it. "
        "[How a payment becomes credits](../explanation/payments.md) tells the whole way.",
        (
            Operation("GET /api/v1/packages", EVERYBODY),
            Operation("POST /api/v1/create-checkout-session", A_USER),
            Operation("POST /api/v1/checkout-session/{session_id}/confirm", A_USER),
            Operation(f"GET {_USER}/transactions", _own_or(Scope.USERS_READ)),
            Operation(
                "POST /api/v1/transactions/{transaction_id}/refund", _with(Scope.PAYMENTS_REFUND)
            ),
        ),
    ),
    Chapter(
        "Reading credits",
        "The words are explained in the [glossary](glossary.md), the rules on the "
        "[ledger's page](../explanation/ledger.md).",
        tuple(
            Operation(f"GET {path}", _own_or(Scope.CREDITS_READ))
            for path in (
                _CREDITS,
                f"{_CREDITS}/entries",
                f"{_CREDITS}/explain",
                f"{_CREDITS}/stream",
                f"{_CREDITS}/holds",
                _HOLD,
            )
        ),
    ),
    Chapter(
        "Using and giving credits",
        "Each of these needs an `Idempotency-Key`: in the header, or, in a batch, in each item. "
        "With `dry_run=true` no key is needed, nothing is done, and the answer is a "
        "[PreviewOut](#previewout) in place of a [ResultOut](#resultout).",
        (
            Operation(f"POST {_CREDITS}/spend", _with(Scope.CREDITS_SPEND)),
            Operation(f"POST {_CREDITS}/grant", _with(Scope.CREDITS_GRANT)),
            Operation(f"POST {_CREDITS}/adjust", _with(Scope.CREDITS_GRANT)),
            Operation(
                f"POST {_CREDITS}/entries/{{seq}}/reverse",
                _with(Scope.CREDITS_SPEND, Scope.CREDITS_GRANT),
            ),
            Operation(
                "POST /api/v1/credits/batch", _with(Scope.CREDITS_SPEND, Scope.CREDITS_GRANT)
            ),
        ),
    ),
    Chapter(
        "Holds",
        "A hold sets credits aside before the work. After the work a capture keeps those that were "
        "used. Keys and `dry_run` are as [above](#using-and-giving-credits). An endpoint of your "
        "own FastAPI application does all this with "
        "[`Depends(charge(…))`](../how-to/charge-an-endpoint.md).",
        (
            Operation(f"POST {_CREDITS}/holds", _with(Scope.CREDITS_SPEND)),
            *(
                Operation(f"POST {_HOLD}/{verb}", _with(Scope.CREDITS_SPEND))
                for verb in ("capture", "release", "renew")
            ),
        ),
    ),
    Chapter(
        "Reports",
        "Figures of the whole ledger, for finance. [Reports](reports.md) has every column, and "
        "[this page](../how-to/report-and-reconcile-figures.md) what to do with them.",
        (Operation("GET /api/v1/reports/{name}", _with(Scope.REPORTS_READ)),),
    ),
    Chapter(
        "Stripe's webhook",
        "The address to enter at Stripe. `/api/v1/stripe-webhook` is the same endpoint. Both may "
        "end in a slash. What each `status` of the answer means stands "
        "[here](../explanation/payments.md).",
        (Operation("POST /api/v1/webhook", STRIPE),),
    ),
    Chapter(
        "Operating the service",
        "For load balancers, orchestrators and Prometheus. These are not below `/api/v1`.",
        (
            Operation("GET /livez", EVERYBODY),
            Operation("GET /readyz", EVERYBODY),
            Operation("GET /metrics", A_SCRAPER),
        ),
    ),
)

EXAMPLE_INSTANT = "2026-11-30T09:00:00.000000Z"
EXAMPLE_BODY = {"amount": 10, "reference": "deck 7"}
EXAMPLE_ANSWER = {
    "seq": 2,
    "kind": "spend",
    "amount": -10,
    "captured": None,
    "balance": 490,
    "created_at": EXAMPLE_INSTANT,
    "expires_at": None,
}

INTRODUCTION = """# The HTTP API

A service takes 10 of a user's 500 credits:

```console
$ curl http://localhost:8000/api/v1/user/$USER_ID/credits/spend \\
    -H "Authorization: Bearer $API_KEY" -H "Idempotency-Key: deck-7" \\
    --json '{body}'
{answer}
```

This page lists every operation. It is made from the OpenAPI document, which a running service has
at `/openapi.json`. The same service has the operations to try out at `/docs`.

## What holds for all of them

**Tokens.** `Authorization: Bearer …` carries one of two tokens:

- a user's token, as your identity provider signs it (a JWT, ES256);
- an API key of a service, `fsk_…`. `flashslides api-key create` makes one with scopes.

"Callers with the scope" below are API keys with that scope, and users of type `admin`. Admins have
every scope.

**Bodies.** Bodies are JSON objects. An unknown field is an error (422), and so is a text where a
number is asked for. Amounts of credits are whole credits. Amounts of money are in the currency's
smallest unit, such as cents. An instant is text with a time zone, `2030-01-31T12:00:00Z`. Answers
have instants in UTC.

**Idempotency keys.** `Idempotency-Key` is your name for one request. The same request under the
same key is done once. When it is sent again it gets the first answer, with the header
`Idempotent-Replayed: true`. Another request under the same key is refused
(`IDEMPOTENCY_KEY_REUSED`), and nothing is done.

**Pages.** A list has `items` and `next_cursor`. Send `next_cursor` as `cursor` to get the next
page. It is null on the last page.

**A replica.** With `read=replica` a read replica may answer, if there is one. `X-Read-From` says
who did, `X-Read-As-Of` and `X-Read-Lag-Seconds` as of when. Balances and writes answer
`X-Read-After`; sent back, it keeps a replica from answering that has less
([more](../how-to/read-from-a-replica.md)).

**Errors.** Every error has the [same body](errors.md). Below each operation a table names the
`error_type` values of each status, and [Errors](errors.md) says what each means. The following can
be the answer to any request, so those tables leave them out:

| status | `error_type` | meaning |
|---|---|---|
{always}
**HEAD.** Wherever `GET` works, `HEAD` does: the same headers, no body.
"""
