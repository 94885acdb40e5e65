"""Where a container's processes are in the cgroup hierarchies, and whose its cgroups are."""

import signal
import subprocess
from pathlib import Path

import pytest

from tests import bundles
from tests.bundles import Box, Done

V2 = bundles.CGROUPS["layout"] == "v2"
V1_NAMES = sorted(set(bundles.CGROUPS["mounts"]) - {"unified"})


def where(pid: int | str) -> dict[str, str]:
    """The cgroup of a process in each hierarchy; the unified one is called so."""
    lines = [line.split(":", 2) for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()]
    return {name: path for _, names, path in lines for name in (names.split(",") if names else ["unified"])}


def mounted(box: Box, *options: str) -> Box:
    """Gives the container its cgroups under /sys/fs/cgroup, to be written unless the options say otherwise."""
    box.mount("/sys/fs/cgroup", "cgroup", "nosuid", "noexec", "nodev", *options, kind="cgroup")
    return box


def path_of(box: Box, name: str = "") -> str:
    """The folder of a hierarchy inside the container, the one of `name` on v1."""
    return "/sys/fs/cgroup" if V2 else f"/sys/fs/cgroup/{name or 'memory'}"


def refused(done: Done, *words: str) -> None:
    """An exec that could not be."""
    assert done.status in (1, 255) and done.out == "", done
    for word in words:
        assert word in done.err, done.err


@pytest.mark.parametrize("form", ["absolute", "relative", "absent", "empty", "nested"])
def test_the_path_of_the_configuration(box: Box, form: str) -> None:
    below = f"{box.id}/one/two" if form == "nested" else box.id
    if form == "absent":
        del box.linux["cgroupsPath"]
    elif form == "empty":
        box.linux["cgroupsPath"] = ""
    else:
        box.linux["cgroupsPath"] = below if form == "relative" else f"/{below}"
    pid = box.started()
    here = where("self")
    for name, path in where(pid).items():
        mount, own = bundles.CGROUPS["mounts"][name], bundles.CGROUPS["own"][name]
        assert f"{mount}{path.removeprefix(here[name].removesuffix(own))}" == f"{mount}/{below}", name
    box.call_apart("delete", "--force", box.id)
    assert bundles.status_of(pid) == 137
    assert not any(Path(mount, below).exists() for mount in bundles.CGROUPS["mounts"].values())
    if form == "nested":  # the outer ones are whoever's wants to put more into them
        for mount in set(bundles.CGROUPS["mounts"].values()):
            Path(mount, box.id, "one").rmdir()
            Path(mount, box.id).rmdir()


@pytest.mark.parametrize("named", [True, False])
def test_cgroups_that_cannot_be_written(box: Box, named: bool) -> None:
    """One that is named is made, or the container is refused; without a name and limits it stays where the runtime is."""
    box.linux["resources"] = {"devices": [{"allow": True, "access": "rwm"}]}  # whatever the runtime may, so nothing is to be written
    if not named:
        del box.linux["cgroupsPath"]
    hide = 'for at in $0; do mount --bind $at $at; mount -o remount,bind,ro $at; done; exec "$@"'
    mounts = " ".join(set(bundles.CGROUPS["mounts"].values()))
    box.runtime = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", hide, mounts, *box.runtime]
    done = box.sh("cat /proc/self/cgroup").run()
    if named:
        assert (done.status, done.out) == (1, "")
        assert "make the container's cgroup: mkdir " in done.err and ": read-only file system" in done.err
    else:
        assert (done.status, done.err) == (0, "")
        assert box.id not in done.out
    assert box.left() == []


def test_an_existing_cgroup_is_joined_and_its_limits_hold(box: Box) -> None:
    mount = bundles.CGROUPS["mounts"]["unified" if V2 else "pids"]
    Path(mount, box.id).mkdir()
    Path(mount, box.id, "pids.max").write_text("17")
    box.started()
    assert box.held("pids.max", "pids.max") == "17"


def test_below_a_threaded_cgroup(box: Box) -> None:
    """The container's cgroup becomes threaded too: it takes processes, stands still and ends, and is gone afterwards."""
    unified = bundles.CGROUPS["mounts"].get("unified")
    if unified is None:
        return  # v1 has no threaded cgroups
    outer = Path(unified, f"{box.id}-outer")
    (outer / "threaded").mkdir(parents=True)
    (outer / "threaded/cgroup.type").write_text("threaded")
    box.linux["cgroupsPath"] = f"/{box.id}-outer/threaded/{box.id}"
    box.linux["resources"] = {"pids": {"limit": 20}}
    try:
        pid = box.started()
        at = box.cgroups()[-1]
        assert (at / "cgroup.type").read_text() == "threaded\n"
        assert box.held("pids.max", "pids.max") == "20"
        assert where(pid)["unified"].endswith(box.linux["cgroupsPath"])
        assert box.exec("--detach", "--pid-file", str(box.folder / "pid"), "--", "sleep", "1000").status == 0
        other = int((box.folder / "pid").read_text())
        assert where(other) == where(pid)
        box.ok("pause", box.id)
        assert "frozen 1" in box.held("", "cgroup.events") if V2 else box.held("freezer.state", "") == "FROZEN"
        box.ok("resume", box.id)
        bundles.kill_all([other])  # as an engine reaps it: the first process ends when all others have been
        box.ok("delete", "--force", box.id)
        assert (bundles.status_of(pid), box.left()) == (137, [])
        if V2:
            box.linux["resources"] = {"memory": {"limit": 64 << 20}}
            done = box.create()
            assert done.status == 1 and "the memory controller" in done.err and "threaded" in done.err
            assert box.left() == []
    finally:
        for mount in dict.fromkeys(bundles.CGROUPS["mounts"].values()):
            for path in (f"{box.id}-outer/threaded", f"{box.id}-outer"):
                if Path(mount, path).exists():
                    Path(mount, path).rmdir()


