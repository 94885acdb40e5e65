"""Containers of a user without privileges, and of root of a user namespace that an engine has made: the runtime's own life among others."""

import json
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import bundles
from tests.bundles import Box, Done
from tests.real.test_api_containers import ended, script

USER = 50000 + os.getpid() % 9973  # nobody, and not the one of another run
SUBORDINATE = 2000000  # what is the user's besides, where there is a helper to map it
SYSCTL = Path("/proc/sys")
HELPERS = all(shutil.which(name) for name in ("newuidmap", "newgidmap")) and all(
    Path(path).exists() for path in ("/etc/subuid", "/etc/subgid", "/etc/passwd")
)
DELEGABLE = bundles.CGROUPS["layout"] == "v2" and bundles.CGROUPS["own"].get("unified", "/") != "/"


def sysctl(name: str) -> str:
    """A parameter of the kernel; "" where it has none of that name."""
    path = SYSCTL / name
    return path.read_text().strip() if path.exists() else ""


PERMITTED = (
    sysctl("user/max_user_namespaces") != "0"
    and sysctl("kernel/unprivileged_userns_clone") != "0"
    and sysctl("kernel/apparmor_restrict_unprivileged_userns") != "1"
)
pytestmark = pytest.mark.skipif(not PERMITTED, reason="this host permits users no user namespaces")
helped = pytest.mark.skipif(not HELPERS, reason="newuidmap, newgidmap or a file of theirs is missing here")
delegable = pytest.mark.skipif(not DELEGABLE, reason="cgroup v2 alone, with processes in a cgroup of their own, is what is delegated")


class Person:
    """A user, what belongs to it, and how a command is run as that user."""

    def __init__(self, folder: Path, busybox: Path) -> None:
        self.folder = folder
        self.busybox = folder / "busybox"
        shutil.copy(busybox, self.busybox)
        self.made: list[Box] = []
        (folder / "root").mkdir()
        self.own(folder / "root")

    def own(self, path: Path) -> None:
        """Gives a file, or a folder with all that is in it, to the user."""
        for name in [path, *path.rglob("*")]:
            os.chown(name, USER, USER, follow_symlinks=False)

    def words(self, *before: str) -> list[str]:
        """The words that run rundlet as the user, behind those of another command."""
        become = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--inh-caps=-all", "--"]
        return [*become, "env", f"XDG_RUNTIME_DIR={self.folder}/run", *before, *bundles.words()]

    def with_ids(self) -> list[str]:
        """The same, on a host where the user has a name and ids besides its own: for this very command alone."""
        passwd = Path("/etc/passwd").read_text() + f"rundlet-tester:x:{USER}:{USER}::/:/bin/sh\n"
        (self.folder / "passwd").write_text(passwd)
        (self.folder / "sub").write_text(f"{USER}:{SUBORDINATE}:65536\n")
        script = 'mount --bind "$0/passwd" /etc/passwd; mount --bind "$0/sub" /etc/subuid; mount --bind "$0/sub" /etc/subgid; exec "$@"'
        return ["unshare", "--mount", "--propagation", "private", "sh", "-ec", script, str(self.folder), *self.words()]

    def as_engine(self, script: str = 'exec "$@"') -> list[str]:
        """The words of an engine's call: as root of a user namespace of the user, with a mount namespace that belongs to it."""
        return self.words("unshare", "--user", "--map-root-user", "--mount", "sh", "-ec", script, "sh")

    def box(self, words: list[str] | None = None) -> Box:
        """A container to be, whose root is the user's, in a user namespace where it is the only one."""
        box = Box(self.folder, words or self.words(), self.busybox)
        self.own(box.rootfs)
        box.linux["namespaces"].append({"type": "user"})
        for kind in ("uidMappings", "gidMappings"):
            box.linux[kind] = [{"containerID": 0, "hostID": USER, "size": 1}]
        del box.linux["cgroupsPath"]
        self.made.append(box)
        return box


