"""The library in asyncio: many containers from one loop, without a thread; tasks that are cancelled leave nothing behind."""

import asyncio
import os
import select
import signal
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

import rundlet
from rundlet import aio
from tests import bundles
from tests.bundles import PATIENCE, Box, children, eventually


def do(main: Coroutine[Any, Any, None]) -> None:
    """Runs it, and no thread with it."""
    async def alone() -> None:
        await main
        assert len(os.listdir("/proc/self/task")) == before

    before = len(os.listdir("/proc/self/task"))
    asyncio.run(alone())


async def until(true: Callable[[], bool]) -> None:
    """Waits for something to come to be."""
    async with asyncio.timeout(PATIENCE):
        while not true():
            await asyncio.sleep(0.005)


def test_from_create_to_delete(box: Box) -> None:
    async def main() -> None:
        async with aio.create(box.bundle, id=box.id, root=box.root, stdin=rundlet.PIPE, stdout=rundlet.PIPE) as container:
            assert container.state()["status"] == "created"
            await container.start()
            assert container.stdin
            assert container.stdout
            await container.stdin.write(b"one\ntwo\n")
            assert await container.stdout.readline() == b"one\n"
            container.stdin.close()
            assert [line async for line in container.stdout] == [b"two\n"]
            assert await container.wait() == 0
        assert box.left() == []
        with pytest.raises(rundlet.WrongState, match="does not exist"):
            container.state()

    box.process["args"] = ["cat"]
    box.save()
    do(main())


def test_what_is_created_may_be_awaited(box: Box) -> None:
    async def main() -> None:
        container = await asyncio.create_task(aio.create(box.bundle, id=box.id, root=box.root))
        await container.start()
        done = await container.exec(["sh", "-c", "cat; exit 4"], input=b"in", capture=True)
        assert (done.status, done.stdout) == (4, b"in")
        async with container.spawn(["sleep", "1000"]) as process:
            with pytest.raises(TimeoutError):
                await process.wait(0.01)
        assert process.status == -9
        assert (await aio.exec(container, ["echo", "x"], capture=True)).stdout == b"x\n"
        await container.pause()
        assert container.state()["status"] == "paused"
        await container.resume()
        await container.update({"pids": {"limit": 50}})
        await container.kill("KILL")
        waiting = [asyncio.create_task(container.wait()) for _ in range(3)]
        assert await asyncio.gather(*waiting) == [-9, -9, -9]
        await container.delete()

    box.sh("while true; do sleep 1; done").save()
    do(main())
    assert box.left() == []


def test_a_terminal(box: Box) -> None:
    async def main() -> None:
        async with aio.create(box.bundle, id=box.id, root=box.root) as container:
            await container.start()
            assert container.terminal
            container.terminal.resize(30, 40)
            await container.terminal.write(b"word\n")
            said = await container.terminal.read()
            assert b"30 40\r\n" in said
            assert b"got word\r\n" in said
            assert await container.wait() == 0

    box.process["terminal"] = True
    box.sh("read line; stty size; echo got $line").save()
    do(main())


