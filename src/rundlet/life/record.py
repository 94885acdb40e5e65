"""record.json: for whoever asks later, what was asked of a container, what was decided and why, and what held once its program ran.

Written once: create leaves what was decided, and start puts what it observed behind it, in the same file, which is whole at any time.
Its form is rundlet.record/1, described in docs/record.md.
"""

import posix
from _blake2 import blake2b
from posix import O_CLOEXEC, O_RDWR

from rundlet import __version__, jsontext, log
from rundlet.life import store
from rundlet.plan.label import components

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from rundlet.host import Facts
    from rundlet.life import kept
    from rundlet.life.observe import Seen
    from rundlet.life.store import Container, Record
    from rundlet.plan.stages import Plan
    from rundlet.spec.types import Config

SCHEMA = "rundlet.record/1"
FILE = "record.json"
OF_HOST = ("state", "label", "mode", "namespace", "interface", "stack", "restrict_unconfined", "restrict_userns")


def decided(
    record: "Record", config: "Config", plan: "Plan | kept.Plan", facts: "Facts", text: bytes, filtered: "str | None", preserved: int
) -> "dict[str, Any]":
    """What is known before the program runs. `text` is that of the configuration, `filtered` the digest of the seccomp filter,
    `preserved` how many descriptors are passed on."""
    proc, transition, apparmor = config["process"], plan.transition, facts["apparmor"]
    return {
        "schema": SCHEMA, "id": record["id"], "rundlet": __version__, "created": record["created"],
        "asked": {
            "apparmorProfile": proc["apparmorProfile"], "noNewPrivileges": proc["noNewPrivileges"], "user": proc["user"],
            "capabilities": proc["capabilities"], "seccomp": filtered is not None, "preserveFds": preserved,
            "namespaces": {space["type"]: space["path"] or "new" for space in config["linux"]["namespaces"]},
        },
        "decided": {
            "action": transition.action, "profile": transition.profile, "label": transition.expected, "reason": transition.reason,
            "row": transition.row, "noNewPrivileges": plan.nnp, "seccomp": plan.seccomp,
        },
        "host": {
            "kernel": facts["kernel"], "arch": facts["arch"], "lsm": facts["lsm"], "noNewPrivileges": facts["nnp"],
            "apparmor": {key: apparmor[key] for key in OF_HOST},  # type: ignore[literal-required]
        },
        "hashes": {"config": digest((text,)), "seccomp": filtered, "plan": None},
        "observed": None, "profiles": None,
    }


def digest(parts: "Iterable[bytes]") -> str:
    """The BLAKE2b hash of 256 bits, as `b2sum --length 256` prints it."""
    found = blake2b(digest_size=32)
    for part in parts:
        found.update(part)
    return found.hexdigest()


def leave(container: "Container", about: "dict[str, Any]", sent: "list[bytes]") -> None:
    """Writes what create knows; `sent` are the programs that the executor was sent. start will add the rest."""
    about["hashes"]["plan"] = digest(sent)
    del about["observed"], about["profiles"]
    store.put(container.fd, FILE, _text(about))


def complete(container: "Container", seen: "Seen | None", about: "dict[str, Any] | None", sent: "list[bytes]") -> None:
    """Writes what was observed; `about` is what this very command decided, None where an earlier one has left it in the file.

    The container runs, and is as was decided: that this cannot be written down is only told.
    """
    try:
        _complete(container, seen, about, sent)
    except OSError as e:
        log.warning(f"{container.folder}/{FILE} cannot be written: {(e.strerror or '').lower()}")


def _complete(container: "Container", seen: "Seen | None", about: "dict[str, Any] | None", sent: "list[bytes]") -> None:
    observed: "dict[str, Any] | None" = None
    profiles: "list[dict[str, str]] | None" = None
    if seen:
        label, mode, status = seen
        filters = status.get("Seccomp_filters")  # since Linux 5.9
        observed = {
            "at": log.stamp(), "label": label, "mode": mode, "noNewPrivileges": status.get("NoNewPrivs") == "1",
            "seccomp": int(status.get("Seccomp", "0")), "seccompFilters": int(filters) if filters is not None else None,
            "capabilities": {kind: status.get(key) for kind, key in CAPABILITIES},
        }
        if label is not None:
            from rundlet.life import policy

            profiles = policy.profiles(components(label))
    if about is not None:
        about["hashes"]["plan"] = digest(sent)
        about["observed"], about["profiles"] = observed, profiles
        store.put(container.fd, FILE, _text(about))
        return
    try:
        fd = posix.open(FILE, O_RDWR | O_CLOEXEC, dir_fd=container.fd)
    except FileNotFoundError:
        return  # made by an earlier version
    try:
        # over the closing brace, so that whoever reads finds a whole document before and after
        end = posix.lseek(fd, 0, 2)
        posix.pwrite(fd, b"," + _text({"observed": observed, "profiles": profiles})[1:], end - 1)
    finally:
        posix.close(fd)


CAPABILITIES = (
    ("bounding", "CapBnd"), ("effective", "CapEff"), ("permitted", "CapPrm"), ("inheritable", "CapInh"), ("ambient", "CapAmb"),
)


def load(folder: str) -> "dict[str, Any] | None":
    """The record in a container's folder; None where there is none. Raises BadSpec for one that is damaged."""
    try:
        found: "Any" = jsontext.loads(store.read(f"{folder}/{FILE}"), FILE)
    except FileNotFoundError:
        return None
    return found if type(found) is dict else None


def _text(value: "dict[str, Any]") -> bytes:
    return jsontext.dumps(value).encode()
