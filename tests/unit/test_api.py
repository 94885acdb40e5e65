"""The library's pure parts: operations and who carries them out, what may be given, faults on their way, plans and configurations."""

import asyncio
import inspect
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import rundlet
from rundlet import api, errors, log, spec, worker
from rundlet.api import asked, awaiting, operation, streams, work
from rundlet.api.operation import Operation, Wait, calmly, carry, within

ROOT = Path(rundlet.__file__).parents[2]
FACTS: dict[str, Any] = {
    "kernel": "6.12.0", "arch": "x86_64", "uid": 0, "gid": 0, "nnp": False, "seccomp": 0, "lsm": ["apparmor"], "user_namespace": False,
    "caps": {"effective": ["CAP_SYS_ADMIN", "CAP_KILL"], "bounding": ["CAP_SYS_ADMIN", "CAP_KILL"]},
    "apparmor": {
        "state": "on", "label": "rt", "mode": "enforce", "components": [{"name": "rt", "mode": "enforce"}], "namespace": "root",
        "stack": True, "post_nnp_subset": True, "loaded": ["rt", "web"], "interface": "lsm", "restrict_unconfined": False,
        "restrict_userns": None,
    },
    "cgroup": {"layout": "v2", "mounts": {"unified": "/sys/fs/cgroup"}, "own": {"unified": "/"}, "controllers": ["memory", "pids", "cpu"]},
}


# names


def test_importing_costs_nothing_until_a_name_is_asked_for() -> None:
    code = f"import sys; before = set(sys.modules); sys.path.append({str(ROOT / 'src')!r}); import rundlet; print(*(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-ISBc", code], capture_output=True, text=True, check=True)
    assert done.stdout == "rundlet\n"


def test_every_name_is_there_for_programs_and_type_checkers() -> None:
    assert sorted(rundlet.__all__) == sorted([*api.__all__, "OCI_VERSION", "aio"])
    for name in rundlet.__all__:
        assert getattr(rundlet, name) is not None
    text = Path(rundlet.__file__).read_text()
    assert all(f"import {name} as {name}\n" in text for name in [*api.__all__, "aio"])


def test_other_names_are_not_there() -> None:
    with pytest.raises(AttributeError, match="module 'rundlet' has no attribute 'nonsense'"):
        rundlet.nonsense  # type: ignore[attr-defined]  # noqa: B018


def test_what_both_kinds_of_programs_have_is_the_same() -> None:
    from rundlet import aio
    from rundlet.api import sync

    assert aio.__all__ == sync.__all__
    for kind in ("Container", "Events", "Process", "Stream", "Terminal"):
        ours, theirs = ({name for name in dir(getattr(module, kind)) if name[0] != "_"} for module in (sync, aio))
        assert ours == theirs


# operations


def echo(fd: int, calm: list[str]) -> Operation[bytes]:
    """Reads once; undoes with another wait."""
    try:
        while not (yield Wait(read=(fd,))):
            pass
        return os.read(fd, 100)
    except BaseException as e:
        calm.append(type(e).__name__)
        yield from calmly(undo(fd, calm))
        raise


def undo(fd: int, calm: list[str]) -> Operation[None]:
    ready = yield Wait(read=(fd,), until=time.monotonic() + 60)
    calm.append(f"undone {len(ready)}")


@pytest.fixture
def pipe() -> Any:
    made = os.pipe()
    yield made
    for fd in made:
        os.close(fd)


def test_an_operation_is_carried_out_by_either(pipe: tuple[int, int]) -> None:
    os.write(pipe[1], b"one")
    assert carry(echo(pipe[0], [])) == b"one"
    os.write(pipe[1], b"two")
    assert asyncio.run(awaiting.carry(echo(pipe[0], []))) == b"two"


def test_a_timeout_is_thrown_into_it_once_and_undoing_has_time(pipe: tuple[int, int]) -> None:
    seen: list[str] = []

    def late() -> Operation[bytes]:
        return (yield from within(0, echo(pipe[0], seen)))

    outer = late()
    first = next(outer)
    assert first.until is not None
    second = outer.send(frozenset())
    assert (seen, second.calm) == (["TimeoutError"], True)
    with pytest.raises(TimeoutError, match="it took longer than 0 seconds"):
        outer.send(frozenset({pipe[0]}))
    assert seen == ["TimeoutError", "undone 1"]


def test_without_a_timeout_nothing_is_changed(pipe: tuple[int, int]) -> None:
    os.write(pipe[1], b"x")
    begun = within(None, echo(pipe[0], []))
    assert next(begun) == Wait(read=(pipe[0],))
    with pytest.raises(StopIteration):
        begun.send(frozenset({pipe[0]}))


