"""Keys that no table has, but one in another case. The specification has unknown keys ignored, so what they ask for is not done: programs
in Go take them for the others all the same (encoding/json, Unmarshal), and whoever wrote them may believe that no_new_privs is set."""

from rundlet.jsontext import escape

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from rundlet.spec import Rows


def near(value: object, rows: "Rows", where: str) -> "Iterator[str]":
    """A warning for each such key of an object as it is written, and of those in it that `rows` tell of."""
    if type(value) is not dict:
        return
    known = {row[0]: row for row in rows}
    for key, inner in value.items():
        row = known.get(key)
        if row is None:
            meant = next((name for name in known if name.lower() == key.lower()), "")
            # a required one is taken from it
            if meant and meant not in value and known[meant][1] is not ...:
                yield f"{where}/{escape(key)}: unknown, left out; what is known is {meant}"
            continue
        _, _, kind, more = row
        if kind == "object":
            yield from near(inner, more, f"{where}/{key}")
        elif kind in ("list", "map") and more[0] == "object":
            items = enumerate(inner) if type(inner) is list else inner.items() if type(inner) is dict else ()
            for name, item in items:
                yield from near(item, more[1], f"{where}/{key}/{escape(str(name))}")