@pytest.fixture
def person(busybox: Path) -> Iterator[Person]:
    """A user with a folder of its own. Afterwards nothing of its containers may be left."""
    folder = Path(tempfile.mkdtemp(prefix="rundlet-user-"))
    folder.chmod(0o755)
    probe = ["setpriv", f"--reuid={USER}", "--clear-groups", "--", *bundles.words(), "--version"]
    if subprocess.run(probe, capture_output=True).returncode:
        shutil.rmtree(folder)
        pytest.skip("other users cannot read these sources")
    made = Person(folder, busybox)
    yield made
    names = os.listdir(folder / "root")
    for name in names:
        subprocess.run([*made.words(), "--root", str(folder / "root"), "delete", "--force", name], capture_output=True)
    bundles.eventually(lambda: not bundles.reap())  # what was killed may take its time to end
    running = bundles.reap()
    bundles.kill_all(running)
    left = os.listdir(folder / "root")
    left += [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(folder) in line]
    left += [f"{mount}/{box.id}" for mount in set(bundles.CGROUPS["mounts"].values()) for box in made.made if Path(mount, box.id).exists()]
    shutil.rmtree(folder)
    assert not (left or running), (left, running)


@pytest.fixture
def box(person: Person) -> Box:
    """A container of the user."""
    return person.box()


def as_user(*words: str) -> Done:
    """Another program of the same user."""
    done = subprocess.run(["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--", *words], capture_output=True, text=True)
    return Done(done.returncode, done.stdout, done.stderr)


# ── a life ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_whole_life(box: Box) -> None:
    pid = box.created()
    assert box.status == "created"
    box.call_apart("start", box.id)
    assert box.status == "running"
    status = bundles.proc_status(pid)
    assert status["Uid"].split() == [str(USER)] * 4 and status["NoNewPrivs"] == "1"
    assert os.readlink(f"/proc/{pid}/ns/user") != os.readlink("/proc/self/ns/user")
    assert box.exec("id", "-u").out == "0\n"
    assert box.id in box.call_apart("list").out
    refused = box.call_apart("delete", box.id)
    assert refused.status == 1 and "running" in refused.err
    box.ended()
    assert box.status == "stopped"
    box.ok("delete", box.id)


LIBRARY = """
import sys, rundlet
config = rundlet.config(["sh", "-c", "id -u; cat"], rootfs=sys.argv[1], env={"PATH": "/bin"})
done = rundlet.run(config, root=sys.argv[2], input=b"in", capture=True).check()
with rundlet.create(rundlet.config(["sleep", "1000"], rootfs=sys.argv[1], env={"PATH": "/bin"}), root=sys.argv[2]) as container:
    container.start()
    more = container.exec(["id", "-g"], capture=True)
    status = rundlet.verify(container).status
    container.kill("KILL")
    print(done.stdout, more.stdout, status, container.wait(), rundlet.explain(config).refusal)
"""


def test_the_library(box: Box) -> None:
    """Of a user: the executor is started by its program, and used by a command that may not trace it."""
    user = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--inh-caps=-all", "--"]
    said = ended(script(LIBRARY, box.rootfs, box.root, before=user, cwd="/"))
    assert said == "b'0\\nin' b'0\\n' holds -9 None\n"


def test_its_ids_and_what_it_may_do(box: Box) -> None:
    box.process["capabilities"] = {kind: ["CAP_SYS_ADMIN"] for kind in ("bounding", "effective", "permitted")}
    out = box.says("id -u; id -g; cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups; mount -t tmpfs x /tmp && touch /tmp/x && echo mounted")
    assert out.split() == ["0", "0", *["0", str(USER), "1"] * 2, "deny", "mounted"]


def test_devices_are_the_hosts_bound(box: Box) -> None:
    out = box.says("exec 2>/dev/null; head -c 3 /dev/zero | wc -c; echo >/dev/full || echo full; mknod /dev/x c 1 3 || echo none; ls /dev/fd/0 /dev/ptmx")
    assert out.split() == ["3", "full", "none", "/dev/fd/0", "/dev/ptmx"]


def test_the_hosts_network_devices_are_not_the_users(box: Box) -> None:
    box.linux["netDevices"] = {"lo": {"name": "mine0"}}
    done = box.run()
    assert done.status == 1
    assert "operation not permitted; /linux/netDevices: moving devices of the host takes" in done.err
    assert box.left() == []


