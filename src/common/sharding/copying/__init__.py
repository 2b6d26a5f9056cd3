"""Copies a whole database into groups of users, or out of them (decision 0069)."""
