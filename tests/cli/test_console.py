"""`flashslides console link`: another way in, on a developer's machine alone."""

from urllib.parse import parse_qs, urlsplit

import pytest
from sqlalchemy.orm import Session

from src.common.settings import get_settings
from src.console import sessions
from src.console.permissions import Role
from tests.cli.conftest import RunAs, RunCommand


def come_in(db: Session, link: str) -> sessions.Known:
    """Follow a link."""
    [token] = parse_qs(urlsplit(link.strip()).query)["token"]
    secret = sessions.use_link(db, token)
    assert secret is not None, "it works once"
    assert sessions.use_link(db, token) is None
    known = sessions.find(db, secret)
    assert known is not None
    return known


def test_a_link_signs_in_whoever_it_names(
    db: Session, flashslides: RunCommand, run_as: RunAs
) -> None:
    """Who runs it, or another; two names are two persons, and one name is one."""
    run_as("ada")
    own, again = (come_in(db, flashslides("console", "link").out) for _ in range(2))
    assert (own.name, own.roles) == ("ada", frozenset({Role.ADMIN}))
    assert own.person_id == again.person_id
    link = flashslides("console", "link", "--name", "grace", "--role", "support", "--port", "81")
    assert link.out.startswith("http://localhost:81/console/sign-in/link?token=")
    grace = come_in(db, link.out)
    assert (grace.name, grace.roles) == ("grace", frozenset({Role.SUPPORT}))
    assert grace.person_id != own.person_id


def test_a_deployment_has_no_links(
    flashslides: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """People sign in at the identity provider."""
    monkeypatch.setenv("ENV", "staging")
    monkeypatch.setenv("DATABASE_PASSWORD", "not a default")
    get_settings.cache_clear()
    refused = flashslides("console", "link")
    assert (refused.exit_code, "ENV=local" in refused.err) == (4, True)
    assert flashslides("console", "link", "--name", " ").exit_code != 0