def test_what_spec_writes_runs(person: Person) -> None:
    box = person.box()
    (box.bundle / "config.json").unlink(missing_ok=True)
    person.own(box.bundle)
    box.ok("spec", "--rootless", "--bundle", str(box.bundle))
    config = json.loads((box.bundle / "config.json").read_text())
    assert config["linux"]["uidMappings"] == [{"containerID": 0, "hostID": USER, "size": 1}]
    assert "resources" not in config["linux"]
    config["process"]["terminal"] = False
    box.config = config
    assert box.says("id -u; cat /sys/class/net/lo/mtu >/dev/null && echo sys") == "0\nsys\n"


@pytest.fixture(params=[False, pytest.param(True, marks=delegable)], ids=["no cgroup", "a delegated one"])
def at(request: pytest.FixtureRequest) -> Iterator[Path | None]:
    """The cgroup that is delegated to the user; None where nothing is."""
    if not request.param:
        yield None
        return
    yield from delegation()


@pytest.mark.parametrize("ids", ["one", pytest.param("all", marks=helped)])
def test_the_life_of_what_spec_writes(person: Person, at: Path | None, ids: str) -> None:
    """It runs, is entered, killed and deleted by its user; seen from inside and outside, and afterwards nothing is left."""
    into = ["sh", "-ec", 'echo $$ >"$0"; exec "$@"', f"{at}/own/cgroup.procs"] if at else []
    box = person.box([*into, *(person.words() if ids == "one" else person.with_ids())])
    person.own(box.bundle)
    (box.bundle / "config.json").unlink(missing_ok=True)
    box.ok("spec", "--rootless", "--bundle", str(box.bundle))
    box.config = json.loads((box.bundle / "config.json").read_text())
    box.process["terminal"] = False
    box.config["root"]["readonly"] = False
    if ids == "all":
        wide(box)
        box.process["user"] = {"uid": 5, "gid": 6}
        box.rootfs.chmod(0o777)
    if at:
        box.linux["resources"] = {"pids": {"limit": 20}}
    outer = (USER, USER) if ids == "one" else (SUBORDINATE + 4, SUBORDINATE + 5)
    own = os.readlink("/proc/self/ns/mnt")
    pid = box.sh("touch /made; exec sleep 1000").started()
    status = bundles.proc_status(pid)
    assert (status["Uid"].split(), status["Gid"].split()) == ([str(outer[0])] * 4, [str(outer[1])] * 4)
    assert len(Path(f"/proc/{pid}/uid_map").read_text().splitlines()) == (1 if ids == "one" else 2)
    assert bundles.eventually((box.rootfs / "made").exists)
    made = (box.rootfs / "made").stat()
    assert (made.st_uid, made.st_gid) == outer
    assert os.readlink(f"/proc/{pid}/ns/mnt") != own and mounted(person) == []
    inner = "0 0" if ids == "one" else "5 6"
    assert box.exec("sh", "-c", "echo $(id -u) $(id -g); readlink /proc/self/ns/user; stat -c '%u %g' /made").out.splitlines() == [
        inner, os.readlink(f"/proc/{pid}/ns/user"), inner,
    ]
    if at:
        assert (at / box.id / "pids.max").read_text() == "20\n" and str(pid) in (at / box.id / "cgroup.procs").read_text().split()
    box.ok("kill", box.id, "KILL")
    assert bundles.status_of(pid) == 137
    assert box.status == "stopped"
    box.ok("delete", box.id)
    assert box.left() == [] and not (at and (at / box.id).exists())


def test_kill_all_and_delete_force_without_a_cgroup(box: Box) -> None:
    pid = box.sh("sleep 1000 & wait").started()
    box.ok("kill", "--all", box.id, "KILL")
    assert bundles.status_of(pid) == 137
    box.ok("delete", box.id)
    pid = box.started()
    box.ok("delete", "--force", box.id)
    assert bundles.status_of(pid) == 137
    assert box.left() == []


def test_a_program_that_is_not_there_leaves_nothing(box: Box) -> None:
    box.process["args"] = ["/nothere"]
    done = box.create()
    assert done.status == 127 and "no such file or directory" in done.err
    assert box.left() == []


