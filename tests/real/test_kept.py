"""Plans that are kept: the second container of a kind is started by what was decided for the first, and is what planning anew would make it."""

import json
import marshal
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bundles import CGROUPS, Box, Done, kept, runtime_that_keeps, status_of, user_namespace

CACHE = Path("/var/cache/rundlet")
SECCOMP = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 99}],
}


@pytest.fixture
def keeping(boxes: Callable[..., Box]) -> Callable[[], Box]:
    """Containers of a runtime that takes nothing from others, and says what it does: as if it were started from a bundle of its own."""
    words = runtime_that_keeps()
    return lambda: boxes(words)


def apart(folder: Path) -> list[str]:
    """The words behind which a command has this folder for its cache, in which nobody else keeps anything."""
    folder.mkdir()
    script = f'mkdir -p {CACHE}; mount --bind "$0" {CACHE}; exec "$@"'
    return ["unshare", "--mount", "--propagation", "private", "sh", "-ec", script, str(folder)]


def faults(done: Done) -> list[str]:
    return [line for line in done.err.splitlines() if "level=debug" not in line]


SAY = "echo $0 $1 $WHO $HOME $(hostname) $(cat /given/file) $(cat /etc/mark) $(id -u); mkdir /tmp/x 2>/dev/null || echo no; touch /ro/x 2>/dev/null || echo ro"


def telling(box: Box, name: str) -> Box:
    """A container with texts of its own, and what it says of them."""
    source = box.folder / f"source of {name}"
    for folder in (source, source / "inner"):
        folder.mkdir(exist_ok=True)
        (folder / "file").write_text(name)
    (box.rootfs / "etc/mark").write_text("mark of " + name)
    box.process["args"] = ["sh", "-c", SAY, name, "second of " + name]
    box.process["env"] = ["PATH=/bin", f"WHO={name}", *(["MORE=1"] * len(name))]
    box.config["hostname"] = f"host-{name}"[:8]
    box.config["annotations"] = {"com.example." + name: "ä"}
    box.mount("/given", str(source), "rbind")
    box.mount("/ro", str(source / "inner"), "bind", "ro")
    box.linux["seccomp"] = SECCOMP
    return box


def said(name: str) -> str:
    return f"{name} second of {name} {name} /root {f'host-{name}'[:8]} {name} mark of {name} 0\nno\nro\n"


@pytest.mark.parametrize("verb", ["run", "create"])
def test_another_container_of_the_same_kind(keeping: Callable[[], Box], verb: str) -> None:
    for name in ("first", "second-one", "third"):
        box = telling(keeping(), name)
        if verb == "run":
            done = box.run()
            assert (done.status, done.out, faults(done)) == (0, said(name), [])
        else:
            done = box.create()
            assert (done.status, faults(done)) == (0, [])
            state = box.state
            assert (state["annotations"], state["rootfs"]) == ({"com.example." + name: "ä"}, str(box.rootfs))
            assert all(str(state["pid"]) in (at / "cgroup.procs").read_text().split() for at in box.cgroups())
            started = box.call_apart("start", box.id)
            assert (started.status, faults(started)) == (0, [])
            assert status_of(state["pid"]) == 0
            assert box.output.read_text() == said(name)
            assert box.call("delete", box.id).status == 0
        assert kept(done) == (name != "first")
        assert box.left() == []


def test_the_filter_is_whole_where_the_configuration_is_known_and_the_plan_is_not(keeping: Callable[[], Box]) -> None:
    assert telling(keeping(), "first").run().status == 0
    box = telling(keeping(), "other")
    box.process["env"].append("HOME=/root")
    for expected in (False, True):
        done = box.run()
        assert (done.status, done.out, faults(done), kept(done)) == (0, said("other"), [], expected)


