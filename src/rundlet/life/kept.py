"""What was decided for one container, kept for the next that differs in nothing but texts of its own. docs/decisions/0017-kept-plans.md

    look()      what is known of a configuration, before it is checked: the same one with other texts has been
    Known       the checked configuration, and then, once the host and the bundle have been looked at, the plan as programs
    keep()      after a start without a warning: both, for next time

A plan is a pure function of the configuration, what was found on the host and in the bundle, and the command line. All of that is in the
names under which things are kept, but for the texts of one container (cut() says which): those are not in what is kept either, and are put
in behind everything else (executor/template.py). So a program that comes from here is the one that planning anew would give, byte by byte.

Nothing that looks at the host, at the bundle or at the process that was started is left out for a plan that is kept. Only a command that
starts from the bundle of `python -m rundlet.install` keeps anything: that one's digest stands for all the code that a plan depends on.
"""

import posix
import sys
from _blake2 import blake2b
from marshal import dumps, loads

from rundlet import jsontext, keep, log
from rundlet.errors import Fault
from rundlet.plan.bundle import is_bind
from rundlet.plan.command import candidates, environment, executes, has_home, joins, places
from rundlet.plan.write import Write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

    from rundlet.executor.program import Program
    from rundlet.executor.template import Packed, Template
    from rundlet.life.create import Creation
    from rundlet.life.deciding import Decision
    from rundlet.options import Options
    from rundlet.plan.apparmor import Transition
    from rundlet.spec.types import Config

    Names: TypeAlias = tuple[list[list[str]], list[tuple[int, str]], dict[str, tuple[int, int]]]

FORMAT = "rundlet-plan 1"
KIND = b"plan"
LARGEST = 1 << 18
# what changes a start besides the configuration and the command line
HEARD = ("run.oci.", "org.rundlet.")  # annotations that are
VARIABLES = (b"NOTIFY_SOCKET", b"LISTEN_FDS", b"RUN_OCI_SECCOMP_RECEIVER")


class Late:
    """The texts of one container, as its configuration has them."""

    __slots__ = ("root", "hostname", "args", "env", "annotations", "cgroup", "sources", "namespaces", "hooks")

    def __init__(self) -> None:
        self.hostname: "str | None" = None
        self.cgroup: "str | None" = None
        self.env: "list[str]" = []
        self.annotations: "dict[str, str]" = {}
        self.sources: "dict[int, str]" = {}  # of mounts, by their index
        self.namespaces: "dict[int, str]" = {}
        self.hooks: "object" = None
        self.root: str
        self.args: "list[str]"


class Plan:
    """A plan of which there are the programs alone: what rundlet.plan.stages.Plan is for whoever carries it out."""

    users = ()
    fills = ()

    def __init__(
        self, templates: "dict[str, Template]", transition: "Transition", namespaces: "tuple[tuple[str, str | None], ...]",
        capabilities: int, nnp: bool, seccomp: bool,
    ) -> None:
        self.templates = templates
        self.transition = transition
        self.namespaces = namespaces
        self.capabilities = capabilities
        self.nnp = nnp
        self.seccomp = seccomp

    def stage(self, name: str) -> "tuple[()]":
        """What is kept has no such stages as are asked for here: keep() sees to it."""
        return ()


class Known:
    """What is known of one configuration."""

    def __init__(self, at: int, name: str, late: Late) -> None:
        self.at = at  # the folder
        self.name = name
        self.late = late
        self.config: "Config | None" = None
        self.told: "bytes | None" = None  # what is to be kept of the configuration
        self.second = ""  # the name of the plan

    def close(self) -> None:
        """Lets go of the folder."""
        posix.close(self.at)

    def read(self) -> None:
        """Finds the configuration, if it is kept."""
        raw = keep.load(self.at, self.name, KIND, LARGEST)
        if raw is None:
            return
        config, witnesses = loads(raw)  # noqa: S302  # whoever writes there decides what containers may do: keep.py
        if witnesses:
            from rundlet.seccomp.cache import stands

            if not stands(witnesses):
                return
        self.config = fill(config, self.late)

    def learn(self, config: "Config") -> None:
        """Takes down a configuration that has just been checked, without its texts."""
        linux = config["linux"]
        seccomp = linux["seccomp"]
        self.told = dumps({
            **config, "root": {**config["root"], "path": ""}, "annotations": {}, "hooks": {}, "hostname": None,
            "process": {**config["process"], "args": [], "env": []},
            "mounts": [{**mount, "source": None} if is_bind(mount) else mount for mount in config["mounts"]],
            "linux": {
                **linux, "cgroupsPath": None,
                "seccomp": {**seccomp, "syscalls": None} if seccomp else None,  # the rules are not kept: whoever went by them would fail
                "namespaces": [{**space, "path": None} for space in linux["namespaces"]],
            },
        })

    def plan(self, new: "Decision") -> "tuple[Plan, tuple[Write, ...], bytes, Names | None, str | None] | None":
        """The plan, the limits, the device filter, the last steps by name and the digest of the seccomp filter, if they are kept."""
        self.second = digest(situation(self.name, new))
        raw = keep.load(self.at, self.second, KIND, LARGEST) if self.config else None
        if raw is None:
            return None
        templates, capabilities, writes, devices, names, filtered = loads(raw)  # noqa: S302  # as above
        config = new.config
        spaces = tuple(sorted((space["type"], space["path"]) for space in config["linux"]["namespaces"]))
        plan = Plan(templates, new.transition, spaces, capabilities, config["process"]["noNewPrivileges"], bool(config["linux"]["seccomp"]))
        return plan, tuple(map(write, writes)), devices, names, filtered


