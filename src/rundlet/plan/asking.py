"""How a label is asked for: a transition of apparmor.py as system calls. Kernel sources cited are those of security/apparmor/."""

from _struct import pack

from rundlet.kernel import AT_FDCWD, ERRNO, O_CLOEXEC, O_DIRECTORY, O_PATH, O_RDONLY, O_WRONLY, PROC_SUPER_MAGIC, open_how
from rundlet.plan.apparmor import ATTRIBUTE, LSM_CTX, Transition
from rundlet.plan.label import split_namespace
from rundlet.plan.step import Call, Data, Out, Part, Scratch, Slot, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal


def proc_steps() -> "tuple[Step, ...]":
    """Opens the host's /proc into the slot "proc" and makes sure that it is a procfs, not a file tree that looks like one.

    A container can put files in the way of /proc (CVE-2019-16884, CVE-2025-52881), so this is done in the host's namespaces.
    """
    magic = Scratch("proc magic", 120)  # struct statfs, whose first word is f_type
    return (
        Step(
            "open the host's /proc",
            Call("openat", AT_FDCWD, "/proc", O_PATH | O_DIRECTORY | O_CLOEXEC, 0, into="proc"),
            Call("fstatfs", Slot("proc"), magic),
            Call("check", magic, PROC_SUPER_MAGIC, len(PROC_SUPER_MAGIC), ERRNO["ENODEV"]),
            kind="proc", hint="/proc must be a mounted procfs",
        ),
    )


RESOLVE_PLAIN = 0x01 | 0x02  # RESOLVE_NO_XDEV, RESOLVE_NO_MAGICLINKS: nothing mounted over it, nothing but procfs
TO_READ, TO_WRITE = open_how(O_RDONLY | O_CLOEXEC, resolve=RESOLVE_PLAIN), open_how(O_WRONLY | O_CLOEXEC, resolve=RESOLVE_PLAIN)
LSM_ATTR_EXEC, LSM_ID_APPARMOR = 101, 104  # linux/lsm.h


def steps(transition: Transition, interface: "Literal['lsm', 'scoped', 'legacy']") -> "tuple[Step, ...]":
    """The system calls of a transition: one write, then the pending label is read back and compared. None for "keep".

    The step must be made by the process that later becomes the container's init or is copied to it, before it enters
    namespaces, drops capabilities or sets no_new_privs; fork copies a pending transition, any exec clears it. It reads the
    slot "proc" of proc_steps(). From Linux 6.8 the label is given by system call, which no file can stand in the way of;
    where a seccomp filter around the runtime keeps that away (ENOSYS, EPERM), the same text is written to the file, and
    the kernel's answer to that counts. What was read back is pending_text() of the reply's buffers, for pending_ok().
    """
    if transition.action == "keep":
        return ()
    text = f"{transition.action} {transition.asked}".encode("utf-8", "surrogateescape")
    calls: "list[Call]" = []
    if interface == "lsm":
        ctx = Data(pack("=QQQQ", LSM_ID_APPARMOR, 0, LSM_CTX + len(text), len(text)) + text)
        calls.append(Call("lsm_set_self_attr", LSM_ATTR_EXEC, ctx, LSM_CTX + len(text), 0, fine=("ENOSYS", "EPERM"), on_fine="file"))
        calls += _pending_by_call(transition)
    # the kernel takes one write as one command
    calls += [
        Call("openat2", Slot("proc"), ATTRIBUTE[interface], TO_WRITE, 24, into="label", label="file"),
        Call("write", Slot("label"), text, len(text)),
        Call("close", Slot("label")),
        *_pending_by_file(transition, interface),
    ]
    verb = "stack on the label" if transition.action == "stack" else "change the label to"
    return (Step(f'{verb} "{transition.asked}" at the exec', *calls, kind="label"),)


def still(transition: Transition, interface: "Literal['lsm', 'scoped', 'legacy']") -> "tuple[Step, ...]":
    """Reads the pending label back once more, just before the exec: between create and start somebody may have removed the profile,
    and the kernel puts unconfined in its place (apparmorfs.c, aa_get_newest_label()). None for "keep"."""
    if transition.action == "keep":
        return ()
    calls: "list[Call]" = []
    if interface == "lsm":
        calls += _pending_by_call(transition, fine=("ENOSYS", "EPERM"), on_fine="file")
    calls += _pending_by_file(transition, interface, label="file")
    what = f'see that the label "{transition.asked}" is still the one asked for'
    # engines look for the path between backticks
    hint = (
        f'read from `/proc/{ATTRIBUTE[interface]}`: the profile "{transition.profile}" or one of the runtime was removed, or '
        "no longer confines the runtime, which loading it again does not undo; load it, and create the container anew"
    )
    return (Step(what, *calls, kind="still", hint=hint),)


def _wanted(transition: Transition, end: bytes) -> "tuple[bytes, int]":
    """How the pending label has to begin as the kernel prints it, and room for it, its mode, or a wrong answer."""
    name = transition.asked.encode("utf-8", "surrogateescape")
    plain = split_namespace(transition.asked)[1] == "unconfined"  # printed without a mode
    return name + (end if plain else b" ("), (len(name) + 512) & ~7


def _pending_by_call(transition: Transition, fine: "tuple[str, ...]" = (), on_fine: str = "") -> "list[Call]":
    wanted, size = _wanted(transition, b"\0")
    answer = Out("pending answer", LSM_CTX + size)
    return [
        Call("lsm_get_self_attr", LSM_ATTR_EXEC, answer, Data(pack("=I", LSM_CTX + size)), 0, fine=fine, on_fine=on_fine),
        Call("check", answer, pack("=Q", LSM_ID_APPARMOR), 8, ERRNO["EBADMSG"]),
        Call("check", Part(answer, LSM_CTX), wanted, len(wanted), ERRNO["EBADMSG"], on_zero="end"),
    ]


def _pending_by_file(transition: Transition, interface: str, label: str = "") -> "list[Call]":
    wanted, size = _wanted(transition, b"\n")
    pending = Out("pending", size)
    return [
        Call("openat2", Slot("proc"), ATTRIBUTE[interface], TO_READ, 24, into="label", label=label),
        Call("read", Slot("label"), pending, size),
        Call("check", pending, wanted, len(wanted), ERRNO["EBADMSG"]),
        Call("close", Slot("label")),
    ]
