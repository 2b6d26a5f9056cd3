"""The API unit's code."""