def look(text: bytes, options: "Options") -> "Known | None":
    """What is known of the configuration in a text; None where nothing is kept of its kind."""
    identity: bytes = getattr(sys.meta_path[0], "identity", b"")
    if not identity or posix.geteuid() or options.no_pivot or options.cgroup_manager == "disabled":
        return None
    if options.console_socket or options.spawn:
        return None
    if jsontext.is_odd(text) or not posix.environ.keys().isdisjoint(VARIABLES):
        return None
    try:
        value = jsontext.loads(text, "config.json")
    except Fault:
        return None
    late = cut(value)
    at = keep.opened(keep.home() + "/plans") if late else -1
    if late is None or at < 0:
        return None
    known = Known(at, digest((FORMAT, identity, value)), late)
    known.read()
    return known


def digest(value: "Any") -> str:
    """A name for a value of plain ones; equal ones have the same, since this format of marshal knows no references."""
    return blake2b(dumps(value, 2), digest_size=32).hexdigest()


def cut(value: "Any") -> "Late | None":
    """Takes the texts of one container out of a configuration as it is written; what stands in their place says that there was one.

    None for a configuration in which one of them is not as it should be, or that is of a kind of which nothing is kept: then what is wrong
    is for the checks to say. The rules are those of spec/, or stricter.
    """
    late = Late()
    try:
        proc, root, linux = value["process"], value["root"], value.get("linux") or {}
        late.root, root["path"] = root["path"], True
        late.args, proc["args"] = proc["args"], True
        if proc.get("env"):
            late.env, proc["env"] = proc["env"], True
        if value.get("hostname"):
            late.hostname, value["hostname"] = value["hostname"], True
            if len(late.hostname.encode()) > 64:
                return None
        if linux.get("cgroupsPath"):
            late.cgroup, linux["cgroupsPath"] = linux["cgroupsPath"], True
        for index, mount in enumerate(value.get("mounts") or ()):
            if is_bind({"type": mount.get("type"), "options": mount.get("options") or ()}):  # type: ignore[typeddict-item]
                late.sources[index], mount["source"] = mount["source"], True
        for index, space in enumerate(linux.get("namespaces") or ()):
            if space.get("path"):
                late.namespaces[index], space["path"] = space["path"], True
        if value.get("annotations"):
            late.annotations = value["annotations"]
            value["annotations"] = {name: text for name, text in late.annotations.items() if name.startswith(HEARD)}
        if value.get("hooks"):
            late.hooks, value["hooks"] = value["hooks"], True
        texts = [late.root, *late.args, *late.env, *late.sources.values(), *late.namespaces.values(), *late.annotations.values()]
        texts += [text for text in (late.hostname, late.cgroup) if text is not None]
        if {*map(type, texts)} != {str} or not (late.root and late.args[0] and all(late.sources.values())) or "" in late.annotations:
            return None
        if type(late.args) is not list or type(late.env) is not list or any(entry.find("=") < 1 for entry in late.env):
            return None
        if any(path[0] != "/" or "/fd/" in path for path in late.namespaces.values()):  # what names a descriptor has a plan of its own
            return None
    except (KeyError, TypeError, AttributeError, IndexError):
        return None
    return late


def fill(config: "Config", late: Late) -> "Config":
    """The checked configuration with the texts of a container."""
    config["root"]["path"] = late.root
    config["hostname"] = late.hostname
    config["process"]["args"], config["process"]["env"] = late.args, late.env
    config["annotations"] = late.annotations
    config["linux"]["cgroupsPath"] = late.cgroup
    for index, source in late.sources.items():
        config["mounts"][index]["source"] = source
    for index, path in late.namespaces.items():
        config["linux"]["namespaces"][index]["path"] = path
    if late.hooks:
        from rundlet import spec

        config["hooks"] = spec.load_hooks(late.hooks)
    else:
        config["hooks"] = {
            "prestart": [], "createRuntime": [], "createContainer": [], "startContainer": [], "poststart": [], "poststop": [],
        }
    return config


