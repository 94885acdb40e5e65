"""Cgroups of this very kernel, whatever its layout; needs root and writes only below names of its own."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count
from typing import TYPE_CHECKING

import pytest

from rundlet.cgroup import files, layout, tasks
from rundlet.cgroup.place import Place, chief, find, place, sub
from rundlet.errors import Refused, StepFailed
from rundlet.executor.client import spawn
from rundlet.plan.devicefilter import Rule, lines, load_steps, program, rules
from rundlet.plan.resources import asks, version, writes
from rundlet.plan.write import Write
from rundlet.spec import load_resources
from tests.bundles import PATIENCE, RUN, eventually

if TYPE_CHECKING:
    from rundlet.spec.types import Resources

FACTS = layout.read()
NUMBERS = count()
pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="cgroups are made by root"),
    pytest.mark.skipif(FACTS["layout"] == "none", reason="this host has no cgroups mounted"),
]


@pytest.fixture
def here() -> "Iterator[Place]":
    """A place that no one has; removed with whatever is in it."""
    found = place(FACTS, f"/{RUN}-cgroup-{next(NUMBERS)}", "unused")
    yield found
    tasks.signal_all(found, signal.SIGKILL)
    reap()
    files.remove(found)
    assert not any(os.path.exists(at.path) for at in found.dirs)


CHILDREN: "list[subprocess.Popen[bytes]]" = []


def run(*argv: str) -> int:
    child = subprocess.Popen(argv, start_new_session=True)
    CHILDREN.append(child)
    return child.pid


def sleeper() -> int:
    return run("sleep", "100000")


def reap() -> "list[int]":
    """The exit statuses of the children of this test, which have to have been killed."""
    statuses = [child.wait(PATIENCE) for child in CHILDREN]
    CHILDREN.clear()
    return statuses


def limits(text: str) -> "Resources":
    return load_resources(text.encode())[0]


def test_the_layout_leads_to_this_process() -> None:
    assert FACTS["own"].keys() == FACTS["mounts"].keys()
    for name, mount in FACTS["mounts"].items():
        with open(f"{mount}{FACTS['own'][name]}/cgroup.procs") as procs:
            assert str(os.getpid()) in procs.read().split(), name
    assert ("unified" in FACTS["mounts"]) == (FACTS["layout"] in ("v2", "hybrid"))


def test_create_makes_all_and_unmake_takes_it_back(here: Place) -> None:
    inner = sub(here, "one/two")
    made = files.create(inner)
    assert made.place == inner
    assert len(made.made) == 3 * len(inner.dirs)
    assert all(os.path.isdir(at.path) for at in inner.dirs)
    at = inner.dirs[-1]
    if at.version == 2 and FACTS["layout"] == "v2":
        with open(f"{at.path}/cgroup.controllers") as controllers:
            assert controllers.read().split() == FACTS["controllers"]
    assert files.unmake(made) == []
    assert not any(os.path.exists(path) for path in made.made)


def test_unmake_keeps_outer_cgroups_that_others_use(here: Place) -> None:
    made = files.create(sub(here, "one"))
    other = files.create(sub(here, "two"))
    assert files.unmake(made) == []
    assert all(os.path.isdir(path) for path in other.made)
    assert not any(os.path.exists(at.path) for at in made.place.dirs)


def test_create_undoes_itself_on_failure(here: Place) -> None:
    last = here.dirs[-1]
    os.mkdir(last.path)
    os.mkdir(f"{last.path}/in")
    pid = sleeper()
    files.join(Place((sub(here, "in").dirs[-1],)), pid)
    with pytest.raises(Refused, match="cgroup is not empty: 1 process"):
        files.create(here)
    assert not any(os.path.exists(at.path) for at in here.dirs[:-1])
    assert os.path.exists(last.path)


def test_a_process_joins_every_hierarchy(here: Place) -> None:
    files.create(here)
    pid = sleeper()
    files.join(here, pid, alone=True)
    with open(f"/proc/{pid}/cgroup") as text:
        where = {line.split(":")[1] or "unified": line.strip().split(":", 2)[2] for line in text}
    for name, mount in FACTS["mounts"].items():
        path = next(path for names, path in where.items() if name in names.split(","))
        assert f"{mount}{path}".endswith(chief(here).path.rpartition("/")[2]), name  # type: ignore[union-attr]
    assert tasks.pids(here) == [pid]


def test_two_containers_do_not_share_a_cgroup(here: Place) -> None:
    files.create(here)
    first, second = sleeper(), sleeper()
    files.join(here, first, alone=True)
    with pytest.raises(Refused, match=r"container's cgroup is not empty: 1 process\(es\) found in"):
        files.create(here)
    with pytest.raises(Refused, match=r"container's cgroup is not empty: 1 process\(es\) found in"):
        files.join(here, second, alone=True)


def test_an_empty_cgroup_is_taken_and_removed(here: Place) -> None:
    first = files.create(here)
    second = files.create(here)
    assert len(first.made) == len(here.dirs)
    assert second.made == ()
    files.remove(here)
    files.remove(here)  # gone already
    assert not any(os.path.exists(at.path) for at in here.dirs)


@pytest.mark.parametrize("inner", ["", "below"])
def test_a_frozen_cgroup_is_an_error_and_not_a_hang(here: Place, inner: str) -> None:
    files.create(here)
    tasks.freeze(here)
    try:
        with pytest.raises(Refused, match="container's cgroup unexpectedly frozen"):
            files.create(sub(here, inner))
    finally:
        tasks.thaw(here)
    files.create(sub(here, inner))


def test_limits_arrive(here: Place) -> None:
    asked = limits(
        '{"memory": {"limit": 67108864, "reservation": 33554432}, "pids": {"limit": 7},'
        ' "cpu": {"shares": 512, "quota": 50000, "period": 200000}, "devices": [{"allow": true}]}'
    )
    wanted = writes(asked, FACTS)
    files.create(here, {write.controller for write in wanted})
    files.apply(here, wanted)
    for write in wanted:
        assert (files.read_text(here, write.controller, write.file) or "").strip() == write.text, write


def test_memory_limits_move_up_and_down(here: Place) -> None:
    files.create(here, ["memory"])
    for limit, swap in ((64, 64), (128, 128), (32, 256), (512, 512), (16, 16), (-1, -1), (64, 64)):
        text = f'{{"memory": {{"limit": {limit << 20 if limit > 0 else -1}, "swap": {swap << 20 if swap > 0 else -1}}}}}'
        asked = limits(text)
        now = {file: files.read_text(here, controller, file) for controller, file in asks(asked, FACTS)}
        wanted = writes(asked, FACTS, {file: text for file, text in now.items() if text is not None})
        files.apply(here, wanted)
        if limit > 0:
            assert {(files.read_text(here, "memory", write.file) or "").strip() == write.text for write in wanted} == {True}


def test_cpu_bandwidth_moves_up_and_down(here: Place) -> None:
    files.create(here, ["cpu"])
    for quota, period, burst in ((20000, 100000, 20000), (5000, 10000, 0), (200000, 400000, 100000), (1000, 1000, 1000)):
        asked = limits(f'{{"cpu": {{"quota": {quota}, "period": {period}, "burst": {burst}}}}}')
        now = {file: files.read_text(here, controller, file) or "" for controller, file in asks(asked, FACTS)}
        wanted = writes(asked, FACTS, now)
        files.apply(here, wanted)
        for write in wanted:
            assert (files.read_text(here, "cpu", write.file) or "").strip() == write.text, (quota, write)


def test_the_limit_of_processes_holds(here: Place) -> None:
    wanted = writes(limits('{"pids": {"limit": 3}, "devices": [{"allow": true}]}'), FACTS)
    files.create(here, ["pids"])
    files.apply(here, wanted)
    script = "read x; n=0; for i in 1 2 3 4 5; do sleep 60 & n=$((n+1)); done 2>/dev/null; echo unreachable"
    child = subprocess.Popen(["sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
    files.join(here, child.pid)
    child.stdin.write(b"\n")  # type: ignore[union-attr]
    child.stdin.flush()  # type: ignore[union-attr]
    assert eventually(lambda: (files.read_text(here, "pids", "pids.events") or "").split()[1] != "0")
    assert len(tasks.pids(here)) <= 3
    tasks.signal_all(here, signal.SIGKILL)
    assert b"unreachable" not in child.communicate(timeout=PATIENCE)[0]


def test_a_missing_controller_is_named(here: Place) -> None:
    with pytest.raises(Refused, match="cannot set the perpetuum limit: no cgroup for the perpetuum controller here"):
        files.create(here, ["perpetuum"])
    files.create(here)
    with pytest.raises(Refused, match="cannot set the motion: no cgroup for the perpetuum"):
        files.apply(here, [Write("perpetuum", "perpetuum.max", "1", "motion")])


def test_a_refused_limit_names_its_file(here: Place) -> None:
    files.create(here, ["pids"])
    path = f"{find(here, 'pids').path}/pids.max"  # type: ignore[union-attr]
    with pytest.raises(StepFailed, match=f"^set the limit of processes to many: write `{path}`: invalid argument$"):
        files.apply(here, [Write("pids", "pids.max", "many", "limit of processes")])
    with pytest.raises(Refused, match="this kernel has no `.*/pids.min`; do not ask for this limit") as caught:
        files.apply(here, [Write("pids", "pids.min", "1", "least processes")])
    assert "no such file" not in str(caught.value)  # engines take these words for a missing program
    files.apply(here, [Write("pids", "pids.min", "1", "least processes", fine=("ENOENT",))])
    files.apply(here, [Write("pids", "pids.min", "1", "", otherwise=Write("pids", "pids.max", "9", ""))])
    files.apply(here, [Write("pids", "pids.max", "x", "", fine=("EINVAL",)), Write("pids", "pids.max", "8", "")])
    assert files.read_text(here, "pids", "pids.max") == "8\n"


def test_controllers_do_not_pass_a_cgroup_with_processes_on_v2(here: Place) -> None:
    files.create(here)
    files.join(here, sleeper())
    inner = sub(here, "inner")
    if version(FACTS, "memory") == 2:
        with pytest.raises(Refused, match=r"the memory controller: `.*/cgroup.subtree_control`: it has processes of its own"):
            files.create(inner, ["memory"])
        assert not os.path.exists(inner.dirs[-1].path)
        with pytest.raises(Refused, match="the pids controller: .* it has processes of its own"):
            files.create(inner, ["pids"])
        with open(f"{here.dirs[-1].path}/cgroup.type") as kind:
            assert kind.read() == "domain\n"  # not made threaded on the way
        assert files.create(inner).place == inner  # nothing asked: the controllers may stay out
    else:
        assert files.create(inner, ["memory"]).place == inner  # v1 knows no such rule


def test_a_cgroup_that_passes_controllers_on_takes_no_process_on_v2(here: Place) -> None:
    files.create(sub(here, "inner"))
    pid = sleeper()
    if FACTS["layout"] == "v2":
        with pytest.raises(StepFailed, match=r"device or resource busy; it gives controllers to sub-cgroups"):
            files.join(here, pid)
    else:
        files.join(here, pid)
        assert tasks.pids(here) == [pid]
    os.kill(pid, signal.SIGKILL)


def test_in_a_threaded_tree(here: Place) -> None:
    """A container's cgroup below a threaded one is made threaded as well; then it takes processes, and they are found, frozen and killed."""
    at = here.dirs[-1]
    if at.version == 1:
        assert FACTS["layout"] == "v1"  # which has no threaded cgroups
        return
    # no controllers: a cgroup that gives domain controllers cannot be the root of a threaded tree
    os.makedirs(f"{at.path}/threaded")
    with open(f"{at.path}/threaded/cgroup.type", "w") as kind:
        kind.write("threaded")
    only = Place((sub(here, "threaded/new/inner").dirs[-1],))
    inner = files.create(only).place
    pid = sleeper()
    files.join(inner, pid, alone=True)
    for part in ("new", "new/inner"):
        with open(f"{at.path}/threaded/{part}/cgroup.type") as kind:
            assert kind.read() == "threaded\n"
    assert tasks.pids(inner) == [pid]
    with pytest.raises(Refused, match="container's cgroup is not empty"):
        files.create(only)
    whole = next(name for name in at.controllers if name in ("memory", "hugetlb"))  # which count for whole processes
    with pytest.raises(Refused, match=f"cannot give the cgroup .* the {whole} controller"):
        files.create(sub(only, "x"), [whole])
    tasks.freeze(inner)
    assert tasks.frozen(inner)
    tasks.thaw(inner)
    tasks.signal_all(inner, signal.SIGKILL)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    assert tasks.pids(inner) == []
    files.remove(inner)


