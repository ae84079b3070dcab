"""Reading the fields of a decoded JSON object: each is taken once, checked, and none is left over.

Every signed document of the product parses itself with `Fields`, so that a missing, mistyped or
unknown field is refused in the same way and named in the same words everywhere.
"""

from hookprobe.errors import MalformedError
from hookprobe.wire.canonical import Json, JsonObject
from hookprobe.wire.identifiers import INTEGER_MAX


class Fields:
    """Takes fields out of a JSON object by name.

    Args:
        source: The decoded object; it is not changed.
        what: What the object claims to be, for error messages.
    """

    __slots__ = ("_left", "_what")

    def __init__(self, source: JsonObject, what: str) -> None:
        self._left = dict(source)
        self._what = what

    def has(self, name: str) -> bool:
        return name in self._left

    def take(self, name: str) -> Json:
        if name not in self._left:
            raise MalformedError(f"{self._what}: field {name!r} is missing")
        return self._left.pop(name)

    def text(self, name: str, *, limit: int = 256) -> str:
        value = self.take(name)
        if not isinstance(value, str) or len(value) > limit:
            raise self._wrong(name, f"text of at most {limit} characters")
        return value

    def literal(self, name: str, wanted: str | int) -> None:
        """Take a field that can only have one value."""
        value = self.take(name)
        if type(value) is not type(wanted) or value != wanted:
            raise self._wrong(name, repr(wanted))

    def integer(self, name: str, *, low: int = 0, high: int = INTEGER_MAX) -> int:
        value = self.take(name)
        if type(value) is not int or not low <= value <= high:
            raise self._wrong(name, f"an integer from {low} to {high}")
        return value

    def flag(self, name: str) -> bool:
        value = self.take(name)
        if type(value) is not bool:
            raise self._wrong(name, "true or false")
        return value

    def hex(self, name: str, size: int) -> bytes:
        """Take `size` bytes written as lower-case hex digits."""
        value, wanted = self.take(name), f"{2 * size} lower-case hex digits"
        if not isinstance(value, str) or len(value) != 2 * size:
            raise self._wrong(name, wanted)
        return self._unhex(value, name, wanted)

    def octets(self, name: str, *, limit: int) -> bytes:
        """Take at most `limit` bytes written as lower-case hex digits."""
        value, wanted = self.take(name), f"at most {2 * limit} lower-case hex digits, in pairs"
        if not isinstance(value, str) or len(value) > 2 * limit:
            raise self._wrong(name, wanted)
        return self._unhex(value, name, wanted)

    def _unhex(self, value: str, name: str, wanted: str) -> bytes:
        try:
            found = bytes.fromhex(value)
        except ValueError:
            found = b""
        # `fromhex` skips blanks and takes capitals: only the one spelling comes back the same.
        if found.hex() != value:
            raise self._wrong(name, wanted)
        return found

    def object(self, name: str) -> JsonObject:
        value = self.take(name)
        if not isinstance(value, dict):
            raise self._wrong(name, "an object")
        return value

    def array(self, name: str, *, limit: int) -> list[Json]:
        value = self.take(name)
        if not isinstance(value, list) or len(value) > limit:
            raise self._wrong(name, f"an array of at most {limit} items")
        return value

    def finish(self) -> None:
        """Refuse unknown fields."""
        if self._left:
            names = ", ".join(sorted(self._left)[:5])
            raise MalformedError(f"{self._what}: unknown field {names[:80]}")

    def _wrong(self, name: str, wanted: str) -> MalformedError:
        return MalformedError(f"{self._what}: field {name!r} must be {wanted}")
