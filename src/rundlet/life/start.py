"""rundlet start: lets the waiting process go, and looks whether what then runs is confined as it was decided."""

import posix
from _socket import socket

from rundlet import host, jsontext
from rundlet.errors import Fault, WrongState
from rundlet.executor.client import PIDS, read_reply
from rundlet.executor.template import REPLY
from rundlet.life import observe, process, sockets, store
from rundlet.life import record as record_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rundlet.life.notify import Notify
    from rundlet.life.store import Container, Record
    from rundlet.options import Options


ENDING = 10  # seconds that a process may take to end; it takes a moment


def main(options: "Options") -> int:
    """The verb."""
    container = store.find(options)
    try:
        told = notified(container)
        start(container)
    finally:
        container.close()
    if told:  # without the lock: other commands need not wait for the container to be ready
        told.ready(container.record["pid"])
    return 0


def notified(container: "Container") -> "Notify | None":
    """What the container can tell the caller through that it is ready, where the caller wants to know: NOTIFY_SOCKET."""
    if not posix.environ.get(b"NOTIFY_SOCKET"):
        return None
    from rundlet.life import notify

    return notify.listen(container)


def start(container: "Container") -> None:
    """Starts a created container, which is locked. Raises Fault, with the container gone, when its program cannot be executed."""
    record = container.record
    if not container.waiting:
        now = store.settled(container)
        if now == "paused" and record["phase"] == "created":
            raise WrongState("cannot start a container whose cgroup is frozen; thaw it first")
        if now != "created":
            raise WrongState(f"cannot start a container that is {now}")
    if "policy" in record and not container.waiting and record["expect"]:
        from rundlet.life import policy

        policy.same(record, host.policy_namespace(), record["expect"]["profile"])
    PIDS.append(record["pid"])
    watch = observe.Watch(record["pid"], record["expect"])
    try:
        if container.waiting:
            container.write(record)  # from here on the process may outlive us, and has to be found
        _release(container, record)
        seen = observe.insist(record, watch.folder, watch.before)
        record_file.complete(container, seen, container.decided, container.waiting[0].sent if container.waiting else [])
        record["phase"] = "running"  # and not before: late.py
        container.write(record)
        try:
            _poststart(container, record)
        except Fault as fault:
            _undo(container, fault)
            raise
    finally:
        watch.close()


def _release(container: "Container", record: "Record") -> None:
    """Lets the process go; returns once it has become the program. Raises Fault naming the step that failed."""
    if container.waiting:
        executor, steps = container.waiting
        container.last = executor.send(steps)
        control = executor.control
    else:
        control = sockets.connect(container.folder + "/start", "waiting process")
    try:
        if _ended(control):
            return
        fault, kind = _fault_of(container, control)
    finally:
        control.close()
    if kind == "hook":
        _undo(container, fault)
    else:
        _until_gone(record)  # whoever asks now is to hear that the container has stopped
    raise fault


def _until_gone(record: "Record") -> None:
    """Waits for the end of a process that has nobody to talk to any more."""
    from select import POLLIN, poll

    try:
        pidfd = store.pidfd(record["pid"])
    except ProcessLookupError:
        return
    try:
        if store.alive(record):
            ending = poll()
            ending.register(pidfd, POLLIN)
            ending.poll(ENDING * 1000)
    finally:
        posix.close(pidfd)


def _ended(control: socket) -> bool:
    """Whether the socket was closed without a word: it closes on exec. proc(5), execve(2)."""
    return not control.recv(1, 2)  # MSG_PEEK


def _fault_of(container: "Container", control: socket) -> "tuple[Fault, str]":
    """What the waiting process answered instead of becoming the program, and the kind of the step that failed."""
    from rundlet.executor.program import failure
    from rundlet.plan.step import Step

    raw = read_reply(control)
    _, at, error, count, _, _ = REPLY.unpack_from(raw)
    if container.last:
        whats, ops, outs = process.names_of(container.last)
    else:
        whats, ops, outs = jsontext.loads(store.read(container.folder + "/steps.json"), "steps.json")  # type: ignore[misc]
    if not 0 < error < 4096 or at >= len(ops):
        return Fault("the container's first process answered with something that is no reply"), ""
    index, call = ops[at]
    what, kind, hint = whats[index]
    failed = failure(Step(what, kind=kind, hint=hint), call, error)
    if kind == "hook":
        from rundlet.life import hooks

        failed.outs = {name: raw[REPLY.size + 8 * count + offset :][:size] for name, (offset, size) in outs.items()}
        return hooks.told(failed), kind
    return process.not_executable(failed) if kind == "exec" else failed, kind


def _undo(container: "Container", fault: Fault) -> None:
    """A startContainer or poststart hook that fails ends the container and what create made of it: runtime.md 1.3, "Lifecycle"."""
    from rundlet.life import delete

    try:
        delete.delete(container, True)
    except Fault as second:
        fault.cleanup.append(str(second))


def _poststart(container: "Container", record: "Record") -> None:
    """The poststart hooks; one that fails fails the container: runtime.md 1.3, "Lifecycle", step 9."""
    text = container.config()
    if b'"poststart"' not in text and b"\\u" not in text:  # a key may be written with escapes
        return
    from rundlet import spec
    from rundlet.life import hooks

    asked = spec.load(text)[0]["hooks"]["poststart"]
    hooks.run(asked, "poststart", record, "running", hooks.Files(record["annotations"]))


