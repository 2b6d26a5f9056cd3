"""The batch engine: one database transaction for many callers at once."""

from src.common.credits.engine.engine import Engine

__all__ = ["Engine"]