def test_beside_a_threaded_cgroup(here: Place) -> None:
    at = here.dirs[-1]
    if at.version == 1:
        assert FACTS["layout"] == "v1"
        return
    os.makedirs(f"{at.path}/threaded")
    with open(f"{at.path}/threaded/cgroup.type", "w") as kind:
        kind.write("threaded")
    os.makedirs(f"{at.path}/other/inner")  # its parent is a thread root's child, and so invalid
    pid = sleeper()
    files.join(Place((sub(here, "other/inner").dirs[-1],)), pid)
    with open(f"{at.path}/other/cgroup.type") as kind:
        assert kind.read() == "threaded\n"
    os.kill(pid, signal.SIGKILL)


def cpu_time(pid: int) -> int:
    with open(f"/proc/{pid}/stat") as stat:
        return int(stat.read().rpartition(")")[2].split()[11])


def test_frozen_processes_stand_still(here: Place) -> None:
    files.create(here)
    busy = run("sh", "-c", "while :; do :; done")
    files.join(here, busy)
    assert not tasks.frozen(here)
    assert eventually(lambda: cpu_time(busy) > 2)
    tasks.freeze(here)
    assert tasks.frozen(here)
    before = cpu_time(busy)
    time.sleep(0.2)
    assert cpu_time(busy) == before
    tasks.thaw(here)
    assert not tasks.frozen(here)
    assert eventually(lambda: cpu_time(busy) > before + 2)


