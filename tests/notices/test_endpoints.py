"""Endpoints: what may be one, and what their secrets show to whom."""

import base64
import datetime as dt
import uuid
from typing import Any

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from src.common.exceptions import Conflict, ExceptionWithErrorType, Invalid, NotFound
from src.common.models.credit_notice import NoticeType
from src.common.models.notice_endpoint import NoticeEndpoint, NoticeSecret
from src.common.notices import endpoints
from src.common.notices.endpoints import IssuedSecret
from src.common.notices.rules import Subscription, subscription

URL = "https://example.com/hook?of=ledger"
ALL_BUT_SOME = tuple(
    each
    for each in NoticeType
    if each not in {NoticeType.SPENT, NoticeType.LOW, NoticeType.EXPIRING}
)


def wanted(**changes: Any) -> Subscription:
    """What an endpoint is to be, right but for `changes`."""
    right: dict[str, Any] = {
        "url": URL,
        "types": None,
        "low_threshold": None,
        "expiring_lead_seconds": None,
        "is_local": False,
    }
    return subscription(**{**right, **changes})


def create(db: Session, **changes: Any) -> IssuedSecret:
    """An endpoint."""
    return endpoints.create_endpoint(db, wanted(**changes))


def test_without_types_it_is_all_but_spends_and_what_needs_a_figure() -> None:
    """`spent` is off unless asked for; `low` and `expiring` come with their figures."""
    assert wanted().types == ALL_BUT_SOME
    assert set(wanted(low_threshold=5).types) == {*ALL_BUT_SOME, NoticeType.LOW}
    with_both = wanted(low_threshold=5, expiring_lead_seconds=3600)
    assert set(with_both.types) == set(NoticeType) - {NoticeType.SPENT}


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("url", {"url": "http://example.com/hook"}),
        ("url", {"url": "ftp://example.com/hook", "is_local": True}),
        ("url", {"url": "example.com/hook"}),
        ("url", {"url": "https:///hook"}),
        ("url", {"url": "https://ada:secret@example.com/hook"}),
        ("url", {"url": "https://ada@example.com/hook"}),
        ("url", {"url": "https://@example.com/hook"}),
        ("url", {"url": "https://example.com:0/hook"}),
        ("url", {"url": "https://example.com:65536/hook"}),
        ("url", {"url": "https://[::1/hook"}),
        ("url", {"url": "https://example.com/hook#part"}),
        ("url", {"url": "https://example.com/ho ok"}),
        ("url", {"url": "https://example.com\\@other.example/hook"}),
        ("url", {"url": "https://example.com/h\nook"}),
        ("url", {"url": "https://exämple.com/hook"}),
        ("url", {"url": f"https://example.com/{'a' * 2000}"}),
        ("url", {"url": ""}),
        ("types", {"types": []}),
        ("types", {"types": ["credits.lost"]}),
        ("low_threshold", {"types": ["credits.low"]}),
        ("low_threshold", {"types": ["credits.spent"], "low_threshold": 5}),
        ("low_threshold", {"low_threshold": 0}),
        ("low_threshold", {"low_threshold": 2**31}),
        ("low_threshold", {"low_threshold": True}),
        ("expiring_lead_seconds", {"types": ["credits.expiring"]}),
        ("expiring_lead_seconds", {"types": ["credits.spent"], "expiring_lead_seconds": 3600}),
        ("expiring_lead_seconds", {"expiring_lead_seconds": 3599}),
        ("expiring_lead_seconds", {"expiring_lead_seconds": 366 * 86_400 + 1}),
    ],
)
def test_what_is_wrong_is_refused_by_its_name(field: str, wrong: dict[str, Any]) -> None:
    """And nothing is made."""
    with pytest.raises(Invalid) as refused:
        wanted(**wrong)
    assert refused.value.error_type == "VALIDATION_ERROR"
    assert refused.value.details == {"field": field}
    assert "secret" not in refused.value.message


def test_an_address_without_encryption_is_for_one_s_own_machine() -> None:
    """With ENV=local alone."""
    assert wanted(url="http://localhost:8080/hook", is_local=True).url.startswith("http://")


def test_a_secret_is_shown_once_and_nowhere_else(db: Session) -> None:
    """`whsec_` and 32 random bytes; in no repr, no dict of a row, no list."""
    made = create(db)
    plain = base64.b64decode(made.secret.removeprefix("whsec_"), validate=True)
    assert endpoints.secrets_of(db, made.endpoint.endpoint_id) == [plain]
    assert len(plain) == 32
    [row] = db.scalars(select(NoticeSecret))
    assert "secret" not in dict(row)
    [listed] = endpoints.list_endpoints(db)
    shown = f"{made!r} {row!r} {dict(row)} {listed!r} {dict(listed)}"
    assert made.secret[6:] not in shown
    assert plain.hex() not in shown
    assert str(plain) not in shown
    assert create(db).secret != made.secret


def test_secrets_overlap_for_as_long_as_asked(db: Session) -> None:
    """The newest comes first; an older one ends by itself, or at once."""
    made = create(db)
    endpoint_id = made.endpoint.endpoint_id
    [first] = endpoints.secrets_of(db, endpoint_id)
    endpoints.rotate_secret(db, endpoint_id, overlap_seconds=60)
    [second, older] = endpoints.secrets_of(db, endpoint_id)
    assert older == first
    past = func.clock_timestamp() - dt.timedelta(seconds=1)
    db.execute(update(NoticeSecret).where(NoticeSecret.secret == first).values(expires_at=past))
    assert endpoints.secrets_of(db, endpoint_id) == [second]
    endpoints.rotate_secret(db, endpoint_id, overlap_seconds=0)
    [third] = endpoints.secrets_of(db, endpoint_id)
    assert third not in {first, second}
    assert db.scalar(select(func.count()).select_from(NoticeSecret)) == 1


