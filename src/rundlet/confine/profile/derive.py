"""rundlet profile derive: a container's profile that still works when it is stacked on a runtime's label."""

import contextlib
import os
from typing import Any

from rundlet.confine.profile import peers
from rundlet.confine.profile.language import Malformed
from rundlet.confine.profile.source import read
from rundlet.errors import Refused, Usage
from rundlet.life import loaded as policy
from rundlet.options import Options
from rundlet.plan.label import parse


def main(options: Options, words: list[str]) -> tuple[dict[str, Any], list[Any], bool]:
    """The action. The profile goes to --output, or to stdout, where the rest is said in comments."""
    if words or not options.profile or not options.runtime_label:
        raise Usage("profile derive takes no words: rundlet profile derive --profile FILE --runtime-label LABEL [--output FILE]")
    source = read(options.profile)
    runtime = parse(options.runtime_label)[0]
    try:
        derived = peers.derive(source.text, source.preprocessed, runtime)
    except Malformed as fault:
        raise Refused(f"{options.profile}: {fault}", "apparmor_parser takes it, and this command does not understand it") from None
    _parses(derived.text)
    if options.output:
        _write(options.output, derived.text)
    document: dict[str, Any] = {
        "profile": options.profile, "runtimeLabel": runtime, "output": options.output, "text": derived.text,
        "added": [{"profile": one.profile, "rule": one.text + ",", "like": one.rule.text + ","} for one in derived.additions],
        "runtimeNeeds": list(derived.runtime), "notes": list(derived.notes),
    }
    said = [f"added to {one.profile}: {one.text}," for one in derived.additions]
    said = said or ["nothing to add: no rule is about a peer of this file alone"]
    said += [f"the runtime's profile needs as well: {line}" for line in derived.runtime] + list(derived.notes)
    if options.output:
        return document, said, True
    return document, ["\n".join(f"# {line}" for line in said), derived.text.rstrip("\n")], True


def _parses(text: str) -> None:
    """Has the parser look at it; it reads from stdin, so a relative include is one of its own folder. Raises Refused."""
    policy.parser("-Q", "-K", "-q", given=text.encode("utf-8", "surrogateescape"))


def _write(path: str, text: str) -> None:
    new = f"{path}.{os.getpid()}"
    try:
        with open(new, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
        os.replace(new, path)
    except OSError as e:
        with contextlib.suppress(OSError):
            os.unlink(new)
        raise Refused(f"cannot write {path}: {(e.strerror or '').lower()}", "name another file") from None