@pytest.mark.skipif(not shutil.which("strace"), reason="there is no strace")
def test_what_is_killed_while_it_keeps_has_kept_the_plan_first(keeping: Callable[[], Box]) -> None:
    """The configuration says which filter the plan beside it has: alone, it would vouch for a plan of an earlier one."""
    box = telling(keeping(), "first")
    box.config["domainname"] = os.urandom(8).hex()  # known to nobody
    box.save()
    enter = apart(box.folder / "cache")
    words = [*enter, "strace", "-qq", "-o", os.devnull, "-P", f"{CACHE}/plans", "-e", "inject=renameat:signal=KILL:when=2"]
    done = subprocess.run([*words, *box.words("run", "--bundle", str(box.bundle), box.id)], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL
    [first] = [path for path in (box.folder / "cache/plans").iterdir() if path.name[0] != "."]
    assert len(marshal.loads(first.read_bytes().partition(b"\n")[2])) == 6
    box.runtime = [*enter, *box.runtime]
    assert box.call("delete", "--force", box.id).status == 0
    for expected in (False, True):
        assert kept(box.run()) == expected


CHANGES: dict[str, Callable[[Box], object]] = {
    "a capability": lambda box: box.process["capabilities"]["bounding"].append("CAP_CHOWN"),
    "an option of a mount": lambda box: box.mount("/tmp", "tmpfs", "noexec", kind="tmpfs"),
    "the label's rules": lambda box: box.process.update(noNewPrivileges=False),
    "a limit": lambda box: box.process.update(rlimits=[{"type": "RLIMIT_NOFILE", "soft": 7, "hard": 99}]),
    "a limit of the cgroup": lambda box: box.linux.update(resources={"pids": {"limit": 77}}),
    "the filter": lambda box: box.linux.update(seccomp=SECCOMP),
    "what is masked": lambda box: box.linux.update(maskedPaths=["/etc"]),
    "how long the host's name is": lambda box: box.config.update(hostname="longer"),
    "in how many places the program may be": lambda box: box.process.update(args=["true"], env=["PATH=/usr/bin:/bin"]),
    "a home": lambda box: box.process.update(env=["PATH=/bin", "HOME=/"]),
    "a link where a mount goes": lambda box: (box.rootfs / "sys2").symlink_to("tmp"),
    "an annotation that is heard": lambda box: box.config.update(annotations={"run.oci.keep_original_groups": "1"}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_of_what_differs_in_more_than_texts_nothing_is_taken(keeping: Callable[[], Box], change: str) -> None:
    def plain() -> Box:
        box = keeping()
        box.process["args"] = ["/bin/true"]
        box.config["hostname"] = "host"
        box.mount("/sys2", "tmpfs", kind="tmpfs")
        return box

    assert not kept(plain().run())
    other = plain()
    CHANGES[change](other)
    done = other.run()
    assert (done.status, faults(done), kept(done)) == (0, [], False)
    assert kept(plain().run())


@pytest.mark.parametrize("args", [["nothere"], ["/etc/passwd"], ["/script"], ["/bin/sh/x"]])
@pytest.mark.parametrize("verb", ["run", "create"])
def test_what_fails_is_told_as_ever(keeping: Callable[[], Box], boxes: Callable[..., Box], verb: str, args: list[str]) -> None:
    first = keeping()
    first.process["args"] = ["true" if "/" not in args[0] else "/bin/true"]
    assert getattr(first, verb)().status == 0
    told = []
    for box in (keeping(), boxes()):
        script = box.rootfs / "script"
        script.write_text("#!/no/interpreter\n")
        script.chmod(0o755)
        box.process["args"] = args
        done = getattr(box, verb)()
        assert kept(done) == ("--debug" in box.runtime)
        if verb == "create" and done.status == 0:
            done = box.call_apart("start", box.id)
        assert done.status
        told.append((done.status, faults(done)))
        box.call("delete", "--force", box.id)
    assert told[0] == told[1]


def test_a_step_that_fails_is_named(keeping: Callable[[], Box], boxes: Callable[..., Box]) -> None:
    """The plan is made anew for that."""
    assert telling(keeping(), "first").run().status == 0
    told = []
    for box in (keeping(), boxes()):
        telling(box, "other")
        (box.rootfs / "given").write_text("a file, where a directory has to be mounted")
        done = box.run()
        assert kept(done) == ("--debug" in box.runtime)
        told.append(faults(done))
        assert told[-1][0].startswith(f"rundlet: bind {box.folder}/source of other on /given (rbind): move_mount: ")
    assert told[0] == told[1]


def test_what_is_warned_about_is_warned_about_each_time(keeping: Callable[[], Box]) -> None:
    for _ in range(2):
        box = keeping()
        box.process["capabilities"]["effective"].append("CAP_NEW")
        done = box.sh("true").run()
        assert not kept(done)
        assert "CAP_NEW" in done.err


def test_hooks(keeping: Callable[[], Box]) -> None:
    """Nothing is kept of what has startContainer hooks; other hooks are each container's own."""
    for name in ("first", "second"):
        box = keeping()
        box.config["hooks"] = {"prestart": [{"path": "/bin/sh", "args": ["sh", "-c", f"cat > {box.folder}/told-{name}"]}]}
        done = box.sh("true").run()
        assert (done.status, kept(done)) == (0, name == "second")
        assert json.loads((box.folder / f"told-{name}").read_text())["id"] == box.id
    for _ in range(2):
        box = keeping()
        box.config["hooks"] = {"startContainer": [{"path": "/bin/true"}]}
        done = box.sh("true").run()
        assert (done.status, kept(done)) == (0, False)


def in_user(box: Box) -> Box:
    """In a new user namespace, whose root owns the root filesystem."""
    user_namespace(box.config)
    os.chown(box.rootfs, 100000, 100000)
    box.folder.chmod(0o755)
    return box


def test_user_namespaces(keeping: Callable[[], Box]) -> None:
    for name in ("first", "second"):
        box = in_user(keeping())
        box.process["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 99, "hard": 100}]
        box.linux["devices"] = [{"path": "/dev/full2", "type": "c", "major": 1, "minor": 7, "fileMode": 0o600, "uid": 0, "gid": 0}]
        done = box.sh(f"id -u; ulimit -n; cat /proc/self/uid_map; ls -l /dev | grep -c full; echo {name} > /dev/null; stat -c %u /proc/1").run()
        uids = "".join(f"{m['containerID']:>10} {m['hostID']:>10} {m['size']:>10}\n" for m in box.linux["uidMappings"])
        assert (done.status, done.out, faults(done), kept(done)) == (0, f"0\n99\n{uids}2\n0\n", [], name == "second")


def test_other_maps_are_another_kind(keeping: Callable[[], Box]) -> None:
    assert not kept(in_user(keeping()).sh("true").run())
    other = in_user(keeping())
    other.linux["uidMappings"][0]["hostID"] += 1
    done = other.sh("cat /proc/self/uid_map").run()
    assert (done.status, kept(done), done.out.split()[1]) == (0, False, str(other.linux["uidMappings"][0]["hostID"]))


def test_nothing_is_kept_of_user_namespaces_of_others(keeping: Callable[[], Box]) -> None:
    holder = in_user(keeping())
    assert holder.sh("sleep 1000").create().status == 0
    for _ in range(2):
        box = in_user(keeping())
        spaces = box.linux["namespaces"]
        spaces[:] = [space for space in spaces if space["type"] != "user"]
        spaces.append({"type": "user", "path": f"/proc/{holder.state['pid']}/ns/user"})
        done = box.sh("id -u").run()
        assert (done.status, done.out, kept(done)) == (0, "0\n", False)


def test_a_step_that_fails_in_a_user_namespace_is_named(keeping: Callable[[], Box]) -> None:
    assert in_user(telling(keeping(), "first")).run().status == 0
    box = in_user(telling(keeping(), "other"))
    (box.rootfs / "given").write_text("a file, where a directory has to be mounted")
    done = box.run()
    assert kept(done)
    assert faults(done)[0].startswith(f"rundlet: bind {box.folder}/source of other on /given (rbind): move_mount: ")


def test_texts_of_a_container_are_not_kept(keeping: Callable[[], Box]) -> None:
    box = telling(keeping(), "secretive")
    box.runtime = [*apart(box.folder / "cache"), *box.runtime]
    assert box.run().status == 0
    files = [*(box.folder / "cache/plans").iterdir()]
    assert len(files) == 2
    for file in files:
        assert file.stat().st_mode & 0o7777 == 0o600
        text = file.read_bytes()
        assert b"secretive" not in text and box.id.encode() not in text


@pytest.mark.skipif(CGROUPS["layout"] != "v2", reason="the host has cgroup v1")
def test_the_device_filter_is_that_of_the_container(keeping: Callable[[], Box]) -> None:
    for name in ("first", "second"):
        box = keeping()
        box.linux["resources"] = {"devices": [{"allow": False, "access": "rwm"}]}
        done = box.sh("mknod /tmp/x b 7 0 2>/dev/null || echo no").run()
        assert (done.status, done.out, kept(done)) == (0, "no\n", name == "second")
