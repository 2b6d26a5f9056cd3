"""The batch engine: any number of callers, one database transaction for all who wait."""

from src.common.credits.engine.engine import Engine

__all__ = ["Engine"]
