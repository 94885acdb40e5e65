"""Inside the lab: processes that have another label than was decided once somebody looks, by their own doing or by others'.

What is looked at after an exec may have moved on. Here it has: the look waits until the process says that it has done what it does.
"""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rundlet.errors import Fault
from rundlet.life import observe
from tests.lab.cases import REMOVABLE, Own
from tests.lab.task import become, no_new_privs

POLICY = """
profile roams flags=(attach_disconnected) { file, capability, network, ptrace, unix, signal, change_profile, ^hat { file, } }
profile elsewhere flags=(attach_disconnected) { file, signal, }
profile blind flags=(attach_disconnected) { file, signal, ptrace, deny /proc/[0-9]*/attr/** r, }
"""
CURRENT = "/proc/self/attr/apparmor/current"


@dataclass(frozen=True)
class Moving:
    """A process of the runtime `own` that asks for `action` `profile`, and has `label` to come; then it writes `writes` to its label."""

    name: str
    own: str = "unconfined"
    action: str = "exec"
    profile: str = "roams"
    label: tuple[str, ...] = ("roams",)
    writes: str = ""
    late: bool = False  # no_new_privs after the label was asked for
    meanwhile: str = ""  # "load" or "remove"
    by: str = "unconfined"  # the label of who looks


MOVING = (
    Moving("changes to another", writes="changeprofile elsewhere"),
    Moving("stacks another on itself", writes="stack elsewhere"),
    Moving("goes into a hat", writes="changehat 0000000000000001^hat"),
    Moving("leaves confinement as it may", "rt-learns", writes="changeprofile unconfined"),
    Moving("of a stack, stacks another", "rt-learns", "stack", label=("roams", "rt-learns"), writes="stack elsewhere", late=True),
    Moving("learns", profile="learns-too", label=("learns-too",), writes="changeprofile nope"),
    Moving("returns to the runtime's label", writes="changeprofile unconfined"),
    Moving("changes to another while policy is loaded", writes="changeprofile elsewhere", meanwhile="load"),
    Moving("its profile is removed", "rt-learns", profile="fleeting", label=("fleeting",), meanwhile="remove"),
    Moving("never came to it, for the runtime complains", "rt-learns", late=True),
    Moving("cannot be looked at", by="blind"),
)


def look(moving: Moving, program: str, load: Callable[..., None]) -> dict[str, Any]:
    """Makes the process, looks at it when it has moved, and ends it. `program` is busybox."""
    reading, writing = os.pipe()
    waiting, going = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.dup2(waiting, 0)
            os.dup2(writing, 1)
            become(Own(moving.own))()
            with open("/proc/thread-self/attr/apparmor/exec", "w") as file:
                file.write(f"{moving.action} {moving.profile}")
            os.write(1, b"asked\n")
            os.read(0, 1)
            if moving.late:
                no_new_privs()
            script = f"echo '{moving.writes}' >{CURRENT}; " if moving.writes else ""
            os.execv(program, ["sh", "-c", f"{script}echo moved; read end"])
        finally:
            os._exit(1)
    os.close(writing)
    os.close(waiting)
    expect: Any = {
        "action": moving.action, "profile": moving.profile, "label": list(moving.label), "nnp": moving.late, "seccomp": False,
        "bounding": (1 << 64) - 1,
    }
    with open(reading, "rb", buffering=0) as said:
        assert said.readline() == b"asked\n"
        watch = observe.Watch(pid, expect)
        try:
            os.write(going, b"\n")
            assert said.readline() == b"moved\n"
            if moving.meanwhile:
                load(REMOVABLE if moving.meanwhile == "remove" else POLICY, *(("-R",) if moving.meanwhile == "remove" else ()))
            found = _check(watch, moving.by)
        finally:
            watch.close()
            os.close(going)
            os.waitpid(pid, 0)
            if moving.meanwhile == "remove":
                load(REMOVABLE)
    return found


def _check(watch: observe.Watch, by: str) -> dict[str, Any]:
    """What one of another label makes of it."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            become(Own(by))()
            try:
                seen = watch.check()
                found: dict[str, Any] = {"seen": seen and seen[0]}
            except Fault as fault:
                found = {"fault": str(fault)}
            except OSError as failure:
                found = {"failed": str(failure)}
            os.write(writing, json.dumps(found).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as said:
        told = said.read()
    os.waitpid(pid, 0)
    return dict(json.loads(told))