def v1_alone(here: Place) -> Place:
    """The place as a host without cgroup v2 has it; on v2 the place itself."""
    return Place(tuple(at for at in here.dirs if at.version == 1)) if len(here.dirs) > 1 else here


@pytest.mark.parametrize("part", [lambda here: here, v1_alone], ids=["all", "v1"])
def test_kill_reaches_frozen_processes_in_sub_cgroups(here: Place, part: "Callable[[Place], Place]") -> None:
    here = part(here)
    inner = sub(here, "a/b")
    files.create(inner)
    pids = [sleeper(), sleeper()]
    for pid in pids:
        files.join(inner, pid)
    assert sorted(tasks.pids(here)) == sorted(pids)
    tasks.freeze(inner)  # as a container can freeze what is in it
    tasks.freeze(here)
    tasks.signal_all(here, signal.SIGKILL)
    assert reap() == [-signal.SIGKILL, -signal.SIGKILL]
    assert tasks.pids(here) == []


def test_other_signals_wait_until_the_thaw(here: Place) -> None:
    files.create(here)
    script = "trap 'exit 3' TERM; echo ready; while :; do sleep 0.1; done"
    child = subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, start_new_session=True)
    CHILDREN.append(child)
    assert child.stdout is not None
    child.stdout.readline()
    files.join(here, child.pid)
    tasks.freeze(here)
    tasks.signal_all(here, signal.SIGTERM)
    assert tasks.frozen(here)
    assert child.pid in tasks.pids(here)
    assert child.poll() is None
    tasks.thaw(here)
    assert reap() == [3]


