"""A hundred containers at a time, from one event loop in one thread."""

import json

from tests.bundles import Box
from tests.real.test_api_containers import ended, script

HUNDRED = """
import asyncio, json, os, sys, threading
from rundlet import aio

forks, tasks = [], set()
os.register_at_fork(before=lambda: forks.append(1))

async def one(config, number, root, gate):
    config = json.loads(config)
    config["process"]["args"] = ["echo", str(number)]
    config["linux"]["cgroupsPath"] += f"/{number}"
    async with aio.create(config, id=f"hundred-{number}", root=root, folder=sys.argv[1], stdout=-1) as container:
        tasks.update(os.listdir("/proc/self/task"))
        gate.release()
        await everyone.wait()  # a hundred containers are there at a time
        await container.start()
        said = await container.stdout.read()
        return int(said), await container.wait()

async def main(config, root, count):
    global everyone
    everyone, gate = asyncio.Event(), asyncio.Semaphore(0)
    made = [asyncio.create_task(one(config, n, root, gate)) for n in range(count)]
    for _ in range(count):
        await gate.acquire()
    there = len(os.listdir(root))
    everyone.set()
    return there, await asyncio.gather(*made)

there, results = asyncio.run(main(open(sys.argv[1] + "/config.json").read(), sys.argv[2], 100))
print(json.dumps([there, results, len(tasks), threading.active_count(), len(forks), os.listdir(sys.argv[2])]))
"""


def test_a_hundred_containers_from_one_loop(box: Box) -> None:
    """All are there at once; one thread has made them, none was forked, and nothing is left."""
    box.save()
    there, results, tasks, threads, forks, left = json.loads(ended(script(HUNDRED, box.bundle, box.root)))
    assert there == 100
    assert results == [[number, 0] for number in range(100)]
    assert (tasks, threads, forks, left) == (1, 1, 0, [])
    for cgroup in box.cgroups():
        assert not [path for path in cgroup.iterdir() if path.is_dir()]
        cgroup.rmdir()
