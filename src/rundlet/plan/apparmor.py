"""Which AppArmor label the container's first exec asks the kernel for, how it is asked for, and whether it was given. No I/O.

    decide(facts, request)       the transition, or Refused: what the table of docs/apparmor.md says, row by row
    pending_ok · check           what the kernel reads back before the exec, and what the process really runs under after it
    write_failed                 the kernel's errno as a sentence that names the missing rule

The transition as system calls is in asking.py; labels as text, and the names of profiles, are in label.py. Kernel sources cited are those
of security/apparmor/.
"""

__all__ = ["Transition", "check", "components", "decide", "parse", "pending_ok", "pending_text", "rule", "write_failed"]


from rundlet.errors import Refused
from rundlet.kernel import ERRNO
from rundlet.plan.label import LEARNING, canonical, components, joined, loading, name_fault, parse, pattern, split_namespace
from rundlet.plan.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Literal, NotRequired, TypedDict

    class Component(TypedDict):
        """One profile of a label; `mode` is the kernel's word for it, or "unknown" where it cannot be seen."""

        name: str
        mode: str

    class AppArmor(TypedDict):
        """What the host says of AppArmor; gathered by host.facts(), which documents each key."""

        state: Literal["on", "off", "absent"]
        label: str | None
        mode: str | None
        components: list[Component]
        namespace: str | None
        stack: bool
        post_nnp_subset: bool
        loaded: list[str] | None
        lacking: dict[str, dict[str, list[str]]] | None
        interface: Literal["lsm", "scoped", "legacy"]
        restrict_unconfined: bool | None
        restrict_userns: bool | None

    class Caps(TypedDict):
        """Capability sets by name, `CAP_CHOWN`; those newer than this runtime are called `CAP_41` and so on."""

        effective: list[str]
        bounding: list[str]

    class Situation(TypedDict):
        """The part of the host's facts that the decision reads; `user_namespace` says whether the capabilities are not the host's."""

        apparmor: AppArmor
        nnp: bool
        caps: Caps
        user_namespace: bool

    class Request(TypedDict):
        """What the configuration asks for: process.apparmorProfile and process.noNewPrivileges. `beside`: for an exec that is to be held
        to what its container is held to, the profiles that the container's own label has besides."""

        profile: str | None
        nnp: bool
        beside: NotRequired[Sequence[str]]


ATTRIBUTE = {"lsm": "thread-self/attr/apparmor/exec", "scoped": "thread-self/attr/apparmor/exec", "legacy": "thread-self/attr/exec"}
NAMESPACES = "/sys/kernel/security/apparmor/policy/namespaces"
LSM_CTX = 32  # struct lsm_ctx { u64 id, flags, len, ctx_len; u8 ctx[]; } of linux/lsm.h


class Transition(Value):
    """What is asked of the kernel for the next exec.

    `action` is "keep" (nothing is asked), "exec" (the label is replaced) or "stack" (it is added to); `asked` is by what, or what is added:
    the profile, and for an exec what the container's label has besides.
    `expected` are the components of the label after the exec, sorted; for "keep" those of the runtime, which the exec may change.
    `reason` is one sentence for people, `row` the row of the table that decided.
    """

    __slots__ = ("action", "profile", "expected", "reason", "row", "asked")

    def __init__(
        self, action: "Literal['keep', 'exec', 'stack']", profile: str, expected: "tuple[str, ...]", reason: str, row: int, asked: str = "",
    ) -> None:
        self.action = action
        self.profile = profile
        self.expected = expected
        self.reason = reason
        self.row = row
        self.asked = asked or profile


# -------------------------------------------------------------------------------------------------------------- decision


