"""rundlet verify: containers as they were asked for hold, and those that were made wrong on purpose are found and named."""

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from rundlet.confine.verify import Report, Target, check
from tests import bundles, profiles
from tests.bundles import Box

V1 = bundles.CGROUPS["layout"] != "v2"
MASKS = ("/proc/keys", "/sys/firmware")


def verify(box: Box, *options: str) -> dict[str, Any]:
    """What `verify --json` says of a container; its exit status must fit."""
    done = box.call_apart("verify", "--json", *(options or (box.id,)))
    assert done.out, done
    found: dict[str, Any] = json.loads(done.out)
    assert found["schema"] == "rundlet.verify/1"
    assert done.status == {"holds": 0, "differs": 1, "unknown": 2}[found["status"]], done
    assert len(found["containers"]) == 1, done
    one: dict[str, Any] = found["containers"][0]
    assert one["status"] == found["status"]
    return one


def facts(found: dict[str, Any]) -> set[tuple[str, str]]:
    """What differs: (fact, whose without the numbers of processes)."""
    return {(one["fact"], one["subject"].partition(" ")[0]) for one in found["differences"]}


def holds(box: Box, *options: str) -> dict[str, Any]:
    """It must hold, with nothing unknown."""
    found = verify(box, *options)
    assert (found["status"], found["differences"], found["unknown"]) == ("holds", [], []), json.dumps(found)
    return found


def limited(box: Box) -> None:
    """Asks for some of everything."""
    box.process["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 256, "hard": 512}]
    box.process["oomScoreAdj"] = 500
    box.linux["resources"] = {
        "memory": {"limit": 256 << 20}, "pids": {"limit": 64}, "cpu": {"shares": 512, "quota": 50000, "period": 100000},
        "devices": [{"allow": False, "access": "rwm"}, {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rw"}],
    }


@contextmanager
def intruder(pid: int, *words: str, cgroups: list[Path] | None = None) -> Iterator[int]:
    """A process of the host in namespaces of process `pid`, by nsenter(1) with these words, and in these cgroups; its pid."""
    child = subprocess.Popen(["nsenter", "--target", str(pid), *words], stdin=subprocess.DEVNULL)
    entered = child.pid
    try:
        assert bundles.eventually(lambda: sleeping(child.pid) > 0)
        entered = sleeping(child.pid)
        for at in cgroups or []:
            (at / "cgroup.procs").write_text(str(entered))
        yield entered
    finally:
        subprocess.run(["kill", "-KILL", str(entered)], check=False)
        child.wait()


def sleeping(pid: int) -> int:
    """The process that sleeps: it, or a child of it; 0 while there is none."""
    for one in (pid, *bundles.children(pid)):
        try:
            if Path(f"/proc/{one}/cmdline").read_bytes().startswith((b"sleep\0", b"/bin/sleep\0")):
                return one
        except (FileNotFoundError, ProcessLookupError):
            continue
    return 0


ALL = ("--mount", "--uts", "--ipc", "--net", "--pid")


MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND, MNT_DETACH = 1, 2, 4, 8, 32, 4096, 2
MS_PRIVATE, MS_SHARED, MS_STRICTATIME = 1 << 18, 1 << 20, 1 << 24
INSIDE = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
pid, what, path, flags = int(sys.argv[1]), sys.argv[2], sys.argv[3].encode(), int(sys.argv[4])
answer = libc.setns(os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY), 0x20000)
if not answer:
    answer = libc.umount2(path, flags) if what == "umount" else libc.mount(b"tmpfs", path, b"tmpfs" if what == "tmpfs" else None, ctypes.c_ulong(flags), None)
if answer:
    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), path)
"""


def inside(pid: int, what: str, path: str, flags: int = 0) -> None:
    """umount2(2), or mount(2) of a tmpfs or as a "remount", in the container's mount namespace."""
    flags |= MS_REMOUNT | MS_BIND if what == "remount" else 0
    subprocess.run([sys.executable, "-ISc", INSIDE, str(pid), what, path, str(flags)], check=True)