def test_a_signal_to_running_ones_leaves_them_running(here: Place) -> None:
    files.create(here)
    files.join(here, sleeper())
    tasks.signal_all(here, signal.SIGTERM)
    assert reap() == [-signal.SIGTERM]
    assert not tasks.frozen(here)
    tasks.signal_all(here, signal.SIGTERM)  # no one is there
    files.remove(here)
    tasks.signal_all(here, signal.SIGTERM)
    tasks.signal_all(here, signal.SIGKILL)


@pytest.mark.parametrize("part", [lambda here: here, v1_alone], ids=["all", "v1"])
def test_forking_does_not_outrun_the_kill(here: Place, part: "Callable[[Place], Place]") -> None:
    here = part(here)
    files.create(here, ["pids"])
    files.apply(here, [Write("pids", "pids.max", "40", "limit of processes")])
    # it is told when it is in the cgroup: what it forked before would be nobody's
    child = subprocess.Popen(
        ["sh", "-c", "read go; while :; do sh -c 'while :; do (sleep 0.01); done' & sleep 0.05; done 2>/dev/null"],
        start_new_session=True, stdin=subprocess.PIPE,
    )
    CHILDREN.append(child)
    files.join(here, child.pid)
    assert child.stdin
    child.stdin.write(b"go\n")
    child.stdin.close()
    assert eventually(lambda: len(tasks.pids(here)) > 4)
    tasks.signal_all(here, signal.SIGKILL)
    reap()
    assert eventually(lambda: tasks.pids(here) == [])