def test_delete_ends_who_has_come_into_the_cgroup(box: Box) -> None:
    """A cgroup that somebody else's process keeps busy goes as well, and that process with it."""
    box.started()
    with subprocess.Popen(["sleep", "1000"]) as stranger:
        for at in box.cgroups():
            (at / "cgroup.procs").write_text(str(stranger.pid))
        box.ended()
        assert {at.name for at in box.cgroups()} == {box.id}, "it is still there"
        box.ok("delete", box.id)
        assert stranger.wait() == -signal.SIGKILL
    assert box.left() == []


def test_two_containers_do_not_share_a_cgroup(box: Box) -> None:
    box.started()
    other = box.another()
    other.linux["cgroupsPath"] = f"/{box.id}"
    done = other.create()
    assert done.status == 1 and "container's cgroup is not empty: 1 process(es) found" in done.err
    assert box.status == "running"


def test_delete_removes_what_the_container_has_made_inside(box: Box) -> None:
    pid = mounted(box).started()
    if V2:
        script = "cd /sys/fs/cgroup; mkdir -p a/b/c t; echo threaded >t/cgroup.type; echo 1 >t/cgroup.threads; cat t/cgroup.threads"
    else:
        script = "cd /sys/fs/cgroup; mkdir -p memory/a/b/c freezer/d; echo 1 >memory/a/b/c/cgroup.procs; cat memory/a/b/c/cgroup.procs"
    done = box.exec("sh", "-ec", script)
    assert (done.status, done.out) == (0, "1\n"), done
    box.call_apart("pause", box.id)
    assert box.call_apart("delete", "--force", box.id).err == ""
    assert bundles.status_of(pid) == 137
    assert box.left() == []


def test_exec_joins_the_containers_cgroup(box: Box) -> None:
    pid = box.started()
    for words in ([], ["--cgroup", "/", "--"]):
        assert box.exec("--detach", "--pid-file", str(box.folder / "pid"), *words[:-1], "--", "sleep", "1000").status == 0
        assert where((box.folder / "pid").read_text()) == where(pid)


def test_exec_in_a_sub_cgroup(box: Box) -> None:
    pid = mounted(box).started()
    for at in box.cgroups():
        if (at / "cpuset.cpus").exists() and not V2:
            (at / "cgroup.clone_children").write_text("1")  # else they have neither a cpu nor memory
        (at / "inner/most").mkdir(parents=True)
    for path in ("inner", "/inner/most"):
        assert box.exec("--detach", "--pid-file", str(box.folder / "pid"), "--cgroup", path, "--", "sleep", "1000").status == 0
        expected = {name: f"{own.rstrip('/')}/{path.strip('/')}" for name, own in where(pid).items()}
        assert where((box.folder / "pid").read_text()) == expected


def test_exec_in_a_cgroup_that_cannot_be(box: Box) -> None:
    box.started()
    for path in ("..", "a/../..", "/../x"):
        refused(box.exec("--cgroup", path, "--", "true"), " is not a sub cgroup path")
    refused(box.exec("--cgroup", "nonexistent", "--", "true"), " adding pid ", "/nonexistent/cgroup.procs: no such file ")
    refused(box.exec("--cgroup", "whaaat:/", "--", "true"), "unknown controller whaaat")
    refused(box.exec("--cgroup", "/", "--cgroup", "/", "--", "true"), "invalid --cgroup argument")
    refused(box.exec("--cgroup", "a:b:c", "--", "true"), "invalid --cgroup argument")


