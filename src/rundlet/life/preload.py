"""A profile that a container brings along in a file: loaded before anything else is made of it, and removed with it where that is asked.

    annotation                              option                  value
    org.rundlet.apparmor.profile-file       --apparmor-file         a file of AppArmor profiles; a relative path is below the bundle
    org.rundlet.apparmor.on-delete          --apparmor-on-delete    keep (as without it) or remove
    org.rundlet.apparmor.replace            --apparmor-replace      true: over a profile of that name with another content

Two commands may do this at the same time: each writes its record, which names what it needs, before it looks at the policy under a lock,
and who removes looks at the records under that lock.
"""

import posix

from rundlet import log
from rundlet.errors import BadSpec, Fault, Refused
from rundlet.life import loaded as policy
from rundlet.plan.label import canonical

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypedDict

    from rundlet.host import Facts
    from rundlet.life.loaded import Compiled, Hashes, Loaded
    from rundlet.life.store import Container, Record
    from rundlet.options import Options
    from rundlet.spec.types import Config

    class Policy(TypedDict):
        """What the record says of it."""

        file: str
        uses: list[str]  # all profiles of the file
        loaded: dict[str, Hashes]  # those that this container loaded, or, in phase "loading", may have loaded
        phase: str  # loading, loaded
        remove: bool  # with the container


FILE, ON_DELETE, REPLACE = "org.rundlet.apparmor.profile-file", "org.rundlet.apparmor.on-delete", "org.rundlet.apparmor.replace"


class Preload:
    """The profiles of one container's file, and what became of the policy by them."""

    def __init__(self, file: str, profiles: "list[Compiled]", replace: bool, remove: bool) -> None:
        self.file = file
        self.profiles = profiles
        self.replace = replace
        self.remove = remove
        self.before: "dict[str, bytes]" = {}  # what was replaced → its text
        self.new: "list[Compiled]" = []
        self.container: "Container | None" = None

    def record(self) -> "Policy":
        """What the record says before anything is loaded."""
        there = policy.loaded()
        maybe = {one.name: one.hashes for one in self.profiles if one.name not in there}
        uses = [one.name for one in self.profiles]
        return {"file": self.file, "uses": uses, "loaded": maybe, "phase": "loading", "remove": self.remove}

    def load(self, container: "Container", record: "Record") -> None:
        """Loads what is not there, and writes down what that was. Raises Refused."""
        self.container = container
        held = policy.lock()
        try:
            there = policy.loaded()
            wanted = differing(self.file, self.profiles, there, self.replace)
            before = {one.name: there[one.name].text() for one in wanted if one.name in there}
            if wanted:
                policy.load(wanted, bool(before))
            self.before, self.new = before, [one for one in self.profiles if one.name not in there]
            record["apparmor"] = {**record["apparmor"], "loaded": {one.name: one.hashes for one in self.new}, "phase": "loaded"}
            container.write(record)
        finally:
            posix.close(held)

    def undo(self) -> None:
        """Takes back what load() did. Raises Refused for what cannot be."""
        if not self.container or not (self.new or self.before):
            return
        top, _, name = self.container.folder.rpartition("/")
        held = policy.lock()
        try:
            unload({one.name: one.hashes for one in self.new}, top, name)
            there, ours = policy.loaded(), {one.name: one.hashes for one in self.profiles}
            before = {name: text for name, text in self.before.items() if name in there and there[name].same(ours[name]) is not False}
            lost = [name for name, text in before.items() if not text]
            texts = [one for text in before.values() for one in policy.split(text)]
            if texts:
                policy.load(texts, True)
            if lost:
                raise Refused(f"the kernel does not keep what {_named(lost)} was before", "load it anew")
        finally:
            posix.close(held)


def prepare(options: "Options", config: "Config", bundle: str, facts: "Facts", here: bool = True) -> "Preload | None":
    """Compiles the file, and compares it with what is loaded, unless the facts are another host's; they then have its profiles among
    the loaded ones.

    None where there is no AppArmor to load it into, which the decision about the label refuses. Raises BadSpec and Refused.
    """
    profile = config["process"]["apparmorProfile"]
    file, where, replace, remove = _asked(options, config["annotations"], bundle)
    if not profile:
        raise Refused(f"{where} names {file}, but no profile of it is asked for", "set process.apparmorProfile, or leave the file out")
    if facts["apparmor"]["state"] != "on":
        return None
    profiles = policy.compiled(file)
    names = [one.name for one in profiles]
    if canonical(profile) not in names:
        raise Refused(f'{file} holds {_named(names)}, not "{profile}" of process.apparmorProfile', "name the file that holds it")
    made = Preload(file, profiles, replace, remove)
    if here and differing(file, profiles, policy.loaded(), made.replace):
        _permitted(file, facts)
    facts["apparmor"]["loaded"] = sorted({*(facts["apparmor"]["loaded"] or ()), *names})
    return made