def decide(facts: "Situation", request: "Request") -> Transition:
    """The transition that gives the container the profile it asks for, or Refused: never something weaker.

    A confined task under no_new_privs may only narrow its label, so the profile is stacked on it; any other changes to it.
    The write precedes the drop of capabilities and the user namespace, so that
    kernel.apparmor_restrict_unprivileged_unconfined turns it into a stack on unconfined only where the runtime itself is
    unprivileged; that is refused where it can be known, and else found out by check().
    """
    host, profile = facts["apparmor"], request["profile"]
    own = {part["name"]: part["mode"] for part in host["components"]}
    confined = [name for name, mode in own.items() if mode != "unconfined"]  # an unknown mode may confine, so it does
    nnp = facts["nnp"] or request["nnp"]

    if not profile:
        return Transition("keep", "", tuple(sorted(own)), _why_keep(host), 1)
    if fault := name_fault(profile, host["loaded"]):
        raise Refused(f'"{_shown(profile)}" cannot be an apparmor profile: {fault}', "correct process.apparmorProfile")
    namespace, name = split_namespace(profile)
    target = canonical(profile)
    if host["state"] != "on":
        if target == "unconfined":
            return Transition("keep", "", (), f"{_STATES[host['state']]}, and unconfined is what is asked for", 3)
        raise _no_apparmor(host, target)
    if name == "unconfined" and confined and nnp:
        raise _no_way_out(own, confined, facts, request)
    theirs = {target, *request.get("beside", ())}
    if host["loaded"] is not None:
        known = {*map(canonical, host["loaded"])}
        for one in sorted(theirs):
            if split_namespace(one)[1] != "unconfined" and one not in known:
                raise _not_loaded(host, one)
    if confined and nnp and not host["stack"]:
        raise _no_stacking(confined, target, facts, request)
    if target != "unconfined" and _is_added_to(own, facts):
        raise _added_to(target)

    if len(theirs) > 1:
        row = 13
    elif namespace:
        row = 15
    elif name == "unconfined":
        row = 10 if confined else 4
    elif target in own:
        row = 11
    elif len(own) > 1:
        row = 14
    else:
        row = 6 if confined and nnp else 5 if confined else 4
    more = joined(theirs.difference(own)) or target
    if confined and nnp:
        found = Transition("stack", target, tuple(sorted({*own, *theirs})), _why_stack(own, confined, more, facts, request), row, more)
    elif confined and len(theirs) > 1 and theirs.issuperset(own):
        found = Transition("stack", target, tuple(sorted(theirs)), _why_as_container(own, theirs, more), row, more)
    else:
        label = joined(theirs)
        found = Transition("exec", target, tuple(sorted(theirs)), _why_exec(own, confined, label, host), row, label)
    if lacking := (host.get("lacking") or {}).get(found.action, {}).get(found.asked):
        raise Refused(_write(host, "EACCES", _no_rule(found, lacking)))
    return found


_STATES = {"absent": "the kernel has no AppArmor", "off": "AppArmor is off"}


def _shown(name: str) -> str:
    # ASCII control characters would break the line, and engines read only one
    name = "".join(c if c >= " " else f"\\x{ord(c):02x}" for c in name)
    return name if len(name) <= 80 else name[:77] + "..."


def _join(names: "list[str]") -> str:
    return " and ".join(f'"{name}"' for name in names)


def _nnp(facts: "Situation", request: "Request") -> str:
    if not facts["nnp"]:
        return "no_new_privs is set by process.noNewPrivileges"
    return "no_new_privs is inherited by the runtime" + (" and set by process.noNewPrivileges" if request["nnp"] else "")


def _confining(own: "dict[str, str]", confined: "list[str]") -> str:
    words = {"enforce": "enforcing", "complain": "complaining", "unknown": "of unknown mode, which is taken as confining"}
    said = [f'"{name}" is {words.get(own[name], "confining")}' for name in confined]
    free = [name for name in own if name not in confined]
    return " and ".join(said) + (f" (in one stack with {_join(free)})" if free else "")


def _why_keep(host: "AppArmor") -> str:
    if host["state"] != "on":
        return f"no profile is asked for, and {_STATES[host['state']]}"
    return f'no profile is asked for, so nothing is written, and the exec starts from the runtime\'s own label "{host["label"]}"'