@contextmanager
def mounted(folder: Path) -> Iterator[None]:
    """A tmpfs of the host there."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert not libc.mount(b"tmpfs", str(folder).encode(), b"tmpfs", ctypes.c_ulong(0), None), os.strerror(ctypes.get_errno())
    try:
        yield
    finally:
        assert not libc.umount2(str(folder).encode(), MNT_DETACH)


# ── what is right holds ──────────────────────────────────────────────────────────────────────────────────────────────────────


def user_namespace(box: Box) -> None:
    bundles.user_namespace(box.config)


def ordinary_user(box: Box) -> None:
    box.process["user"] = {"uid": 1000, "gid": 1000, "additionalGids": [7]}
    box.process["capabilities"] = {}


def read_only(box: Box) -> None:
    box.config["root"]["readonly"] = True


def no_new_privs_not_asked(box: Box) -> None:
    box.process["noNewPrivileges"] = False
    box.process["capabilities"] = {kind: ["CAP_CHOWN", "CAP_SETUID", "CAP_SETGID"] for kind in ("bounding", "effective", "permitted", "inheritable")}


def filtered(box: Box) -> None:
    box.linux["seccomp"] = profiles.resolved(profiles.CONTAINERS)


def bound(box: Box) -> None:
    (box.folder / "bound").mkdir()
    box.mount("/bound", str(box.folder / "bound"), "rbind", "ro", "nosuid", "nodev", "noexec")
    box.mount("/sys/fs/cgroup", "cgroup", "ro", "nosuid", "noexec", "nodev", kind="cgroup")


def odd_places(box: Box) -> None:
    """Mounts at which one does not arrive by their names alone."""
    (box.folder / "folder").mkdir()
    (box.folder / "file").write_text("")
    for link in (box.folder / "link", box.rootfs / "one", box.rootfs / "two"):
        link.symlink_to("/bin/sh")
    (box.rootfs / "three").symlink_to("/tmp")
    box.mount(f"{box.rootfs}/inner", str(box.folder / "folder"), "bind")
    box.mount("/one", str(box.folder / "file"), "bind", "dest-nofollow")
    box.mount("/mnt/link", str(box.folder / "link"), "bind", "src-nofollow")
    box.mount("/two", str(box.folder / "link"), "bind", "copy-symlink")
    box.mount("/three/below", "tmpfs", "ro", kind="tmpfs")
    box.mount("/tmp", "tmpfs", kind="tmpfs")


def many_threads(box: Box) -> None:
    """Threads: busybox has none, so the processes are many."""
    box.sh("for n in 1 2 3 4 5; do sleep 1000 & done; wait")


def cgroups(box: Box) -> None:
    """The control groups, and one hierarchy writable, as podman has it for systemd."""
    box.mount("/sys/fs/cgroup", "cgroup", "ro", "nosuid", "noexec", "nodev", kind="cgroup")
    if V1:
        box.mount("/sys/fs/cgroup/pids", "/sys/fs/cgroup/pids", "bind")


RIGHT = [limited, user_namespace, ordinary_user, read_only, no_new_privs_not_asked, filtered, bound, odd_places, many_threads, cgroups]


@pytest.mark.parametrize("shape", RIGHT, ids=lambda shape: shape.__name__)
def test_what_is_as_asked_holds(box: Box, shape: Callable[[Box], None]) -> None:
    shape(box)
    pid = box.started()
    found = holds(box)
    assert (found["state"], found["pid"]) == ("running", pid)
    assert {"capabilities", "namespace", "mount", "masked-path", "read-only-path", "cgroup", "limit", "descriptor"} <= set(found["checked"])
    holds(box, "--pid", str(pid), "--config", str(box.bundle))
    holds(box, "--pid", str(pid), "--config", str(box.bundle / "config.json"))


def test_the_hosts_namespaces_are_named(box: Box) -> None:
    box.started()
    found = holds(box)
    assert (set(found["hostNamespaces"]) & {"user", "pid", "network", "mount"}, found["notes"]) == ({"user"}, [])
    box.ended()
    box.ok("delete", box.id)
    box.without("network")
    box.without("ipc")
    box.started()
    found = holds(box)
    assert {"network", "ipc", "user"} == set(found["hostNamespaces"]) - {"time"}
    assert [set(note.partition(": ")[2].split(", ")) for note in found["notes"]] == [{"network", "ipc"}], found


def test_the_library(box: Box) -> None:
    pid = box.started()
    for target in (Target.of_container(str(box.root), box.id), Target.of_pid(pid, str(box.bundle))):
        report = check(target)
        assert isinstance(report, Report)
        assert (report.status, report.differences, report.unknown, report.pid) == ("holds", (), (), pid)
    box.ended()
    stopped = check(Target.of_container(str(box.root), box.id))
    assert (stopped.status, stopped.state, stopped.pid) == ("unknown", "stopped", 0)


def test_all(boxes: Callable[..., Box]) -> None:
    some = [boxes() for _ in range(3)]
    for box in some:
        box.started()
    some[2].ended()
    done = some[0].call_apart("verify", "--all", "--json")
    found = json.loads(done.out)
    assert (done.status, found["status"]) == (0, "holds"), done
    assert {one["id"]: one["state"] for one in found["containers"]} == {some[0].id: "running", some[1].id: "running", some[2].id: "stopped"}
    for text, why in (("{", "state.json is damaged"), ('{"version": 99}', "another version of rundlet")):  # which does not hide the others
        file = some[1].root / some[1].id / "state.json"
        before = file.read_text()
        file.write_text(text)
        done = some[0].call_apart("verify", "--all", "--json")
        alone = some[0].call_apart("verify", some[1].id)
        file.write_text(before)
        told = {one["id"]: one for one in json.loads(done.out)["containers"]}
        assert (done.status, len(told), told[some[0].id]["status"], told[some[1].id]["state"]) == (2, 3, "holds", "unknown"), done
        assert why in told[some[1].id]["unknown"][0]["why"]
        assert (alone.status, alone.err.count("\n")) == (2, 1)
        assert why in alone.err
    file = some[1].root / some[1].id / "record.json"
    before = file.read_text()
    file.unlink()
    file.mkdir()
    done = some[0].call_apart("verify", "--all", "--json")
    file.rmdir()
    file.write_text(before)
    told = {one["id"]: one for one in json.loads(done.out)["containers"]}
    assert (done.status, told[some[0].id]["status"], told[some[1].id]["state"]) == (2, "holds", "unknown"), done
    assert told[some[1].id]["unknown"][0]["why"].startswith("it cannot be looked at: is a directory"), told
    done = some[0].call_apart("verify", "--json", some[0].id, some[1].id)
    assert [one["id"] for one in json.loads(done.out)["containers"]] == [some[0].id, some[1].id]
    done = some[0].call_apart("verify", some[0].id, some[2].id)
    assert (done.status, "it does not run" in done.out) == (2, True), done


# ── execs ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_exec_that_was_given_more_is_no_difference(box: Box) -> None:
    box.process["capabilities"] = {}
    pid = box.started()
    given = ("--user", "1000:1000", "--cap", "CAP_KILL", "--additional-gids", "44", "--detach", "--")
    box.exec(*given, "sleep", "1000")
    box.exec("--detach", "--", "sleep", "1000")
    found = holds(box)
    assert found["processes"] == 3
    assert any("held to what the exec of process" in note for note in found["notes"]), found
    # another runtime's would be known to nobody
    other = verify(box, "--pid", str(pid), "--config", str(box.bundle))
    assert {fact for fact, _ in facts(other)} == {"user", "groups", "capabilities"}, other


def test_the_children_of_an_exec_are_held_to_the_same_however_they_leave_it(box: Box) -> None:
    box.process["capabilities"] = {}
    box.started()
    box.exec("--user", "1000", "--", "sh", "-c", "(setsid sleep 1000 &) ; sleep 1000 & exit 0")
    found = holds(box)
    assert found["processes"] == 3


def test_what_an_exec_was_given_covers_nobody_older(box: Box) -> None:
    box.process["capabilities"] = {}
    pid = box.started()
    with intruder(pid, *ALL, "--setuid", "1000", "--setgid", "1000", "/bin/sleep", "1000", cgroups=box.cgroups()):
        box.exec("--user", "1000", "--detach", "--", "sleep", "1000")
        found = verify(box)
        assert {("user", "process"), ("no-new-privs", "process")} <= facts(found), found
        assert len({one["pid"] for one in found["differences"]}) == 1


def test_lines_of_execs_go_once_nothing_can_descend_from_them(box: Box) -> None:
    box.started()
    line = {"pid": 1, "start": 1, "process": {"user": {"uid": 1, "gid": 1, "umask": None, "additionalGids": []}}, "expect": None}
    (box.root / box.id / "execs").write_text("".join(json.dumps({**line, "filler": "x" * 200}) + "\n" for _ in range(80)))
    box.exec("--user", "1000", "--detach", "--", "sleep", "1000")
    lines = [json.loads(text) for text in (box.root / box.id / "execs").read_text().splitlines()]
    assert [one["process"]["user"]["uid"] for one in lines] == [1000]
    holds(box)


# ── what is wrong is found ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_process_from_outside(box: Box) -> None:
    filtered(box)
    pid = box.started()
    with intruder(pid, *ALL, "/bin/sleep", "1000") as entered:
        found = verify(box)
        assert facts(found) >= {(fact, "process") for fact in ("capabilities", "no-new-privs", "seccomp", "cgroup")}, found
        assert {one["pid"] for one in found["differences"]} == {entered}
        assert all(one["asked"] and one["holds"] and one["why"] for one in found["differences"])
        bounding = next(one for one in found["differences"] if one["holds"].startswith("bounding"))
        assert bounding["asked"] == "bounding, effective, permitted: CAP_KILL, CAP_NET_BIND_SERVICE"
        assert bounding["holds"].startswith("bounding, effective, permitted: also all but CAP_KILL, ")
    holds(box)


def test_a_process_of_the_host_in_the_containers_cgroup(box: Box) -> None:
    pid = box.started()
    with intruder(pid, "--uts", "/bin/sleep", "1000", cgroups=box.cgroups()):
        found = verify(box)
        kinds = {one["asked"] for one in found["differences"] if one["fact"] == "namespace"}
        assert kinds == {f"the container's {kind} namespace" for kind in ("pid", "network", "ipc", "mount", "cgroup")}, found
        assert all(one["holds"] == "the host's" for one in found["differences"] if one["fact"] == "namespace")


def test_another_containers_namespace(boxes: Callable[..., Box]) -> None:
    one, other = boxes(), boxes()
    one.started()
    with intruder(other.started(), "--net", "/bin/sleep", "1000", cgroups=one.cgroups()):
        found = verify(one)
        mine = [each for each in found["differences"] if each["asked"] == "the container's network namespace"]
        assert mine, found
        assert mine[0]["holds"].startswith("net:["), found


def test_a_process_that_left_the_cgroup(box: Box) -> None:
    pid = box.started()
    at = next(cgroup for cgroup in box.cgroups() if "cpuset" not in str(cgroup))  # a new cpuset of v1 takes no process
    own = next(mount for mount in map(Path, set(bundles.CGROUPS["mounts"].values())) if str(at).startswith(f"{mount}/"))
    away = own / f"{box.id}-away"
    away.mkdir()
    try:
        (away / "cgroup.procs").write_text(str(pid))
        assert ("cgroup", "process") in facts(verify(box))
        (at / "cgroup.procs").write_text(str(pid))
    finally:
        away.rmdir()
    holds(box)


def test_a_mount_that_nobody_asked_for(box: Box) -> None:
    (box.rootfs / "srv").mkdir()
    (box.folder / "folder").mkdir()
    box.mount("/mnt", str(box.folder / "folder"), "bind")
    pid = box.started()
    holds(box)
    inside(pid, "tmpfs", "/srv")
    inside(pid, "tmpfs", "/mnt")
    found = verify(box)
    assert {(one["fact"], one["subject"], one["asked"]) for one in found["differences"]} == {
        ("mount", "/srv", "no mount"), ("mount", "/mnt", "no other mount on the one asked for"),
    }
    assert {one["holds"] for one in found["differences"]} == {"tmpfs from tmpfs"}
    may_mount = {kind: ["CAP_SYS_ADMIN"] for kind in ("bounding", "effective", "permitted")}
    # a hook may have made it, and who may mount may have done so
    for change in (asks("hooks", {"prestart": [{"path": "/bin/true"}]}), asks("process/capabilities", may_mount)):
        config = json.loads(json.dumps(box.config))
        change(config)
        (box.bundle / "other.json").write_text(json.dumps(config))
        other = verify(box, "--pid", str(pid), "--config", str(box.bundle / "other.json"))
        assert "mount" not in {fact for fact, _ in facts(other)}, other
    inside(pid, "umount", "/srv")
    inside(pid, "umount", "/mnt")
    holds(box)


def test_mounts_of_the_host_below_the_root_come_along(box: Box) -> None:
    (box.rootfs / "srv").mkdir()
    with mounted(box.rootfs / "srv"):
        box.started()
        holds(box)
        box.ended()


def test_a_mask_that_was_taken_away(box: Box) -> None:
    pid = box.started()
    for path in MASKS:
        inside(pid, "umount", path)
    assert facts(verify(box)) == {("masked-path", path) for path in MASKS}


def test_a_mask_that_hides_nothing(box: Box) -> None:
    pid = box.started()
    inside(pid, "umount", "/sys/firmware")
    inside(pid, "tmpfs", "/sys/firmware")
    found = verify(box)
    assert [(one["fact"], one["holds"]) for one in found["differences"]] == [("masked-path", "an empty directory that can be written")]


def test_a_mask_whose_path_is_a_link_of_the_image(box: Box) -> None:
    (box.rootfs / "secret").mkdir()
    (box.rootfs / "secret/file").write_text("text")
    os.symlink("/secret", box.rootfs / "link")
    box.linux["maskedPaths"] += ["/link/file", "/link/../secret/nothing", "/nowhere"]
    pid = box.started()
    holds(box)
    inside(pid, "umount", "/secret/file")
    assert facts(verify(box)) == {("masked-path", "/link/file")}


def test_a_read_only_path_that_can_be_written(box: Box) -> None:
    pid = box.started()
    inside(pid, "remount", "/proc/sys")
    assert facts(verify(box)) == {("read-only-path", "/proc/sys")}


def test_a_mount_below_a_read_only_path_that_can_be_written(box: Box) -> None:
    pid = box.started()
    inside(pid, "tmpfs", "/proc/sys/kernel")
    assert facts(verify(box)) == {("read-only-path", "/proc/sys/kernel")}


def test_mounts_that_others_cover_are_not_looked_at(box: Box) -> None:
    """Neither those below a read-only path, nor those that a mount of the configuration covers, or a mask."""
    box.mount("/mnt/in/deep", "tmpfs", "ro", kind="tmpfs")
    box.mount("/mnt/in", "tmpfs", kind="tmpfs")
    box.linux["readonlyPaths"] = ["/proc/sys"]
    box.mount("/mnt/masked/deep", "tmpfs", kind="tmpfs")
    box.linux["maskedPaths"] = ["/mnt/masked", "/proc/sys/../sys/kernel/hostname"]  # the second mask is /dev/null, on a mount that can be written
    pid = box.started()
    holds(box)
    inside(pid, "tmpfs", "/proc/sys/vm")
    inside(pid, "tmpfs", "/proc/sys/net/core")
    assert facts(verify(box)) == {("read-only-path", "/proc/sys/vm"), ("read-only-path", "/proc/sys/net/core")}
    inside(pid, "tmpfs", "/proc/sys/vm", MS_RDONLY)  # on the very one
    inside(pid, "tmpfs", "/proc/sys/net", MS_RDONLY)  # around it
    holds(box)
    inside(pid, "umount", "/proc/sys/net")
    assert facts(verify(box)) == {("read-only-path", "/proc/sys/net/core")}


def test_a_root_that_can_be_written(box: Box) -> None:
    read_only(box)
    pid = box.started()
    inside(pid, "remount", "/")
    assert facts(verify(box)) == {("root", "/")}


def test_mounts_that_lost_their_flags_or_are_gone(box: Box) -> None:
    pid = box.started()
    inside(pid, "remount", "/proc", MS_NOSUID)
    inside(pid, "umount", "/dev/pts", MNT_DETACH)
    found = verify(box)
    assert facts(found) == {("mount", "/proc"), ("mount", "/dev/pts")}
    assert {one["holds"] for one in found["differences"]} == {"without nodev, noexec", "nothing is mounted there"}


def test_all_flags_of_mounts_and_what_a_remount_makes_of_them(box: Box) -> None:
    (box.folder / "folder").mkdir()
    box.mount("/mnt", "tmpfs", "noatime", "nodiratime", "nosymfollow", kind="tmpfs")
    box.mount("/foo", str(box.folder / "folder"), "bind", "ro", "nosuid")
    box.mount("/foo", "", "bind", "remount", "rw", "noexec")
    box.mount("/dev/pts", "", "bind", "remount", "ro")
    pid = box.started()
    holds(box)
    inside(pid, "remount", "/mnt", MS_STRICTATIME)
    inside(pid, "remount", "/foo", MS_NOSUID)
    inside(pid, "remount", "/dev/pts", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    found = verify(box)
    assert {one["subject"]: one["holds"] for one in found["differences"]} == {
        "/mnt": "without noatime, nodiratime, nosymfollow", "/foo": "without noexec", "/dev/pts": "without ro",
    }
    assert {one["asked"].partition(", then ")[2] for one in found["differences"]} == {
        "", "bind (bind,remount,rw,noexec)", "bind (bind,remount,ro)",
    }


def test_flags_of_all_that_is_below_a_mount(box: Box) -> None:
    for name in ("inner", "other"):
        (box.folder / "folder" / name).mkdir(parents=True)
    with mounted(box.folder / "folder/inner"):
        box.mount("/foo", str(box.folder / "folder"), "rbind", "rro", "rnosuid")
        box.mount("/foo/other", "tmpfs", kind="tmpfs")
        pid = box.started()
        holds(box)
        inside(pid, "remount", "/foo/inner", MS_NOSUID)
        found = verify(box)
        assert [(one["fact"], one["subject"], one["holds"]) for one in found["differences"]] == [("mount", "/foo/inner", "without ro")]
        box.ended()


def test_something_else_mounted_over(box: Box) -> None:
    pid = box.started()
    inside(pid, "tmpfs", "/dev/pts", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    found = verify(box)
    assert [(one["subject"], one["holds"]) for one in found["differences"]] == [("/dev/pts", "tmpfs from tmpfs")]


def test_limits_changed_by_hand(box: Box) -> None:
    limited(box)
    box.started()
    holds(box)
    box.limit("memory.limit_in_bytes", "memory.max").write_text(str(1 << 30))
    box.limit("pids.max", "pids.max").write_text("max")
    found = verify(box)
    assert facts(found) == {("limit", "memory.limit_in_bytes" if V1 else "memory.max"), ("limit", "pids.max")}
    box.limit("pids.max", "pids.max").write_text("10")
    found = verify(box)
    assert len(found["differences"]) == 1, found
    assert "narrower: pids.max is 10, and 64 was asked for" in found["notes"]


def test_after_an_update_the_updated_limits_are_to_hold(box: Box) -> None:
    limited(box)
    box.started()
    box.ok("update", "--memory", "128M", "--pids-limit", "32", "--cpu-quota", "20000", box.id)
    holds(box)
    box.limit("pids.max", "pids.max").write_text("64")  # as it was before
    assert facts(verify(box)) == {("limit", "pids.max")}
    box.ok("update", "--pids-limit", "-1", box.id)
    holds(box)


def test_devices_allowed_by_hand(box: Box) -> None:
    limited(box)
    box.started()
    if V1:
        next(at for at in box.cgroups() if (at / "devices.allow").exists()).joinpath("devices.allow").write_text("b 8:0 rw")
        found = verify(box)
        assert [(one["fact"], one["holds"]) for one in found["differences"]] == [("devices", "allowed: b 8:0 rw")]
    # on v2 the rules are a program, which another configuration asks otherwise of
    box.linux["resources"]["devices"].pop()
    box.save()
    found = verify(box, "--pid", str(box.pid), "--config", str(box.bundle))
    assert [one["fact"] for one in found["differences"]] == ["devices"], found
    assert "c 10:229 rw" in found["differences"][0]["holds"]


def test_an_oom_score_below_what_was_asked(box: Box) -> None:
    limited(box)
    pid = box.started()
    Path(f"/proc/{pid}/oom_score_adj").write_text("100")
    assert facts(verify(box)) == {("oom-score", "process")}
    Path(f"/proc/{pid}/oom_score_adj").write_text("900")
    holds(box)


@pytest.mark.skipif("CAP_SYS_RESOURCE" not in bundles.CAPABLE, reason="raising a hard limit takes CAP_SYS_RESOURCE, which is not to be had here")
def test_a_resource_limit_raised_by_hand(box: Box) -> None:
    limited(box)
    pid = box.started()
    subprocess.run(["prlimit", "--pid", str(pid), "--nofile=600:700"], check=True)
    assert facts(verify(box)) == {("rlimit", "process")}


def test_open_files_that_lead_outside(box: Box) -> None:
    (box.folder / "given").write_text("")
    box.save()
    outside = {3: os.open(box.folder, os.O_RDONLY | os.O_DIRECTORY), 4: os.open(box.folder / "given", os.O_RDONLY)}
    with open(box.folder / "log", "w") as log:
        words = box.words("run", "--detach", "--preserve-fds", "2", "--bundle", str(box.bundle), box.id)
        shell = ["bash", "-c", f'exec "$@" 3<&{outside[3]} 4<&{outside[4]}', "sh", *words]
        subprocess.run(shell, check=True, stdout=log, stdin=subprocess.DEVNULL, pass_fds=tuple(outside.values()))
    for fd in outside.values():
        os.close(fd)
    found = verify(box)
    # the file and the log were given to it; a directory leads to every other file
    assert [(one["fact"], one["holds"]) for one in found["differences"]] == [("descriptor", f"descriptor 3: the directory {box.folder}")]
    other = verify(box, "--pid", str(box.pid), "--config", str(box.bundle))
    assert {one["holds"] for one in other["differences"]} == {
        f"descriptor 3: the directory {box.folder}", f"descriptor 4: the file {box.folder}/given",
    }


LEFT_BEHIND = """
import ctypes, os, sys
host = os.open(sys.argv[2], os.O_RDONLY)
space = os.open(f"/proc/{sys.argv[1]}/ns/mnt", os.O_RDONLY)
if ctypes.CDLL(None, use_errno=True).setns(space, 0x20000):
    raise OSError(ctypes.get_errno(), "setns")
