from sqlalchemy.ext.mutable import Mutable

from .track import TrackedDict

class NestedMutableDict(TrackedDict, Mutable): ...
