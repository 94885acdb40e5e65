"""What a record of AppArmor means, in a sentence: first the failures that are known for something else than a missing rule. Pure.

What the kernel does is told with its reasons in docs/apparmor.md; the words of `info` are those of security/apparmor/{domain,path,mount}.c.
"""

import re

from rundlet.confine.denials.record import Record
from rundlet.confine.denials.rule import class_of, mask
from rundlet.plan.label import LEARNING, components, loading

VERBS = {
    "r": "read", "w": "write", "c": "create", "d": "delete", "a": "append to", "l": "link", "k": "lock", "m": "map executable",
    "x": "execute",
}  # fmt: skip
NAMED = {  # operations that say it better than their letters
    "chmod": "change the mode of", "chown": "change the owner of", "truncate": "truncate", "getattr": "look at", "mkdir": "make the folder",
    "rmdir": "remove the folder", "unlink": "remove", "mknod": "create", "symlink": "make the link", "link": "make the link",
    "rename_src": "rename", "rename_dest": "rename to", "exec": "execute", "file_lock": "lock", "setattr": "change the attributes of",
}  # fmt: skip
PTRACE = {"trace": "trace", "read": "look into", "tracedby": "be traced by", "readby": "be looked into by"}
MATCH = {
    "failed mntpnt match": "no rule for mounts names this place",
    "failed srcname match": "the rules for mounts at this place are for another source",
    "failed type match": "the rules for mounts at this place are for another type of filesystem",
    "failed flags match": "the rules for mounts at this place are for other options",
    "failed data match": "the rules for mounts at this place are for other options of the filesystem",
    "failed perms check": "a rule for mounts at this place denies it",
}
SAID = {
    "denied": '"{0}" does not let {1} {2}', "killed": '"{0}" does not let {1} {2}, and has it killed for trying',
    "allowed": '"{0}" complains only, or it would not let {1} {2}', "audited": '"{0}" lets {1} {2}, and has it logged',
}  # fmt: skip
CONVERTED = "change_profile unprivileged unconfined converted to stacking"  # domain.c, since Linux 6.7
LEARNED = re.compile(r"^(.*?)//null-(.+?)$")
UNSCOPED = re.compile(r"^/proc/(\d+|self|thread-self)/(task/\d+/)?attr/(current|exec|prev|fscreate|keycreate|sockcreate)$")
SCOPED = re.compile(r"^/proc/(\d+|self|thread-self)/(task/\d+/)?attr/apparmor/")


def label_of(record: Record) -> str:
    """The profile that said it, as labels print it: with its policy namespace, where it is in one."""
    profile = record.get("profile") or record.get("label")
    inner = record.get("namespace").removeprefix("root").removeprefix("//")
    return f":{inner}:{profile}" if inner else profile


def deed(record: Record) -> str:
    """What was done, as `read /etc/passwd`."""
    name, operation = record.get("name"), record.get("operation")
    match class_of(record):
        case "cap":
            return f"use the capability {record.get('capname') or record.get('capability')}"
        case "signal":
            return _signal(record)
        case "ptrace":
            return f"{PTRACE.get(mask(record), 'trace')} {record.get('peer') or 'an unknown process'}"
        case "net" | "unix":
            family = record.get("family")
            return f"{operation} {'an' if family[:1] in 'aeio' else 'a'} {family} {record.get('sock_type')} socket"
        case "mount":
            how = ", ".join(filter(None, (record.get("fstype"), record.get("flags"))))
            return f"mount {record.get('srcname')} at {name} ({how})".replace("mount  at", "mount at", 1)
        case "umount":
            return f"unmount {name}"
        case "pivot":
            return f"make {name} its root"
        case "change":
            to = record.get("target") or name
            if "hat" in operation:
                return f"enter a hat ({to})"
            return f"stack the profile {to}" if operation.startswith("stack") else f"change to the profile {to}"
        case "rlimit":
            return f"set the limit {record.get('rlimit')} to {record.get('value')}"
        case "userns":
            return "create a user namespace"
        case "io_uring":
            return "use io_uring beyond its own thread"
        case "mqueue":
            return f"use the message queue {name}"
        case "file":
            to = f" to {record.get('target')}" if operation == "link" and record.get("target") else ""
            return f"{_verbs(record)} {name}".rstrip() + to
    return f"{operation} {name}".strip() or "do what the record does not name"