os.fchdir(host)
print("there", flush=True)
sys.stdin.read()
"""


def test_a_working_directory_and_a_program_outside(box: Box) -> None:
    pid = box.started()
    python = shutil.which("python3") or sys.executable
    child = subprocess.Popen(
        [python, "-ISc", LEFT_BEHIND, str(pid), str(box.folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )
    try:
        assert child.stdout and child.stdin
        assert child.stdout.readline() == "there\n"
        for at in box.cgroups():
            (at / "cgroup.procs").write_text(str(child.pid))
        found = verify(box)
        assert {("working-directory", "process"), ("program", "process"), ("descriptor", "process")} <= facts(found), found
    finally:
        child.kill()
        child.communicate()


# a FUSE filesystem with a directory and a file, served until another process has them; then whoever asks is kept waiting
SERVED = """
import ctypes, os, select, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
pid, what, point = int(sys.argv[1]), sys.argv[2], sys.argv[3]
LOOKUP, FORGET, GETATTR, OPEN, STATFS, INIT, OPENDIR, INTERRUPT, BATCH_FORGET = 1, 2, 3, 14, 17, 26, 27, 36, 42
NODES = {b"dir": 2, b"file": 3}

def attributes(node):
    return struct.pack("<6Q10I", node, 0, 0, 0, 0, 0, 0, 0, 0, 0o100644 if node == 3 else 0o040755, 1, 0, 0, 0, 4096, 0)