def test_remove_takes_sub_cgroups_too(here: Place) -> None:
    files.create(here)
    for at in here.dirs:
        os.makedirs(f"{at.path}/a/b/c")
        os.mkdir(f"{at.path}/a/d")
        os.mkdir(f"{at.path}/e")
    files.remove(here)
    assert not any(os.path.exists(at.path) for at in here.dirs)


def test_remove_goes_deeper_than_a_path_is_long(here: Place) -> None:
    at = chief(here)
    assert at is not None
    os.mkdir(at.path)
    fd = os.open(at.path, os.O_RDONLY)
    name = "x" * 200
    for _ in range(25):
        os.mkdir(name, dir_fd=fd)
        inner = os.open(name, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    pid = sleeper()
    procs = os.open("cgroup.procs", os.O_WRONLY, dir_fd=fd)
    os.write(procs, str(pid).encode())
    os.close(procs)
    os.close(fd)
    assert tasks.pids(here) == [pid]
    tasks.signal_all(here, signal.SIGKILL)
    reap()
    files.remove(here)
    assert not os.path.exists(at.path)


def test_remove_waits_for_the_last_process(here: Place) -> None:
    files.create(here)
    child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, start_new_session=True)
    CHILDREN.append(child)
    files.join(here, child.pid)
    inner = f"{here.dirs[0].path}/inner"
    os.mkdir(inner)
    failures: "list[Exception]" = []

    def remove() -> None:
        try:
            files.remove(here, PATIENCE)
        except Exception as failure:
            failures.append(failure)

    remover = threading.Thread(target=remove)
    remover.start()
    assert eventually(lambda: not os.path.exists(inner)), failures  # so it was tried, and the process was in the way
    assert child.stdin and remover.is_alive()
    child.stdin.close()
    remover.join()
    assert (failures, reap()) == ([], [0])
    assert not any(os.path.exists(at.path) for at in here.dirs)


def test_remove_does_not_wait_for_ever(here: Place) -> None:
    files.create(here)
    pid = sleeper()
    files.join(here, pid)
    with pytest.raises(StepFailed, match=rf"rmdir `{here.dirs[0].path}`: device or resource busy; processes in it: {pid}"):
        files.remove(here, 0.3)


def test_an_executor_joins_alone(here: Place) -> None:
    files.create(here)
    executor = spawn()
    files.join(here, executor.pid, alone=True)
    assert tasks.pids(here) == [executor.pid]
    executor.close()
    os.waitpid(executor.pid, 0)


