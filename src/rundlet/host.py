"""Facts about the host, gathered in a few reads and without judgement: the kernel, AppArmor, the runtime's own privileges, cgroups.

Every value can be written as JSON. What cannot be known is None; what cannot be read although it exists is an error where a
guess would be unsafe, so an unreadable AppArmor switch is never "off". /proc and /sys are taken as they stand: nothing here
writes, and the executor makes sure of its own procfs before it does.
"""

import posix

from rundlet.cgroup import layout
from rundlet.errors import Refused
from rundlet.kernel import CAPABILITIES, EACCES, EINVAL, ENOENT, ENOTDIR, EPERM
from rundlet.plan.label import canonical, components, parse, split_namespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Literal, TypedDict

    from rundlet.plan.apparmor import AppArmor, Caps, Component

    class Facts(TypedDict):
        """All facts; `nnp`, `seccomp` and `caps` are those of the calling thread; capabilities count in the runtime's own user namespace,
        and `user_namespace` says whether that is another one than the host's."""

        kernel: str
        arch: str
        uid: int
        gid: int
        nnp: bool
        seccomp: int
        caps: Caps
        user_namespace: bool
        lsm: list[str] | None
        apparmor: AppArmor
        cgroup: Any


PROC = "/proc"
SECURITY = "/sys/kernel/security"
MODULES = "/sys/module"
INITIAL = "user:[4026531837]"  # the host's own user namespace: PROC_USER_INIT_INO in include/linux/proc_ns.h
AA_MAY_ONEXEC = 0x20000000  # include/perms.h
SCOPED = "/attr/apparmor"  # since Linux 5.8: AppArmor's own, whichever module attr/current belongs to


def facts(profile: "str | None" = None, everything: bool = False) -> "Facts":
    """What the host is, for the plan; the loaded profiles are listed when a `profile` is asked for or `everything` is wanted, and with
    everything also which of them the own label has no rule for.

    Raises Refused when it cannot be told whether AppArmor is on, or which label the caller has (proc(5), kernel sources
    security/apparmor/apparmorfs.c and lsm.c).
    """
    kernel = posix.uname()
    status = _own_status()
    modules = _try(SECURITY + "/lsm")
    lsm = modules.strip().split(",") if modules is not None else None
    return {
        "kernel": kernel.release,
        "arch": kernel.machine,
        "uid": posix.geteuid(),
        "gid": posix.getegid(),
        "nnp": _field(status, "NoNewPrivs") == "1",
        "seccomp": int(_field(status, "Seccomp") or "0"),
        "caps": {"effective": _names(_field(status, "CapEff")), "bounding": _names(_field(status, "CapBnd"))},
        "user_namespace": user_namespace(),
        "lsm": lsm,
        "apparmor": apparmor(kernel.release, lsm, bool(profile) or everything, profile, everything),
        "cgroup": layout.read(),
    }


def _own_status() -> str:
    """The caller's own lines of proc_pid_status(5), from a /proc that shows the processes as the caller counts them: what is told of
    another process there, and written to it, would else be another's."""
    path = PROC + "/thread-self/status"
    try:
        status = _read(path)
    except OSError as e:
        raise Refused(f"cannot tell what the runtime is: {path}: {errno_name(e)}", "mount a procfs on /proc") from None
    own = _field(status, "Tgid")
    if own != str(posix.getpid()):
        why = f"it calls this process {own}, which is {posix.getpid()}" if own else "it does not have the runtime's status"
        raise Refused(f"{PROC} is not that of the runtime's PID namespace: {why}", "mount a procfs there: unshare --mount-proc, mount(8)")
    return status