def answer(request):
    _, opcode, unique, node = struct.unpack_from("<IIQQ", request)
    error, said = 0, b""
    if opcode == INIT:
        said = struct.pack("<4I2H10I", 7, 31, 0, 0, 0, 0, 4096, *(0,) * 9)
    elif opcode == LOOKUP:
        found = NODES.get(request[40:].rstrip(b"\\0"), 0)
        error, said = (0, struct.pack("<4Q2I", found, 0, 0, 0, 0, 0) + attributes(found)) if found else (-2, b"")
    elif opcode == GETATTR:
        said = struct.pack("<Q2I", 0, 0, 0) + attributes(node)
    elif opcode in (OPEN, OPENDIR):
        said = struct.pack("<Q2I", 1, 0, 0)
    elif opcode == STATFS:
        said = struct.pack("<5Q10I", 1, 0, 0, 1, 1, 4096, 255, *(0,) * 8)
    else:
        error = -38
    if opcode not in (FORGET, INTERRUPT, BATCH_FORGET):
        os.write(device, struct.pack("<IiQ", 16 + len(said), error, unique) + said)

def call(done):
    if done:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

device = os.open("/dev/fuse", os.O_RDWR)
space = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY)
call(libc.setns(space, 0x20000))
os.close(space)
call(libc.mount(b"hangs", point.encode(), b"fuse", ctypes.c_ulong(6), f"fd={device},rootmode=40000,user_id=0,group_id=0".encode()))
has, tells = os.pipe()
other = os.fork()
if not other:
    os.close(device)
    if what == "root":
        os.chroot(f"{point}/dir")
        os.chdir("/")
    elif what == "descriptor":
        os.open(f"{point}/file", os.O_PATH), os.open(f"{point}/dir", os.O_PATH), os.open(f"{point}/file", os.O_RDONLY)
        call(libc.umount2(point.encode(), 2))
    elif what == "overlay":
        call(libc.mount(b"overlay", b"/sys/firmware", b"overlay", ctypes.c_ulong(1), f"lowerdir={point}/dir:/dev".encode()))
    os.write(tells, b".")
    sys.stdin.read()
    os._exit(0)
