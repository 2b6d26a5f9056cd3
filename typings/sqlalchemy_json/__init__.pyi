from typing import Any

from sqlalchemy.types import TypeEngine

def mutable_json_type(dbtype: TypeEngine[Any], nested: bool = ...) -> TypeEngine[Any]: ...