def test_a_longer_overlap_prolongs_no_older_secret(db: Session) -> None:
    """What was to end within the minute ends then."""
    endpoint_id = create(db).endpoint.endpoint_id
    endpoints.rotate_secret(db, endpoint_id, overlap_seconds=60)
    ending = select(NoticeSecret.expires_at).order_by(NoticeSecret.expires_at).limit(1)
    before = db.scalar(ending)
    endpoints.rotate_secret(db, endpoint_id, overlap_seconds=86_400)
    assert db.scalar(ending) == before
    endpoints.rotate_secret(db, endpoint_id, overlap_seconds=1)
    after = db.scalar(ending)
    assert before is not None
    assert after is not None
    assert after < before


def test_secrets_and_endpoints_are_bounded(db: Session) -> None:
    """Each secret is a signature a request, each endpoint a look of every write."""
    endpoint_id = create(db).endpoint.endpoint_id
    for _ in range(endpoints.SECRETS_MAX - 1):
        endpoints.rotate_secret(db, endpoint_id)
    with pytest.raises(Conflict, match="5 secrets") as refused:
        endpoints.rotate_secret(db, endpoint_id)
    assert refused.value.error_type == "TOO_MANY_NOTICE_SECRETS"
    endpoints.rotate_secret(db, endpoint_id, overlap_seconds=0)
    for _ in range(endpoints.ENDPOINTS_MAX - 1):
        create(db)
    with pytest.raises(Conflict, match="no more than 20") as refused:
        create(db)
    assert refused.value.error_type == "TOO_MANY_NOTICE_ENDPOINTS"


@pytest.mark.parametrize("overlap_seconds", [-1, 30 * 86_400 + 1])
def test_an_overlap_has_bounds(db: Session, overlap_seconds: int) -> None:
    """A month at most."""
    endpoint_id = create(db).endpoint.endpoint_id
    with pytest.raises(Invalid) as refused:
        endpoints.rotate_secret(db, endpoint_id, overlap_seconds=overlap_seconds)
    assert refused.value.details == {"field": "overlap_seconds"}


def test_an_update_changes_what_is_given(db: Session) -> None:
    """Figures go with their types: what is no longer told needs none."""
    endpoint_id = create(db, low_threshold=5).endpoint.endpoint_id

    def change(**changes: Any) -> NoticeEndpoint:
        return endpoints.update_endpoint(db, endpoint_id, is_local=False, **changes)

    assert change(url="https://example.com/other").low_threshold == 5
    assert change(low_threshold=9).low_threshold == 9
    spent = change(types=["credits.spent"])
    assert (spent.types, spent.low_threshold) == (["credits.spent"], None)
    assert spent.url == "https://example.com/other"
    with pytest.raises(Invalid) as refused:
        change(low_threshold=9)
    assert refused.value.details == {"field": "low_threshold"}
    with pytest.raises(Invalid):
        change(types=["credits.low"])
    low = change(types=["credits.low"], low_threshold=3)
    assert (low.types, low.low_threshold) == (["credits.low"], 3)


def test_disabling_keeps_the_first_reason_until_it_is_enabled(db: Session) -> None:
    """Why and since when."""
    endpoint_id = create(db).endpoint.endpoint_id
    first = endpoints.disable_endpoint(db, endpoint_id, reason="It answered 410")
    since = first.disabled_at
    again = endpoints.disable_endpoint(db, endpoint_id, reason=endpoints.DISABLED_BY_HAND)
    assert (again.disabled_reason, again.disabled_at) == ("It answered 410", since)
    enabled = endpoints.enable_endpoint(db, endpoint_id)
    assert (enabled.disabled_reason, enabled.disabled_at) == (None, None)


def test_deleting_takes_the_secrets_along(db: Session) -> None:
    """Nothing is left that could sign."""
    endpoint_id = create(db).endpoint.endpoint_id
    endpoints.delete_endpoint(db, endpoint_id)
    assert endpoints.list_endpoints(db) == []
    assert endpoints.secrets_of(db, endpoint_id) == []
    assert db.scalar(select(func.count()).select_from(NoticeSecret)) == 0


def test_an_endpoint_that_is_not_there_is_said_so(db: Session) -> None:
    """By whatever is asked of it."""
    nobody = uuid.UUID(int=9)
    asked: list[Any] = [
        lambda: endpoints.get_endpoint(db, nobody),
        lambda: endpoints.update_endpoint(db, nobody, is_local=False),
        lambda: endpoints.rotate_secret(db, nobody),
        lambda: endpoints.disable_endpoint(db, nobody, reason="no"),
        lambda: endpoints.enable_endpoint(db, nobody),
        lambda: endpoints.delete_endpoint(db, nobody),
    ]
    for ask in asked:
        with pytest.raises(ExceptionWithErrorType) as refused:
            ask()
        assert isinstance(refused.value, NotFound)
        assert refused.value.error_type == "NOTICE_ENDPOINT_NOT_FOUND"