while has not in select.select([device, has], [], [])[0]:
    answer(os.read(device, 1 << 17))
print(other, flush=True)
sys.stdin.read()
"""


@contextmanager
def a_server_that_hangs(box: Box, pid: int, what: str, point: str) -> Iterator[int]:
    """A process in the container's mount namespace and cgroups that uses a FUSE filesystem whose server answers nobody any more; its pid."""
    python = shutil.which("python3") or sys.executable
    words = [python, "-ISc", SERVED, str(pid), what, point]
    child = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    other = 0
    try:
        assert child.stdout
        other = int(child.stdout.readline())
        for at in box.cgroups():
            (at / "cgroup.procs").write_text(str(other))
        yield other
    finally:
        child.kill()  # with it goes what anybody waits for
        child.wait()
        bundles.kill_all([other] if other else [])
        child.communicate()


@pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="no FUSE here")
@pytest.mark.parametrize(("what", "fact", "says"), [
    ("descriptor", "descriptor", ""), ("root", "mount", "/ is on a FUSE filesystem, in an overlay, or mounted nowhere"), ("mount", "mount", ""),
    ("overlay", "masked-path", "the directory that is mounted there cannot be listed"),
])
def test_whoever_serves_a_filesystem_does_not_keep_verify_waiting(box: Box, what: str, fact: str, says: str) -> None:
    """Open, and mounted nowhere any more; the root of a process; where a mount was asked for."""
    box.mount("/root", "tmpfs", "nosuid", kind="tmpfs")
    pid = box.started()
    with a_server_that_hangs(box, pid, what, "/root") as server:
        of = [box.id] if what != "root" else ["--pid", str(server), "--config", str(box.bundle)]
        with subprocess.Popen(box.words("verify", "--json", *of), stdout=subprocess.PIPE, text=True) as verifying:
            try:
                out = verifying.communicate(timeout=bundles.PATIENCE)[0]
            except subprocess.TimeoutExpired:
                verifying.kill()
                raise
        found = json.loads(out)["containers"][0]
    if says:
        assert any(one["fact"] == fact and says in one["why"] for one in found["unknown"]), found
    else:
        assert fact in {name for name, _ in facts(found)}, found


A_THREAD = """
import ctypes, os, sys, threading
libc = ctypes.CDLL(None, use_errno=True)
host = os.open(sys.argv[2], os.O_RDONLY)
outer = os.open("/", os.O_RDONLY)
apart = threading.Event()

def thread():
    CLONE_FS, CLONE_FILES = 0x200, 0x400
    if libc.unshare(CLONE_FS | CLONE_FILES):
        raise OSError(ctypes.get_errno(), "unshare")
    os.fchdir(outer)
    os.chroot(".")
    os.fchdir(host)
    os.close(outer)
    apart.set()
    print(threading.get_native_id(), flush=True)
    sys.stdin.read()

if libc.setns(os.open(f"/proc/{sys.argv[1]}/ns/mnt", os.O_RDONLY), 0x20000):
    raise OSError(ctypes.get_errno(), "setns")
threading.Thread(target=thread).start()
apart.wait()
os.closerange(3, 100)
"""