def _asked(options: "Options", annotations: "dict[str, str]", bundle: str) -> "tuple[str, str, bool, bool]":
    """The file, where it is named, whether to replace, and whether to remove. Raises BadSpec and Refused."""
    for unknown in annotations:
        if unknown.startswith("org.rundlet.apparmor.") and unknown not in (FILE, ON_DELETE, REPLACE):
            raise BadSpec(f"/annotations/{unknown}", f"is none of {FILE}, {ON_DELETE} and {REPLACE}")
    name = options.apparmor_file or annotations.get(FILE)
    where = "--apparmor-file" if options.apparmor_file else f"/annotations/{FILE}"
    if name is None:
        raise Refused("it is said how to load AppArmor profiles, but not from which file", f"give --apparmor-file, or annotate {FILE}")
    if not name or "\0" in name or "\n" in name:
        raise BadSpec(where, "it is the path of a file of AppArmor profiles")
    on_delete = options.apparmor_on_delete or annotations.get(ON_DELETE, "keep")
    if on_delete not in ("keep", "remove"):
        whose = "--apparmor-on-delete" if options.apparmor_on_delete else f"/annotations/{ON_DELETE}"
        raise BadSpec(whose, f'it is keep or remove, not "{on_delete}"')
    replace = annotations.get(REPLACE, "false")
    if replace not in ("true", "false"):
        raise BadSpec(f"/annotations/{REPLACE}", f'it is true or false, not "{replace}"')
    return name if name[:1] == "/" else f"{bundle}/{name}", where, options.apparmor_replace or replace == "true", on_delete == "remove"


def differing(
    file: str, profiles: "list[Compiled]", there: "dict[str, Loaded]", replace: bool, how: str = "--apparmor-replace"
) -> "list[Compiled]":
    """The profiles that have to be loaded. Raises Refused where that would replace one, unless that is asked for."""
    wanted = [one for one in profiles if one.name not in there or not there[one.name].same(one.hashes)]
    others = [one.name for one in wanted if one.name in there]
    if others and not replace:
        unknown = [name for name in others if there[name].same({}) is None]
        why = "is loaded, and the kernel does not tell with which content" if unknown else "is loaded with another content"
        raise Refused(f"{_named(unknown or others)} of {file} {why}", f"remove it, or ask for its replacement: {how}")
    return wanted


def _permitted(file: str, facts: "Facts") -> None:
    if facts["user_namespace"] or "CAP_MAC_ADMIN" not in facts["caps"]["effective"]:
        why = f"the profiles of {file} cannot be loaded without CAP_MAC_ADMIN of the host"
        raise Refused(why, "have root load them: apparmor_parser -r")


def _named(names: "list[str]") -> str:
    shown = " and ".join(f'"{name}"' for name in names[:5])
    return f"the apparmor profile {shown}" if len(names) == 1 else f"the apparmor profiles {shown}{' and more' if names[5:] else ''}"


def release(record: "Record", folder: str) -> None:
    """Of a container that is being deleted: removes what it loaded, where that is asked for; warns of what stays."""
    of = record["apparmor"]
    # a container that was never completed leaves nothing behind, whatever was asked for
    if not of["loaded"] or not (of["remove"] or record["phase"] == "creating"):
        return
    top, _, name = folder.rpartition("/")
    try:
        held = policy.lock()
        try:
            unload(of["loaded"], top, name)
        finally:
            posix.close(held)
    except Fault as fault:
        log.warning(f"the profiles of {of['file']} stay loaded: {fault}")


def unload(names: "dict[str, Hashes]", top: str, container: str) -> None:
    """Removes these profiles of the container below `top`, if they still have this content and nobody else uses them. Raises Refused."""
    there = policy.loaded()
    gone = []
    for name, hashes in names.items():
        if name not in there or any(policy.within(name, other) for other in names if other != name):
            continue  # children go with their parent
        if not there[name].same(hashes):
            log.warning(f'the apparmor profile "{name}" stays loaded: it was replaced meanwhile')
            continue
        user = policy.users(name, top, container)
        if user:
            log.warning(f'the apparmor profile "{name}" stays loaded: {user} uses it')
            continue
        gone.append(name)
    if gone:
        policy.remove(gone)
