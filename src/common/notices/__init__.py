"""Telling others what happens to credits: endpoints, what they are told, and what becomes of it."""
