"""JSON taken apart where it stands, so that a value can be kept as it was written.

Values are read by the standard library's parser; what stands between those of the outer object or array is walked here.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final, NamedTuple, NoReturn

from trunkline.core.errors import InvalidArgument

FIELD: Final = "body"
CONTAINER_CHARACTERS_MAX: Final = 1 << 20
"""Of one object or array inside of an event, which has no more bytes. Reading one builds all that is in it, many times its
size: so much takes about 20 ms."""
_LOOKS: Final = (4 << 10, 64 << 10, CONTAINER_CHARACTERS_MAX)
"""An end is looked for in so many characters, then in more: what lies behind is not copied for each."""
_SHOWN_CHARACTERS: Final = 20
_SPACE: Final = re.compile(r"[ \t\n\r]*")


class Member(NamedTuple):
    """One member of an object: its value, and where the text of that stands."""

    value: Any
    begin: int
    end: int


def _refuse_constant(name: str) -> NoReturn:
    """Python's NaN and Infinity are no JSON."""
    raise ValueError(name)


_DECODER: Final = json.JSONDecoder(parse_constant=_refuse_constant)


class JsonText:
    """A text of JSON and its pieces, by position. Every method raises InvalidArgument where it finds something else."""

    def __init__(self, data: bytes) -> None:
        """Of bytes, which must be UTF-8 (RFC 8259, 8.1)."""
        try:
            self.text = data.decode()
        except UnicodeDecodeError as error:
            raise InvalidArgument.of(FIELD, "must be UTF-8", f"other bytes at {error.start}") from None

    def behind_space(self, at: int) -> int:
        """The first position from `at` on that is no white space."""
        found = _SPACE.match(self.text, at)
        assert found is not None, "any number of spaces is always there"
        return found.end()

    def char(self, at: int) -> str:
        """The character there; empty at the end."""
        return self.text[at : at + 1]

    def expect(self, at: int, char: str, what: str) -> int:
        """The position behind a character that must be there, and behind white space."""
        if self.char(at) != char:
            self._refuse(at, what)
        return self.behind_space(at + 1)

    def expect_end(self, at: int) -> None:
        """Nothing but white space may follow."""
        at = self.behind_space(at)
        if at != len(self.text):
            self._refuse(at, "nothing more")

    def members(self, at: int, count_max: int) -> tuple[dict[str, Member], int]:
        """The members of the object there, and where it ends. Each name stands once: readers differ on which would count."""
        found: dict[str, Member] = {}
        at = self.expect(at, "{", "an object")
        if self.char(at) == "}":
            return found, at + 1
        while True:
            if self.char(at) != '"':
                self._refuse(at, "a name")
            name, end = self.value(at)
            at = self.expect(self.behind_space(end), ":", "a colon")
            if name in found:
                raise InvalidArgument.of(FIELD, "each name stands once in an event", name)
            if len(found) == count_max:
                raise InvalidArgument.of(FIELD, f"at most {count_max} members in an event", "more")
            value, end = self.value(at)
            found[name] = Member(value, at, end)
            at = self.behind_space(end)
            if self.char(at) == "}":
                return found, at + 1
            at = self.expect(at, ",", "a comma or the object's end")

    def value(self, at: int) -> tuple[Any, int]:
        """The value there, and where it ends."""
        if self.char(at) not in ("{", "["):
            return self._read(self.text, at, at)
        for size in _LOOKS:
            piece = self.text[at : at + size]
            is_cut = at + size < len(self.text)
            try:
                value, end = _DECODER.raw_decode(piece)
            except ValueError:
                if not is_cut:
                    break
            except RecursionError:
                raise InvalidArgument.of(FIELD, "values that are nested less deep", f"one at {at}") from None
            else:
                return value, at + end
        else:
            rule = f"JSON values of at most {CONTAINER_CHARACTERS_MAX} characters"
            raise InvalidArgument.of(FIELD, rule, f"a longer or broken one at {at}")
        return self._read(piece, 0, at)

    def _read(self, text: str, begin: int, at: int) -> tuple[Any, int]:
        """Read a value of `text`; the place of its beginning in the whole is `at`."""
        try:
            value, end = _DECODER.raw_decode(text, begin)
        except json.JSONDecodeError as error:
            self._refuse(at - begin + error.pos, "JSON")
        except ValueError:  # a constant of Python's, or an integer of more digits than Python reads
            self._refuse(at, "a value of JSON")
        return value, at - begin + end

    def _refuse(self, at: int, what: str) -> NoReturn:
        """Say what should be at a place and what is there."""
        got = self.text[at : at + _SHOWN_CHARACTERS] or "the end"
        raise InvalidArgument.of(FIELD, f"{what} at character {at}", got)