def _why_stack(own: "dict[str, str]", confined: "list[str]", target: str, facts: "Situation", request: "Request") -> str:
    already = " once more, which changes nothing" if target in own else ""
    mixed = ""
    if any(own[name] == "unknown" for name in confined):
        # were the unknown one in unconfined mode, exec would have done; stacking is never the weaker of the two
        mixed = "; should a profile of unknown mode be in unconfined mode, it stays in the label, and signal rules for peers may miss it"
    return (
        f"{_confining(own, confined)} and {_nnp(facts, request)}, so the kernel allows only a narrower label: "
        f'"{target}" is stacked on it{already}{mixed}'
    )


def _why_as_container(own: "dict[str, str]", theirs: "set[str]", more: str) -> str:
    return f'the container has the label "{joined(theirs)}", of which the runtime has {_join(list(own))}, so "{more}" is stacked on it'


def _why_exec(own: "dict[str, str]", confined: "list[str]", target: str, host: "AppArmor") -> str:
    if confined:
        return f'{_confining(own, confined)} and no_new_privs is not set, so the label is replaced by "{target}" where a rule permits it'
    named = [name for name in own if name != "unconfined"]
    who = f"the runtime's profile {_join(named)} is in unconfined mode" if named else "the runtime is unconfined"
    why = f'{who}, so the kernel changes the label to "{target}" with or without no_new_privs'
    if host["restrict_unconfined"] and not named:
        why += "; it is written before capabilities are dropped, for kernel.apparmor_restrict_unprivileged_unconfined is on"
    return why


# -------------------------------------------------------------------------------------------------------------- refusals


def _no_apparmor(host: "AppArmor", target: str) -> Refused:
    if host["state"] == "absent":
        why = "the kernel has no AppArmor: /sys/module/apparmor does not exist"
        todo = "use a kernel built with CONFIG_SECURITY_APPARMOR"
    else:
        why = "AppArmor is off: /sys/module/apparmor/parameters/enabled says N"
        todo = "boot without apparmor=0 and with apparmor among the modules of lsm="
    return Refused(f'cannot apply the apparmor profile "{target}": {why}', f"{todo}, or remove process.apparmorProfile")


def _no_way_out(own: "dict[str, str]", confined: "list[str]", facts: "Situation", request: "Request") -> Refused:
    return Refused(
        f"cannot start the container unconfined: {_confining(own, confined)} and {_nnp(facts, request)}, "
        "and a confined task under no_new_privs cannot become unconfined",
        f"remove process.apparmorProfile to keep {_join(list(own))}, or start without no_new_privs{_userns(own)}",
    )


def _not_loaded(host: "AppArmor", target: str) -> Refused:
    # crun's words first: what looks for them finds them
    return Refused(f"apply apparmor profile `{target}`: profile not loaded: {_where(target, host)} is not loaded", _load(target, host))


def _is_added_to(own: "dict[str, str]", facts: "Situation") -> bool:
    # aa_change_profile() in domain.c: of a plainly unconfined task; in a policy namespace it may be a stack that cannot be seen from inside
    host = facts["apparmor"]
    return (
        bool(host["restrict_unconfined"]) and own == {"unconfined": "unconfined"} and host["namespace"] == "root"
        and ("CAP_MAC_OVERRIDE" not in facts["caps"]["effective"] or facts.get("user_namespace", False))
    )


def _added_to(target: str) -> Refused:
    return Refused(
        f'cannot apply the apparmor profile "{target}": kernel.apparmor_restrict_unprivileged_unconfined is 1, and the runtime is '
        f'unconfined without CAP_MAC_OVERRIDE of the host, so the label would be "{joined((target, "unconfined"))}", which the rules of '
        "the profile for its own peers do not match",
        "load a profile for the runtime, in unconfined mode, or start as root with CAP_MAC_OVERRIDE",
    )


