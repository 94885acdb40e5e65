"""A profile as the command line names it: a file, by apparmor_parser(8), or the name of one that is loaded, by the kernel."""

import os
from dataclasses import dataclass, field

from rundlet import host
from rundlet.confine.profile.language import Block, Malformed, parse
from rundlet.errors import Refused
from rundlet.life import loaded as policy
from rundlet.life.loaded import Compiled, Loaded
from rundlet.plan.label import canonical


@dataclass
class Source:
    """Of a file: its text, the text with what it includes, and what it compiles to. Of a name: what is loaded."""

    word: str
    text: str = ""
    flat: Block | None = None
    preprocessed: str = ""
    compiled: list[Compiled] = field(default_factory=list)
    loaded: Loaded | None = None

    @property
    def names(self) -> list[str]:
        """The profiles in it."""
        return [one.name for one in self.compiled] if self.flat else [self.loaded.name] if self.loaded else []

    def blocks(self) -> dict[str, Block]:
        """The profiles of a file by name."""
        return {one.name: one for one in self.flat.profiles()} if self.flat else {}


def loaded() -> dict[str, Loaded] | None:
    """The loaded profiles; None where there is no AppArmor, or where it is not told."""
    if host.apparmor("", None, False)["state"] != "on":
        return None
    try:
        return policy.loaded()
    except Refused:
        return None


def read(path: str) -> Source:
    """A file. Raises Refused when it cannot be read or does not parse."""
    compiled = policy.compiled(path)
    flat = policy.parser("-Q", "-K", "-p", "-q", path)[0].decode("utf-8", "surrogateescape")
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return Source(path, file.read(), parse(flat), flat, compiled)
    except Malformed as fault:
        raise Refused(f"{path}: {fault}", "apparmor_parser takes it, and this command does not understand it") from None


def find(word: str, there: dict[str, Loaded] | None) -> Source:
    """What a word of the command line means: a file that exists, else a loaded profile. A loaded profile named as a program's path is
    meant before that program. Raises Refused when it is neither."""
    name = canonical(word)
    if there and name in there and (word[:1] == "/" or not os.path.isfile(word)):
        return Source(word, loaded=there[name])
    if os.path.exists(word) or "/" in word:
        return read(word)
    if there is None:
        why = f"there is no file {word}, and the loaded profiles cannot be known here"
        raise Refused(why, "name a file, or ask on a host with AppArmor on")
    raise Refused(f"there is no file {word}, and no profile of that name is loaded", "name a file, or load it: rundlet profile load FILE")
