"""A program that makes containers by the library, run confined in the lab: what labels they get, and what is left when a task is cancelled.

    python3 -m tests.lab.program BUNDLE ROOT       one line of JSON
"""

import asyncio
import json
import os
import sys
from typing import Any

import rundlet
from rundlet import aio

LABEL = "/proc/{}/attr/apparmor/current"


def label(pid: int | str) -> str:
    with open(LABEL.format(pid)) as file:
        return file.read().strip()


async def look(bundle: str, root: str) -> dict[str, Any]:
    """What is seen of a container and of a process in it."""
    found: dict[str, Any] = {"own": label("self"), "due": rundlet.explain(bundle).as_json()["label"]["to"]}
    async with aio.create(bundle, root=root) as container:
        await container.start()
        found["first"] = label(container.pid)
        async with container.spawn(["sleep", "1000"]) as process:
            found["second"] = label(process.pid)
        denied = await container.exec(["sh", "-c", "kill 1"], capture=True)
        found["denied"] = denied.status, [(one.operation, one.what, one.container) for one in await aio.denials(container)]
        found["status"] = (await aio.verify(container)).status
        task = asyncio.create_task(container.exec(["sleep", "1000"]))
        while len(container.pids()) < 2:
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait([task])
        found["cancelled"] = task.cancelled(), container.pids() == [container.pid]
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            found["children"] = file.read().split() == [str(container.pid)]
    found["left"] = rundlet.containers(root)
    return found


if __name__ == "__main__":
    print(json.dumps(asyncio.run(look(sys.argv[1], sys.argv[2]))))
