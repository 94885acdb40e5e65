"""rundlet profile load: loads the profiles of a file, all or none, and never over others unasked."""

import os
from typing import Any

from rundlet import host
from rundlet.errors import Refused, Usage
from rundlet.life import loaded as policy
from rundlet.life import preload
from rundlet.options import Options


def main(options: Options, words: list[str]) -> tuple[dict[str, Any], list[Any], bool]:
    """The action; raises Refused when it may not or cannot be."""
    if len(words) != 1:
        raise Usage("profile load takes one file: rundlet profile load FILE [--replace]")
    [path] = words
    profiles = policy.compiled(path)
    state = host.apparmor(os.uname().release, None, False)["state"]
    if state != "on":
        raise Refused(f"cannot load {path}: AppArmor is {state}", "load it on a host where it is on")
    held = policy.lock()
    try:
        there = policy.loaded()
        wanted = preload.differing(path, profiles, there, options.replace, "--replace")
        replaced = [one.name for one in wanted if one.name in there]
        if wanted:
            policy.load(wanted, bool(replaced))
    finally:
        os.close(held)
    done = {one.name: "replaced" if one.name in replaced else "loaded" for one in wanted}
    result = {one.name: done.get(one.name, "there already, with this content") for one in profiles}
    return {"file": path, "profiles": result}, [f"{name}: {what}" for name, what in result.items()], True