def test_a_timeout_in_poll_and_in_the_loop(pipe: tuple[int, int]) -> None:
    def forever() -> Operation[None]:
        while True:
            yield Wait(read=(pipe[0],))

    with pytest.raises(TimeoutError):
        carry(within(0.01, forever()))
    with pytest.raises(TimeoutError):
        asyncio.run(awaiting.carry(within(0.01, forever())))


def test_a_task_that_is_cancelled_undoes_first_however_often(pipe: tuple[int, int]) -> None:
    seen: list[str] = []

    async def main() -> None:
        task = asyncio.create_task(awaiting.carry(echo(pipe[0], seen)))
        await asyncio.sleep(0)
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0)
        assert not task.done()
        os.write(pipe[1], b"x")
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()

    asyncio.run(main())
    assert seen == ["CancelledError", "undone 1"]


def test_what_a_loop_leaves_unfinished_is_undone_without_it(pipe: tuple[int, int]) -> None:
    seen: list[str] = []
    begun = awaiting.carry(echo(pipe[0], seen))
    loop = asyncio.new_event_loop()
    task = loop.create_task(begun)
    loop.run_until_complete(asyncio.sleep(0))
    os.write(pipe[1], b"x")
    loop.close()
    begun.close()
    assert not task.done()
    assert seen == ["GeneratorExit", "undone 1"]


def test_two_tasks_may_wait_for_one_descriptor(pipe: tuple[int, int]) -> None:
    def ready() -> Operation[int]:
        return len((yield Wait(read=(pipe[0],))))

    async def main() -> list[int]:
        tasks = [asyncio.create_task(awaiting.carry(ready())) for _ in range(3)]
        await asyncio.sleep(0)
        os.write(pipe[1], b"x")
        return await asyncio.gather(*tasks)

    assert asyncio.run(main()) == [1, 1, 1]


def test_waiting_for_what_is_not_open_leaves_nothing_open(pipe: tuple[int, int]) -> None:
    def wrong() -> Operation[None]:
        yield Wait(read=(pipe[0], 1 << 20))

    async def main() -> None:
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(OSError, match="Bad file descriptor"):
            await awaiting.carry(wrong())
        assert len(os.listdir("/proc/self/fd")) == before

    asyncio.run(main())


@pytest.mark.parametrize("over", [False, True])
def test_a_cancellation_while_something_is_undone_is_put_off(pipe: tuple[int, int], over: bool) -> None:
    def whole() -> Operation[None]:
        yield from calmly(echo(pipe[0], []))
        if over:
            raise TimeoutError

    async def main() -> None:
        task = asyncio.create_task(awaiting.carry(whole()))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
        assert not task.done()
        os.write(pipe[1], b"two")
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())


def test_a_descriptor_may_be_waited_for_both_ways() -> None:
    import socket

    ours, theirs = socket.socketpair()
    with ours, theirs:
        def both() -> Operation[frozenset[int]]:
            return (yield Wait(read=(ours.fileno(),), write=(ours.fileno(),)))

        assert carry(both()) == {ours.fileno()}
        assert asyncio.run(awaiting.carry(both())) == {ours.fileno()}


# streams


def test_a_stream_reads_lines_and_the_rest(pipe: tuple[int, int]) -> None:
    stream = rundlet.Stream(os.dup(pipe[0]))
    os.write(pipe[1], b"one\ntwo\nthree and ")
    assert stream.readline() == b"one\n"
    assert stream.read(2) == b"tw"
    assert stream.readline() == b"o\n"
    os.write(pipe[1], b"more")
    writer = rundlet.Stream(os.dup(pipe[1]))
    writer.write(b", the end")
    writer.close()
    os.dup2(pipe[0], pipe[1])  # the last writer is gone
    assert stream.read() == b"three and more, the end"
    assert (stream.read(), stream.read(5), stream.readline()) == (b"", b"", b"")
    stream.close()
    assert (stream.fileno(), stream.read()) == (-1, b"")


def test_nothing_is_written_to_what_is_closed(pipe: tuple[int, int]) -> None:
    stream = rundlet.Stream(os.dup(pipe[1]))
    stream.close()
    with pytest.raises(ValueError, match="closed"):
        stream.write(b"x")


