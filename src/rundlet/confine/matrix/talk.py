"""The conversation with the executor that is a container's first process: a fork for each probe, and what came of it.

    programs, by the executor's standard input             answers, by its standard output

    fork      the child takes the next program       ┐
    the probe's calls                                │ ──▶  how far the child came, and its errno
    what an executed copy of the executor is asked   ┘ ──▶  its reply
    (the first process waits for the child)            ──▶  the child's end, under a mark

Both are pipes, since AppArmor does not mediate inherited pipes, but sockets. An executor answers where it reads; a pipe has one direction
only, so it is redirected to the output for each answer (executor.c, REDIRECT). What is answered to the input is lost, which is meant: so
the child ends after its answer, and the first process says nothing of programs that were not for it. Answers are untrusted.
"""

import errno
import os
import select
import signal
import time
from dataclasses import dataclass
from typing import Any

from rundlet.confine.matrix.probes import CHILD, FORK_TARGET, PROBED, Command, Probe, command_steps
from rundlet.errors import Fault, StepFailed
from rundlet.executor.program import Program
from rundlet.executor.template import REPLY, ROOM, SLOTS
from rundlet.kernel import PR_SET_NAME
from rundlet.plan.step import Call, Out, Slot, Step

PROC_STATUS = 4096
READABLE = ("EACCES", "EPERM", "ENOENT", "EINVAL")
NAMES = {**errno.errorcode, errno.EOPNOTSUPP: "EOPNOTSUPP"}  # which has two names


class Lost(Exception):
    """There is nobody any more who answers, or nobody answers in time; the message says which."""


@dataclass(frozen=True)
class Outcome:
    """What came of a probe: `is_` allowed, denied, refused (by the runtime), absent or unknown. `errno` is the name, `at` what was being
    done where that was not the probe itself."""

    is_: str
    errno: str = ""
    at: str = ""


