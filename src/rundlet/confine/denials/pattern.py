"""Names as AppArmor's policy language has them: quoted, and nothing in them taken for a wildcard. apparmor.d(5), "Globbing"."""

import re

PLAIN = re.compile(r"[A-Za-z0-9/._+:%=-]+")
SPECIAL = frozenset('*?[]{}^"')
# what differs each time it is made: the kernel's numbers for processes, and for files without a name (fs/namei.c vfs_tmpfile())
PROCESS = re.compile(r"(?<=^/proc/)\d+(?=/|$)|(?<=/task/)\d+(?=/|$)")
NAMELESS = re.compile(r"(?<=/#)\d+$")
NUMBER = "[0-9]*"


def quoted(name: str) -> str:
    """A name for a rule, that matches this name alone."""
    return name if PLAIN.fullmatch(name) and name != "=" else f'"{escaped(name)}"'


def escaped(name: str) -> str:
    """The inside of the quotes. Bytes that are no text are written in octal."""
    return "".join(_escape(character) for character in name)


def _escape(character: str) -> str:
    if character in SPECIAL:
        return "\\" + character
    # a backslash of the name's own stands in octal: the parser takes \\" for a quote that is escaped
    if character.isprintable() and character != "\\" and not 0xDC80 <= ord(character) <= 0xDCFF:
        return character
    return "".join(f"\\{byte:03o}" for byte in character.encode("utf-8", "surrogateescape"))


def path(name: str) -> tuple[str, bool]:
    """A path for a rule, and whether it matches more than this one: numbers that are others tomorrow are not worth a rule."""
    held = [(match.start(), match.end()) for match in (*PROCESS.finditer(name), *NAMELESS.finditer(name))]
    if not held:
        return quoted(name), False
    parts, at = [], 0
    for start, end in held:
        parts += [escaped(name[at:start]), NUMBER]
        at = end
    parts.append(escaped(name[at:]))
    return f'"{"".join(parts)}"' if not PLAIN.fullmatch(name) else "".join(parts), True
