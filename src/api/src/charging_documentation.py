"""Adds to the OpenAPI document what endpoints that charge may answer."""

from copy import deepcopy
from typing import Any

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import iter_route_contexts
from fastapi.utils import deep_dict_update

from src.api.src.charging import Charge
from src.api.src.errors import AUTHENTICATED, EVERYWHERE, ErrorBody, error_responses

CHARGED = (
    *EVERYWHERE,
    *AUTHENTICATED,
    "USER_NOT_FOUND",
    "INSUFFICIENT_CREDITS",
    "IDEMPOTENCY_KEY_REUSED",
    "REQUEST_IN_PROGRESS",
    "ALREADY_CHARGED",
    "TOO_MANY_HOLDS",
)
_REFERENCE = "#/components/schemas/{model}"


def document_charges(app: FastAPI) -> None:
    """Have the document of `app` say of every endpoint that charges what its charge may answer.

    A dependency's parameters FastAPI documents by itself, its refusals it cannot know.
    """
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        document = plain()
        for route in iter_route_contexts(app.routes):
            dependant: Dependant | None = getattr(route.original_route, "dependant", None)
            if dependant is None or not _is_charged(route.dependant):
                continue
            operations = document["paths"].get(route.path_format, {})
            for method in route.methods or ():
                if operation := operations.get(method.lower()):
                    _add_responses(operation["responses"])
                    _add_schemas(document)
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's own way to extend it


def _is_charged(dependant: Dependant) -> bool:
    return any(isinstance(it.call, Charge) or _is_charged(it) for it in dependant.dependencies)


def _add_responses(responses: dict[str, Any]) -> None:
    """Add ours beneath what the endpoint says itself, but for the framework's own 422."""
    for status, response in error_responses(*CHARGED).items():
        ours = deepcopy({name: value for name, value in response.items() if name != "model"})
        own = responses.get(str(status), {})
        if "HTTPValidationError" not in str(own):
            deep_dict_update(ours, own)
        responses[str(status)] = ours


def _add_schemas(document: dict[str, Any]) -> None:
    schema = ErrorBody.model_json_schema(ref_template=_REFERENCE)
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for name, part in schema.pop("$defs").items():
        schemas.setdefault(name, part)
    schemas.setdefault("ErrorBody", schema)