class Talk:
    """With one executor: `to` and `back` are descriptors of pipes, `patience` is in seconds for each answer."""

    def __init__(self, to: int, back: int, patience: float) -> None:
        self.to = to
        self.back = back
        self.patience = patience
        self.lost = ""  # why there is nothing more to be had
        self.mark = int.from_bytes(os.urandom(7), "little")

    def probe(self, probe: Probe | Command, at: str, path: str, peer: int = 0, comm: str = "probe") -> Outcome:
        """Tries; `at` is the helper folder's path in the container, `path` its search path, `peer` the PID of whom the probe is about.

        `comm` is what its process is called: the kernel's log has that name.
        """
        if isinstance(probe, Command):
            return self._command(probe, path)
        named = Call("prctl", PR_SET_NAME, comm, fine=READABLE)
        slots: dict[str, int] = {"child": 0, "target": 1}
        bind = {"peer": peer} if peer else None
        body = Program([Step("begin", Call("redirect", 1), named), *probe.steps(at)], slots if probe.sibling else {}, bind)
        programs = [body]
        if probe.after:
            # the first process takes this one when nothing was executed; its parent is outside, so it has none
            programs.append(program(Step("after", Call("getppid", into="parent", on_zero="end"), Call("redirect", 1), *probe.after)))
        answers, ended = self._ask(programs, probe.sibling)
        if not answers:
            return _ended(ended)
        try:
            replies = [meant.reply(raw) for meant, raw in _matched(programs, answers)]
        except StepFailed as failed:
            word = NAMES.get(failed.errno, str(failed.errno))
            if failed.step != PROBED:
                return Outcome("denied", word, failed.step)
            return Outcome("allowed", word) if word in probe.passed else Outcome("denied", "masked" if failed.call == "check" else word)
        except Fault as fault:
            return Outcome("unknown", "", str(fault))
        if probe.gained and not probe.gained(replies[-1]):
            return Outcome("denied", "nothing gained")
        return Outcome("allowed")

    def _command(self, probe: Command, path: str) -> Outcome:
        body = program(*command_steps(probe.args, path))
        answers, ended = self._ask([body])
        try:
            for raw in answers:
                body.reply(raw)
        except StepFailed as failed:
            word = NAMES.get(failed.errno, str(failed.errno))
            return Outcome("denied", word, "" if failed.step == PROBED else failed.step)
        except Fault as fault:
            return Outcome("unknown", "", str(fault))
        if os.WIFSIGNALED(ended):
            return _ended(ended)
        status = os.WEXITSTATUS(ended)
        return Outcome("allowed" if status == probe.expected else "denied", f"status {status}")

    def facts(self) -> dict[str, Any]:
        """What the process is, as it reads itself in procfs; what it cannot read is None. `pid` is as its own PID namespace has it."""
        steps = [Step("begin", Call("redirect", 1), Call("getppid", into="pid"))]
        for name, file in (("label", "attr/apparmor/current"), ("status", "status")):
            steps.append(Step(
                f"read {file}",
                Call("openat", -100, f"/proc/self/{file}", 0, 0, into=f"{name} file", fine=READABLE, on_fine="end"),
                Call("read", Slot(f"{name} file"), Out(name, PROC_STATUS), PROC_STATUS, fine=READABLE),
            ))  # fmt: skip
        asked = program(*steps)
        answers, _ = self._ask([asked])
        if not answers:
            raise Lost("the container's process says nothing of itself")
        reply = asked.reply(answers[0])
        label, status = (reply.outs[name].rstrip(b"\0").decode("utf-8", "replace") for name in ("label", "status"))
        fields = {key: value.strip() for key, _, value in (line.partition(":") for line in status.splitlines())}
        return {
            "pid": reply.slots["pid"],
            "label": label.rstrip("\n") or None,
            "nnp": {"0": False, "1": True}.get(fields.get("NoNewPrivs", "")),
            "seccomp": {"0": "none", "1": "strict", "2": "filter"}.get(fields.get("Seccomp", "")),
            "capabilities": f"{int(fields['CapEff'], 16):#x}" if "CapEff" in fields else None,
        }

    def _ask(self, programs: list[Program], sibling: bool = False) -> tuple[list[bytes], int]:
        """Has a child carry out the programs; its answers, and how it ended (wait(2)). Raises Lost, and from then on always."""
        if not self.lost:
            try:
                return self._exchange(_fork(self.mark, sibling), programs)
            except Lost as lost:
                self.lost = str(lost)
        raise Lost(self.lost)

    def _exchange(self, fork: Program, programs: list[Program]) -> tuple[list[bytes], int]:
        try:
            for each in (fork, *programs):
                _write(self.to, each.text)
        except BrokenPipeError:
            pass  # what was answered before may still be read
        answers: list[bytes] = []
        deadline = time.monotonic() + self.patience
        while len(answers) < 16:
            raw = self._answer(deadline)
            out = raw[-16:] if len(raw) == fork.expects else b""
            if out[8:] == self.mark.to_bytes(8, "little"):
                return answers, int.from_bytes(out[:4], "little")
            answers.append(raw)
        raise Lost("the container's process answers more than it was asked")

    def _answer(self, deadline: float) -> bytes:
        head = self._take(REPLY.size, deadline)
        _, _, _, slots, out, _ = REPLY.unpack(head)
        return head + self._take(8 * min(slots, SLOTS) + min(out, ROOM), deadline)

    def _take(self, size: int, deadline: float) -> bytes:
        found = b""
        while len(found) < size:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.back], [], [], left)[0]:
                raise Lost(f"no answer within {self.patience:g} seconds")
            piece = os.read(self.back, size - len(found))
            if not piece:
                raise Lost("the container's process has ended")
            found += piece
        return found


def program(*steps: Step) -> Program:
    """Of these steps, with slots of its own."""
    return Program(steps, {})


def _fork(mark: int, sibling: bool) -> Program:
    """Forks the child that takes the next program, and waits for it; `sibling`: another one before. Slots last into children."""
    return Program([*([FORK_TARGET] if sibling else []), Step(
        "fork",
        Call("clone", CHILD, 0, 0, 0, 0, into="child", on_more="parent"),
        Call("next"),
        Call("wait4", Slot("child"), Out("status", 8), 0, 0, label="parent"),
        Call("put", mark, Out("mark", 8), 8),
        Call("redirect", 1),
        Call("reply"),
        Call("redirect", 0),
    )], {"child": 0, "target": 1})  # fmt: skip


def _matched(programs: list[Program], answers: list[bytes]) -> list[tuple[Program, bytes]]:
    """Which program each answer is of. What executes a copy answers only when it fails; then nobody answers the second."""
    if len(answers) != 1:
        raise Fault("the container's process answers something else than it was asked")
    failed = REPLY.unpack_from(answers[0])[2]
    return [(programs[0] if failed or len(programs) == 1 else programs[1], answers[0])]


def _ended(status: int) -> Outcome:
    """Of a probe that did not answer, by how its process ended: a seccomp filter may kill it."""
    if os.WIFSIGNALED(status):
        return Outcome("denied", signal.Signals(os.WTERMSIG(status)).name)
    return Outcome("unknown", "", "the probe ended without an answer")


def _write(fd: int, text: bytes) -> None:
    while text:
        text = text[os.write(fd, text) :]
