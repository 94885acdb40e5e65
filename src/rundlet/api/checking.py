"""What is looked at afterwards: whether what runs is what was asked for, and what the kernel has denied.

The logs are read in a process of its own, since other programs may have to be asked; and so is the rest for those that may not be held up.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from typing import Any

from rundlet.api.asked import Path
from rundlet.api.base import BaseContainer, top
from rundlet.api.operation import Operation
from rundlet.api.work import command
from rundlet.confine.denials import Denial as Denial
from rundlet.confine.denials import read as reading
from rundlet.confine.denials.containers import of_pid
from rundlet.confine.denials.reading import counted
from rundlet.confine.verify import Difference, Target, Unknown, check
from rundlet.confine.verify import Report as Report
from rundlet.errors import Usage
from rundlet.options import Options


class Asked:
    """What is to be looked at."""

    def __init__(self, target: str | int | BaseContainer, root: Path | None, config: Path | Mapping[str, object] | None) -> None:
        """Raises Usage for what contradicts itself."""
        if isinstance(target, int) != (config is not None):
            raise Usage("a process is looked at with a configuration, a container by its id with its own")
        if isinstance(target, BaseContainer):
            self.id, root = target.id, target.root
        else:
            self.id = str(target)
        self.top = "" if isinstance(target, int) else top(root)
        self.text = json.dumps(config).encode("utf-8", "surrogateescape") if isinstance(config, Mapping) else None
        self.path = "" if config is None or isinstance(config, Mapping) else os.path.abspath(os.fspath(config))


def verify(
    target: str | int | BaseContainer, *, root: Path | None = None, config: Path | Mapping[str, object] | None = None,
) -> Report:
    """Compares every process and thread of a container with what was asked for: `status` is "holds", "differs" or "unknown".

    `target` is a container, the id of one in `root`, or the pid of any runtime's first process; for that `config` is needed: the path of
    its config.json or bundle, or a configuration itself. Raises WrongState where there is no such container or process, and other Faults.
    """
    asked = Asked(target, root, config)
    with _named(asked.text) as path:
        return check(_target(asked.top, asked.id, path or asked.path))


def verifying(
    target: str | int | BaseContainer, *, root: Path | None = None, config: Path | Mapping[str, object] | None = None,
) -> Operation[Report]:
    """The same as an operation."""
    asked = Asked(target, root, config)
    words = [asked.top, asked.id, *([] if asked.text is not None else [asked.path])]
    texts = None if asked.text is None else {"args": asked.text}
    report = yield from command({"verb": "verify", "id": asked.id, "args": words}, texts, __name__)
    return read(report.answer)


def denials(
    container: str | int | BaseContainer | None, since: float | None, root: Path | None, config: Path | Mapping[str, object] | None,
) -> Operation[list[Denial]]:
    """As rundlet.denials."""
    asked = None if container is None and config is None else Asked(container if container is not None else "", root, config)
    if asked and asked.top and since is None:
        held = container if isinstance(container, BaseContainer) else BaseContainer(asked.id, root=root)
        since = datetime.fromisoformat(held.record()["created"]).timestamp() - 1
    words = [json.dumps(since), asked.top if asked and asked.top else top(root), asked.id if asked else ""]
    if asked and not asked.top and asked.text is None:
        words.append(asked.path)
    texts = {"args": asked.text} if asked and asked.text is not None else None
    report = yield from command({"verb": "denials", "id": "", "args": words}, texts, __name__)
    return [_denial(one) for one in report.answer]


def _denial(raw: dict[str, Any]) -> Denial:
    """What asdict has written."""
    return Denial(**raw | {name: tuple(raw[name]) for name in ("widens", "maybe")})


def main(options: Options) -> int:
    """What the worker does."""
    if options.verb == "verify":
        options.answer = check(_target(*options.args)).as_json()
    else:
        begin, folder, container, *config = options.args
        others = (of_pid(int(container), config[0]),) if config else ()
        since = json.loads(begin)
        if others:
            container, since = others[0].id, others[0].created - 1 if since is None else since
        options.answer = [asdict(one) for one in counted(list(reading(since, folder, container or None, others)))]
    return 0


def read(raw: dict[str, Any]) -> Report:
    """What Report.as_json has written."""
    return Report(
        raw["id"], raw["pid"], raw["state"], tuple(Difference(**one) for one in raw["differences"]),
        tuple(Unknown(**one) for one in raw["unknown"]), tuple(raw["notes"]), tuple(raw["checked"]), raw["processes"], raw["threads"],
        tuple(raw["hostNamespaces"]), raw["config"],
    )


def _target(top: str, id: str, config: str) -> Target:
    return Target.of_container(top, id) if top else Target.of_pid(int(id), config)


@contextmanager
def _named(text: bytes | None) -> Iterator[str]:
    """A path of a file with the text; none where there is no text."""
    if text is None:
        yield ""
        return
    fd = os.memfd_create("rundlet", os.MFD_CLOEXEC)
    with open(fd, "wb") as file:
        file.write(text)
        file.flush()
        yield f"/proc/self/fd/{fd}"