def test_more_than_a_pipe_holds_goes_both_ways() -> None:
    there, back = os.pipe(), os.pipe()
    child = subprocess.Popen(["cat"], stdin=there[0], stdout=back[1])
    os.close(there[0])
    os.close(back[1])
    data = os.urandom(1 << 20)
    into: list[bytes] = []
    carry(streams.collecting({back[0]: into}, there[1], data))
    assert (b"".join(into), child.wait()) == (data, 0)


def test_who_reads_no_input_is_not_waited_for() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    carry(streams.collecting({}, writing, b"x" * (1 << 20)))


@pytest.mark.parametrize(
    ("asked", "why"), [((rundlet.STDOUT, None, None), "for stderr alone"), ((None, rundlet.STDOUT, None), "for stderr alone"), ((-7, None, None), "no descriptor -7")]
)
def test_what_cannot_be_given(asked: Any, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        streams.Stdio(asked)


def test_a_descriptor_that_is_not_open_is_refused_and_nothing_stays_open() -> None:
    before = os.listdir("/proc/self/fd")
    with pytest.raises(OSError, match="Bad file descriptor"):
        streams.Stdio((rundlet.PIPE, rundlet.PIPE, 999))
    assert os.listdir("/proc/self/fd") == before


def test_stdout_is_shared(tmp_path: Path) -> None:
    with open(tmp_path / "out", "wb") as file:
        made = streams.Stdio((rundlet.DEVNULL, file, rundlet.STDOUT))
        assert made.fds[1:] == [file.fileno(), file.fileno()]
        assert os.readlink(f"/proc/self/fd/{made.fds[0]}") == "/dev/null"
        made.close(True)


# faults


@pytest.mark.parametrize(
    "fault",
    [
        errors.Fault("cannot"), errors.BadSpec("/root/path", "missing"), errors.Refused("no profile", "load it"), errors.WrongState("stopped"),
        errors.StepFailed("mount proc", "fsmount", 1, "mount proc: not permitted", ("a hint",)), errors.Usage("no such option"),
    ],
)
def test_a_fault_arrives_as_it_was(fault: errors.Fault) -> None:
    fault.cleanup.append("and more")
    fault.status = 7
    got = work.read(json.loads(json.dumps(worker.written(fault))))
    assert type(got) is type(fault)
    assert str(got) == str(fault)
    assert {**vars(got), "outs": {}} == {**vars(fault), "outs": {}, "status": 7}


def test_what_a_command_says_becomes_an_exception() -> None:
    work.Report({"status": 0, "warnings": ["careful"]}).check("create")
    with pytest.raises(rundlet.BadSpec) as caught:
        work.Report({"fault": worker.written(errors.BadSpec("/x", "y"))}).check("create")
    assert (caught.value.where, caught.value.why) == ("/x", "y")
    with pytest.raises(rundlet.Fault, match="internal error: KeyError: 'x'") as bug:
        work.Report({"bug": "KeyError: 'x'", "trace": "Traceback"}).check("create")
    assert bug.value.__notes__ == ["Traceback"]
    with pytest.raises(rundlet.Fault, match="create was interrupted"):
        work.Report({"interrupted": True}).check("create")


def test_a_program_that_failed() -> None:
    done = rundlet.Completed("box", ("sh", "-c", "exit 3"), 3, b"", b"first\nwhy\n")
    with pytest.raises(rundlet.ProgramFailed, match="box: sh -c exit 3: exit status 3: why") as caught:
        done.check()
    assert caught.value.completed is done
    assert caught.value.status == 3
    with pytest.raises(rundlet.ProgramFailed, match="ended by signal 9"):
        rundlet.Completed("box", ("x",), -9).check()
    fine = rundlet.Completed("box", ("x",), 0)
    assert fine.check() is fine


# what is asked


def test_a_bundle_is_a_folder_or_a_configuration(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"process": {"terminal": true, "args": ["a", "b"]}}')
    for read in (asked.Read(tmp_path), asked.Read(str(tmp_path)), asked.Read({"process": {"terminal": True, "args": ["a", "b"]}}, tmp_path)):
        assert (read.folder, read.terminal, read.args) == (str(tmp_path), True, ("a", "b"))
    with pytest.raises(rundlet.Fault, match=r"cannot read .*nowhere/config.json: no such file or directory; is .*nowhere a bundle\?"):
        asked.Read(tmp_path / "nowhere")
    with pytest.raises(rundlet.BadSpec, match="configuration: cannot be written as JSON"):
        asked.Read({"process": object()})
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(rundlet.BadSpec, match="config.json"):
        asked.Read(tmp_path)


def test_the_options_of_a_further_process() -> None:
    how: asked.Spawning = {"env": {"A": "1", "B": ""}, "user": 7, "additional_gids": [8], "capabilities": ["CAP_KILL"], "terminal": True, "cwd": "/tmp"}
    options, texts = asked.spawn_options(["echo", "x"], how)
    assert options["args"] == ["echo", "x"]
    assert options["env"] == ["A=1", "B="]
    assert (options["user"], options["additional_gids"], options["cap"], options["tty"], options["cwd"]) == ("7", ["8"], ["CAP_KILL"], True, "/tmp")
    assert texts == {}
    assert asked.spawn_options([], {"process": {"args": ["x"]}})[1] == {"process": b'{"args": ["x"]}'}
    from rundlet.options import Options

    assert set(options) <= set(dir(Options())), "each is an option of the command"
    with pytest.raises(TypeError, match="a list of strings"):
        asked.spawn_options("echo x", {})


@pytest.mark.parametrize("name", ["", "a/b", "..", "x" * 1025])
def test_what_can_be_no_id(name: str) -> None:
    with pytest.raises(rundlet.Usage, match="cannot be a container id"):
        rundlet.Container(name)


def test_ids_are_new() -> None:
    assert len({asked.new_id() for _ in range(100)}) == 100


# plans, explanations, configurations


@pytest.fixture
def rootfs(tmp_path: Path) -> Path:
    folder = tmp_path / "rootfs"
    folder.mkdir()
    return folder


def test_a_plan_is_a_value_for_any_host(rootfs: Path) -> None:
    config = rundlet.config(["echo"], rootfs=rootfs, apparmor="web", rootless=False)
    plan = rundlet.plan(config, FACTS)  # type: ignore[arg-type]
    assert plan == rundlet.plan(config, FACTS)  # type: ignore[arg-type]
    assert [stage.name for stage in plan.stages if stage.steps][-1] == "last"
    assert (plan.transition.action, plan.transition.row) == ("stack", 6)
    text = str(plan)
    assert "── outside " in text
    assert text.count("execute echo") == 1
    assert str(plan) in rundlet.explain(config, FACTS).as_text(steps=True)  # type: ignore[arg-type]


@pytest.mark.parametrize("before", ["", "import rundlet.plan.order; ", "import rundlet.api; "])
def test_the_room_of_the_plan_can_be_called(rootfs: Path, before: str) -> None:
    code = (
        f"import sys; sys.path[:0] = {sys.path!r}; {before}import rundlet; "
        f"config = rundlet.config(['echo'], rootfs={str(rootfs)!r}, rootless=False); "
        "print(rundlet.plan(config) == rundlet.api.plan(config), rundlet.plan.order.create.__name__)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "True create\n"


def test_a_plan_that_there_is_not(rootfs: Path) -> None:
    config = rundlet.config(["echo"], rootfs=rootfs, apparmor="elsewhere", rootless=False)
    found = rundlet.explain(config, FACTS)  # type: ignore[arg-type]
    assert isinstance(found.refusal, rundlet.Refused)
    assert "apparmor_parser" in found.refusal.todo
    assert found.as_json()["label"]["action"] == "refuse"
    assert str(found).startswith("refused")
    with pytest.raises(rundlet.Refused, match='"elsewhere"'):
        rundlet.plan(config, FACTS)  # type: ignore[arg-type]


def test_facts_are_looked_at(rootfs: Path) -> None:
    config = rundlet.config(["echo"], rootfs=rootfs)
    with pytest.raises(rundlet.BadSpec) as caught:
        rundlet.explain(config, {"kernel": "6"})  # type: ignore[arg-type]
    assert caught.value.where == "facts: /apparmor"


def test_warnings_are_told_to_who_asked_and_to_nobody_else(rootfs: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = rundlet.config(["echo"], rootfs=rootfs, capabilities=["CAP_KILL", "CAP_SYS_TIME"], rootless=False)
    found = rundlet.explain(config, FACTS)  # type: ignore[arg-type]
    assert any("CAP_SYS_TIME" in warning for warning in found.as_json()["warnings"])
    log.warning("to nobody", loud=True)
    assert capfd.readouterr() == ("", "")


def test_a_configuration_to_measure(rootfs: Path) -> None:
    made = rundlet.config(
        ["sh", "-c", "true"], rootfs=rootfs, env={"A": "b"}, cwd="/tmp", user=(7, 8), hostname="h", terminal=True, readonly=False,
        capabilities={"CAP_KILL"}, no_new_privs=False, apparmor="web", binds={"/data": rootfs}, host=["network"],
        resources={"pids": {"limit": 9}}, cgroup="/x", annotations={"k": "v"}, rootless=False,
    )
    process = made["process"]
    assert (process["args"], process["env"], process["cwd"]) == (["sh", "-c", "true"], ["A=b"], "/tmp")
    assert (process["user"]["uid"], process["user"]["gid"], process["terminal"], process["noNewPrivileges"]) == (7, 8, True, False)
    assert process["capabilities"]
    assert process["capabilities"]["bounding"] == ["CAP_KILL"]
    assert process["apparmorProfile"] == "web"
    assert made["root"] == {"path": str(rootfs), "readonly": False}
    assert made["mounts"][-1]["source"] == str(rootfs)
    assert "network" not in {space["type"] for space in made["linux"]["namespaces"]}
    assert made["linux"]["resources"]["pids"] == {"limit": 9}
    assert made["linux"]["cgroupsPath"] == "/x"
    assert made["annotations"] == {"k": "v"}
    again, warnings = spec.load(json.dumps(made).encode())
    assert again == made, "what is complete stays as it is"
    assert warnings == []


def test_configurations_share_nothing(rootfs: Path) -> None:
    one, two = (rundlet.config(["x"], rootfs=rootfs) for _ in range(2))
    one["mounts"].clear()
    one["process"]["env"].append("X=1")
    assert two["mounts"]
    assert "X=1" not in two["process"]["env"]


def test_of_a_configuration_that_cannot_be(rootfs: Path) -> None:
    with pytest.raises(rundlet.BadSpec) as caught:
        rundlet.config(["x"], rootfs=rootfs, cwd="relative")
    assert caught.value.where == "/process/cwd"
    with pytest.raises(TypeError, match="a list of strings"):
        rundlet.config("echo x", rootfs=rootfs)


def test_facts_of_this_host() -> None:
    assert rundlet.facts()["kernel"] == os.uname().release


def test_no_containers(tmp_path: Path) -> None:
    assert rundlet.containers(tmp_path) == []
    with pytest.raises(rundlet.WrongState, match="container x does not exist"):
        rundlet.Container("x", root=tmp_path).state()


def test_blocking_functions_keep_their_names() -> None:
    assert rundlet.Container.kill.__name__ == "kill"
    assert (rundlet.Container.kill.__doc__ or "").startswith("Sends a signal")
    assert asyncio.iscoroutinefunction(rundlet.aio.Container.kill)
    assert not asyncio.iscoroutinefunction(rundlet.Container.kill)
    assert operation.blocking is not awaiting.awaited


# documentation

DOCS = (ROOT / "docs/api.md").read_text()


def words() -> set[str]:
    """What stands in code in the page, and its names alone."""
    found = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", DOCS, flags=re.M | re.S))
    return {word for text in found for word in re.findall(r"\w+", text)}


def public(kind: type) -> set[str]:
    return {name for name in dir(kind) if name[0] != "_"}


def test_every_public_name_is_documented() -> None:
    named = words()
    assert sorted(set(rundlet.__all__) - named) == []
    for kind in (rundlet.Container, rundlet.Process, rundlet.Stream, rundlet.Terminal, rundlet.Completed, rundlet.Explanation, rundlet.Events, rundlet.Report, rundlet.Difference, rundlet.Unknown, rundlet.Denial):
        assert sorted((public(kind) | set(getattr(kind, "__annotations__", ()))) - named) == [], kind
    for form in (rundlet.Making, rundlet.Spawning, rundlet.State, rundlet.Event):
        assert sorted(set(form.__annotations__) - named) == [], form
    assert sorted(set(inspect.signature(rundlet.config).parameters) - named) == []


def test_every_public_name_has_a_docstring() -> None:
    from rundlet import aio

    for module in (rundlet, aio):
        for name in module.__all__:
            value = getattr(module, name)
            if not callable(value) or name in ("Bundle", "Facts"):
                continue
            assert value.__doc__, name
            for own in public(value) if isinstance(value, type) and value.__module__.startswith("rundlet.") else ():
                member = inspect.getattr_static(value, own)
                if callable(member) or isinstance(member, (classmethod, property)):
                    assert (member.__func__ if isinstance(member, classmethod) else member).__doc__, f"{name}.{own}"


def test_the_page_names_nothing_that_there_is_not() -> None:
    for name in re.findall(r"`(?:await\n?)?\s*rundlet\.(\w+)[(`.]", DOCS):
        assert name in rundlet.__all__ or name in ("worker", "api", "plan"), name