def _no_stacking(confined: "list[str]", target: str, facts: "Situation", request: "Request") -> Refused:
    return Refused(
        f'cannot apply the apparmor profile "{target}": {_join(confined)} confines the runtime and '
        f"{_nnp(facts, request)}, so the profile would have to be stacked, which this kernel cannot do",
        "use Linux 4.13 or later, or start without no_new_privs, or from an unconfined runtime",
    )


def _where(target: str, host: "AppArmor") -> str:
    namespace, name = split_namespace(target)
    namespace = namespace or host["namespace"] or ""
    return f'"{name}" of the ' + (f'policy namespace "{namespace}"' if namespace else "runtime's policy namespace")


def _load(target: str, host: "AppArmor") -> str:
    own = host["namespace"] or "root"
    inside = "" if own == "root" or split_namespace(target)[0] else f" (from outside the policy namespace: with -n {own})"
    return f"load it with: {loading(target)}{inside}"


def _userns(own: "Iterable[str]") -> str:
    # kernel.apparmor_restrict_unprivileged_userns put the runtime there, and from there no transition is permitted
    if "unprivileged_userns" not in own:
        return ""
    return (
        '; "unprivileged_userns" is what an unprivileged task becomes in a user namespace: '
        "give the runtime a profile of its own with the rule: userns,"
    )


def rule(transition: Transition) -> str:
    """The line of policy that permits the transition, for a profile of the runtime: `change_profile -> &web,`.

    Source: apparmor.d(5).
    """
    return f"change_profile -> {pattern(transition.asked, '&' if transition.action == 'stack' else '')},"


def write_failed(transition: Transition, facts: "Situation", errno: int, call: str = "write") -> str:
    """The sentence for a transition that the kernel did not take; `call` is the system call that failed with `errno`.

    Engines look for the path between backticks, so no other backtick may follow, and take the words "permission denied"
    and "operation not permitted" for other faults, so the errno is told by its name.
    """
    host = facts["apparmor"]
    own = {part["name"]: part["mode"] for part in host["components"]}
    path = "/proc/" + ATTRIBUTE[host["interface"]]
    name = next((name for name, number in ERRNO.items() if number == errno), f"errno {errno}")
    confined = [part for part, mode in own.items() if mode != "unconfined"]
    if call == "check":
        why = f'the pending label read back is not "{transition.asked}": it may not be loaded, and a complaining profile hides that'
        return f"write to `{path}`: {why}; {_load(transition.profile, host)}"
    if call not in ("write", "lsm_set_self_attr"):
        file = path.replace("/proc/thread-self", "@{PROC}/@{pid}/task/@{tid}")
        why = f"{call} failed"
        if errno == ERRNO["EACCES"] and confined:
            why += f"; {_each(confined)} the rule: owner {file} rw,"
        elif errno in (ERRNO["EPERM"], ERRNO["ENOSYS"]):
            why += "; a seccomp filter around the runtime has to permit it"
    elif errno == ERRNO["ENOENT"]:
        namespace, profile = split_namespace(transition.profile)
        why = f"apparmor profile {_where(transition.profile, host)} is not loaded; {_load(transition.profile, host)}"
        if profile == "unconfined":  # every policy namespace has it
            why = f'there is no policy namespace "{namespace}"; make it: mkdir {NAMESPACES}/{namespace.replace("//", "/namespaces/")}'
    elif errno == ERRNO["EACCES"]:
        strict = [part for part in confined if own[part] != "complain"] or confined
        if strict:
            why = _no_rule(transition, strict)
        else:
            why = "nothing confines the runtime, but a tracer of it may be; do not trace it under another profile"
    elif errno == ERRNO["EPERM"]:
        said = _join(confined) + " confines the runtime, and" if confined else "under"
        why = f'{said} no_new_privs allows no change to "{transition.asked}"; start without no_new_privs'
    elif errno in (ERRNO["EINVAL"], ERRNO["EOPNOTSUPP"]):
        why = f'"{transition.action} {transition.asked}" is not understood; another security module may own this attribute'
    else:
        why = f'the kernel does not take "{transition.action} {transition.asked}"'
    return _write(host, name, why)