def apparmor(
    release: str, lsm: "list[str] | None", loaded: bool, profile: "str | None" = None, everything: bool = False
) -> "AppArmor":
    """AppArmor's part of the facts, on a kernel of this `release` with these modules; the loaded profiles only when asked for.

    state               "on", "off" (built in, not used) or "absent" (not built in)
    label, mode         the caller's own, as the kernel prints them; the mode of plain `unconfined` is None
    components          the profiles of the label, each with its mode or "unknown"
    namespace           the policy namespace, "root" outside of any
    stack               whether the kernel can stack profiles; post_nnp_subset: compares with the label at no_new_privs
    loaded              the profiles' canonical names, None where the list is not to be had
    lacking             "exec" and "stack" → a profile → those of the own label that have no rule for it. None where it is not to be had, or
                        better had from the kernel's answer to the write, which is logged: only with `everything` are all profiles asked
                        about, and in kill mode, where that answer would be a SIGKILL, the `profile`
    interface           how a label is asked for: "lsm" by system call, "scoped" or "legacy" by file
    restrict_…          the two sysctls; None where the kernel has none, or keeps it from the caller
    """
    state = _state()
    scoped = _exists(PROC + "/thread-self" + SCOPED)
    found: "AppArmor" = {
        "state": state, "label": None, "mode": None, "components": [], "namespace": None, "stack": False, "post_nnp_subset": False,
        "loaded": None, "lacking": None, "interface": "lsm" if _version(release) >= (6, 8) else "scoped" if scoped else "legacy",
        "restrict_unconfined": _switch(PROC + "/sys/kernel/apparmor_restrict_unprivileged_unconfined"),
        "restrict_userns": _switch(PROC + "/sys/kernel/apparmor_restrict_unprivileged_userns"),
    }
    if state != "on":
        return found
    if not scoped and lsm is not None and "apparmor" not in lsm:
        raise Refused(
            f"cannot tell the runtime's apparmor label: {PROC}/thread-self/attr belongs to another of {','.join(lsm)}",
            "use Linux 5.8 or later, or make apparmor the only major security module",
        )
    label, mode = label_of(0)
    names = components(label)
    profiles = None
    # the kernel's one word for a stack does not tell whether a profile of it is in unconfined mode
    if loaded or len(names) > 1:
        profiles = _profiles()
    found["label"], found["mode"] = label, mode
    found["components"] = [{"name": name, "mode": _mode(name, mode, len(names), profiles)} for name in names]
    found["namespace"] = policy_namespace()
    stack = _try(SECURITY + "/apparmor/features/domain/stack")
    # without securityfs the scoped files tell: they are younger than stacking
    found["stack"] = scoped if stack is None else stack.strip() == "yes"
    found["post_nnp_subset"] = (_try(SECURITY + "/apparmor/features/domain/post_nnp_subset") or "").strip() == "yes"
    if loaded and profiles is not None:
        found["loaded"] = list(profiles)
    modes = {part["mode"] for part in found["components"]}
    if "kill" in modes or (everything and "enforce" in modes):
        targets = {canonical(profile)} if profile else set()
        found["lacking"] = _lacking(found["components"], targets | ({"unconfined", *(profiles or ())} if everything else set()))
    return found


def _lacking(own: "list[Component]", targets: "set[str]") -> "dict[str, dict[str, list[str]]] | None":
    """Of the profiles in `targets` those that not every one of the `own` permits to change to, or to stack, and which do not.

    Asked is what a write would be held to: the rule without a path to execute. A complaining profile permits all, and of one whose mode
    cannot be seen nothing is known. Source: query_label() and profile_query_cb() in apparmorfs.c, label_match() in domain.c.
    """
    strict = [part["name"] for part in own if part["mode"] in ("enforce", "kill")]
    found: "dict[str, dict[str, list[str]]]" = {"exec": {}, "stack": {}}
    try:
        for target in sorted(targets):
            for kind, before in (("exec", ""), ("stack", "&")):
                if lacks := [name for name in strict if not _permits(name, before + target)]:
                    found[kind][target] = lacks
    except OSError:
        return None
    return found


def _permits(profile: str, target: str) -> bool:
    """Whether a profile has a rule `change_profile -> TARGET,`: one question to the kernel, and its answer, for each open file."""
    fd = posix.open(SECURITY + "/apparmor/.access", posix.O_RDWR | posix.O_CLOEXEC)
    try:
        posix.write(fd, f"label\0{profile}\0\2{target}".encode("utf-8", "surrogateescape"))  # 2: AA_CLASS_FILE in include/apparmor.h
        answer = posix.read(fd, 4096).split()  # allow 0x… deny 0x… audit 0x… quiet 0x…
    finally:
        posix.close(fd)
    return bool(int(answer[1], 16) & ~int(answer[3], 16) & AA_MAY_ONEXEC)


def policy_namespace() -> "str | None":
    """The last part of the name of the caller's policy namespace, "root" for the first one; None where it is not to be read."""
    return (_try(SECURITY + "/apparmor/.ns_name") or "").strip() or None


def label_of(pid: int) -> "tuple[str, str | None]":
    """The live AppArmor label and its mode of process `pid`, 0 for the calling thread. Raises Refused when it cannot be read."""
    attr = SCOPED if _exists(PROC + "/thread-self" + SCOPED) else "/attr"
    path = f"{PROC}/{pid or 'thread-self'}{attr}/current"
    try:
        return parse(_read(path))
    except OSError as e:
        # engines look for the path between backticks and take "permission denied" for another fault, so the errno has its name
        raise Refused(f"read from `{path}`: {errno_name(e)}", "the runtime's own profile must permit reading it") from None


