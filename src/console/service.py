"""What the console's pages ask of the service they are a part of."""

from typing import TYPE_CHECKING

from src.common.postgres.lagging_reads import Source

if TYPE_CHECKING:
    from fastapi import Request

    from src.common.credits.engine.engine import Engine
    from src.common.settings import Settings
    from src.common.stripe.gateway import Gateway


def settings_of(request: "Request") -> "Settings":
    """The settings that the service was started with."""
    settings: Settings = request.app.state.service.settings
    return settings


def source_of_lists(settings: "Settings") -> Source:
    """Which server answers lists and reports: what somebody acts on is the primary's always."""
    return Source.REPLICA if settings.database_replica_console else Source.PRIMARY


def engine_of(request: "Request") -> "Engine":
    """The batch engine of this process."""
    engine: Engine = request.app.state.service.ledger
    return engine


def gateway_of(request: "Request") -> "Gateway | None":
    """The way to Stripe; None where no key is configured."""
    gateway: Gateway | None = getattr(request.app.state.service, "gateway", None)
    return gateway