def _write(host: "AppArmor", name: str, why: str) -> str:
    return f"write to `/proc/{ATTRIBUTE[host['interface']]}`: {name}: {why}"


def _no_rule(transition: Transition, who: "list[str]") -> str:
    return f"{_each(who)} the rule: {rule(transition)}{_userns(who)}"


def _each(names: "list[str]") -> str:
    return f"the profile{'s' if len(names) > 1 else ''} {_join(names)} {'each need' if len(names) > 1 else 'needs'}"


# ---------------------------------------------------------------------------------------------------------------- checks


def pending_ok(transition: Transition, text: str) -> bool:
    """Whether the pending transition, as the kernel reads it back, is to the label asked for and to nothing else.

    A kernel whose task is complaining invents a learning profile for a name that is not loaded. Whether the transition
    stacks is not to be read there. Source: apparmor_getprocattr() in lsm.c.
    """
    label, mode = parse(text)
    named = mode is not None or split_namespace(label)[1] == "unconfined"
    return transition.action == "keep" or (named and LEARNING not in label and {*components(label)} == {*components(transition.asked)})


def pending_text(outs: "dict[str, bytes]") -> "str | None":
    """What was read back of the pending label, by whichever way it was; None when nothing was asked for."""
    raw = outs.get("pending", b"").rstrip(b"\0") or outs.get("pending answer", b"")[LSM_CTX:].rstrip(b"\0")
    return raw.decode("utf-8", "surrogateescape") if raw else None


def check(transition: Transition, label: str, mode: "str | None" = None) -> "str | None":
    """Compares the label of the running process with what was decided: None when it holds, else a sentence.

    `label` and `mode` are as parse() gives them; a label with no mode may be the kernel's whole line. Components are compared
    as a set, for the kernel sorts them. "keep" asks for nothing, so the exec may have attached a profile: it is never wrong.
    """
    if transition.action == "keep":
        return None
    if mode is None:
        label, mode = parse(label)
    live, expected = set(components(label)), set(transition.expected)
    if live == expected:
        return None
    shown = f'"{label}"' + (f" ({mode})" if mode else "")
    why = ""
    if any(LEARNING in part for part in live - expected):
        why = "; the kernel invented a learning profile, so the one asked for is not loaded or has been removed"
    elif live - expected == {"unconfined"} and expected < live:
        why = (
            "; kernel.apparmor_restrict_unprivileged_unconfined adds unconfined where the runtime is unconfined and lacks "
            "CAP_MAC_OVERRIDE: load a profile for the runtime"
        )
    elif transition.profile not in live:
        why = f'; the profile "{transition.profile}" was not applied'
        if "unconfined" in live - expected:  # domain.c, aa_get_newest_label(): what is left where a profile was
            why += ", or it was removed while the process waited"
    return f'the process runs under the apparmor label {shown}, not under "{joined(transition.expected)}"{why}'


def by_itself(transition: Transition, label: str, own: "tuple[str, ...]") -> bool:
    """Whether a process that was to get another label than the `label` it has can have come to it only by itself, as its profile permits:
    by change_profile, a hat, or the exec of another program.

    `own` are the components of its label before the exec, which the kernel found to be followed by the right one; and no policy may have
    changed since. What the exec itself can then have made of it is told by `own`: under a complaining profile the label may have stayed,
    and kernel.apparmor_restrict_unprivileged_unconfined may have added to an unconfined one. Source: handle_onexec() and
    aa_change_profile() in domain.c.
    """
    live, free = components(label), {part for part in own if split_namespace(part)[1] == "unconfined"}
    if free.intersection(live) and len(live) > 1 and not free.issubset(transition.expected):
        return False
    return any(part not in own and _learnt_from(part) not in {*own} - {transition.profile} for part in live)


def _learnt_from(profile: str) -> str:
    """The complaining profile for which the kernel invented this one; empty for one that was loaded."""
    before, found, _ = profile.partition(LEARNING)
    return before if found else ""
