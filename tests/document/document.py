"""The document as its tests read it: fenced blocks, and a way to run one exactly as written."""

import ast
import re
import uuid
from inspect import CO_COROUTINE
from pathlib import Path
from textwrap import indent
from types import FunctionType
from typing import TYPE_CHECKING, Any, cast

import structlog
from fastapi import APIRouter, Depends
from sqlalchemy import (
    Boolean,
    Column,
    DateTime,
    Enum,
    ForeignKey,
    Integer,
    String,
    create_engine,
    func,
    select,
)
from sqlalchemy.dialects.postgresql import JSONB, UUID
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session, declarative_base, relationship

from src.common.async_database import get_async_db
from src.common.database import get_db
from src.common.exceptions import ExceptionWithErrorType
from src.common.models.transaction import Transaction
from src.common.models.user import User

if TYPE_CHECKING:
    from collections.abc import Coroutine

REPOSITORY = Path(__file__).resolve().parents[2]
DOCUMENT = REPOSITORY / "docs" / "database-architecture.md"
TEXT = DOCUMENT.read_text(encoding="utf-8")

# Every block of Python in the document, by a piece of text that only it holds.
SNIPPETS = {
    "the URL": 'DATABASE_URL = f"',
    "the sync pool": "\nengine = create_engine(",
    "the async pool": "async_engine = create_async_engine(",
    "User": "class User(Base):",
    "Transaction": "class Transaction(Base):",
    "get_user_profile": "def get_user_profile(",
    "GET /user/{user_id}": '@router.get("/user/{user_id}")',
    "update_credits": "async def update_credits(",
    "POST /webhook": "async def handle_webhook():",
    "a locked row": "# This locks the row until transaction completes",
    "several operations": "# Both operations commit together",
    "idempotency": "# Already processed - idempotent behavior",
    "JSONB updates": "# SQLAlchemy way",
    "JSONB queries": "# Find users with marketing consent",
    "start-up": "# Initialize sync engine",
    "create_all": "# Create all tables defined in models",
    "a migration": '"""add user bio field',
    "one commit for all steps": "async with db.begin():\n    user.credits_balance += 100",
    "lock before changing": "user = result.scalar_one_or_none()\nuser.credits_balance += 100",
    "check for None": 'raise ExceptionWithErrorType("User not found", "USER_NOT_FOUND")\nuser.',
    "async in async": "result = await db.execute(select(User))",
    "closed sessions": "# Or with context manager",
    "indexed columns": "unique=True, nullable=False, index=True)\nstripe_customer_id",
    "flexible schema": "# Instead of:",
}

# The document's "Bad" blocks: nobody is meant to run them.
BAD_SNIPPETS = (
    "# If this fails, credits were already added!",
    "# Race condition!",
    "# Crashes if user is None!",
    "# Blocking sync call in async context!",
    "# Forgot to close - connection leak!",
)


def blocks(language: str) -> list[str]:
    """The document's fenced blocks of one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def source_of(snippet: str) -> str:
    """The one block of Python known as `snippet`, letter by letter."""
    [source] = [block for block in blocks("python") if SNIPPETS[snippet] in f"\n{block}"]
    return source


def run(snippet: str, *, filling: dict[str, str] | None = None, **given: Any) -> dict[str, Any]:
    """Run a block as it stands in the document; its names afterwards.

    `filling` says what stands where the document wrote `...`, `given` names what the block uses.
    """
    names = {**_names_used(), **given}
    exec(compile(_filled(snippet, filling), str(DOCUMENT), "exec"), names)  # noqa: S102  the document
    return names


def returned(snippet: str, *, filling: dict[str, str] | None = None, **given: Any) -> Any:
    """Run a block that returns, as the body of a function; what it returned."""
    body = indent(_filled(snippet, filling), "    ")
    names = {**_names_used(), **given}
    exec(compile(f"def body():\n{body}", str(DOCUMENT), "exec"), names)  # noqa: S102  the document
    return names["body"]()


async def run_async(
    snippet: str, *, filling: dict[str, str] | None = None, **given: Any
) -> dict[str, Any]:
    """As `run`, for a block that awaits."""
    names = {**_names_used(), **given}
    code = compile(
        _filled(snippet, filling), str(DOCUMENT), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    )
    assert code.co_flags & CO_COROUTINE, f"{snippet} awaits nothing"
    await cast("Coroutine[Any, Any, None]", FunctionType(code, names)())
    return names


def _filled(snippet: str, filling: dict[str, str] | None) -> str:
    source = source_of(snippet)
    for placeholder, code in (filling or {}).items():
        assert placeholder in source
        source = source.replace(placeholder, code)
    return source


def _names_used() -> dict[str, Any]:
    """What the document's blocks use without importing it, or import a few blocks earlier."""
    return {
        "Base": declarative_base(),
        "Boolean": Boolean,
        "Column": Column,
        "DateTime": DateTime,
        "Depends": Depends,
        "Enum": Enum,
        "ExceptionWithErrorType": ExceptionWithErrorType,
        "ForeignKey": ForeignKey,
        "Integer": Integer,
        "IntegrityError": IntegrityError,
        "JSONB": JSONB,
        "Session": Session,
        "String": String,
        "Transaction": Transaction,
        "UUID": UUID,
        "User": User,
        "create_async_engine": create_async_engine,
        "create_engine": create_engine,
        "func": func,
        "get_async_db": get_async_db,
        "get_db": get_db,
        "logger": structlog.get_logger("document"),
        "relationship": relationship,
        "router": APIRouter(),
        "select": select,
        "uuid": uuid,
    }