def _signal(record: Record) -> str:
    """The receiver's profile is asked as well as the sender's."""
    peer, signal = record.get("peer") or "an unknown process", record.get("signal")
    if signal == "exists":
        return f"be looked for (signal 0) by {peer}" if mask(record) == "receive" else f"look for {peer} (signal 0)"
    return f"receive signal {signal} from {peer}" if mask(record) == "receive" else f"send signal {signal} to {peer}"


def _verbs(record: Record) -> str:
    if record.get("operation") in NAMED:
        return NAMED[record.get("operation")]
    verbs = dict.fromkeys(VERBS[letter] for letter in "rwcdalkmx" if letter in mask(record))
    return " and ".join(verbs) or record.get("operation")


def explain(record: Record, verdict: str) -> str:
    """The sentence. Raises nothing."""
    for known in KNOWN:
        said = known(record)
        if said:
            return said
    who = record.get("comm") or f"process {record.pid}"
    profile = label_of(record)
    if mask(record) in ("receive", "tracedby", "readby"):
        who = "its processes"  # the record's process is the other one
    said = SAID[verdict].format(profile, who, deed(record))
    said += ": " + MATCH[record.get("info")] if record.get("info") in MATCH else f" ({record.get('info')})" if record.get("info") else ""
    return said


def _no_new_privs(record: Record) -> str:
    if record.get("info") != "no new privs":
        return ""
    old, new = label_of(record), record.get("target") or record.get("name")
    return (
        f'no_new_privs is set, so a process under "{old}" may only narrow its label: "{new}" can be stacked on it, not put in its place; '
        f"stack it, start without no_new_privs, or from an unconfined runtime"
    )


def _not_loaded(record: Record) -> str:
    name = record.get("target") or record.get("name")
    if record.get("info") in ("label not found", "profile not found"):
        return f'the profile "{name}" is not loaded; load it with: {loading(name or "")}'
    if record.get("info") == "profile transition not found":
        return (
            f'"{label_of(record)}" has a rule to execute {record.get("name")} under the profile "{name}", which is not loaded; load it, '
            "or correct the rule"
        )
    return ""


def _learning(record: Record) -> str:
    learned = LEARNED.match(label_of(record))
    if not learned:
        return ""
    base, what = learned[1], learned[2]
    if what.startswith("/"):
        return (
            f'"{base}" is complaining and has no rule to execute {what}: the kernel invented a learning profile for it, which would not '
            f"let {record.get('comm')} {deed(record)}; nothing is enforced there"
        )
    return (
        f'the profile "{what}" is not loaded, which the complaining profile "{base}" hides: the kernel invented a learning profile '
        "in its place, so nothing is enforced; load it with: apparmor_parser -r FILE"
    )


def _converted(record: Record) -> str:
    if record.get("info") != CONVERTED:
        return ""
    name = record.get("target") or record.get("name")
    return (
        f'kernel.apparmor_restrict_unprivileged_unconfined is 1, so an unconfined process without privileges that changes to "{name}" gets '
        f'"{name}//&unconfined" instead: rules with peer={name} no longer match it; load a profile for the runtime, in unconfined mode'
    )


def _userns(record: Record) -> str:
    if label_of(record) == "unprivileged_userns":
        return (
            "kernel.apparmor_restrict_unprivileged_userns is 1, so an unconfined process without privileges that made a user namespace was "
            f'put under "unprivileged_userns", which does not let {record.get("comm")} {deed(record)}; load a profile for the runtime that '
            "has the rule userns,"
        )
    if class_of(record) == "userns" and label_of(record) == "unconfined":
        return (
            "kernel.apparmor_restrict_unprivileged_userns is 1: an unconfined process without privileges may not make a user namespace, or "
            "loses its privileges in it; load a profile for the program that has the rule userns,"
        )
    return ""


