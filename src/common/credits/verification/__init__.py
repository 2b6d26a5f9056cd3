"""Verifies users' books by replaying their journal through the rules (decision 0021)."""
