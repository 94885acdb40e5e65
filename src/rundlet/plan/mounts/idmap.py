"""Mounts with mapped ids: whose maps they are, and how a mount gets them. mount_setattr(2), MOUNT_ATTR_IDMAP; config.md, "uidMappings".

The kernel takes the maps in the form of a user namespace. So before anything else a process makes one, the runtime writes its maps from
outside and keeps a descriptor of it; the process is not needed any more. Mounts with the same maps share a namespace.

    uidMappings, gidMappings      containerID: the id on the filesystem; hostID: the id, outside of all containers, that it is shown as
    idmap=uids=0-1-10#9-@0-5;gids=…    the same in one option (crun): id on the filesystem, id shown as, how many. With @ before the first
                                  the second is an id of the container's own user namespace
    idmap, ridmap alone           as the container's user namespace
"""

from rundlet import kernel as k
from rundlet.errors import BadSpec, Refused
from rundlet.plan.bundle import is_bind
from rundlet.plan.mounts.mounting import Turn, Users
from rundlet.plan.step import Call, Data, Slot, Step
from rundlet.spec.validate import check_maps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rundlet.plan.mounts.mounting import Mounting
    from rundlet.plan.mounts.options import Options
    from rundlet.spec.types import Config, IDMapping, Mount

SINCE = "ext4, xfs and btrfs can since Linux 5.12 to 5.15, tmpfs since 6.3, overlay cannot"


def add(mounting: "Mounting", i: int, mount: "Mount", options: "Options", config: "Config") -> str:
    """The slot of the user namespace that maps the ids of mount `i`. Raises BadSpec and Refused for one that cannot be mapped."""
    where, linux = f"/mounts/{i}", config["linux"]
    if not is_bind(mount) or options.remount or options.copy_symlink:
        raise BadSpec(f"{where}/{'uidMappings' if mount['uidMappings'] else 'options'}", "only a bind mount can have mapped ids")
    if not mounting.privileged:
        raise Refused(
            f"{where}: mapping the ids of {mount['source']} takes CAP_SYS_ADMIN where its filesystem was mounted, which the runtime lacks",
            "run as root, or leave the mappings out",
        )
    path = ""
    if mount["uidMappings"]:
        uids, gids = mount["uidMappings"], mount["gidMappings"]
    elif options.maps:
        uids, gids = _parse(options.maps, f"{where}/options", config)
    else:
        uids, gids = linux["uidMappings"], linux["gidMappings"]
        path = next((space["path"] or "" for space in linux["namespaces"] if space["type"] == "user"), "")
        if not uids and not path:
            raise BadSpec(f"{where}/options", "idmap needs uidMappings and gidMappings here, or a user namespace")
    maps = ("", "", path) if path else (_text(uids), _text(gids), "")
    for users in mounting.users:
        if (users.uids, users.gids, users.path) == maps:
            return users.slot
    mounting.users.append(Users(f"users{len(mounting.users)}", *maps))
    return mounting.users[-1].slot


def _text(maps: "list[IDMapping]") -> str:
    return "".join(f"{m['containerID']} {m['hostID']} {m['size']}\n" for m in maps)


def _parse(text: str, where: str, config: "Config") -> "tuple[list[IDMapping], list[IDMapping]]":
    """The maps in uids=A-B-N#A-B-N;gids=…"""
    found: "dict[str, list[IDMapping]]" = {}
    for part in text.split(";"):
        kind, _, triples = part.partition("=")
        if kind not in ("uids", "gids") or kind in found:
            raise BadSpec(where, f'"{part}" in idmap is not understood: it is uids=0-1000-10;gids=0-1000-10, several divided by #')
        own = config["linux"]["uidMappings" if kind == "uids" else "gidMappings"]
        found[kind] = [_triple(triple, own, where) for triple in triples.split("#") if triple]
        check_maps(found[kind], where)
    if not found.get("uids") or not found.get("gids"):
        raise BadSpec(where, "idmap needs both uids and gids")
    return found["uids"], found["gids"]


def _triple(text: str, own: "list[IDMapping]", where: str) -> "IDMapping":
    numbers = text.removeprefix("@").split("-")
    if len(numbers) != 3 or not all(n.isascii() and n.isdigit() and len(n) <= 10 for n in numbers):
        raise BadSpec(where, f'"{text}" in idmap is not three numbers: id on the filesystem, id shown as, how many')
    inside, outside, size = map(int, numbers)
    if not size or max(inside, outside) + size > 1 << 32:
        raise BadSpec(where, f'"{text}" in idmap is no range of ids')
    if text[0] == "@":
        around = next((m for m in own if m["containerID"] <= outside and outside + size <= m["containerID"] + m["size"]), None)
        if around is None:
            raise BadSpec(where, f'"{text}" in idmap is relative, and these ids are not mapped by the user namespace of the container')
        outside += around["hostID"] - around["containerID"]
    return {"containerID": inside, "hostID": outside, "size": size}


def namespace(users: Users) -> Step:
    """For a process of its own: makes the user namespace whose maps the runtime then writes."""
    uids, gids = (", ".join(text.splitlines()) for text in (users.uids, users.gids))
    return Step(
        f"make a user namespace for the mapped users {uids} and groups {gids}", Call("unshare", k.CLONE_NEWUSER), kind="idmap",
        hint="is /proc/sys/user/max_user_namespaces high enough?",
    )


def turn(i: int, slot: str, mapped: Step) -> "tuple[Step, Turn]":
    """Where the process waits for a helper to carry out step(), and what the helper needs to know."""
    tree = f"bind{i}"
    wait = Step(f"wait for a helper to {mapped.what}", Call("value", Slot(tree), into="turn"), kind="turn")
    return wait, Turn(tree, slot, mapped)


def step(i: int, slot: str, options: "Options", path: str, filesystem: str) -> Step:
    """Maps the ids of the source of bind mount `i`, while it is still detached, which is a condition of the kernel's."""
    flags = k.AT_EMPTY_PATH | (k.AT_RECURSIVE if options.mapped_deep else 0)
    attr = Data(k.MOUNT_ATTR_IDMAP.to_bytes(8, "little") + bytes(16), Slot(slot, 8))
    named = f" ({filesystem})" if filesystem else ""
    return Step(
        f"map the ids of {path}{named}", Call("mount_setattr", Slot(f"bind{i}"), "", flags, attr, 32), kind="idmap",
        hint=f"can the filesystem{named} map ids on this kernel, with all that is mounted below? {SINCE}",
    )