TRY = """
import os, sys
sys.stdin.readline()
def answer(what, path, *args):
    try:
        what(path, *args)
    except PermissionError:
        print("no")
    else:
        print("yes")
for path, flags in (("/dev/null", os.O_RDONLY), ("/dev/null", os.O_WRONLY), ("/dev/null", os.O_RDWR), ("/dev/zero", os.O_RDONLY),
                    ("/dev/full", os.O_RDWR), ("/dev/kmsg", os.O_RDONLY), ("/dev/kmsg", os.O_RDWR)):
    answer(os.open, path, flags)
for number, kind in (((1, 3), 0o20600), ((7, 99), 0o60600), ((10, 9), 0o20600)):
    answer(os.mknod, sys.argv[1] + f"/{number[0]}-{number[1]}", kind, os.makedev(*number))
"""
#         null r, w, rw · zero r · full rw · kmsg r, rw · mknod null, block 7:99, char 10:9
DEVICES = [
    ("the defaults", rules([]), "yes yes yes yes yes no no yes yes yes"),
    ("everything", (Rule(True, "a", None, None, "rwm"),), "yes yes yes yes yes yes yes yes yes yes"),
    ("nothing", (Rule(False, "a", None, None, "rwm"),), "no no no no no no no no no no"),
    ("null to read, full", (Rule(True, "c", 1, 3, "r"), Rule(True, "c", 1, 7, "rw")), "yes no no no yes no no no no no"),
    ("null in two rules", (Rule(True, "c", 1, 3, "r"), Rule(True, "c", 1, 3, "w")), "yes yes yes no no no no no no no"),
    ("crossing wildcards", (Rule(True, "c", 1, None, "r"), Rule(True, "c", None, 3, "w")), "yes yes yes yes no yes no no no no"),
    ("all but kmsg", (Rule(True, "a", None, None, "rwm"), Rule(False, "c", 1, 11, "w")), "yes yes yes yes yes yes no yes yes yes"),
    ("all but making block devices", (Rule(True, "a", None, None, "rwm"), Rule(False, "b", None, None, "m")),
     "yes yes yes yes yes yes yes yes no yes"),
    ("taken back", (Rule(True, "c", 1, 3, "rwm"), Rule(True, "a", 1, 7, "rw"), Rule(False, "c", 1, 3, "w")),
     "yes no no no yes no no yes no no"),
]


def verdicts(here: Place, given: "tuple[Rule, ...]", kind: int, folder: str) -> str:
    """What a process in the cgroup may do under the rules, set up as cgroup v1 or as v2 has it."""
    if kind == 1:
        files.apply(here, [Write("devices", file, text, "device rules") for file, text in lines(given)])
    else:
        executor = spawn()
        try:
            executor.run(load_steps(program(given), here.dirs[-1].path))
        finally:
            executor.close()
            os.waitpid(executor.pid, 0)
    child = subprocess.Popen([sys.executable, "-ISBc", TRY, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
    files.join(here, child.pid)
    return " ".join(child.communicate(b"\n", timeout=PATIENCE)[0].decode().split())


@pytest.mark.parametrize(("given", "expected"), [row[1:] for row in DEVICES], ids=[row[0] for row in DEVICES])
def test_device_rules_hold(here: Place, given: "tuple[Rule, ...]", expected: str, tmp_path: "os.PathLike[str]") -> None:
    """On hybrid both ways are tried, v1 lines and the filter of v2: the same answers."""
    files.create(here, ["devices"])
    ways = [1] if "devices" in FACTS["mounts"] else []
    ways += [2] if "unified" in FACTS["mounts"] else []
    assert ways
    for kind in ways:
        at = here if kind == 1 else Place((here.dirs[-1],))
        assert verdicts(at, given, kind, str(tmp_path)) == expected, f"v{kind}"
        for name in os.listdir(tmp_path):
            os.unlink(os.path.join(tmp_path, name))
