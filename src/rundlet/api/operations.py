"""The operations on containers and their processes, each written once. sync.py and aio.py carry them out."""

import json
import os
import signal as signals
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rundlet.api.asked import Bundle, Making, Read, Spawning, new_id, spawn_options, wants_terminal
from rundlet.api.base import BaseContainer, BaseProcess, Holder, known
from rundlet.api.operation import Operation, Wait, calmly, within
from rundlet.api.results import Completed
from rundlet.api.streams import DEVNULL, PIPE, Console, Given, Stdio, collecting
from rundlet.api.work import Work, command
from rundlet.errors import Fault, WrongState
from rundlet.life import store

# ── processes are made ───────────────────────────────────────────────────────────────────────────────────────────────────────


def make(container: BaseContainer, read: Read, verb: str, how: Making) -> Operation[None]:
    """Makes the container, by `create` or `run`. Raises Fault, and then nothing is left of it."""
    options: dict[str, Any] = {
        "verb": verb, "root": container.root, "id": container.id, "bundle": read.folder, "detach": True,
        "cgroup_manager": how.get("cgroup_manager", "cgroupfs"), "no_pivot": how.get("no_pivot", False),
        "no_new_keyring": how.get("no_new_keyring", False), "apparmor_replace": how.get("apparmor_replace", False),
    }
    if (profile := how.get("apparmor_file")) is not None:
        options["apparmor_file"] = os.fspath(profile)
    if "apparmor_on_delete" in how:
        options["apparmor_on_delete"] = how["apparmor_on_delete"]
    stdio = _stdio(read.terminal, how)
    yield from within(how.get("timeout"), _hold(container, options, stdio, {"config": read.text}, read.terminal))


def spawn(process: BaseProcess, container: BaseContainer, args: Sequence[str], how: Spawning) -> Operation[None]:
    """Makes a further process in the container. Raises Fault, and then nothing is left of it."""
    options, texts = spawn_options(args, how)
    options |= {"verb": "exec", "root": container.root, "id": container.id}
    terminal = wants_terminal(how)
    yield from within(how.get("timeout"), _hold(process, options, _stdio(terminal, how), texts, terminal))


def _stdio(terminal: bool, how: Making | Spawning) -> Stdio:
    asked: tuple[Given, ...] = (DEVNULL,) * 3 if terminal else (how.get("stdin"), how.get("stdout"), how.get("stderr"))
    return Stdio(asked, how.get("pass_fds", ()))


def _hold(held: Holder, options: dict[str, Any], stdio: Stdio, texts: dict[str, bytes], terminal: bool) -> Operation[None]:
    """A command that makes a process, up to where `held` has it. When it fails or is called off, there is no process left of it."""
    options["preserve_fds"] = len(stdio.fds) - 3
    console = None
    try:
        if terminal:
            console = Console()
            options["console_socket"] = console.path
        work = Work(options, stdio.fds, texts, makes=True)
        stdio.close()
        try:
            report = yield from work.wait()
            report.check(work.verb)
            assert work.made
            held._hold(work.made, report.warnings, stdio, console)
        except BaseException:
            yield from calmly(_undo(work, options))
            raise
    finally:
        stdio.close(True)
        if console:
            console.close()


def _undo(work: Work, options: dict[str, Any]) -> Operation[None]:
    """Calls off a command; what it has made all the same is ended."""
    report = yield from work.call_off()
    if not work.made:
        return
    if report.left and work.verb != "exec":
        yield from command({"verb": "delete", "root": options["root"], "id": options["id"], "force": True})
    work.made.signal(signals.SIGKILL)
    yield from work.made.wait()


# ── what is done with a container ────────────────────────────────────────────────────────────────────────────────────────────


def _do(container: BaseContainer, verb: str, texts: Mapping[str, bytes] | None = None, **options: Any) -> Operation[None]:
    yield from command({"verb": verb, "root": container.root, "id": container.id, **options}, texts)


def start(container: BaseContainer, *, timeout: float | None = None) -> Operation[None]:
    """Runs the program of a created container; returns once it runs, and is confined as was decided.

    Raises WrongState, and Fault when the program cannot be executed or is not confined so: then the container is stopped. Called off, or
    after `timeout` seconds, it is stopped as well: nobody has looked yet how what runs is confined.
    """
    try:
        yield from within(timeout, _do(container, "start"))
    except Fault:
        raise
    except BaseException:
        yield from calmly(_kill(container))
        raise


def _kill(container: BaseContainer) -> Operation[None]:
    """Kills the first process, unless it has ended, and waits for that."""
    try:
        yield from _do(container, "kill", args=["KILL"])
        yield from wait(container)
    except WrongState:
        pass


def kill(container: BaseContainer, signal: int | str = "TERM", *, all: bool = False) -> Operation[None]:
    """Sends a signal, by number or name, to the first process, or to `all`. Raises WrongState when it does not run, Usage."""
    return _do(container, "kill", args=[str(int(signal) if isinstance(signal, int) else signal)], all=all)


def pause(container: BaseContainer) -> Operation[None]:
    """Freezes all its processes. Raises WrongState, and Refused where there is no freezer."""
    return _do(container, "pause")


def resume(container: BaseContainer) -> Operation[None]:
    """Lets the processes of a paused container go on. Raises WrongState."""
    return _do(container, "resume")


def update(container: BaseContainer, resources: Mapping[str, object]) -> Operation[None]:
    """Changes limits, all or none; `resources` has the form of config.json's linux.resources, and what is not in it stays as it is.

    Raises BadSpec, Refused, WrongState, StepFailed.
    """
    return _do(container, "update", {"resources": json.dumps(resources).encode()})