def test_looking_is_done_elsewhere(box: Box) -> None:
    async def main() -> None:
        async with aio.create(box.bundle, id=box.id, root=box.root) as container:
            await container.start()
            found = await aio.verify(container)
            assert found == rundlet.verify(container)
            assert found.status == "holds"
            box.process["noNewPrivileges"] = False
            box.process["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 99, "hard": 99}]
            asked = {**box.config, "root": {"path": str(box.rootfs)}}
            differs = await aio.verify(container.pid, config=asked)
            assert differs == rundlet.verify(container.pid, config=asked)
            assert differs.status == "differs"
            with pytest.raises(rundlet.WrongState, match="there is no process"):
                await aio.verify(2**22 - 1, config=asked)

    box.save()
    do(main())


@pytest.mark.skipif("memory" not in {*bundles.CGROUPS["mounts"], *bundles.CGROUPS.get("controllers", ())}, reason="no memory controller here")
def test_running_out_of_memory_is_told(box: Box) -> None:
    async def main() -> None:
        async with aio.create(box.bundle, id=box.id, root=box.root) as container:
            await container.start()
            async with container.events(3600) as events:
                eating = asyncio.create_task(container.exec(["sh", "-c", "x=$(tail /dev/zero)"]))
                first = await events.next()
                assert first == {"type": "oom", "id": box.id}
                await eating
                await container.kill("KILL")
                assert {event["type"] async for event in events} <= {"oom"}

    box.linux["resources"] = {"memory": {"limit": 16 << 20, "swap": 16 << 20}}
    if bundles.CGROUPS["layout"] != "v2":
        del box.linux["resources"]["memory"]["swap"]
    box.save()
    do(main())


def test_faults_are_typed(box: Box) -> None:
    async def main() -> None:
        with pytest.raises(rundlet.BadSpec) as caught:
            await aio.run(box.bundle, id=box.id, root=box.root)
        assert caught.value.where == "/process/cwd"

    box.process["cwd"] = "relative"
    box.save()
    do(main())
    assert box.left() == []


def test_the_loop_goes_on_meanwhile(box: Box, tmp_path: Path) -> None:
    """While the container is being made, its hook waits for something that another task does."""
    async def main() -> None:
        making = asyncio.create_task(aio.run(box.bundle, id=box.id, root=box.root, capture=True))
        await until((tmp_path / "began").exists)
        assert rundlet.Container(box.id, root=box.root).state()["status"] == "creating"
        (tmp_path / "go").touch()
        assert (await making).stdout == b"x\n"

    hook(box, tmp_path, f"until test -e {tmp_path}/go; do sleep 0.01; done")
    box.process["args"] = ["echo", "x"]
    box.save()
    do(main())


def hook(box: Box, folder: Path, script: str) -> None:
    """A createRuntime hook that says when it has begun."""
    (folder / "hook").write_text(f"#!/bin/sh\necho $$ > {folder}/began\n{script}\n")
    (folder / "hook").chmod(0o755)
    box.config["hooks"] = {"createRuntime": [{"path": str(folder / "hook")}]}


# nothing is left behind


async def cancelled(task: "asyncio.Task[Any]") -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("make", [aio.create, aio.run])
def test_cancelled_while_it_is_made(box: Box, tmp_path: Path, make: Any) -> None:
    async def main() -> None:
        task = asyncio.create_task(make(box.bundle, id=box.id, root=box.root))
        await until((tmp_path / "began").exists)
        await cancelled(task)

    hook(box, tmp_path, "exec sleep 1000")
    box.save()
    do(main())
    assert box.left() == []
    assert eventually(lambda: not bundles.reap())


def test_cancelled_at_once(box: Box) -> None:
    """At whatever moment: after none, one, two … turns of the loop."""
    async def main() -> None:
        for turns in range(6):
            task = asyncio.create_task(aio.run(box.bundle, id=box.id, root=box.root))
            for _ in range(turns):
                await asyncio.sleep(0)
            await cancelled(task)
            assert box.left() == []
            assert children() == []

    box.save()
    do(main())


def test_cancelled_while_it_runs(box: Box) -> None:
    async def main() -> None:
        task = asyncio.create_task(aio.run(box.bundle, id=box.id, root=box.root))
        container = rundlet.Container(box.id, root=box.root)
        await until(lambda: box.root.exists() and (box.root / box.id / "state.json").exists() and container.state()["status"] == "running")
        await cancelled(task)
        assert children() == []

    box.save()
    do(main())
    assert box.left() == []


def test_a_cancelled_exec_leaves_the_container(box: Box) -> None:
    async def main() -> None:
        async with aio.create(box.bundle, id=box.id, root=box.root) as container:
            await container.start()
            task = asyncio.create_task(container.exec(["sleep", "999"]))
            await until(lambda: len(container.pids()) == 2)
            await cancelled(task)
            assert container.pids() == [container.pid]
            assert container.state()["status"] == "running"

    box.save()
    do(main())


def test_cancelled_while_it_is_deleted(box: Box) -> None:
    """At the end of `async with` the container goes first, and then the task."""
    async def main() -> None:
        leaving = False
        went_on = False

        async def use() -> None:
            nonlocal leaving, went_on
            async with aio.create(box.bundle, id=box.id, root=box.root) as container:
                await container.start()
                leaving = True
            went_on = True

        task = asyncio.create_task(use())
        while not leaving:
            await asyncio.sleep(0)
        task.cancel()  # it waits for the command that deletes
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (went_on, task.cancelled(), box.left()) == (False, True, [])

    box.save()
    do(main())


def test_nothing_is_lost_of_a_line_that_is_not_awaited_to_its_end(box: Box) -> None:
    async def main() -> None:
        async with aio.create(box.bundle, id=box.id, root=box.root, stdin=rundlet.PIPE, stdout=rundlet.PIPE) as container:
            await container.start()
            assert container.stdin
            assert container.stdout
            out = container.stdout.fileno()
            for read in (container.stdout.readline, container.stdout.read):
                await container.stdin.write(b"one")
                await until(lambda: bool(select.select([out], [], [], 0)[0]))
                task = asyncio.create_task(read())
                await asyncio.sleep(0)  # it has read what there is, and waits
                assert not select.select([out], [], [], 0)[0]
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                await container.stdin.write(b"two\n")
                assert await container.stdout.readline() == b"onetwo\n"

    box.process["args"] = ["cat"]
    box.save()
    do(main())


def test_a_timeout_of_asyncio(box: Box) -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await aio.run(box.bundle, id=box.id, root=box.root)
        with pytest.raises(TimeoutError):
            await aio.run(box.bundle, id=box.id, root=box.root, timeout=1)

    box.save()
    do(main())
    assert box.left() == []
    assert children() == []


def commands() -> list[int]:
    """Processes of ours that carry a command out."""
    found = []
    for pid in children():
        try:
            found += [pid] if b"worker" in Path(f"/proc/{pid}/cmdline").read_bytes() else []
        except (FileNotFoundError, ProcessLookupError):
            pass
    return found


def test_nothing_is_left_of_a_creation_whose_command_is_killed(box: Box, tmp_path: Path) -> None:
    """By then its process has a session of its own, so that nothing but the pid tells that it is ours."""
    async def main() -> None:
        with pytest.raises(rundlet.Fault, match="create ended with status -9 before it could say what came of it$"):
            await aio.create(box.bundle, id=box.id, root=box.root)
        assert set(children()) <= {int((tmp_path / "began").read_text())}, "the hook alone, an orphan that the tests adopt"

    hook(box, tmp_path, "kill -KILL $PPID")
    box.save()
    do(main())
    assert box.left() == []
    assert eventually(lambda: not bundles.reap())


@pytest.mark.elsewhere  # dozens of commands, and what they leave is no matter of the kernel
@pytest.mark.parametrize("verb", ["create", "exec"])
def test_no_process_is_left_of_a_command_that_is_killed_at_any_moment(box: Box, verb: str) -> None:
    async def one(turn: int, container: aio.Container | None, wait: float) -> bool:
        """Whether the command was there to be killed."""
        mine: dict[str, Any] = {"id": f"{box.id}-{turn}", "root": box.root}
        task: asyncio.Task[Any] = asyncio.create_task(container.spawn(["sleep", "1000"]) if container else aio.create(box.bundle, **mine))
        await until(lambda: task.done() or bool(commands()))
        await asyncio.sleep(wait)
        killed = commands()
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        try:
            async with await task:
                return bool(killed)  # it had said already what came of it
        except rundlet.Fault as fault:
            assert "ended with status -9 before it could say" in str(fault)
            if "delete --force" in str(fault):
                await aio.Container(**mine).delete(force=True)
            return True

    async def all(container: aio.Container | None) -> None:
        before, turn = children(), 0
        begin = time.monotonic()
        async with await (container.spawn(["sleep", "1000"]) if container else aio.create(box.bundle, id=f"{box.id}-whole", root=box.root)):
            step = (time.monotonic() - begin) / 15  # of the time that an undisturbed one takes
        while await one(turn, container, turn * step):
            assert children() == before
            turn += 1
        assert turn

    async def main() -> None:
        if verb == "create":
            await all(None)
        else:
            async with aio.create(box.bundle, id=box.id, root=box.root) as container:
                await container.start()
                await all(container)

    box.sh("while true; do sleep 1; done").save()
    do(main())
    assert children() == []
    assert box.left() == []
    assert os.listdir(box.root) == []


def test_one_that_fails_cancels_its_group(boxes: Callable[[], Box]) -> None:
    good, bad = boxes(), boxes()

    async def main() -> None:
        async def both() -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(aio.run(good.bundle, id=good.id, root=good.root))
                group.create_task(aio.run(bad.bundle, id=bad.id, root=bad.root))

        with pytest.raises(ExceptionGroup) as caught:
            await both()
        assert [type(fault) for fault in caught.value.exceptions] == [rundlet.BadSpec]

    bad.process["cwd"] = "relative"
    for box in (good, bad):
        box.save()
    do(main())
    assert good.left() == bad.left() == []
    assert children() == []
