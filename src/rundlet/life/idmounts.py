"""User namespaces for the mounts with mapped ids, as descriptors: plan/mounts/idmap.py."""

import posix
from posix import O_CLOEXEC, O_PATH, O_RDONLY

from rundlet.errors import Fault
from rundlet.executor import client
from rundlet.life import process, procfs
from rundlet.plan.mounts import idmap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rundlet.plan.mounts.mounting import Turn, Users


def hold(asked: "tuple[Users, ...]") -> "dict[str, int]":
    """The descriptors of the namespaces by slot; the caller closes them. Raises Fault with the word of the kernel, and then holds none."""
    held: "dict[str, int]" = {}
    try:
        for users in asked:
            held[users.slot] = _make(users) if not users.path else _open(users.path)
    except BaseException:
        let_go(held)
        raise
    return held


def let_go(held: "dict[str, int]") -> None:
    """Closes them; there are none then."""
    while held:
        posix.close(held.popitem()[1])


def take_turn(asked: "Turn", pid: int, number: int, users: int) -> None:
    """Maps the ids of a mount that process `pid` of the container holds by its descriptor `number`. Raises Fault."""
    try:
        tree = posix.open(f"/proc/{pid}/fd/{number}", O_PATH | O_CLOEXEC)
    except OSError as e:
        raise Fault(f"{asked.step.what}: cannot open the process's descriptor of it: {(e.strerror or '').lower()}") from None
    try:
        helper = client.spawn({asked.tree: tree, asked.users: users})
    finally:
        posix.close(tree)
    try:
        helper.run((asked.step,))
    finally:
        process.end(helper)


def _make(users: "Users") -> int:
    """A namespace lasts as long as somebody holds it, so the process that made it need not."""
    helper = client.spawn()
    try:
        helper.run((idmap.namespace(users),))
        for kind, text in (("gid", users.gids), ("uid", users.uids)):
            procfs.write_file(
                f"/proc/{helper.pid}/{kind}_map", text, f"map the {kind}s of a mount: {', '.join(text.splitlines())}",
                f"every hostID must be an id of the runtime's own user namespace (/proc/self/{kind}_map)",
            )
        return _open(f"/proc/{helper.pid}/ns/user")
    finally:
        process.end(helper)


def _open(path: str) -> int:
    try:
        return posix.open(path, O_RDONLY | O_CLOEXEC)
    except OSError as e:
        raise Fault(f"cannot open the user namespace {path}: {(e.strerror or '').lower()}") from None