def situation(name: str, new: "Decision") -> "tuple[object, ...]":
    """All that a plan depends on besides the configuration called `name` and the texts of the container."""
    facts, options, bundle, proc = new.facts, new.options, new.bundle, new.config["process"]
    layout = facts["cgroup"]
    paths = candidates(proc)
    return (
        name, facts["kernel"], facts["arch"], facts["caps"]["bounding"], facts["caps"]["effective"], facts["apparmor"]["interface"],
        layout["layout"], layout["mounts"], layout["controllers"], len(new.place.dirs), new.unit is not None, new.transition.fields(),
        new.starts, bool(new.config["hooks"]["startContainer"]), options.no_new_keyring, options.preserve_fds, new.stdio,
        len((new.config["hostname"] or "").encode()),
        [(index, directory) for index, (_, directory) in bundle.sources.items()],
        repr([getattr(bundle, slot) for slot in bundle.__slots__ if slot not in ("rootfs", "sources")]),
        # how often the program is looked for, and where twice
        has_home(proc), [*map(paths.index, paths)],
    )


def values(new: "Decision") -> "dict[str, str | tuple[str, ...]]":
    """The texts of a container by the names that the plan gives them."""
    config = new.config
    proc = config["process"]
    found: "dict[str, str | tuple[str, ...]]" = {
        "root": new.bundle.rootfs, "hostname": config["hostname"] or "", "keyring": "_ses." + new.options.id,
        "argv": tuple(proc["args"]), "envp": tuple(environment(proc)),
    }
    for index, (source, _) in new.bundle.sources.items():
        found[f"source {index}"] = source
    for space in config["linux"]["namespaces"]:
        found[f"namespace {space['type']}"] = space["path"] or ""
    for n, at in enumerate(new.place.dirs):
        found[f"cgroup {n}"] = at.path
        found["cgroup"] = at.path  # the last one is the unified one's
    for n, (path, place) in enumerate(zip(candidates(proc), places(proc), strict=True)):
        found[f"path {n}"] = path
        found[f"place {n}"] = place
    return found


def named(names: "Names", new: "Decision") -> "Names":
    """The steps of the last program by name, for this container: two of them say what is its own."""
    whats, ops, outs = names
    said = {"exec": executes(new.config["process"]), "keyring": joins("_ses." + new.options.id)}
    return [[said.get(kind, what), kind, hint] for what, kind, hint in whats], ops, outs


def write(fields: "Any") -> Write:
    """A limit of what fields() says, `otherwise` being fields as well."""
    controller, file, text, what, fine, otherwise = fields
    return Write(controller, file, text, what, fine, write(otherwise) if otherwise else None)


def fields(limit: Write) -> "tuple[object, ...]":
    """A limit as plain values."""
    return (*limit.fields()[:-1], fields(limit.otherwise) if limit.otherwise else None)


def store(new: "Creation", last: "Program | Packed | None" = None) -> None:
    """Keeps what was decided for a container that has been made, unless it is of a kind of which nothing is kept. `last`: its last program,
    where that was sent by somebody else."""
    if last:
        new.templates["last"] = last.template
    known, section = new.known, new.config["linux"]["seccomp"]
    if known is None or isinstance(new.plan, Plan) or log.warned or not _ordinary(new):
        return
    witnesses = None
    if section:
        from rundlet.seccomp import cache

        witnesses = cache.witnesses(section, keep.home() + "/seccomp", new.filter) if section["syscalls"] else None
    if known.told is not None and section and not witnesses:
        return  # it is unknown what the filter stands and falls with
    limits = [*map(fields, new.writes)]
    keep.keep(known.at, known.second, KIND, dumps((new.templates, new.plan.capabilities, limits, new.devices, new.names, new.filtered)))
    if known.told is not None:
        # the last of the two: what it says of the filter that stands must not be found beside a plan with the one before
        keep.keep(known.at, known.name, KIND, dumps((loads(known.told), witnesses)))  # noqa: S302  # our own


def _ordinary(new: "Creation") -> bool:
    """Whether the start did nothing but what a plan that is kept makes it do: no terminal, nothing filled or moved, no user namespace of
    somebody else's."""
    config, bundle, plan, given = new.config, new.bundle, new.plan, new.delegation
    return not (
        new.bare or new.notify or new.rdt or new.movers or new.agent or new.console >= 0 or config["process"]["terminal"]
        or (given and (given.owner is not None or given.path)) or config["hooks"]["startContainer"]
        or plan.users or plan.fills or bundle.links or bundle.filesystems or bundle.covers or bundle.inside or bundle.devices
        or any(name[:15] == "run.oci.seccomp" for name in config["annotations"])
        or not {*new.templates} >= {"outside", "inside", "enter", "last"}
        or dict(plan.namespaces).get("user") or plan.stage("user namespace") or plan.stage("scheduling")
    )