def attributes_of_another() -> str:
    """The order of the security modules where the files in /proc/PID/attr are not AppArmor's though it is on; "" where all is well.

    They belong to the first module that has such files, and with bpf before it to nobody: security_setprocattr() in security/security.c.
    """
    own = _try(f"{PROC}/thread-self{SCOPED}/current")
    if own is None or own == _try(f"{PROC}/thread-self/attr/current"):
        return ""
    return (_try(SECURITY + "/lsm") or "unknown").strip()


def _state() -> "Literal['on', 'off', 'absent']":
    path = MODULES + "/apparmor/parameters/enabled"
    try:
        word = _read(path).strip()
    except OSError as e:
        if e.errno not in (ENOENT, ENOTDIR):
            raise Refused(f"cannot tell whether AppArmor is on: {path}: {errno_name(e)}", "make it readable") from None
        if not _exists(MODULES):
            raise Refused(f"cannot tell whether AppArmor is on: {MODULES} does not exist", "mount sysfs on /sys") from None
        if _exists(PROC + "/thread-self" + SCOPED):  # a kernel that has the one has the other
            why = f"the kernel has it, but {MODULES}/apparmor does not exist"
            raise Refused(f"cannot tell whether AppArmor is on: {why}", "mount sysfs on /sys, and nothing over it") from None
        return "absent"
    if word not in ("Y", "N"):
        raise Refused(f'cannot tell whether AppArmor is on: {path} says "{word}", neither Y nor N', "mount sysfs on /sys")
    return "on" if word == "Y" else "off"


def _mode(name: str, whole: "str | None", count: int, profiles: "dict[str, str] | None") -> str:
    """The mode of one profile of a label of `count`, whose mode the kernel says is `whole`."""
    plain = split_namespace(name)[1] == "unconfined"  # a profile that is loaded may have that very name, and then it has a mode
    if count > 1:
        return (profiles or {}).get(name, "unconfined" if plain else "unknown")
    if whole is None:
        return "unconfined" if plain else "unknown"
    return "unconfined" if whole == "-" else whole  # Linux 4.13 to 5.7 print a dash: label_modename() in label.c


def _profiles() -> "dict[str, str] | None":
    """The loaded profiles and their modes; None where securityfs is absent or the list is kept from the caller."""
    text = _try(SECURITY + "/apparmor/profiles")
    if text is None:
        return None
    found = {}
    for line in text.splitlines():
        name, mode = parse(line)
        found[canonical(name)] = mode or "unknown"
    return found


def _version(release: str) -> "tuple[int, int]":
    """Major and minor number of a kernel release; "6.12.95+deb12-amd64" gives (6, 12)."""
    numbers = []
    for part in release.split(".")[:2]:
        digits = part[: next((i for i, c in enumerate(part) if not "0" <= c <= "9"), len(part))]
        numbers.append(int(digits or 0))
    return numbers[0], numbers[1] if len(numbers) > 1 else 0


def user_namespace() -> bool:
    """Whether this process is in another user namespace than the host's first one."""
    try:
        return posix.readlink(PROC + "/thread-self/ns/user") != INITIAL
    except OSError:
        return False  # a kernel without user namespaces has no other one


def errno_name(error: OSError) -> str:
    """EACCES, and so on."""
    from errno import errorcode

    return errorcode.get(error.errno or 0, f"errno {error.errno}")


def _field(status: str, name: str) -> str:
    """One line of proc_pid_status(5); empty when there is none of that name."""
    return status.partition(f"\n{name}:")[2].partition("\n")[0].strip()


def _names(mask: str) -> "list[str]":
    bits = int(mask, 16)
    if bits == (1 << len(CAPABILITIES)) - 1:  # root's, as a rule
        return list(CAPABILITIES)
    return [CAPABILITIES[n] if n < len(CAPABILITIES) else f"CAP_{n}" for n in range(bits.bit_length()) if bits >> n & 1]


def _switch(path: str) -> "bool | None":
    text = _try(path)
    return None if text is None else text.strip() != "0"


def _exists(path: str) -> bool:
    try:
        posix.stat(path)
    except OSError as e:
        if e.errno in (ENOENT, ENOTDIR):
            return False
        raise
    return True


def _try(path: str) -> "str | None":
    """A file's text, or None where there is none or it is kept from the caller."""
    try:
        return _read(path)
    except OSError as e:
        if e.errno in (ENOENT, ENOTDIR, EACCES, EPERM, EINVAL):
            return None
        raise


def _read(path: str) -> str:
    """A whole file of the kernel's, which gives it in pieces of up to a page."""
    fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        pieces = []
        while piece := posix.read(fd, 65536):
            pieces.append(piece)
    finally:
        posix.close(fd)
    return b"".join(pieces).decode("utf-8", "surrogateescape")
