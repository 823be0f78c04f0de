"""Reading one `config.json` field by field: a wrong value gets one line that says what to do."""

from math import isfinite
from typing import Any, NoReturn

REQUIRED = object()
MOST = 1e100  # of any number: products of three still fit a float


class Fields:
    """A configuration and the name of its file, which every error begins with.

    Each getter takes the spellings of a field, newest first, and its default. An absent field has
    its default; one without a default is required. A number that is null is an error, but for
    `nullable`; a list that is null is absent.
    """

    def __init__(self, data: dict[str, Any], where: str):
        self.data, self.where = data, where

    def fail(self, field: str, expected: str) -> NoReturn:
        value = repr(self.data.get(field))
        value = value if len(value) <= 80 else value[:77] + "..."
        raise ValueError(f"{self.where}: {field} is {value}, expected {expected}")

    def find(self, names: tuple[str, ...]) -> str | None:
        """The spelling that this file uses, if any."""
        return next((n for n in names if self.data.get(n) is not None), None)

    def value(self, names: tuple[str, ...], default: Any) -> tuple[str, Any]:
        name = self.find(names)
        if name is None and default is REQUIRED:
            raise ValueError(f"{self.where}: {names[0]} is missing; it has no default")
        return (name, self.data[name]) if name else (names[0], default)

    def count(
        self,
        *names: str,
        default: Any = REQUIRED,
        low: int = 1,
        high: int | tuple[str, int] | None = None,
    ) -> Any:
        """A whole number from `low` to `high` (or the default, whatever it is).

        high: a number, or the name and the value of the field that limits this one.
        """
        if null := self.null(names):
            self.fail(null, f"a whole number of at least {low}")
        self.agree(names)
        name, value = self.value(names, default)
        if name not in self.data:
            return value
        if isinstance(value, float) and isfinite(value) and value == int(value):
            value = int(value)  # some files say 2.0
        if type(value) is not int or not low <= value <= MOST:
            self.fail(name, f"a whole number of at least {low}")
        field, most = high if isinstance(high, tuple) else ("", high)
        if most is not None and value > most:
            self.fail(name, f"at most {field} ({most})" if field else f"at most {most}")
        return value

    def agree(self, names: tuple[str, ...]) -> None:
        """An error where two spellings of one field say different things."""
        said = [n for n in names if self.data.get(n) is not None]
        for name in said[1:]:
            if self.data[name] != self.data[said[0]]:
                self.fail(name, f"what {said[0]}, the same field, says ({self.data[said[0]]!r})")

    def null(self, names: tuple[str, ...]) -> str | None:
        """The spelling that this file uses to say null, if no other spelling says more."""
        return None if self.find(names) else next((n for n in names if n in self.data), None)

    def nullable(self, *names: str, default: Any, **limits) -> int | None:
        """A whole number, the default where it is absent, None where the file says null."""
        return None if self.null(names) else self.count(*names, default=default, **limits)

    def inside(self, name: str) -> "Fields":
        """The fields of an object inside this one; none if it is absent."""
        value = self.data.get(name) or {}
        if not isinstance(value, dict):
            self.fail(name, "a JSON object")
        return Fields(value, f"{self.where}: {name}")

    def number(self, *names: str, default: Any = REQUIRED, low: float = 0.0) -> Any:
        """A number from `low` on (or the default, whatever it is)."""
        if null := self.null(names):
            self.fail(null, f"a number of at least {low:g}")
        name, value = self.value(names, default)
        if name not in self.data:
            return value
        if type(value) not in (int, float) or not low <= value <= MOST:
            self.fail(name, f"a number of at least {low:g}")
        return float(value)

    def flag(self, *names: str, default: bool) -> bool:
        """true or false; null is false, as it is in Python."""
        if any(n in self.data and self.data[n] is None for n in names):
            return False
        name, value = self.value(names, default)
        if type(value) is not bool:
            self.fail(name, "true or false")
        return value

    def word(self, *names: str, default: Any = REQUIRED, among: tuple[str, ...] = ()) -> Any:
        """A string, one of `among` if that is given."""
        name, value = self.value(names, default)
        if name in self.data and value is not default:
            if not isinstance(value, str):
                self.fail(name, "a string")
            if among and value not in among:
                self.fail(name, "one of " + ", ".join(among))
        return value

    def words(
        self,
        *names: str,
        among: dict[str, str],
        length: int | None = None,
        default: Any = None,
    ) -> Any:
        """A list of `length` strings (None: any), each translated by `among`; None if absent."""
        name, value = self.value(names, default)
        if value is default:
            return default
        if not isinstance(value, list) or (len(value) != length if length else not value):
            got = f"a list of {len(value)}" if isinstance(value, list) else repr(value)
            what = f"a list of {length} names" if length else "a list of names"
            raise ValueError(f"{self.where}: {name} is {got}, expected {what}")
        for x in value:
            if not isinstance(x, str) or x not in among:
                raise ValueError(
                    f"{self.where}: {name} holds {x!r}, expected only {', '.join(among)}"
                )
        return [among[x] for x in value]

    def indices(self, *names: str, below: int, default: Any = None) -> Any:
        """A list of whole numbers from 0 to `below` - 1, as a set in order; None if absent."""
        name, value = self.value(names, default)
        if value is default:
            return default
        if not isinstance(value, list) or any(type(x) is not int for x in value):
            self.fail(name, "a list of layer numbers")
        if wrong := [x for x in value if not 0 <= x < below]:
            raise ValueError(f"{self.where}: {name} holds {wrong[0]}, expected 0 to {below - 1}")
        return sorted(set(value))

    def part(self, *names: str, of: tuple[str, int], default: Any = REQUIRED) -> int:
        """A count that divides `of`, a field's name and its value: heads of a width."""
        n = self.count(*names, default=default)
        if of[1] % n:
            self.refuse_part(self.find(names) or names[0], n, of)
        return n

    def part_or_all(self, *names: str, of: tuple[str, int], default: int | None = None) -> int:
        """A part that is the whole where it is null: key-value heads, as many as heads."""
        n = self.nullable(*names, default=default) or of[1]
        if of[1] % n:
            self.refuse_part(self.find(names) or names[0], n, of)
        return n

    def refuse_part(self, name: str, n: int, of: tuple[str, int]) -> NoReturn:
        """The error for a count that does not divide what it is a part of."""
        raise ValueError(
            f"{self.where}: {name} is {n}, expected a number that divides {of[0]} ({of[1]})"
        )

    def count_or(self, word: str, *names: str) -> int | None:
        """A count; None where the field is absent or says `word`, for example "auto"."""
        name, value = self.value(names, None)
        return None if value == word else self.nullable(name, default=None)
