"""How a process of the lab becomes what a runtime may be, and what libapparmor makes of the same situation."""

import ctypes
import importlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from rundlet import host
from rundlet.errors import Refused
from rundlet.plan.apparmor import decide
from rundlet.plan.label import joined, parse
from tests.lab.cases import Own

LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNS, MS_REC_PRIVATE, MS_BIND, MNT_DETACH = 0x20000, 0x44000, 0x1000, 2
PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 22, 24, 38
CAP_MAC_OVERRIDE = 32
SECURITY = "/sys/kernel/security"
CURRENT = "/proc/thread-self/attr/apparmor/current"


def _call(name: str, *args: Any) -> None:
    if getattr(LIBC, name)(*args):
        raise OSError(ctypes.get_errno(), name)


def _mount(source: str | None, target: str, flags: int) -> None:
    _call("mount", source and source.encode(), target.encode(), None, ctypes.c_ulong(flags), None)


def no_new_privs() -> None:
    """Sets it for this process."""
    _call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def _no_lsm_calls() -> None:
    """A seccomp filter that answers ENOSYS to lsm_get_self_attr(2), 459, and lsm_set_self_attr(2), 460: seccomp(2), bpf classic."""

    class Filter(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]

    def op(code: int, yes: int, no: int, k: int) -> bytes:
        return code.to_bytes(2, "little") + bytes((yes, no)) + k.to_bytes(4, "little")

    text = op(0x20, 0, 0, 0) + op(0x35, 0, 2, 459) + op(0x25, 1, 0, 460) + op(0x06, 0, 0, 0x50000 + 38) + op(0x06, 0, 0, 0x7FFF0000)
    code = ctypes.create_string_buffer(text, len(text))
    program = Filter(len(text) // 8, ctypes.addressof(code))
    _call("prctl", PR_SET_SECCOMP, 2, ctypes.byref(program), 0, 0)


def become(own: Own) -> Callable[[], None]:
    """What a child does between fork and exec to be `own`. The label comes before no_new_privs, as in a confined engine's unit."""

    def change() -> None:
        if own.hidden or own.unstackable:
            _call("unshare", CLONE_NEWNS)
            _mount(None, "/", MS_REC_PRIVATE)
        if own.unstackable:
            _mount("/run/lab/no", SECURITY + "/apparmor/features/domain/stack", MS_BIND)
        if own.hidden:
            _call("umount2", SECURITY.encode(), MNT_DETACH)
        if own.powerless:
            _call("prctl", PR_CAPBSET_DROP, CAP_MAC_OVERRIDE, 0, 0, 0)
        if own.callless:
            _no_lsm_calls()
        if own.label != "unconfined":
            fd = os.open(CURRENT, os.O_WRONLY)
            os.write(fd, f"changeprofile {own.label}".encode())
            os.close(fd)
        if own.nnp:
            no_new_privs()

    return change


# ─────────────────────────────────────────────────────────────────────────────────────────────────────────────── libapparmor


class Library:
    """libapparmor: by its Python module, and by ctypes for the two functions whose C pointers that module has no words for."""

    def __init__(self) -> None:
        self.module = importlib.import_module("LibAppArmor")
        self.library = ctypes.CDLL("libapparmor.so.1", use_errno=True)
        self.library.aa_splitcon.restype = ctypes.c_void_p

    def enabled(self) -> bool:
        """aa_is_enabled(2)."""
        return bool(self.module.aa_is_enabled())

    def own(self) -> tuple[str | None, str | None]:
        """aa_getcon(2): label and mode of this process."""
        label, mode = ctypes.c_char_p(), ctypes.c_char_p()
        if self.library.aa_getcon(ctypes.byref(label), ctypes.byref(mode)) < 0:
            raise OSError(ctypes.get_errno(), "aa_getcon")
        return _text(label), _text(mode)

    def split(self, text: str) -> tuple[str | None, str | None]:
        """aa_splitcon(3): label and mode of what the kernel printed."""
        buffer, mode = ctypes.create_string_buffer(text.encode()), ctypes.c_char_p()
        if not self.library.aa_splitcon(buffer, ctypes.byref(mode)):
            return None, None
        return buffer.value.decode(), _text(mode)

    def ask(self, action: str, profile: str) -> None:
        """aa_change_onexec(2) or aa_stack_onexec(2); raises OSError."""
        answer = getattr(self.module, {"exec": "aa_change_onexec", "stack": "aa_stack_onexec"}[action])(profile)
        if answer:
            raise OSError(ctypes.get_errno() or -1, action)


def _text(word: ctypes.c_char_p) -> str | None:
    return None if word.value is None else word.value.decode()


def oracle(library: Library, own: Own, profile: str | None, nnp: bool, program: str) -> dict[str, Any]:
    """What a child that is `own` reads of itself, by us and by libapparmor, and where libapparmor gets with what we decide.

    The child executes `program` (busybox) as `cat` to print the label it then has.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.dup2(writing, 1)
            _ask(library, own, profile, nnp, program)
        except BaseException as failure:
            os.write(1, json.dumps({"failed": f"{type(failure).__name__}: {failure}", "errno": getattr(failure, "errno", None)}).encode())
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as stream:
        lines = stream.read().decode().splitlines()
    os.waitpid(pid, 0)
    return {**json.loads(lines[0]), "after": lines[1] if len(lines) > 1 else ""}


def _ask(library: Library, own: Own, profile: str | None, nnp: bool, program: str) -> None:
    become(own)()
    with open("/proc/thread-self/attr/apparmor/current") as file:
        printed = file.read().rstrip("\n")
    facts = host.facts(profile)
    found: dict[str, Any] = {
        "apparmor": facts["apparmor"], "nnp": facts["nnp"], "enabled": library.enabled(), "own": library.own(),
        "split": library.split(printed), "parsed": parse(printed), "shape": asdict(own),
    }
    transition = None
    try:
        transition = decide(facts, {"profile": profile, "nnp": nnp})
        found["action"], found["expected"], found["shown"] = transition.action, transition.expected, joined(transition.expected)
        if transition.action != "keep":
            library.ask(transition.action, transition.profile)
    except Refused as refused:
        found["refused"] = str(refused)
    except OSError as failure:
        found["errno"] = failure.errno
    try:
        decide(host.facts(profile, everything=True), {"profile": profile, "nnp": nnp})
    except Refused as refused:
        found["foreseen"] = str(refused)
    os.write(1, json.dumps(found).encode() + b"\n")
    if transition and "errno" not in found:
        if nnp:
            no_new_privs()
        os.execv(program, ["cat", "/proc/self/attr/apparmor/current"])