def test_a_thread_that_has_left_its_process(box: Box) -> None:
    """A thread may have descriptors, a root and a working directory of its own, and be in another cgroup of v1."""
    pid = box.started()
    python = shutil.which("python3") or sys.executable
    child = subprocess.Popen(
        [python, "-ISc", A_THREAD, str(pid), str(box.folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )
    try:
        assert child.stdout and child.stdin
        tid = int(child.stdout.readline())
        assert bundles.eventually(lambda: not [fd for fd in Path(f"/proc/{child.pid}/fd").iterdir() if int(fd.name) > 2])
        for at in box.cgroups():
            (at / "cgroup.procs").write_text(str(child.pid))
        if V1:
            group = next(cgroup for cgroup in box.cgroups() if (cgroup / "pids.max").exists())
            (group.parent / "tasks").write_text(str(tid))
        found = verify(box)
        of_thread = {(one["fact"], one["holds"].partition(" (")[0]) for one in found["differences"] if one.get("tid") == tid}
        expected = {("root", "/"), ("working-directory", str(box.folder)), ("descriptor", f"descriptor 3: the directory {box.folder}")}
        assert of_thread == expected | ({("cgroup", "/")} if V1 else set()), found
        of_process = {one["fact"] for one in found["differences"] if one.get("tid") == child.pid}
        assert "program" in of_process
        assert not {"root", "working-directory", "descriptor", "cgroup"} & of_process, found
    finally:
        child.kill()
        child.communicate()


THREADS = """
#define _GNU_SOURCE
#include <fcntl.h>
#include <mqueue.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static void *stays(void *apart) {
    if (apart && unshare(CLONE_NEWNET)) perror("unshare");
    puts("there");
    fflush(stdout);
    for (;;) pause();
}

int main(int count, char **words) {
    const char *what = words[1];
    pthread_t thread;
    if (!strcmp(what, "queue")) {
        if (mq_open("/a-queue", O_RDWR | O_CREAT, 0600, NULL) < 0) perror("mq_open");
        syscall(447, 0);  // memfd_secret(2), which a kernel may not have
        stays(NULL);
    }
    if (!strcmp(what, "child") && fork()) for (;;) pause();
    pthread_create(&thread, NULL, stays, strcmp(what, "apart") ? NULL : "");
    if (strcmp(what, "apart")) pthread_exit(NULL);
    for (;;) pause();
}
"""


def threads(box: Box, what: str) -> None:
    """Makes the container's program one of threads."""
    source = box.folder / "threads.c"
    source.write_text(THREADS)
    subprocess.run(["gcc", "-static", "-O1", "-o", str(box.rootfs / "threads"), str(source), "-lrt"], check=True)
    box.process["args"] = ["/threads", what]


def there(box: Box) -> int:
    """Starts what threads() has made; its first process, once the thread is there."""
    pid = box.created()
    box.call_apart("start", box.id)
    assert bundles.eventually(lambda: box.output.read_text() == "there\n"), box.output.read_text()
    return pid


@pytest.mark.parametrize("what", ["first", "child"])
def test_a_process_whose_first_thread_has_ended(box: Box, what: str) -> None:
    """/proc calls it a zombie, and shows its descriptors, namespaces and mounts by its other threads alone."""
    threads(box, what)
    pid = there(box)
    zombie = pid if what == "first" else bundles.children(pid)[0]
    assert bundles.eventually(lambda: bundles.proc_status(zombie)["State"].startswith("Z"))
    found = holds(box)
    assert (found["state"], found["threads"]) == ("running", 1 if what == "first" else 2)
    subprocess.run(["prlimit", f"--pid={zombie}", "--nofile=4096:4096"], check=True)
    at = next(cgroup for cgroup in box.cgroups() if (cgroup / "cgroup.procs").exists())
    (at.parent / "cgroup.procs").write_text(str(zombie))
    config = json.loads((box.bundle / "config.json").read_text())
    config["process"]["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 256, "hard": 512}]
    path = box.folder / "asked.json"
    path.write_text(json.dumps(config))
    assert ("cgroup", "thread") in facts(verify(box))
    if what == "first":
        assert ("rlimit", "thread") in facts(verify(box, "--pid", str(pid), "--config", str(path)))


def test_a_thread_in_a_namespace_that_the_container_has_made(box: Box) -> None:
    user_namespace(box)
    box.process["capabilities"] = {kind: ["CAP_SYS_ADMIN"] for kind in ("bounding", "effective", "permitted")}
    threads(box, "apart")
    there(box)
    assert any("in a network namespace made inside the container" in note for note in holds(box)["notes"])


def test_message_queues_and_secret_memory_lead_nowhere(box: Box) -> None:
    """The kernel has them in mounts of its own."""
    threads(box, "queue")
    pid = there(box)
    assert "/a-queue" in {os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir()}
    holds(box)


def asks(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """Changes one thing of a configuration."""
    def change(config: dict[str, Any]) -> None:
        *outer, last = path.split("/")
        for name in outer:
            config = config[name]
        config[last] = value

    return change


def without_capabilities(config: dict[str, Any]) -> None:
    config["process"]["capabilities"] = {"bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"]}


def fewer_groups(config: dict[str, Any]) -> None:
    config["process"]["user"] = {"uid": 0, "gid": 0}


def another_mount(config: dict[str, Any]) -> None:
    config["mounts"].append({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"})


def a_time_namespace(config: dict[str, Any]) -> None:
    config["linux"]["namespaces"].append({"type": "time"})


def another_network(config: dict[str, Any]) -> None:
    config["linux"]["namespaces"] = [space for space in config["linux"]["namespaces"] if space["type"] != "network"]
    config["linux"]["namespaces"].append({"type": "network", "path": "/proc/self/ns/net"})


def a_dead_network(config: dict[str, Any]) -> None:
    another_network(config)
    config["linux"]["namespaces"][-1]["path"] = "/nowhere/net"


OTHERWISE: list[tuple[Callable[[dict[str, Any]], None], set[str], set[str]]] = [
    # what is asked instead; what then differs; what then cannot be told
    (without_capabilities, {"capabilities"}, set()),
    (fewer_groups, {"groups"}, set()),
    (another_mount, {"mount"}, set()),
    (a_time_namespace, {"namespace"}, set()),
    (another_network, {"namespace"}, set()),
    (a_dead_network, set(), {"namespace"}),
    (asks("process/user/uid", 5), {"user"}, set()),
    (asks("process/user/gid", 5), {"user"}, set()),
    (asks("root/readonly", True), {"root"}, set()),
    (asks("root/path", "/"), {"root"}, set()),
    (asks("process/rlimits", [{"type": "RLIMIT_NOFILE", "soft": 5, "hard": 5}]), {"rlimit"}, set()),
    (asks("process/oomScoreAdj", 1000), {"oom-score"}, set()),
    (asks("linux/maskedPaths", ["/proc/version"]), {"masked-path"}, set()),
    (asks("linux/readonlyPaths", ["/dev"]), {"read-only-path"}, set()),
    (asks("linux/seccomp", {"defaultAction": "SCMP_ACT_ALLOW"}), {"seccomp"}, set()),
    (asks("linux/resources", {"pids": {"limit": 5}}), {"limit"}, set()),
    (asks("process/apparmorProfile", "nobody-has-loaded-this"), {"apparmor.label"}, set()),
    (asks("linux/resources", {"unified": {"memory.high": "1000000"}}), set() if V1 else {"limit"}, {"limit"} if V1 else set()),
]


def test_every_fact_is_compared_with_the_kernel(box: Box) -> None:
    """One container, beside what it would have been asked for instead."""
    box.process["user"] = {"uid": 0, "gid": 0, "additionalGids": [7]}
    pid = box.started()
    asked = json.dumps(box.config)
    for change, differs, unknown in OTHERWISE:
        config = json.loads(asked)
        change(config)
        (box.bundle / "other.json").write_text(json.dumps(config))
        found = verify(box, "--pid", str(pid), "--config", str(box.bundle / "other.json"))
        assert {fact for fact, _ in facts(found)} == differs, (change, found)
        assert {one["fact"] for one in found["unknown"]} == unknown, (change, found)
    holds(box)


def test_an_id_map_that_is_another(box: Box) -> None:
    bundles.user_namespace(box.config)
    pid = box.started()
    bundles.user_namespace(box.config, 200000)
    box.without("user")
    box.linux["namespaces"].append({"type": "user"})
    box.save()
    found = verify(box, "--pid", str(pid), "--config", str(box.bundle))
    assert {"id-map", "user"} == {fact for fact, _ in facts(found)}, found
    assert "0 100000 65536" in next(one["holds"] for one in found["differences"] if one["fact"] == "id-map")


def test_propagation_to_the_host(box: Box) -> None:
    shared = box.folder / "shared"
    shared.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    with mounted(shared):
        assert not libc.mount(None, str(shared).encode(), None, ctypes.c_ulong(MS_SHARED), None), os.strerror(ctypes.get_errno())
        box.mount("/mnt/asked", str(shared), "rbind", "rshared")
        pid = box.started()
        holds(box)
        box.config["mounts"][-1]["options"] = ["rbind"]
        box.save()
        found = verify(box, "--pid", str(pid), "--config", str(box.bundle))
        assert facts(found) == {("propagation", "/mnt/asked")}
        assert found["differences"][0]["asked"] == "not shared with the host"
        box.ended()


SHARING = [
    # how the root is to be, how a mount from a shared one of the host's is to be; and how the root and that mount are made to be; what differs
    ("private", "rprivate", "", "", {}),
    ("slave", "rslave", "", "", {}),
    ("shared", "rshared", "", "", {}),
    ("unbindable", "runbindable", "", "", {}),
    ("shared", "rslave", "private", "private", {}),  # narrower
    ("private", "rprivate", "shared", "shared", {"/": "private", "/mnt": "private"}),
    ("unbindable", "runbindable", "private", "private", {"/": "unbindable", "/mnt": "unbindable"}),
]


@pytest.mark.parametrize(("root", "mount", "root_is", "mount_is", "differs"), SHARING)
def test_propagation_of_the_root_and_of_a_mount(box: Box, root: str, mount: str, root_is: str, mount_is: str, differs: dict[str, str]) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    (box.folder / "shared").mkdir()
    with mounted(box.folder / "shared"):
        assert not libc.mount(None, str(box.folder / "shared").encode(), None, ctypes.c_ulong(MS_SHARED), None), os.strerror(ctypes.get_errno())
        box.linux["rootfsPropagation"] = root
        box.mount("/mnt", str(box.folder / "shared"), "rbind", mount)
        pid = box.started()
        holds(box)
        for path, word in (("/", root_is), ("/mnt", mount_is)):
            if word:
                inside(pid, word, path, {"private": MS_PRIVATE, "shared": MS_SHARED}[word])
        found = verify(box)
        assert {one["subject"]: one["asked"] for one in found["differences"] if one["fact"] == "propagation"} == differs
        assert len(found["differences"]) == len(differs)
        box.ended()


def test_a_slave_of_the_hosts_where_private_was_asked_for(box: Box) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    (box.folder / "shared").mkdir()
    with mounted(box.folder / "shared"):
        assert not libc.mount(None, str(box.folder / "shared").encode(), None, ctypes.c_ulong(MS_SHARED), None), os.strerror(ctypes.get_errno())
        box.mount("/mnt", str(box.folder / "shared"), "rbind", "rslave")
        pid = box.started()
        box.config["mounts"][-1]["options"] = ["rbind", "rprivate"]
        box.save()
        [one] = verify(box, "--pid", str(pid), "--config", str(box.bundle))["differences"]
        assert (one["fact"], one["subject"], one["holds"].rstrip("0123456789")) == ("propagation", "/mnt", "a slave of peer group ")
        box.ended()


def test_a_namespace_made_inside_is_no_difference(box: Box) -> None:
    box.process["capabilities"] = {kind: ["CAP_SYS_ADMIN"] for kind in ("bounding", "effective", "permitted")}
    box.sh("unshare -n sleep 1000 & sleep 1000")
    pid = box.started()
    assert bundles.eventually(lambda: any(Path(f"/proc/{one}/ns/net").readlink() != Path(f"/proc/{pid}/ns/net").readlink() for one in bundles.children(pid)))
    found = verify(box)
    # whether it was made inside, or is another's that has the same user namespace, the kernel does not tell
    assert (found["status"], found["unknown"][0]["fact"]) == ("unknown", "namespace"), found
    assert "whether the container itself made the network namespace" in found["unknown"][0]["why"] + found["unknown"][0]["subject"]


def test_containers_of_a_pod(box: Box) -> None:
    """They share namespaces, and each is looked at by itself; who comes in from outside is found nevertheless."""
    user_namespace(box)
    box.process["capabilities"] = {}
    first = box.started()
    other = box.another()
    other.process["capabilities"] = {}
    other.namespaces("mount", "cgroup", **{kind: f"/proc/{first}/ns/{file}" for kind, file in (
        ("user", "user"), ("pid", "pid"), ("network", "net"), ("ipc", "ipc"), ("uts", "uts"),
    )})
    other.sh("sleep 1000 & sleep 1000")
    second = other.started()
    assert bundles.eventually(lambda: len(bundles.children(second)) == 1)
    other.exec("--user", "1000", "--detach", "--", "sleep", "1000")
    assert holds(box)["notes"] == [f"the container {other.id} shares the PID namespace"]
    assert holds(other)["processes"] == 3
    found = verify(other, "--pid", str(second), "--config", str(other.bundle))  # of another runtime's execs nothing is known
    assert {fact for fact, _ in facts(found)} == {"user"}, found
    with intruder(first, "--pid", "/bin/sleep", "1000") as entered:
        assert {one["pid"] for one in verify(box)["differences"]} == {entered}
        holds(other)
    with intruder(first, "--pid", "/bin/sleep", "1000", cgroups=other.cgroups()) as entered:
        holds(box)
        assert {one["pid"] for one in verify(other)["differences"]} == {entered}
    other.ended()
    other.ok("delete", other.id)


# ── states ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_created(box: Box) -> None:
    filtered(box)
    pid = box.created()
    found = verify(box)
    assert (found["status"], found["state"]) == ("unknown", "created")
    assert {one["fact"] for one in found["unknown"]} == {"no-new-privs", "seccomp", "capabilities", "user"}, found
    assert {"masked-path", "namespace", "cgroup"} <= set(found["checked"])
    assert not {"seccomp", "capabilities"} & set(found["checked"])
    inside(pid, "umount", "/proc/keys")
    assert facts(verify(box)) == {("masked-path", "/proc/keys")}


@contextmanager
def in_the_place_of_the_executor(box: Box, *before: str, **more: Any) -> Iterator[int]:
    """Has the container's record say that a process waits for start which calls itself the executor, and sleeps; its pid. It is started
    by the words `before` it."""
    file = box.root / box.id / "state.json"
    text = file.read_text()
    made = os.memfd_create("rundlet", 0)
    os.write(made, Path(shutil.which("busybox") or "").read_bytes())
    words = [*before, "bash", "-c", f"exec -a sleep /proc/self/fd/{made} 1000"]
    child = subprocess.Popen(words, pass_fds=(made,), stdin=subprocess.DEVNULL, **more)
    os.close(made)
    try:
        assert bundles.eventually(lambda: sleeping(child.pid) == child.pid)
        record = json.loads(text)
        record["pid"], record["start_time"] = child.pid, int(Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[19])
        file.write_text(json.dumps(record))
        yield child.pid
    finally:
        file.write_text(text)
        child.kill()
        child.wait()


def test_a_process_that_waits_for_start_is_hidden(box: Box) -> None:
    """While it is privileged, nobody in its user namespace may trace it: a process that they may is put in its place."""
    user_namespace(box)
    pid = box.created()
    assert not any(fact == "hidden" for fact, _ in facts(verify(box)))
    with in_the_place_of_the_executor(box, "nsenter", "--target", str(pid), "--user", "--setuid", "0", "--setgid", "0"):
        found = verify(box)
    assert found["state"] == "created"
    assert ("hidden", "dumpable") in {(one["fact"], one["holds"]) for one in found["differences"]}, found


# ── the parent-death signal, which the kernel tells only programs of its own ──

PR_SET_PDEATHSIG = 1


def test_a_process_that_waits_for_start_and_would_end_with_who_made_it(box: Box) -> None:
    """No configuration asks for that, and it has not asked for anything yet: a process that does is put in its place."""
    box.created()
    found = verify(box)
    assert "parent-death" in found["checked"] and not any(fact == "parent-death" for fact, _ in facts(found))
    with in_the_place_of_the_executor(box, preexec_fn=lambda: ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGUSR1)) as pid:
        found = verify(box)
    [one] = [one for one in found["differences"] if one["fact"] == "parent-death"]
    assert (one["asked"], one["holds"], one["pid"]) == ("no signal", "SIGUSR1 when its parent ends", pid)


@pytest.mark.parametrize("asked", ["KILL", "40", ""])
def test_a_program_that_asks_to_end_with_its_parent(box: Box, asked: str) -> None:
    """It may, so that is noted; of the other programs nothing is."""
    box.mount("/usr", "/usr", "rbind", "ro")
    for name in ("lib", "lib64"):
        (box.rootfs / name).symlink_to(f"usr/{name}")
    script = "import ctypes, time; {} print('ready', flush=True); time.sleep(1000)"
    call = f"ctypes.CDLL(None).prctl({PR_SET_PDEATHSIG}, {'9' if asked == 'KILL' else asked});" if asked else ""
    box.process["args"] = ["/usr/bin/python3.11", "-ISc", script.format(call)]
    box.started()
    assert bundles.eventually(lambda: "ready" in box.output.read_text())
    found = holds(box)
    signal_ = {"KILL": "SIGKILL", "40": "signal 40"}.get(asked)
    noted = [text.partition(": ")[2] for text in found["notes"] if "parent" in text]
    assert noted == ([f"is sent {signal_} when its parent ends, which it may ask for itself"] if signal_ else [])


def test_who_may_not_learn_it(box: Box) -> None:
    """Then it is not among what was checked."""
    box.started()
    assert "parent-death" in holds(box)["checked"]
    box.runtime = ["setpriv", "--bounding-set=-sys_admin,-bpf,-perfmon", *box.runtime]
    assert "parent-death" not in verify(box)["checked"]


def test_paused(box: Box) -> None:
    box.started()
    box.ok("pause", box.id)
    found = holds(box)
    assert (found["state"], found["notes"]) == ("paused", ["the container is paused"])
    box.ok("resume", box.id)


def test_an_exec_that_waits_in_a_paused_container(box: Box) -> None:
    box.started()
    box.ok("pause", box.id)
    waiting = subprocess.Popen(box.words("exec", "--ignore-paused", box.id, "true"), stdin=subprocess.DEVNULL)
    try:
        assert bundles.eventually(lambda: len(json.loads(box.call_apart("ps", "--format", "json", box.id).out)) == 2)
        found = verify(box)
        assert found["status"] == "unknown", found
        assert {(one["fact"], "under way" in one["why"]) for one in found["unknown"]} == {("process", True)}
    finally:
        box.ok("resume", box.id)
        waiting.wait()
    holds(box)


def test_a_program_that_calls_itself_the_executor_hides_nothing(box: Box) -> None:
    """The name of a memfd is its maker's to choose."""
    pid = box.started()
    made = os.memfd_create("rundlet", 0)
    os.write(made, Path(shutil.which("busybox") or "").read_bytes())
    program = f"/proc/{os.getpid()}/fd/{made}"
    with intruder(pid, "--net", "bash", "-c", f"exec -a sleep {program} 1000", cgroups=box.cgroups()) as entered:
        assert os.readlink(f"/proc/{entered}/exe").startswith("/memfd:rundlet")
        assert ("capabilities", "process") in facts(verify(box))
    os.close(made)


def test_refusals(box: Box) -> None:
    box.started()
    for words in ([], ["--all", box.id], ["--pid", "1"], ["--config", "x", box.id], ["--format", "yaml", box.id], ["nobody"], ["--pid", "x"],
                  ["--pid", "1", "--config", "/nowhere"], ["--pid", "4194305", "--config", str(box.bundle)]):
        done = box.call_apart("verify", *words)
        assert (done.status, done.out) == (2, ""), (words, done)
        assert done.err.count("\n") == 1, done


# ── other runtimes ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(params=["crun", "runc"])
def peer(boxes: Callable[..., Box], request: pytest.FixtureRequest) -> Box:
    """A container of another runtime."""
    words = bundles.crun() if request.param == "crun" else [shutil.which("runc") or ""]
    if not words or not words[0]:
        pytest.skip(f"no {request.param} here")
    return boxes(words)


def ours(box: Box) -> Box:
    """rundlet, for what another runtime has made."""
    return Box(box.folder, bundles.words(), box.busybox, id=f"{box.id}-not")


@pytest.mark.parametrize("shape", [limited, user_namespace, ordinary_user, read_only, no_new_privs_not_asked, bound, cgroups], ids=lambda shape: shape.__name__)
def test_what_other_runtimes_make_of_it_holds(peer: Box, shape: Callable[[Box], None]) -> None:
    shape(peer)
    if shape is user_namespace and "runc" in peer.runtime[0]:
        return  # it looks for the root filesystem as the container's root, which cannot come to where tests have it
    pid = peer.started()
    found = holds(ours(peer), "--pid", str(pid), "--config", str(peer.bundle))
    # what was not asked for is no difference: without rules about devices runc denies all but some, crun nothing
    noted = any("devices of the host are allowed" in note for note in found["notes"])
    assert noted == ("crun" in " ".join(peer.runtime) and shape is not limited)


def test_containers_of_other_runtimes(peer: Box) -> None:
    box, own = peer, ours(peer)
    box.linux["resources"] = {"memory": {"limit": 256 << 20}, "pids": {"limit": 64}, "devices": [{"allow": False, "access": "rwm"}]}
    box.mount("/sys/fs/cgroup", "cgroup", "ro", "nosuid", "noexec", "nodev", kind="cgroup")
    filtered(box)
    box.created()
    found = verify(own, "--pid", str(box.pid), "--config", str(box.bundle))
    assert (found["status"], found["state"], found["differences"]) == ("unknown", "created", []), found
    pid = box.pid
    assert box.call_apart("start", box.id).status == 0
    box.executed(pid)
    words_ = ("--pid", str(pid), "--config", str(box.bundle))
    holds(own, *words_)
    with intruder(pid, *ALL, "/bin/sleep", "1000"):
        assert {("capabilities", "process"), ("no-new-privs", "process"), ("seccomp", "process")} <= facts(verify(own, *words_))
    inside(pid, "umount", "/proc/keys")
    box.limit("pids.max", "pids.max").write_text("max")
    assert facts(verify(own, *words_)) == {("masked-path", "/proc/keys"), ("limit", "pids.max")}
