"""The library's types as a user's program has them: mypy --strict takes the examples of the pages, knows what each call gives, and finds mistakes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.real.test_api_docs import EXAMPLES

RIGHT = """
from collections.abc import Iterator
from typing import assert_type

import rundlet
import rundlet.plan.order
from rundlet import aio

config = rundlet.config(["true"], rootfs="/srv/box", env={"A": "1"}, host=["network"])
assert_type(config, rundlet.Config)
assert_type(config["process"]["noNewPrivileges"], bool)
assert_type(rundlet.plan(config), rundlet.Plan)
assert_type(rundlet.plan("/srv/bundle", rundlet.facts(), cgroup_manager="systemd").stages[0].name, str)
assert_type(rundlet.explain(config).refusal, rundlet.Fault | None)
assert_type(rundlet.run(config, input=b"", capture=True, timeout=5.0), rundlet.Completed)
assert_type(rundlet.exec("id", ["true"], env={"A": "1"}).status, int)
assert_type(rundlet.verify("id").differences, tuple[rundlet.Difference, ...])
assert_type(rundlet.verify(1, config=config).unknown, tuple[rundlet.Unknown, ...])
assert_type(rundlet.denials("id", since=0), list[rundlet.Denial])
assert_type(rundlet.denials(1, config=config), list[rundlet.Denial])
assert_type(rundlet.containers(), list[rundlet.State])

with rundlet.create(config, stdin=rundlet.PIPE) as container:
    assert_type(container, rundlet.Container)
    container.start(timeout=1)
    assert_type(container.wait(1.0), int | None)
    assert_type(container.status, int | None)
    assert_type(container.state()["pid"], int)
    container.kill(9, all=True)
    container.update({"pids": {"limit": 9}})
    with container.spawn(["true"], pass_fds=[0], user="1:1") as process:
        assert_type(process, rundlet.Process)
        assert_type(process.wait(), int)
        if process.stdout:
            assert_type(process.stdout.readline(), bytes)
            assert_type(list(process.stdout), list[bytes])
    for event in container.events(1):
        assert_type(event, rundlet.Event)


class Mine(rundlet.Container):
    pass


assert_type(Mine.create(config), Mine)


async def main() -> None:
    assert_type(await aio.run(config, capture=True), rundlet.Completed)
    assert_type(await aio.exec("id", ["true"]), rundlet.Completed)
    assert_type(await aio.verify("id"), rundlet.Report)
    assert_type(await aio.denials(), list[rundlet.Denial])
    async with rundlet.aio.create(config) as container:
        assert_type(container, aio.Container)
        await container.start(timeout=1)
        assert_type(await container.wait(), int | None)
        async with container.spawn(["true"]) as process:
            assert_type(process, aio.Process)
            assert_type(await process.wait(1), int)
            if process.stdout:
                assert_type(await process.stdout.read(), bytes)
                assert_type([line async for line in process.stdout], list[bytes])
        async for event in container.events():
            assert_type(event, rundlet.Event)
    assert_type(await aio.create(config), aio.Container)
    assert_type(await container.spawn(["true"]), aio.Process)
"""
WRONG = """
import rundlet
from rundlet import aio

rundlet.plan(1)
rundlet.run("bundle", captured=True)
rundlet.create("bundle", apparmor_on_delete="delete")
rundlet.Container("id").exec(["true"], environment={})
rundlet.Container("id").kill(None)
rundlet.Container("id").start(1)
rundlet.make_plan("bundle")


async def main() -> None:
    (await aio.Container("id").wait()).bit_length()
    await aio.run("bundle", timeout="1")
    aio.Container("id").start()
"""


@pytest.fixture(scope="module")
def complaints(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What mypy has to say of all of them, by the package that is installed."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "right.py").write_text(RIGHT)
    (folder / "wrong.py").write_text(WRONG)
    for page, number, text in EXAMPLES:
        (folder / f"{Path(page).stem.lower()}_{number}.py").write_text(text)
    files = sorted(path.name for path in folder.iterdir())
    words = ["--strict", "--enable-error-code", "unused-awaitable", "--config-file", "", "--no-error-summary", "--cache-dir", "cache", *files]
    env = {name: value for name, value in os.environ.items() if name != "MYPYPATH"}
    done = subprocess.run([sys.executable, "-m", "mypy", *words], capture_output=True, text=True, cwd=folder, env=env)
    assert not done.stderr
    return [line for line in done.stdout.splitlines() if ": note: " not in line]


def test_what_is_right_is_taken(complaints: list[str]) -> None:
    assert [line for line in complaints if not line.startswith("wrong.py:")] == []


def test_each_mistake_is_found(complaints: list[str]) -> None:
    lines = WRONG.splitlines()
    mistakes = {number for number, line in enumerate(lines, 1) if line and not line.startswith(("import", "from", "async def"))}
    assert {int(line.split(":")[1]) for line in complaints if line.startswith("wrong.py:")} == mistakes, complaints
