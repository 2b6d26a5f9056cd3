"""A stateful Stripe for development and tests; `server.py` begins with how a test uses it.

`server.OfflineStripe` is all of it in memory, no I/O: Stripe's API (`handle`), and what customers,
banks and time do (`pay`, `open_dispute`, `advance` …). `client.InProcessClient` puts Stripe's
library on it without a network; `sender` delivers its webhooks; `src/cli/offline_stripe.py` serves
it over HTTP.
"""

from src.offline_stripe.account import API_VERSION, Object, State
from src.offline_stripe.cards import METHODS
from src.offline_stripe.client import InProcessClient
from src.offline_stripe.errors import StripeError
from src.offline_stripe.server import DEFAULT_PORT, OfflineStripe, load_state
from src.offline_stripe.trouble import Trouble, TroubleKind
from src.offline_stripe.webhooks import Delivery, Faults, Secret
from src.offline_stripe.wire import Request, Response

__all__ = [
    "API_VERSION",
    "DEFAULT_PORT",
    "METHODS",
    "Delivery",
    "Faults",
    "InProcessClient",
    "Object",
    "OfflineStripe",
    "Request",
    "Response",
    "Secret",
    "State",
    "StripeError",
    "Trouble",
    "TroubleKind",
    "load_state",
]