def test_hooks(person: Person) -> None:
    box = person.box()
    told = person.folder / "told"
    told.mkdir()
    person.own(told)

    def hook(kind: str) -> list[dict[str, Any]]:
        return [{"path": "/bin/sh", "args": ["sh", "-c", f"cat /proc/self/uid_map >{told}/{kind}; readlink /proc/self/ns/uts >>{told}/{kind}"]}]

    box.config["hooks"] = {kind: hook(kind) for kind in ("createRuntime", "createContainer", "poststart", "poststop")}
    pid = box.started()
    own, theirs = os.readlink("/proc/self/ns/uts"), os.readlink(f"/proc/{pid}/ns/uts")
    assert (told / "createContainer").read_text().split() == ["0", str(USER), "1", theirs]
    for kind in ("createRuntime", "poststart"):
        assert (told / kind).read_text().split()[-1] == own
    box.ended()
    box.ok("delete", box.id)
    assert (told / "poststop").exists()


def test_a_terminal(person: Person) -> None:
    box = person.box()
    box.process["terminal"] = True
    box.sh("tty; stat -c %u /dev/console; id -u")
    path = person.folder / "console"
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    person.own(path)
    server.listen(1)
    server.settimeout(bundles.PATIENCE)
    box.created("--console-socket", str(path))
    peer, _ = server.accept()
    _, fds, _, _ = socket.recv_fds(peer, 4096, 1)
    pid = box.pid
    done = box.call_apart("start", box.id)
    assert (done.status, done.err) == (0, "")
    said = b""
    try:
        while more := os.read(fds[0], 4096):
            said += more
    except OSError:
        pass  # EIO: nobody has it open any more
    assert said.decode().split() == ["/dev/pts/0", "0", "0"]
    assert bundles.status_of(pid) == 0
    os.close(fds[0])
    peer.close()
    server.close()