def add_mounts(container: BaseContainer, mounts: Iterable[Mapping[str, object]]) -> Operation[None]:
    """Makes mounts, in the form of config.json's, in a container that runs: all or none.

    Raises BadSpec, Refused, WrongState, StepFailed.
    """
    return _do(container, "mounts", {"args": json.dumps(list(mounts)).encode()}, args=["add", container.id])


def remove_mounts(container: BaseContainer, mounts: Iterable[Mapping[str, object]]) -> Operation[None]:
    """Removes mounts from a container that runs: all or none. Raises BadSpec, Refused, WrongState, StepFailed."""
    return _do(container, "mounts", {"args": json.dumps(list(mounts)).encode()}, args=["remove", container.id])


def wait(container: BaseContainer, timeout: float | None = None) -> Operation[int | None]:
    """Waits for the end of the first process: the exit status, or minus the number of the signal that ended it.

    None where somebody else has made the container: only the parent of a process is told. Raises TimeoutError after `timeout` seconds, and
    the container goes on; WrongState when there is no such container.
    """
    if container._child:
        yield from within(timeout, container._child.wait())
        return known(container._child)
    record = container.record()
    try:
        pidfd = store.pidfd(record["pid"]) if record["pid"] else -1
    except ProcessLookupError:
        return None
    try:
        if pidfd >= 0 and store.alive(record):
            yield from within(timeout, _readable(pidfd))
    finally:
        if pidfd >= 0:
            os.close(pidfd)
    return None


def _readable(fd: int) -> Operation[None]:
    while not (yield Wait(read=(fd,))):
        pass


def delete(container: BaseContainer, *, force: bool = False) -> Operation[None]:
    """Removes what is left of a stopped container; with `force` kills it before, and there need not be one.

    Raises WrongState when it runs and `force` is not given.
    """
    yield from _do(container, "delete", force=force)
    container.close()
    if container._child:
        yield from container._child.wait()


def remove(container: BaseContainer) -> Operation[None]:
    """What the end of a `with` does: kills and deletes it, whatever befalls who waits for that."""
    return calmly(delete(container, force=True))


# ── what is done with a process ──────────────────────────────────────────────────────────────────────────────────────────────


def wait_for(process: BaseProcess, timeout: float | None = None) -> Operation[int]:
    """Waits for its end: the exit status, or minus the number of the signal that ended it.

    Raises TimeoutError after `timeout` seconds, and the process goes on.
    """
    child = process.child()
    yield from within(timeout, child.wait())
    return known(child)


def end(process: BaseProcess) -> Operation[None]:
    """What the end of a `with` does: kills it, whatever befalls who waits for that."""
    process.close()
    process.kill(signals.SIGKILL)
    yield from calmly(process.child().wait())


# ── programs from their beginning to their end ───────────────────────────────────────────────────────────────────────────────


def run(bundle: Bundle, input: bytes | None, capture: bool, how: Making) -> Operation[Completed]:
    """A container from create to delete."""
    read = Read(bundle, how.get("folder"))
    container = BaseContainer(how.get("id") or new_id(), root=how.get("root"))
    streams = _streams(input, capture, how)

    def whole() -> Operation[Completed]:
        yield from make(container, read, "run", {**how, "timeout": None, **streams})  # type: ignore[typeddict-item]
        try:
            out, err = yield from _talk(container, input)
            status = yield from wait(container)
            assert status is not None
        finally:
            yield from remove(container)
        return Completed(container.id, read.args, status, out, err, container.warnings)

    return (yield from within(how.get("timeout"), whole()))


def execute(container: BaseContainer, args: Sequence[str], input: bytes | None, capture: bool, how: Spawning) -> Operation[Completed]:
    """A further process from its beginning to its end."""
    process = BaseProcess(container.id)
    streams = _streams(input, capture, how)

    def whole() -> Operation[Completed]:
        yield from spawn(process, container, args, {**how, "timeout": None, **streams})  # type: ignore[typeddict-item]
        try:
            out, err = yield from _talk(process, input)
            status = yield from wait_for(process)
        finally:
            yield from end(process)
        return Completed(container.id, tuple(map(str, args)), status, out, err, process.warnings)

    return (yield from within(how.get("timeout"), whole()))


def _streams(input: bytes | None, capture: bool, how: Making | Spawning) -> dict[str, Given]:
    """Raises ValueError for what contradicts itself."""
    streams: dict[str, Given] = {}
    if input is not None:
        if how.get("stdin") not in (None, PIPE):
            raise ValueError("either input is given or stdin")
        streams["stdin"] = PIPE
    if capture:
        if how.get("stdout") is not None or how.get("stderr") is not None:
            raise ValueError("what is captured cannot go to another stdout or stderr")
        streams |= {"stdout": PIPE, "stderr": PIPE}
    return streams


def _talk(held: Holder, input: bytes | None) -> Operation[tuple[bytes, bytes]]:
    """Gives a process its input, and takes what it writes, to the end."""
    out: list[bytes] = []
    err: list[bytes] = []
    feed = held.stdin.detach() if held.stdin else -1
    if held.terminal:
        feed = os.dup(held.terminal.fileno()) if input else -1
        yield from collecting({held.terminal.detach(): out}, feed, input or b"")
    else:
        ends = {end.detach(): into for end, into in ((held.stdout, out), (held.stderr, err)) if end}
        yield from collecting(ends, feed, input or b"")
    return b"".join(out), b"".join(err)
