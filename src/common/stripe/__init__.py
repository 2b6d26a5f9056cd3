"""The one place that knows Stripe: its signatures, its wire format, the inbox of its events."""