def test_a_filter(box: Box) -> None:
    box.linux["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}]}
    for nnp in (True, False):
        box.process["noNewPrivileges"] = nnp
        assert "not supported" in box.says("mkdir /tmp/x 2>&1; true").lower()


def test_time(box: Box) -> None:
    box.config["ociVersion"] = "1.1.0"
    box.linux["namespaces"].append({"type": "time"})
    box.linux["timeOffsets"] = {"boottime": {"secs": 864000000}}
    out = box.says("cat /proc/uptime; cd /proc/self/ns; readlink time; readlink time_for_children")
    uptime, *spaces = out.splitlines()
    assert float(uptime.split()[0]) > 864000000
    assert spaces[0] == spaces[1] != os.readlink("/proc/self/ns/time")


# ── what nobody else may see ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_waiting_process_is_hidden_from_its_own_user(box: Box) -> None:
    """Not even the user may look into it, or trace it: something in its namespaces could then, too."""
    pid = box.created()
    for name in ("exe", "ns/mnt", "root"):
        assert as_user("readlink", f"/proc/{pid}/{name}").status == 1
    assert as_user("cat", f"/proc/{pid}/environ").status == 1
    assert Path(f"/proc/{pid}/uid_map").stat().st_uid == 0


def mounted(person: Person) -> list[str]:
    """What the host has mounted in the user's folder, or from there."""
    return [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(person.folder) in line]


def test_mounts_of_a_container_that_runs(person: Person, box: Box) -> None:
    """A user's own files, and a tmpfs; the host's mounts are as before."""
    (person.folder / "dir").mkdir()
    (person.folder / "dir/file").write_text("file")
    person.own(person.folder / "dir")
    hosts = mounted(person)
    pid = box.created()
    box.ok("start", box.id)
    before = Path(f"/proc/{pid}/mountinfo").read_text()
    mounts = [
        {"destination": "/bound", "type": "bind", "source": str(person.folder / "dir"), "options": ["rbind", "ro", "nosuid"]},
        {"destination": "/one", "type": "bind", "source": str(person.folder / "dir/file"), "options": ["bind"]},
        {"destination": "/tmp/new", "type": "tmpfs", "source": "tmpfs", "options": ["size=64k"]},
    ]
    file = person.folder / "mounts.json"
    file.write_text(json.dumps(mounts))
    box.ok("mounts", "add", box.id, str(file))
    assert box.exec("sh", "-c", "cat /bound/file /one; touch /bound/x 2>&1; touch /tmp/new/x && ls /tmp/new").out == (
        "filefiletouch: /bound/x: Read-only file system\nx\n"
    )
    found = {line.split()[4]: line.split()[5] for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()}
    assert {"ro", "nosuid"} <= set(found["/bound"].split(","))
    box.ok("mounts", "remove", box.id, str(file))
    assert Path(f"/proc/{pid}/mountinfo").read_text() == before
    assert mounted(person) == hosts == []
    # what the user may not read is not to be had in this way either
    (person.folder / "closed").mkdir(mode=0o700)
    (person.folder / "closed/secret").write_text("secret")
    file.write_text(json.dumps([{"destination": "/tmp/x", "type": "bind", "source": str(person.folder / "closed/secret"), "options": ["bind"]}]))
    done = box.call("mounts", "add", box.id, str(file))
    assert done.status == 1 and "permission denied" in done.err
    box.ended()
    box.ok("delete", box.id)


def test_exec_waits_for_start(box: Box) -> None:
    box.created()
    done = box.exec("true")
    assert done.status == 255 and "has not been started" in done.err
    box.call_apart("start", box.id)
    assert box.exec("true").status == 0


def test_exec_is_as_confined_as_the_container(box: Box) -> None:
    box.process["user"] = {"uid": 0, "gid": 0}
    box.started()
    script = "grep -E 'NoNewPrivs|CapBnd|CapEff' /proc/self/status; readlink /proc/self/ns/user"
    init, other = (box.exec("sh", "-c", text).out for text in (script.replace("self", "1"), script))
    assert init == other != ""


# ── user namespaces that were not asked for ──────────────────────────────────────────────────────────────────────────────────


def of_root(box: Box) -> Box:
    """The configuration as it would be for root: without a user namespace."""
    box.without("user")
    del box.linux["uidMappings"], box.linux["gidMappings"]
    box.config["mounts"][2]["options"].append("gid=5")
    return box


@pytest.mark.parametrize("options", [[], ["--rootless=auto"], ["--rootless", "true"]])
def test_a_user_namespace_is_added(box: Box, options: list[str]) -> None:
    box.runtime = [*box.runtime, *options]
    pid = of_root(box).started()
    assert Path(f"/proc/{pid}/uid_map").read_text().split() == ["0", str(USER), "1"]
    assert box.exec("cat", "/proc/1/uid_map").out.split() == ["0", str(USER), "1"]


@helped
def test_a_user_namespace_is_added_with_all_the_users_ids(person: Person) -> None:
    box = of_root(person.box(person.with_ids()))
    box.process["user"] = {"uid": 1000, "gid": 1000, "additionalGids": [10]}
    box.rootfs.chmod(0o755)
    out = box.says("id -u; cat /proc/self/uid_map; stat -c %g /dev/pts/ptmx; id -G")
    assert out.split() == ["1000", "0", str(USER), "1", "1", str(SUBORDINATE), "65536", "0", "1000", "10"]


def test_explain_says_what_will_be_made(box: Box) -> None:
    of_root(box).save()
    text = box.ok("explain", "--steps", str(box.bundle)).out
    assert "become root of the user namespace" in text
    assert "take hold of the host's /dev/null" in text[text.index("── inside") :]
    box.linux["resources"] = {"pids": {"limit": 5}}
    box.save()
    done = box.call("explain", str(box.bundle))
    assert done.status == 1 and done.out.startswith("refused") and "/linux/resources" in done.out


def test_a_user_namespace_is_not_added_when_that_is_not_wanted(box: Box) -> None:
    of_root(box).save()
    done = box.call("--rootless=false", "run", "--bundle", str(box.bundle), box.id)
    assert done.status == 1
    assert "/linux/namespaces: making them takes CAP_SYS_ADMIN" in done.err
    assert box.left() == []


# ── id maps ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def wide(box: Box, base: int = SUBORDINATE) -> Box:
    for kind in ("uidMappings", "gidMappings"):
        box.linux[kind].append({"containerID": 1, "hostID": base, "size": 65536})
    return box


@helped
def test_ids_mapped_by_the_helpers(person: Person) -> None:
    box = wide(person.box(person.with_ids()))
    box.process["user"] = {"uid": 7, "gid": 8, "additionalGids": [9, 10]}
    pid = box.started()
    status = bundles.proc_status(pid)
    assert status["Uid"].split() == [str(SUBORDINATE + 6)] * 4
    assert status["Gid"].split() == [str(SUBORDINATE + 7)] * 4
    assert status["Groups"].split() == [str(SUBORDINATE + 8), str(SUBORDINATE + 9)]
    assert box.exec("--user", "3:4", "--additional-gids", "5", "--", "sh", "-c", "id -u; id -g; id -G; cat /proc/self/setgroups").out.split() == [
        "3", "4", "4", "5", "9", "10", "allow",
    ]
    assert box.call_apart("kill", box.id, "KILL").status == 0  # another user's process, but the namespace is ours
    assert bundles.status_of(pid) == 137


@helped
def test_ids_that_are_somebody_elses(person: Person) -> None:
    box = wide(person.box(person.with_ids()), SUBORDINATE + 1)
    done = box.run()
    assert done.status == 1
    assert "/linux/gidMappings: newgidmap: gid range" in done.err and "usermod --add-subgids" in done.err
    assert box.left() == []


@helped
def test_no_new_privs_keeps_the_helpers_from_helping(person: Person) -> None:
    box = wide(person.box(person.words("setpriv", "--no-new-privs", "--")))
    done = box.run()
    assert done.status == 1
    assert "/linux/gidMappings" in done.err and "no_new_privs" in done.err
    assert box.left() == []


def test_ones_own_id_needs_no_helper(person: Person) -> None:
    box = person.box(person.words("setpriv", "--no-new-privs", "--"))
    assert box.says("id -u") == "0\n"


def test_a_user_namespace_without_a_root(box: Box) -> None:
    for kind in ("uidMappings", "gidMappings"):
        box.linux[kind][0]["containerID"] = 1000
    box.process["user"] = {"uid": 1000, "gid": 1000}
    assert box.says("id -u; id -g; touch /mine; stat -c %u /mine") == "1000\n1000\n1000\n"


def test_groups_besides_are_refused(box: Box) -> None:
    box.process["user"]["additionalGids"] = [0]
    done = box.run()
    assert done.status == 1
    assert "/process/user/additionalGids" in done.err and "setgroups" in done.err
    assert box.left() == []


# ── limits ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_limit_without_a_cgroup_is_refused(box: Box) -> None:
    box.linux["resources"] = {"pids": {"limit": 10}}
    done = box.run()
    assert done.status == 1
    assert "/linux/resources: cannot set the " in done.err and f"user {USER}" in done.err
    assert box.left() == []


def test_a_cgroup_that_is_named_and_cannot_be_made(box: Box) -> None:
    box.linux["cgroupsPath"] = f"/{box.id}"
    done = box.run()
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith(f"rundlet: /linux/cgroupsPath: user {USER} may not make the cgroup ") and f"/{box.id} and move" in done.err
    assert box.left() == []


def test_device_rules_are_left_out(box: Box) -> None:
    """No user makes device nodes, and the devices there are were bound on purpose."""
    box.linux["resources"] = {"devices": [{"allow": False, "access": "rwm"}]}
    assert box.says("head -c 1 /dev/zero | wc -c; true >/dev/null") == "1\n"


def test_raising_limits(box: Box) -> None:
    box.process["rlimits"] = [{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}, {"type": "RLIMIT_NICE", "soft": 40, "hard": 40}]
    done = box.run()
    assert done.status == 1
    assert "RLIMIT_NICE" in done.err and "CAP_SYS_RESOURCE" in done.err
    assert box.left() == []


def test_the_oom_score_goes_up_and_not_down(box: Box) -> None:
    box.process["oomScoreAdj"] = 500
    pid = box.started()
    assert Path(f"/proc/{pid}/oom_score_adj").read_text() == "500\n"
    assert box.exec("cat", "/proc/self/oom_score_adj").out == "500\n"
    box.ended()
    box.ok("delete", box.id)
    box.process["oomScoreAdj"] = -500
    done = box.run()
    assert done.status == 1 and "set oom_score_adj to -500" in done.err
    assert box.left() == []


def delegation() -> Iterator[Path]:
    """A cgroup that is the user's, with one in it for its processes."""
    mount = bundles.CGROUPS["mounts"]["unified"]
    top = Path(mount, f"rundlet-delegated-{os.getpid()}")
    (top / "own").mkdir(parents=True)
    for at in (top, top / "own"):
        for path in (at, *(at / name for name in ("cgroup.procs", "cgroup.subtree_control", "cgroup.threads"))):
            os.chown(path, USER, USER)
    (top / "cgroup.subtree_control").write_text("+pids +memory")
    yield top
    assert bundles.eventually(lambda: (top / "own/cgroup.procs").read_text() == "")
    left = [path.name for path in top.iterdir() if path.is_dir() and path.name != "own"]
    for path in (*(top / name for name in left), top / "own", top):
        path.rmdir()
    assert left == []


@pytest.fixture
def delegated() -> Iterator[Path]:
    """As delegation()."""
    yield from delegation()


@delegable
@pytest.mark.parametrize("named", [True, False])
def test_a_delegated_cgroup(person: Person, delegated: Path, named: bool) -> None:
    into = ["sh", "-ec", 'echo $$ >"$0"; exec "$@"', f"{delegated}/own/cgroup.procs"]
    box = person.box([*into, *person.words()])
    if named:
        box.linux["cgroupsPath"] = f"/{delegated.name}/{box.id}"
    box.linux["resources"] = {"pids": {"limit": 12}, "memory": {"limit": 50000000}}
    pid = box.started()
    assert (delegated / box.id / "pids.max").read_text() == "12\n"
    assert (delegated / box.id / "cgroup.procs").read_text() == f"{pid}\n"
    box.exec("sh", "-c", "sleep 1000 & sleep 0")
    assert len((delegated / box.id / "cgroup.procs").read_text().split()) == 2
    assert box.call_apart("kill", "--all", box.id, "KILL").status == 0
    assert bundles.status_of(pid) == 137
    bundles.eventually(lambda: not bundles.reap())
    assert box.call_apart("delete", box.id).err == ""
    assert not (delegated / box.id).exists()


# ── where containers are kept ────────────────────────────────────────────────────────────────────────────────────────────────


def call_without_root(person: Person, *args: str, runtime_dir: str = "", words: Callable[[], list[str]] | None = None) -> Done:
    given = [word for word in (words or person.words)() if not word.startswith("XDG_RUNTIME_DIR=")]
    at = given.index("env") + 1
    given[at:at] = ["-u", "XDG_RUNTIME_DIR", "-u", "USER", *([f"XDG_RUNTIME_DIR={runtime_dir}"] if runtime_dir else [])]
    # files and no pipes: a container that is left behind holds them open
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        status = subprocess.run([*given, *args], stdout=out, stderr=err).returncode
        out.seek(0)
        err.seek(0)
        return Done(status, out.read(), err.read())


def test_the_root_of_somebody_else(person: Person) -> None:
    """And the bundle."""
    box = person.box()
    box.sh("true").save()
    theirs = person.folder / "theirs"
    theirs.mkdir(mode=0o700)
    done = call_without_root(person, "--root", str(theirs), "list")
    assert (done.status, done.err) == (1, f"rundlet: cannot read {theirs}: permission denied; name the folder of your containers by --root\n")
    config = box.bundle / "config.json"
    config.chmod(0o600)
    os.chown(config, 0, 0)
    done = call_without_root(person, "explain", str(box.bundle))
    assert (done.status, done.err) == (1, f"rundlet: cannot read {config}: permission denied\n")


def test_the_default_root(person: Person) -> None:
    box = person.box()
    box.sh("true").save()
    run = person.folder / "run"
    run.mkdir(mode=0o700)
    person.own(run)
    assert call_without_root(person, "create", "--bundle", str(box.bundle), box.id, runtime_dir=str(run)).status == 0
    assert (run / "rundlet" / box.id / "state.json").stat().st_uid == USER
    assert call_without_root(person, "delete", "--force", box.id, runtime_dir=str(run)).status == 0


@pytest.mark.skipif(Path(f"/run/user/{USER}").exists(), reason="this user has a folder in /run/user")
def test_the_default_root_without_a_session(person: Person) -> None:
    """The folder in /tmp is the user's alone, or it is not used."""
    top = Path(f"/tmp/rundlet-{USER}")
    assert not top.exists()
    try:
        assert call_without_root(person, "list").status == 0
        assert (top.stat().st_uid, top.stat().st_mode & 0o7777) == (USER, 0o700)
        top.chmod(0o755)
        done = call_without_root(person, "list")
        assert done.status == 1 and f"{top} is not a folder of user {USER} alone" in done.err
    finally:
        top.rmdir()


def test_the_default_root_of_an_engine(person: Person) -> None:
    """Root of a user namespace has the user's folder, not /run, which is not its own."""
    run = person.folder / "run"
    run.mkdir(mode=0o700)
    person.own(run)
    box = person.box(person.as_engine())
    box.sh("true").save()
    for kind in ("uidMappings", "gidMappings"):
        box.linux[kind][0]["hostID"] = 0
    box.save()
    done = call_without_root(person, "create", "--bundle", str(box.bundle), box.id, runtime_dir=str(run), words=person.as_engine)
    assert (done.status, done.err) == (0, "")
    assert os.listdir(run / "rundlet") == [box.id]
    assert call_without_root(person, "delete", "--force", box.id, runtime_dir=str(run)).status == 0


# ── root of a user namespace ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("nested", [False, True], ids=["in the engine's", "in one of its own"])
def test_as_an_engine_calls(person: Person, nested: bool) -> None:
    """Rootless podman makes the user namespace itself, and calls the runtime as its root."""
    holder = subprocess.Popen(
        [*person.words("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", "echo ready; exec sleep 1000")], stdout=subprocess.PIPE
    )
    assert holder.stdout and holder.stdout.readline() == b"ready\n"
    enter = ["nsenter", "--target", str(holder.pid), "--user", "--mount", "--preserve-credentials", "--setuid=0", "--setgid=0", "--"]
    try:
        box = person.box([*enter, *bundles.words()])
        if nested:
            for kind in ("uidMappings", "gidMappings"):
                box.linux[kind][0]["hostID"] = 0
        else:
            box.without("user")
            del box.linux["uidMappings"], box.linux["gidMappings"]
            box.linux["devices"] = [{"path": "/dev/zero", "type": "c", "major": 1, "minor": 5}]
        box.linux["resources"] = {"devices": [{"allow": False, "access": "rwm"}]}
        box.process["oomScoreAdj"] = 300
        pid = box.started()
        assert Path(f"/proc/{pid}/oom_score_adj").read_text() == "300\n"
        assert bundles.proc_status(pid)["Uid"].split() == [str(USER)] * 4
        assert (os.readlink(f"/proc/{pid}/ns/user") != os.readlink(f"/proc/{holder.pid}/ns/user")) == nested
        assert box.exec("sh", "-c", "id -u; head -c 2 /dev/zero | wc -c; echo >/dev/null; cat /proc/self/oom_score_adj").out.split() == [
            "0", "2", "300",
        ]
        box.ended()
        box.ok("delete", box.id)
        assert box.left() == []
        assert box.exec("true").status == 255
        # created, too: here the process's own files belong to the user namespace's root
        pid = box.created()
        assert box.exec("echo", "early").out == "early\n"
        box.ended()
        box.ok("delete", box.id)
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()


@pytest.mark.parametrize("kind", ["user", "net"])
def test_a_host_that_permits_no_more_namespaces(person: Person, kind: str) -> None:
    box = person.box(person.as_engine(f'echo 0 >/proc/sys/user/max_{kind}_namespaces; exec "$@"'))
    for maps in ("uidMappings", "gidMappings"):
        box.linux[maps][0]["hostID"] = 0
    done = box.run()
    assert done.status == 1
    assert f"user.max_{kind}_namespaces is 0" in done.err and "clone3" in done.err
    assert box.left() == []


def test_the_hosts_network_and_sysfs(box: Box) -> None:
    """A new sysfs takes a network namespace of one's own; this is the very one of the host, whose devices come and go."""
    box.without("network")
    ours = [str(os.stat("/sys").st_dev), os.readlink("/proc/self/ns/net")]
    out = box.says("stat -c %d /sys; readlink /proc/self/ns/net; ls -d /sys/class/net/lo; touch /sys/x 2>/dev/null || echo ro")
    assert out.split() == [*ours, "/sys/class/net/lo", "ro"]


def test_verify_by_the_user_and_by_root(person: Person) -> None:
    box = person.box()
    box.started()
    done = box.call_apart("verify", "--json", box.id)
    found = json.loads(done.out)["containers"][0]
    assert (done.status, found["differences"], found["unknown"]) == (0, [], []), done
    by_root = Box(person.folder, bundles.words(), person.busybox, id=f"{box.id}-not")
    done = by_root.call_apart("verify", "--json", box.id)
    assert done.status == 0, done