def test_exec_in_a_sub_cgroup_of_one_controller(box: Box) -> None:
    pid = mounted(box).started()
    if V2:
        refused(box.exec("--cgroup", "memory:inner", "--", "true"), "unknown controller memory")
        return
    for name in ("memory", "cpu", "cpuacct"):
        (Path(bundles.CGROUPS["mounts"][name]) / box.id / f"in{name}").mkdir()
    words = ["--cgroup", "memory:inmemory", "--cgroup", "cpu:incpu", "--detach", "--pid-file", str(box.folder / "pid"), "--", "sleep", "1000"]
    assert box.exec(*words).status == 0
    found, own = where((box.folder / "pid").read_text()), where(pid)
    for name in V1_NAMES:
        assert found[name] == own[name] + (f"/in{name}" if name in ("memory", "cpu") else ""), name
    refused(box.exec("--cgroup", "memory:inmemory", "--cgroup", "memory:/", "--", "true"), "controller memory specified multiple times")
    refused(box.exec("--cgroup", "memory:nonexistent", "--", "true"), "/nonexistent/cgroup.procs: no such file ")


def test_exec_where_the_first_process_has_gone_below(box: Box) -> None:
    """On v2 the container's own cgroup takes no processes once it gives controllers to sub-cgroups; v1 has no such rule."""
    mounted(box).started()
    inner = path_of(box) + "/inner"
    move = f"mkdir {inner}; echo 1 >{inner}/cgroup.procs; echo $$ >{inner}/cgroup.procs"
    assert box.exec("sh", "-ec", f"{move}; grep -q /inner /proc/1/cgroup").status == 0
    said = "grep -c /inner /proc/self/cgroup; true"
    assert box.exec("sh", "-c", said).out == "0\n", "it still takes processes"
    if not V2:
        return
    assert box.exec("--cgroup", "inner", "--", "sh", "-c", "echo +memory >/sys/fs/cgroup/cgroup.subtree_control").status == 0
    assert box.exec("cat", "/proc/self/cgroup").out == "0::/inner\n"
    done = box.exec("--cgroup", "/", "--", "true")
    refused(done, " adding pid ", " to cgroups", "/cgroup.procs: device or resource busy")
    assert box.exec("--cgroup", "inner", "--", "cat", "/proc/self/cgroup").out == "0::/inner\n"
    assert box.exec("--cgroup", "inner", "--", "mkdir", "/sys/fs/cgroup/second").status == 0
    assert box.exec("--cgroup", "second", "--", "cat", "/proc/self/cgroup").out == "0::/second\n"


@pytest.mark.parametrize("case", ["read-only", "the host's namespace", "its own"])
def test_the_owner_of_a_cgroup_in_a_user_namespace(box: Box, case: str) -> None:
    """config-linux.md, "Cgroup ownership": it is the container's where it sees no other, and may write it; never on v1."""
    bundles.user_namespace(box.config)
    mounted(box, *(["ro"] if case == "read-only" else []))
    if case == "the host's namespace":
        box.without("cgroup")
    box.started()
    mine = V2 and case == "its own"
    at = box.cgroups()[-1]
    files = ["cgroup.procs", "cgroup.subtree_control", "cgroup.threads"]
    assert {(at / name).stat().st_uid for name in ["", *files] if (at / name).exists()} == {100000 if mine else 0}
    if V2:
        assert {(at / name).stat().st_uid for name in ("cgroup.type", "pids.max", "memory.max")} == {0}, "what limits it stays the host's"
    folder = path_of(box)
    assert box.exec("stat", "-c", "%u", folder).out == ("0\n" if mine else "65534\n")
    done = box.exec("sh", "-c", f"mkdir {folder}/inner && echo $$ >{folder}/inner/cgroup.procs && echo moved")
    assert (done.out == "moved\n") == mine, done


def test_the_owner_is_who_the_process_runs_as(box: Box) -> None:
    box.process["user"] = {"uid": 1000, "gid": 1000}
    mounted(box).started()
    assert box.cgroups()[-1].stat().st_uid == (1000 if V2 else 0)


def test_a_delegated_sub_cgroup(box: Box) -> None:
    box.config["annotations"] = {"run.oci.delegate-cgroup": "given/away"}
    box.linux["resources"] = {"pids": {"limit": 20}}
    mounted(box)
    if not V2:
        done = box.create()
        assert done.status == 1 and "delegate-cgroup not supported on cgroup v1" in done.err
        assert box.left() == []
        return
    bundles.user_namespace(box.config)
    pid = box.started()
    at = box.cgroups()[0]
    assert where(pid)["unified"].endswith(f"/{box.id}/given/away")
    assert (at / "given/away").stat().st_uid == 100000
    assert ((at / "pids.max").read_text(), (at / "given/away/cgroup.procs").read_text()) == ("20\n", f"{pid}\n")
    assert box.exec("--cgroup", "given/away", "--", "cat", "/proc/self/cgroup").out == "0::/given/away\n"
    box.call_apart("delete", "--force", box.id)
    assert bundles.status_of(pid) == 137 and box.left() == []


@pytest.mark.parametrize("path", ["..", "a/../../b", "a//b", "."])
def test_a_delegated_path_that_leaves(box: Box, path: str) -> None:
    box.config["annotations"] = {"run.oci.delegate-cgroup": path}
    done = box.create()
    assert done.status == 1 and "/annotations/run.oci.delegate-cgroup" in done.err and box.left() == []
