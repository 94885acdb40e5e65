"""Mounts for a container that runs: the same steps as create's, around joining the container instead of making it.

What is on the host is taken hold of outside. A process then joins the container's namespaces, so that what is made there belongs to it,
and does the rest, one mount at a time. Processes of the container are at work meanwhile, and may change every path under its hands:
nothing is opened but inside the container's root, and a mount point made by a name in a folder that is held.
"""

from rundlet import kernel as k
from rundlet.plan import namespaces, process
from rundlet.plan.mounts import one
from rundlet.plan.mounts.calls import AT, CLOSE_AT, FIND_DIR, FIND_LINK, ROOT
from rundlet.plan.rootfs import NOWHERE
from rundlet.plan.stages import Stage
from rundlet.plan.step import Call, Out, Slot, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rundlet.plan.bundle import Bundle
    from rundlet.plan.mounts.mounting import Mounting
    from rundlet.spec.types import Config

MOUNT_ROOT = 0x2000  # STATX_ATTR_MOUNT_ROOT, linux/stat.h


def enter(config: "Config", sources: "list[Step]", set_groups: bool = True, privileged: bool = True) -> "tuple[Stage, ...]":
    """From a process of the host to one in the container, with what it has taken hold of before.

    A user may take hold of mounts only in a mount namespace that belongs to the container's user namespace: a copy of the host's, made in
    there, where the host's mounts are without being the host's. It ends with the process. user_namespaces(7), mount_namespaces(7)
    """
    spaces = namespaces.wanted(config["linux"]["namespaces"])
    kinds = [kind for kind in k.NAMESPACES if kind in spaces]
    ids = namespaces.first(config["linux"], config["process"])
    if sources and not privileged:
        sources = [namespaces.join_container(["user"]), namespaces.unshare(["mount"]), *sources]
        kinds.remove("user")  # which cannot be joined by who is in it: setns(2), EINVAL
    return (
        Stage("outside", (process.hide(), *sources, namespaces.join_container(kinds), namespaces.clone([]))),
        Stage("enter", (
            *([namespaces.become_root(ids, False, set_groups)] if "user" in spaces else []),
            Step("open the root", Call("openat", k.AT_FDCWD, "/", k.O_HERE | k.O_DIRECTORY, 0, into="root"), Call("umask", 0), kind="root"),
        )),
    )


def add(mounting: "Mounting", config: "Config", bundle: "Bundle") -> "list[list[Step]]":
    """What is done for each mount in there. Raises BadSpec and Refused for what cannot be planned."""
    each: "list[list[Step]]" = []
    for i in range(len(config["mounts"])):
        before = len(mounting.placed), len(mounting.sealed)
        one.add(mounting, i, config, bundle)
        each.append([*mounting.placed[before[0] :], *mounting.sealed[before[1] :]])
    return each


def _parts(path: str) -> "tuple[str, str]":
    folder, _, name = path.strip("/").rpartition("/")
    return folder or ".", name


def look(paths: "list[str]") -> Step:
    """What is at these places: "about N", all zero where there is nothing."""
    calls: "list[Call]" = []
    for n, path in enumerate(paths):
        calls += [
            Call("openat2", ROOT, path.strip("/"), FIND_LINK, 24, into="at", fine=NOWHERE, on_fine=f"next{n}"),
            Call("statx", AT, "", k.AT_EMPTY_PATH, 0, Out(f"about {n}", 256)), CLOSE_AT,
            Call("value", 0, label=f"next{n}"),
        ]
    return Step("see that all of them are mounted", *calls, kind="mount")


def remove(path: str) -> Step:
    """Takes the topmost mount at `path` away; who still uses it keeps it until the end. The name is one in a folder that is held."""
    folder, name = _parts(path)
    return Step(
        f"unmount {path}", Call("openat2", ROOT, folder, FIND_DIR, 24, into="folder"), Call("fchdir", Slot("folder")),
        Call("close", Slot("folder")), Call("umount2", name, k.MNT_DETACH | k.UMOUNT_NOFOLLOW), Call("chdir", "/"), kind="mount",
    )


def without(asked: "list[tuple[str, dict[str, Any]]]", path: str) -> "list[tuple[str, dict[str, Any]]]":
    """What is left of the mounts of a configuration, each with its place, when the topmost mount at `path` goes, with all that is on it.

    It may be one that a recursive bind has brought along: then no mount of the configuration is itself the one that goes.
    """
    below = path.rstrip("/") + "/"
    base = -1  # the last one that is at the path, or around it; what is older is covered, and is seen again
    for i, (at, mount) in enumerate(asked):
        if below.startswith(at.rstrip("/") + "/") and not {"remount", "copy-symlink"}.intersection(mount.get("options") or ()):
            base = i
    return [(at, mount) for i, (at, mount) in enumerate(asked) if i < base or not (at.rstrip("/") + "/").startswith(below)]
