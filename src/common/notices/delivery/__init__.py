"""Sends notices to their endpoints as Standard Webhooks 1.0, at least once, in order per user."""
