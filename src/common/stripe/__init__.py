"""Everything about Stripe: signatures, wire format, inbox of events, checkout, refunds."""