def _stacked_peer(record: Record) -> str:
    peer, own = record.get("peer"), label_of(record)
    parts = components(peer) if "//&" in peer else ()
    if own not in parts:
        return ""
    why = (
        f'"{own}" was stacked where it could have been put in place' if "unconfined" in parts
        else f"rules of \"{own}\" with peer={own} match a process under that profile alone"
    )
    return f'"{own}" does not let its own processes {deed(record)}: they run under the stack "{peer}", and {why}; peer={peer} matches them'


def _missing_change(record: Record) -> str:
    if class_of(record) != "change" or record.get("info"):
        return ""
    name = record.get("target") or record.get("name")
    stacks = record.get("operation").startswith("stack")
    other = f"change_profile -> {'' if stacks else '&'}{name}"
    return (
        f'"{label_of(record)}" lacks a change_profile rule to {"stack" if stacks else "change to"} "{name}"; '
        f"a rule {other}, would not do, as it is for {'changing' if stacks else 'stacking'}"
    )


def _lookup(record: Record) -> str:
    if record.get("info") == "Failed name lookup - disconnected path":
        return (
            f"the file {record.get('name') or '(nameless)'} is reached by a descriptor from outside of the process's root, so it has no "
            f'path there; the profile "{label_of(record)}" needs flags=(attach_disconnected)'
        )
    if record.get("info") == "Failed name lookup - deleted entry":
        return f'the file was deleted while open, so it has no path; the profile "{label_of(record)}" needs flags=(mediate_deleted)'
    return ""


def _attributes(record: Record) -> str:
    if class_of(record) != "file" or "w" not in mask(record):
        return ""
    if SCOPED.match(record.get("name")):
        return (
            f'"{label_of(record)}" does not let {record.get("comm")} ask for a label ({record.get("name")}); a confined runtime needs '
            "owner @{PROC}/@{pid}/task/@{tid}/attr/apparmor/exec rw, where the kernel has no lsm_set_self_attr(2)"
        )
    if UNSCOPED.match(record.get("name")):
        return (
            f'"{label_of(record)}" does not let {record.get("comm")} write {record.get("name")}, a file that belongs to the first of '
            "several security modules (/sys/kernel/security/lsm), which need not be apparmor; since Linux 5.8 attr/apparmor/exec is its own"
        )
    return ""


def _memory(record: Record) -> str:
    if record.get("operation") != "exec" or not record.get("name").startswith(("/memfd:", "memfd:")):
        return ""
    return (
        f'"{label_of(record)}" does not let {record.get("comm")} execute a file in memory ({record.get("name")}); '
        "rundlet then executes its installed file"
    )


def _null(record: Record) -> str:
    if not record.get("name").endswith("apparmor/.null"):
        return ""
    return (
        f'{record.get("comm")} uses a descriptor that "{label_of(record)}" does not permit, so the kernel put {record.get("name")} in its '
        "place when the label changed; it was passed on to the process, or opened under another profile"
    )


def _own_look(record: Record) -> str:
    if record.get("operation") != "ptrace" or mask(record) != "readby" or record.get("comm") != "rundlet":
        return ""
    return (
        f'"{label_of(record)}" does not let rundlet, under "{record.get("peer")}", look into its processes, which it tries at their start; '
        "it finds out otherwise what it needs to know, and nothing is amiss"
    )


def _tracer(record: Record) -> str:
    if record.get("info") != "ptrace prevents transition":
        return ""
    name = record.get("target") or record.get("name")
    return f'a tracer that may not trace "{name}" holds the process, so its label cannot change; detach it (strace, gdb) first'


KNOWN = (
    _no_new_privs, _not_loaded, _converted, _learning, _userns, _stacked_peer, _tracer, _missing_change, _null, _lookup, _attributes,
    _memory, _own_look,
)  # fmt: skip
assert LEARNING == "//null-"  # what LEARNED looks for
