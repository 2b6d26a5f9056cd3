"""What Stripe has listed is known by little memory."""

import gc
import tracemalloc
import weakref

import httpx

from src.common.http_clients import open_http_client
from src.common.stripe.listed_names import ListedNames


def test_what_was_added_is_there_and_nothing_else() -> None:
    """Also what is added after the first look."""
    names = ListedNames()
    assert "cs_0" not in names
    names.update(f"cs_{number}" for number in range(1_000))
    assert "cs_0" in names
    names.update(f"pi_{number}" for number in range(1_000))
    assert all(f"{kind}_{number}" in names for kind in ("cs", "pi") for number in range(1_000))
    assert not any(f"{kind}_{number}" in names for kind in ("cs", "pi") for number in (-1, 1_000))


def test_ten_bytes_a_name_are_kept() -> None:
    """However long the names are."""
    names = ListedNames()
    tracemalloc.start()
    try:
        names.update(f"cs_test_{number:050}" for number in range(10_000))
        assert "cs_test_" not in names
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 100_000


async def test_an_answer_ends_with_whoever_uses_it() -> None:
    """Without the collector: a page of Stripe's may have a megabyte."""

    async def answer(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=b"page")

    gc.disable()
    try:
        async with open_http_client(transport=httpx.MockTransport(answer)) as client:
            page = await client.get("http://stripe.test/")
            assert page.content == b"page"
            kept = weakref.ref(page)
            del page
            assert kept() is None
    finally:
        gc.enable()
