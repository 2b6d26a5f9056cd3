"""The page `docs/reference/http.md`: every operation of the API, from its OpenAPI document.

Own code, since no package fits: essentials-openapi prints JSON Schema where a reader wants a table
of fields, and mkdocs-openapi makes seventy pages of one API.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from scripts.http_chapters import CHAPTERS, EXAMPLE_ANSWER, EXAMPLE_BODY, INTRODUCTION, Operation
from scripts.json_types import Schema, named, type_of
from src.api.src.errors import ALWAYS, ERRORS

Document = Mapping[str, Any]

JSON = "application/json"
EVENTS = "text/event-stream"
SUCCESS_MAX = 399


def http_page(document: Document) -> str:
    """The whole page.

    Args:
        document: the application's OpenAPI document.
    """
    return _Page(document).text()


def operations_of(document: Document) -> dict[str, dict[str, Any]]:
    """Every operation by its method and path."""
    return {
        f"{method.upper()} {path}": operation
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    }


class _Page:
    def __init__(self, document: Document) -> None:
        self._schemas: Mapping[str, Schema] = document["components"]["schemas"]
        self._operations = operations_of(document)
        answers = (_answer(each) for each in self._operations.values())
        used = Counter(name for it in (*answers, *self._schemas.values()) for name in named(it))
        self._inline = {name for name, times in used.items() if times == 1}
        """Answers that only one place names are shown there."""
        self._objects: list[str] = []
        """What the rest of the page has to show, in the order it was named."""

    def text(self) -> str:
        chapters = "".join(
            f"\n## {chapter.title}\n\n{chapter.introduction}\n"
            + "".join(self._section(each) for each in chapter.operations)
            for chapter in CHAPTERS
        )
        return f"{_introduction()}{chapters}\n## Objects\n{''.join(self._all_objects())}"

    def _section(self, operation: Operation) -> str:
        told = self._operations[operation.address]
        parts = [
            f"\n### {told['summary']}\n\n`{operation.address}`\n\n{told['description']}\n",
            f"\n**Who may:** {operation.access.text}\n",
            self._parameters(told),
            self._body(told),
            self._answer(told),
        ]
        return "".join(parts)

    def _parameters(self, told: Schema) -> str:
        rows = "".join(map(self._parameter, told.get("parameters", ())))
        head = "\n| parameter | in | type | required | meaning |\n|---|---|---|---|---|\n"
        return head + rows if rows else ""

    def _parameter(self, said: Schema) -> str:
        given = self._type(said["schema"]).removesuffix(" or null").rstrip(",")  # null: not given
        return (
            f"| `{_name(said)}` | {said['in']} | {given} | {_needed(said)} | "
            f"{_line(said.get('description'))} |\n"
        )

    def _body(self, told: Schema) -> str:
        if "requestBody" not in told:
            return ""
        body = told["requestBody"]
        [name] = named(body["content"][JSON]["schema"]) or [""]
        if not name:
            return f"\n**Body:** {body['description']}\n"
        schema = self._schemas[name]
        need = "" if body.get("required") else " It may be left out."
        return f"\n**Body:** {_line(schema.get('description'))}{need}\n{self._fields(schema)}"

    def _answer(self, told: Schema) -> str:
        schema = _answer(told)
        names = named(schema)
        fields = ""
        if len(names) == 1 and names[0] in self._inline:
            said = self._schemas[names[0]]
            shown = _line(said.get("description"))
            fields = self._fields(said)
        else:
            shown = self._type(schema) if schema else _media_types(told)
        rows = "".join(_statuses(told["responses"]))
        return f"\n**Answer:** {shown}\n{fields}\n| status | `error_type` |\n|---|---|\n{rows}"

    def _fields(self, schema: Schema) -> str:
        if not schema.get("properties"):
            return ""
        required = schema.get("required", ())
        asks = set(schema["properties"]) != set(required)
        head = "\n| field | type | required | meaning |\n|---|---|---|---|\n"
        rows = (
            f"| `{name}` | {self._type(it)} | {_need(it, required=name in required)} | "
            f"{_line(_meaning(it))} |\n"
            if asks
            else f"| `{name}` | {self._type(it)} | {_line(_meaning(it))} |\n"
            for name, it in schema["properties"].items()
        )
        return (head if asks else "\n| field | type | meaning |\n|---|---|---|\n") + "".join(rows)

    def _type(self, schema: Schema) -> str:
        return type_of(schema, self._word)

    def _word(self, name: str) -> str:
        """A schema as a type: its words where it is an enumeration, else a link to its fields."""
        schema = self._schemas[name]
        if "properties" not in schema:
            return self._type(schema)
        if name not in self._objects:
            self._objects.append(name)
        return f"[{name}](#{name.lower()})"

    def _all_objects(self) -> Iterator[str]:
        done: set[str] = set()
        while rest := [name for name in self._objects if name not in done]:
            for name in rest:
                done.add(name)
                schema = self._schemas[name]
                said = _line(schema.get("description"))
                yield f"\n### {name}\n\n{said}\n{self._fields(schema)}"


def _introduction() -> str:
    always = "".join(f"| {ERRORS[it][0]} | `{it}` | {ERRORS[it][1]} |\n" for it in ALWAYS)
    return INTRODUCTION.format(
        body=json.dumps(EXAMPLE_BODY), answer=json.dumps(EXAMPLE_ANSWER, indent=2), always=always
    )


def _answer(told: Schema) -> Schema:
    content: Schema = told["responses"]["200"]["content"]
    schema: Schema = content.get(JSON, {}).get("schema", {})
    if EVENTS in content:  # what each event holds
        schema = content[EVENTS]["itemSchema"]["properties"]["data"]["contentSchema"]
    return schema


def _statuses(responses: Mapping[str, Any]) -> Iterator[str]:
    for status, response in sorted(responses.items()):
        if int(status) <= SUCCESS_MAX:
            yield f"| {status} | |\n"
            continue
        types = [it for it in response["content"][JSON]["examples"] if it not in ALWAYS]
        if types:
            yield f"| {status} | {', '.join(f'`{each}`' for each in types)} |\n"


def _name(parameter: Schema) -> str:
    name: str = parameter["name"]
    return name.title() if parameter["in"] == "header" else name


def _needed(parameter: Schema) -> str:
    required = parameter["required"] or _name(parameter) == "Idempotency-Key"  # see its error, 400
    return _need(parameter["schema"], required=required)


def _media_types(told: Schema) -> str:
    return ", ".join(f"`{each}`" for each in told["responses"]["200"]["content"])


def _need(schema: Schema, *, required: bool) -> str:
    if required:
        return "yes"
    default = schema.get("default")
    return "no" if default is None else f"no; `{json.dumps(default)}`"


def _meaning(schema: Schema) -> str | None:
    """What is said of a field, or of the one thing that it is besides null."""
    said = (it.get("description") for it in (schema, *schema.get("anyOf", ())))
    return next(filter(None, said), None)


def _line(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", r"\|")
