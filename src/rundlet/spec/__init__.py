"""What is asked: the OCI configuration as plain, validated data with every default resolved.

The result's exact shape stands in types.py. table.py says keys, kinds and defaults, `resolve` here interprets it, and validate.py
holds the rules that look at more than one key, or further into a text than its kind.
"""

from rundlet.errors import BadSpec
from rundlet.jsontext import escape, is_odd, loads, show
from rundlet.spec.table import CONFIG, HOOKS, PROCESS, RESOURCES
from rundlet.spec.validate import check_config, check_hooks, check_process, check_resources, check_version

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

    from rundlet.spec.types import Config, Hooks, Process, Resources

    Row: TypeAlias = tuple[str, Any, str, Any]
    Rows: TypeAlias = tuple[Row, ...]

TEXT = ("string", "word", "path")
STRING = {str}


def load(text: bytes, whole: bool = False) -> "tuple[Config, list[str]]":
    """The configuration in the text of a config.json, and warnings, one line each, that begin with a JSON path; `whole`: also of what is
    left out for a key in another case.

    Raises BadSpec(path, why) for what the OCI runtime-spec 1.0 to 1.3 does not allow on Linux, or what cannot work there.
    """
    value = loads(text, "config.json")
    if isinstance(value, dict) and isinstance(value.get("ociVersion"), str):
        check_version(value["ociVersion"])  # first: of another version's file every further complaint would mislead
    config: Config = read(text, value, CONFIG, "config.json")
    warnings = _left_out(value, CONFIG) if whole else []
    check_config(config, warnings)
    return config, warnings


def load_hooks(value: object) -> "Hooks":
    """The hooks of a configuration as it is written; its texts must be fit for the kernel already. Raises BadSpec as `load` does."""
    hooks: Hooks = resolve(value, HOOKS, "/hooks")
    check_hooks(hooks)
    return hooks


def load_process(text: bytes) -> "tuple[Process, list[str]]":
    """The process in the file given to `exec --process`, and warnings. Paths are those within that file: "/user/uid".

    Raises BadSpec as `load` does.
    """
    value = loads(text, "process file")
    process: Process = read(text, value, PROCESS, "process file")
    warnings = _left_out(value, PROCESS)
    check_process(process, "", warnings)
    return process, warnings


def load_resources(text: bytes) -> "tuple[Resources, list[str]]":
    """The limits in the file given to `update --resources`, and warnings. Paths are those within that file: "/memory/limit".

    Raises BadSpec as `load` does.
    """
    value = loads(text, "resources file")
    resources: Resources = read(text, value, RESOURCES, "resources file")
    check_resources(resources, "")
    return resources, _left_out(value, RESOURCES)


def _left_out(value: object, rows: "Rows") -> "list[str]":
    from rundlet.spec.keys import near

    return [*near(value, rows, "")]


def read(text: bytes, value: object, rows: "Rows", name: str) -> "Any":
    """The value shaped by `rows`, its strings fit for the kernel."""
    shaped = resolve(value, rows, "", name)
    if is_odd(text):
        check_texts(shaped, "")
    return shaped


def resolve(value: object, rows: "Rows", where: str, name: str = "") -> "Any":
    """The object at `where` with every key of `rows` and no other, checked and defaulted.

    `name` stands for the path in the message about the outermost value, whose path is empty. Lists and maps of strings
    are the given ones, not copies. Raises BadSpec at the first fault in the order of the table.
    """
    if type(value) is not dict:
        raise BadSpec(where or name, f"must be an object, not {show(value)}")
    out = {}
    get = value.get
    for key, default, kind, more in rows:
        given = get(key)
        if given is None and default is ...:
            # Go's decoder takes a key in any case, and so do the peers written in it: encoding/json, Unmarshal
            given = next((other for name_, other in value.items() if name_.lower() == key.lower()), None)
        if given is None or (given == "" and kind in TEXT):
            if default is ...:
                raise BadSpec(f"{where}/{key}", "is required" if given is None else "must not be empty")
            if default == ():  # a fresh one each time: the caller may change it
                out[key] = [] if kind == "list" else {} if kind == "map" else resolve({}, more, f"{where}/{key}")
            else:
                out[key] = default
        else:
            out[key] = take(given, kind, more, where, key)
    return out


def take(given: object, kind: str, more: "Any", where: str, key: "str | int") -> "Any":
    """The value `given` at `where`/`key`, checked as `kind`; the path is put together only when it is needed."""
    if kind == "string":
        if type(given) is str:
            return given
    elif kind == "int":
        if type(given) is int and more[0] <= given <= more[1]:
            return given
    elif kind == "word":
        if type(given) is str and given in more:
            return given
    elif kind == "list":
        if type(given) is list:
            inner, rows = more
            if inner == "object":
                where = f"{where}/{key}"
                return [resolve(item, rows, f"{where}/{index}") for index, item in enumerate(given)]
            if inner == "string" and {*map(type, given)} <= STRING:
                return given  # hundreds of names of system calls pass here
            where = f"{where}/{key}"
            return [take(item, inner, rows, where, index) for index, item in enumerate(given)]
    elif kind == "object":
        return resolve(given, more, f"{where}/{key}")
    elif kind == "bool":
        if type(given) is bool:
            return given
    elif kind == "path":
        if type(given) is str and given[:1] == "/":
            return given
    elif type(given) is dict:  # "map"
        where = f"{where}/{key}"
        if "" in given:
            raise BadSpec(where, "has an empty key")
        inner, rows = more
        return {name: take(item, inner, rows, where, escape(name)) for name, item in given.items()}
    raise BadSpec(f"{where}/{key}", f"must be {wanted(kind, more)}, not {show(given)}")


def wanted(kind: str, more: "Any") -> str:
    """What a value of this kind is, in words."""
    if kind == "int":
        return f"an integer from {more[0]} to {more[1]}"
    if kind == "word":
        return "one of " + ", ".join(more)
    return {"string": "a string", "path": "an absolute path", "bool": "true or false", "list": "a list"}.get(kind, "an object")


def check_texts(value: object, where: str) -> None:
    """Refuses NUL, which would end a string early in the kernel, and lone surrogates, which have no UTF-8 form.

    Values of annotations may hold NUL: they do not go to the kernel as they are. Needed only for texts that hold an escape of
    such a character, so it may be slow.
    """
    if isinstance(value, str):
        if "\0" in value and not where.startswith("/annotations/"):
            raise BadSpec(where, "must not contain a NUL character")
        try:
            value.encode()
        except UnicodeEncodeError:
            raise BadSpec(where, "must not contain half a surrogate pair") from None
    elif isinstance(value, list):
        for index, item in enumerate(value):
            check_texts(item, f"{where}/{index}")
    elif isinstance(value, dict):
        for key, item in value.items():
            inner = f"{where}/{escape(key)}"
            check_texts(key, inner)
            check_texts(item, inner)
