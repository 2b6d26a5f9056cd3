"""`docs/offline-stripe.md`: its blocks are run as they stand, against one that is served."""

import re
import subprocess
from typing import TYPE_CHECKING, Any

import stripe

from tests.offline_stripe.shop import Shop
from tests.offline_stripe.test_over_http import (
    PAGE,
    Served,
    client,
    served,
    the_library_s_own_warning,
)

if TYPE_CHECKING:
    from src.offline_stripe import OfflineStripe

__all__ = ["client", "served"]
ADDRESS = "http://127.0.0.1:12111"
PYTHON: list[str] = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
BASH: list[str] = re.findall(r"^```bash\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def run(block: str, **environment: str) -> str:
    """A block of bash; what it printed."""
    done = subprocess.run(
        ["/bin/bash", "-euo", "pipefail", "-c", block],
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "NO_PROXY": "127.0.0.1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def block_with(words: str) -> str:
    """The one block of bash in which these words are."""
    [found] = [block for block in BASH if words in block]
    return found


def test_each_block_of_bash_is_run_by_some_test() -> None:
    """Here, by `test_over_http.py`, or read as a command by `tests/document/test_blocks.py`."""
    here = {block_with('"$SESSION_URL"'), block_with("drop=1")}
    over_http = {block_with("stripe trigger"), block_with("v1/promotion_codes")}
    as_commands = {
        block for block in BASH if re.search(r"^(uv run )?flashslides ", block, re.MULTILINE)
    }
    assert here | over_http | as_commands == set(BASH)


def test_the_library_is_pointed_at_it(served: Served) -> None:
    """The client of the page lists what is there."""
    [made, _] = PYTHON
    names: dict[str, Any] = {"stripe": stripe}
    exec(f"client = {made.replace(ADDRESS, served.url)}", names)  # noqa: S102  the page's own
    assert names["client"].v1.checkout.sessions.list().data == []


@the_library_s_own_warning
def test_a_program_pays(served: Served, client: stripe.StripeClient) -> None:
    """With one `curl`, as the page says."""
    session = Shop(served.offline, client).offer()
    run(block_with('"$SESSION_URL"'), SESSION_URL=str(session.url))
    assert served.offline.get(session.id)["payment_status"] == "paid"


def test_webhooks_are_lost_when_asked_for(served: Served) -> None:
    """Every one, from then on."""
    run(block_with("drop=1").replace(ADDRESS, served.url))
    assert served.offline.webhooks.faults.drop == 1


def test_a_test_buys_without_a_network() -> None:
    """The page's lines make a paid session, and webhooks that are answered."""
    [_, in_process] = PYTHON
    names: dict[str, Any] = {}
    exec(in_process, names)  # noqa: S102  the page's own
    offline: OfflineStripe = names["offline"]
    assert offline.get(names["session"].id)["payment_status"] == "paid"
    assert names["delivery"] is not None
    assert list(offline.webhooks.due()) == []
