"""Hooks: which run when and where, what they are told, and what becomes of the container when one fails."""

import json
import os
import shutil
import signal
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests import bundles
from tests.bundles import Box, status_of

KINDS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
BEFORE_START = ("prestart", "createRuntime", "createContainer")


def hook(box: Box, script: str, **more: Any) -> dict[str, Any]:
    """A hook that is a shell script; of the host, but startContainer finds the same shell in the container."""
    return {"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"], **more}


def trace(box: Box) -> Path:
    """A file that every hook can write: in the container it is /log."""
    log = box.rootfs / "log"
    log.touch()
    return log


def all_kinds(box: Box, script: str) -> None:
    """Two hooks of each kind."""
    log = trace(box)
    box.config["hooks"] = {
        kind: [hook(box, f"log={'/log' if kind == 'startContainer' else log}; hook={kind}{n}; {script}") for n in range(2)]
        for kind in KINDS
    }


def lines(box: Box) -> list[str]:
    return (box.rootfs / "log").read_text().splitlines()


def test_the_order(box: Box) -> None:
    all_kinds(box, "cat > /dev/null; echo $hook >> $log")
    done = box.sh("echo process >> /log").run()
    assert (done.status, done.err) == (0, "")
    found = lines(box)
    first = [kind + str(n) for kind in ("prestart", "createRuntime", "createContainer", "startContainer") for n in range(2)]
    # the process and the poststart hooks run side by side
    assert [line for line in found if line != "process"] == [*first, "poststart0", "poststart1", "poststop0", "poststop1"]
    assert found.index("process") > found.index("startContainer1")


def test_each_runs_at_its_time(box: Box) -> None:
    all_kinds(box, "cat > /dev/null; echo $hook >> $log")
    pid = box.created()
    assert lines(box) == [kind + str(n) for kind in BEFORE_START for n in range(2)]
    done = box.call_apart("start", box.id)
    assert done.status == 0
    assert lines(box)[6:] == ["startContainer0", "startContainer1", "poststart0", "poststart1"]
    box.call_apart("kill", box.id, "KILL")
    status_of(pid)
    assert len(lines(box)) == 10
    box.ok("delete", box.id)
    assert lines(box)[10:] == ["poststop0", "poststop1"]


def test_the_state_they_are_told(box: Box) -> None:
    box.config["annotations"] = {"a": "b"}
    all_kinds(box, 'state=$(cat); echo "$hook $state" >> $log')
    pid = box.started()
    box.ended()
    box.ok("delete", box.id)
    told = {line.partition(" ")[0]: json.loads(line.partition(" ")[2]) for line in lines(box)}
    assert len(told) == 12
    for name, state in told.items():
        assert {key: state[key] for key in ("ociVersion", "id", "bundle", "annotations")} == {
            "ociVersion": "1.0.2",
            "id": box.id,
            "bundle": str(box.bundle),
            "annotations": {"a": "b"},
        }, name
    assert {name.rstrip("01"): state["status"] for name, state in told.items()} == {
        "prestart": "created",
        "createRuntime": "creating",
        "createContainer": "created",
        "startContainer": "created",
        "poststart": "running",
        "poststop": "stopped",
    }
    # "for hooks executed in the container namespace, it is the pid as seen by the container"
    inside = ("createContainer", "startContainer")
    assert {told[name]["pid"] for name in told if name.startswith(inside)} == {1}
    assert {told[name]["pid"] for name in told if not name.startswith((*inside, "poststop"))} == {pid}


def test_the_namespaces_they_run_in(either: Box) -> None:
    all_kinds(
        either,
        "cat > /dev/null; echo $hook $(readlink /proc/self/ns/mnt) $(readlink /proc/self/ns/net) $(readlink /proc/self/ns/uts) >> $log",
    )
    pid = either.started()
    theirs = [os.readlink(f"/proc/{pid}/ns/{kind}") for kind in ("mnt", "net", "uts")]
    ours = [os.readlink(f"/proc/self/ns/{kind}") for kind in ("mnt", "net", "uts")]
    either.ended()
    either.ok("delete", either.id)
    for line in lines(either):
        name, *found = line.split()
        if name[:-1] in ("createContainer", "startContainer"):
            assert found == theirs, name
        elif either.runtime == bundles.words() or name[:-1] != "poststop":
            assert (found if either.runtime == bundles.words() else found[1:]) == (
                ours if either.runtime == bundles.words() else ours[1:]
            ), name


def test_the_cgroups_they_run_in(either: Box) -> None:
    """Those in the container's namespaces are in its cgroups, so its limits and device rules hold for them, and they end with it."""
    either.without("cgroup")
    all_kinds(either, "cat > /dev/null; echo $hook $(cat /proc/self/cgroup) >> $log")
    pid = either.started()
    own = " ".join(Path(f"/proc/{pid}/cgroup").read_text().splitlines())
    either.ended()
    either.ok("delete", either.id)
    found = {name[:-1]: rest for name, _, rest in (line.partition(" ") for line in lines(either))}
    assert (found["createContainer"], found["startContainer"]) == (own, own)
    assert either.id in own and all(either.id not in found[kind] for kind in ("prestart", "createRuntime", "poststart"))


def test_the_root_is_populated_and_not_yet_entered(box: Box) -> None:
    """createContainer hooks are of the host, in the container's mount namespace: what they mount below the root is the container's."""
    log = trace(box)
    (box.rootfs / "late").mkdir()
    script = f"cat > /dev/null; mount -t tmpfs late {box.rootfs}/late && touch {box.rootfs}/late/file; [ -e {box.rootfs}/proc/1 ] && echo proc >> {log}; pwd >> {log}"
    box.config["hooks"] = {"createContainer": [hook(box, script)]}
    assert box.says("ls /late") == "file\n"
    assert lines(box) == ["proc", str(box.bundle)]  # where crun's begin, too
    assert os.listdir(box.rootfs / "late") == []


def test_hooks_before_entering_see_the_namespaces_of_the_process(box: Box) -> None:
    """An engine's network plugins work this way: by the pid in the state."""
    log = trace(box)
    box.config["hooks"] = {
        "createRuntime": [
            hook(
                box,
                f"pid=$(tr ',' '\\n' | grep '\"pid\"' | tr -dc 0-9); readlink /proc/$pid/ns/net >> {log}; ls {box.rootfs}/proc | wc -l >> {log}",
            )
        ]
    }
    pid = box.created()
    assert lines(box) == [os.readlink(f"/proc/{pid}/ns/net"), "0"]


def test_environment_and_arguments(either: Box) -> None:
    log = trace(either)
    probe = either.folder / "probe"
    probe.write_text(f'#!/bin/sh\necho "$0 $*" >> {log}\ntr "\\0" "\\n" < /proc/$$/environ | grep -v "^_=" | sort >> {log}\n')
    probe.chmod(0o755)
    either.config["hooks"] = {
        "createRuntime": [{"path": str(probe), "args": ["name", "one", "two words"], "env": ["A=1", "PATH=/usr/bin:/bin"]}]
    }
    either.created()
    found = lines(either)
    assert found[0] == f"{probe} one two words"
    assert [line for line in found[1:] if line[:4] != "PWD=" and line[:4] != "OLDP" and line[:4] != "SHLV"] == ["A=1", "PATH=/usr/bin:/bin"]


def test_no_signal_is_ignored(box: Box) -> None:
    """Neither what the caller ignores, nor what Python does; posix_spawn leaves glibc's own two ignored, 32 and 33."""
    log = trace(box)
    kinds = ("prestart", "createRuntime", "createContainer", "poststart", "poststop")
    box.config["hooks"] = {kind: [hook(box, f"cat > /dev/null; grep -E '^Sig(Ign|Blk)' /proc/self/status >> {log}")] for kind in kinds}
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        done = box.sh("true").run(restore_signals=False)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (done.status, done.err) == (0, "")
    found = [int(line.split()[1], 16) for line in lines(box)]
    assert len(found) == 2 * len(kinds)
    assert {mask & ~(0b11 << 31) for mask in found} == {0}


def test_one_without_an_environment_has_the_callers(either: Box) -> None:
    """Programs of the host have the runtime's, as with the peers; one of the container has the container's."""
    log = trace(either)
    script = "cat > /dev/null; echo $MARK $OWN >> "
    either.process["env"] = ["PATH=/bin", "OWN=container"]
    either.config["hooks"] = {
        "createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", f"{script}{log}"]}, {"path": "/bin/sh", "args": ["sh", "-c", f"{script}{log}"], "env": []}],
        "createContainer": [{"path": "/bin/sh", "args": ["sh", "-c", f"{script}{log}"]}],
        "startContainer": [{"path": "/bin/sh", "args": ["sh", "-c", f"{script}/log"]}],
    }
    done = either.sh("true").run(env={**os.environ, "MARK": "runtime"})
    assert (done.status, done.err) == (0, "")
    assert log.read_text() == "runtime\n\nruntime\ncontainer\n"


def test_a_hook_that_reads_nothing(box: Box) -> None:
    box.config["annotations"] = {f"k{n}": "x" * 1000 for n in range(200)}
    box.config["hooks"] = {kind: [hook(box, "exit 0")] for kind in KINDS}
    assert box.sh("true").run().status == 0


@pytest.mark.parametrize("kind", [*BEFORE_START, "startContainer", "poststart"])
@pytest.mark.parametrize("number", [0, 1])
def test_one_that_fails_fails_the_container(box: Box, kind: str, number: int) -> None:
    log = trace(box)
    good, bad = hook(box, "exit 0"), hook(box, "echo out; echo to the; echo user >&2; exit 3")
    box.config["hooks"] = {
        kind: [good, bad, hook(box, f"echo no >> {log}")][1 - number :],
        "poststop": [hook(box, f"echo poststop >> {log}")],
    }
    done = box.create()
    if kind in BEFORE_START:
        assert done.status == 1
    else:
        assert done.status == 0
        done = box.call_apart("start", box.id)
    assert done.status == 1
    assert done.err == f"rundlet: error running {kind} hook #{number}: exit status 3, stdout: out | to the, stderr: user\n"
    assert bundles.reap() == []
    assert box.left() == []
    assert lines(box) == ["poststop"]


@pytest.mark.parametrize("kind", [*BEFORE_START, "startContainer", "poststart"])
def test_the_end_of_what_a_failed_one_said_is_shown(box: Box, kind: str) -> None:
    # the one before says more: of the one that failed nothing else may be shown
    box.config["hooks"] = {kind: [hook(box, "echo other other"), hook(box, "seq 1000; exit 3")]}
    done = box.run()
    assert done.status == 1
    said = done.err.partition("stdout: ")[2].partition(", stderr: ")[0]
    assert said.endswith(" | 999 | 1000")
    assert 500 < len(said) < 3000
    assert "other" not in done.err
    assert box.left() == []


@pytest.mark.parametrize("kind", [*BEFORE_START, "startContainer", "poststart"])
def test_run_leaves_nothing_of_a_container_whose_hook_failed(box: Box, kind: str) -> None:
    box.config["hooks"] = {kind: [hook(box, "exit 1")]}
    done = box.run()
    assert done.status == 1
    assert f"error running {kind} hook #0:" in done.err
    assert bundles.reap() == []
    assert box.left() == []


def test_poststop_hooks_that_fail_are_warned_about(box: Box) -> None:
    log = trace(box)
    box.config["hooks"] = {"poststop": [hook(box, "echo bad >&2; exit 3"), hook(box, f"echo second >> {log}")]}
    box.started()
    box.ended()
    text = box.folder / "runtime.log"
    done = box.call("--log", str(text), "delete", box.id)
    assert (done.status, done.err) == (0, "")
    assert lines(box) == ["second"]
    assert "level=warning" in text.read_text()
    assert "poststop hook failed with exit code 3: error running poststop hook #0: exit status 3, stdout: , stderr: bad" in text.read_text()


def test_poststop_hooks_that_fail_are_heard_without_a_log(box: Box) -> None:
    box.config["hooks"] = {"poststop": [hook(box, "kill -9 $$")]}
    done = box.sh("true").run()
    assert (done.status, done.out) == (0, "")
    assert done.err.startswith("rundlet: warning: poststop hook failed with exit code 137: error running poststop hook #0: signal: killed")


@pytest.mark.parametrize("kind", [*BEFORE_START, "startContainer", "poststart"])
def test_a_timeout_kills(box: Box, kind: str) -> None:
    box.config["hooks"] = {kind: [hook(box, "echo here; sleep 1000; true", timeout=1)]}
    done = box.run()
    assert (done.status, done.err) == (
        1, f"rundlet: error running {kind} hook #0: hook ran past specified timeout of 1.0s, stdout: here, stderr: \n",
    )
    assert bundles.eventually(lambda: bundles.reap() == [])  # what it had started is gone, too
    assert box.left() == []


def test_a_timeout_of_a_poststop_hook_is_warned_about(box: Box) -> None:
    log = trace(box)
    box.config["hooks"] = {"poststop": [hook(box, "sleep 1000; true", timeout=1), hook(box, f"echo second >> {log}")]}
    done = box.sh("exit 3").run()
    assert done.status == 3
    assert done.err.startswith("rundlet: warning: poststop hook failed with exit code 137: error running poststop hook #0: hook ran past")
    assert lines(box) == ["second"]
    assert bundles.eventually(lambda: bundles.reap() == [])
    assert box.left() == []


@pytest.mark.parametrize("kind", ["createRuntime", "createContainer", "startContainer"])
def test_a_timeout_that_is_kept(box: Box, kind: str) -> None:
    box.config["hooks"] = {kind: [hook(box, "cat > /dev/null", timeout=60)] * 2}
    assert box.says("echo run") == "run\n"


@pytest.mark.parametrize("kind", [*BEFORE_START, "startContainer"])
def test_one_that_is_not_there(box: Box, kind: str) -> None:
    (box.rootfs / "text").write_text("hello")
    for path, why in (("/no/such/hook", "no such file or directory"), ("/text", "permission denied")):
        where = path if kind == "startContainer" or path != "/text" else f"{box.rootfs}{path}"
        box.config["hooks"] = {kind: [{"path": where}]}
        done = box.run()
        assert (done.status, done.err) == (1, f"rundlet: error running {kind} hook #0: cannot execute {where}: {why}\n")
        assert box.left() == []


@pytest.mark.parametrize("kind", [*BEFORE_START, "startContainer", "poststart"])
def test_one_that_is_killed(box: Box, kind: str) -> None:
    box.config["hooks"] = {kind: [hook(box, "kill -9 $$")]}
    assert box.run().err == f"rundlet: error running {kind} hook #0: signal: killed, stdout: , stderr: \n"


# ── startContainer hooks: programs of the container ──────────────────────────────────────────────────────────────────────────


CONFINED = ("Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp")
KILLS = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
    "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_KILL"}],
}


@pytest.mark.parametrize("nnp", [True, False])
def test_programs_of_the_container_run_as_confined_as_its_own(box: Box, nnp: bool) -> None:
    trace(box).chmod(0o666)
    box.process["user"] = {"uid": 1000, "gid": 1000, "additionalGids": [7]}
    box.process["noNewPrivileges"] = nnp
    box.linux["seccomp"] = KILLS
    show = "grep -E '^(" + "|".join(CONFINED) + "):' /proc/self/status"
    box.config["hooks"] = {"startContainer": [hook(box, f"{show} >> /log")]}
    assert box.says(show) == (box.rootfs / "log").read_text()


@pytest.mark.parametrize("nnp", [True, False])
@pytest.mark.skipif(bundles.FACTS["apparmor"]["state"] != "on", reason="AppArmor is not on here")
def test_programs_of_the_container_have_its_label(box: Box, nnp: bool) -> None:
    trace(box)
    box.process["noNewPrivileges"] = nnp
    box.process["apparmorProfile"] = name = f"{box.id}-profile"
    policy = f"profile {name} flags=(attach_disconnected) {{ file, signal, capability, umount, mount, }}"
    box.config["hooks"] = {"startContainer": [hook(box, "cat /proc/self/attr/current >> /log")]}
    subprocess.run(["apparmor_parser", "-r"], input=policy, text=True, check=True)
    try:
        assert box.says("cat /proc/self/attr/current") == (box.rootfs / "log").read_text() == f"{name} (enforce)\n"
    finally:
        subprocess.run(["apparmor_parser", "-R"], input=policy, text=True, check=True)


@pytest.mark.parametrize("nnp", [True, False])
def test_the_filter_holds_for_programs_of_the_container(box: Box, nnp: bool) -> None:
    box.process["noNewPrivileges"] = nnp
    box.process["rlimits"] = [{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}]
    box.linux["seccomp"] = KILLS
    box.config["hooks"] = {"startContainer": [hook(box, "exec mkdir /tmp/foo")]}
    done = box.run()
    assert (done.status, done.err) == (1, "rundlet: error running startContainer hook #0: signal: bad system call, stdout: , stderr: \n")
    assert box.left() == []


def test_they_have_no_descriptors_but_their_own(box: Box) -> None:
    trace(box)
    box.config["hooks"] = {"startContainer": [hook(box, "ls /proc/self/fd >> /log")]}
    assert box.sh("true").run().status == 0
    assert lines(box) == ["0", "1", "2", "3"]  # the last one is the folder that ls reads


def test_they_begin_in_the_working_directory(box: Box) -> None:
    trace(box)
    box.process["cwd"] = "/tmp"
    box.config["hooks"] = {"startContainer": [hook(box, "pwd >> /log")]}
    assert box.sh("true").run().status == 0
    assert lines(box) == ["/tmp"]


def test_with_a_terminal(box: Box) -> None:
    """What they write is not the terminal's, and what is typed is not theirs."""
    box.process["terminal"] = True
    all_kinds(box, "[ -t 0 ] || [ -t 1 ] || [ -t 2 ] || cat > /dev/null; echo said; echo $hook >> $log")
    master, slave = os.openpty()
    try:
        done = box.sh("[ -t 0 ] && [ -t 1 ] && echo terminal").run(stdin=slave, stdout=slave)
        assert (done.status, done.err) == (0, "")
        assert os.read(master, 100) == b"terminal\r\n"
    finally:
        os.close(master)
        os.close(slave)
    assert lines(box) == [kind + str(n) for kind in KINDS for n in range(2)]


# ── files for what they write: run.oci.hooks.stdout and .stderr ──────────────────────────────────────────────────────────────


def test_what_they_write_goes_to_files(either: Box) -> None:
    out, err = either.folder / "hooks.out", either.folder / "hooks.err"
    out.write_text("before\n")
    either.config["annotations"] = {"run.oci.hooks.stdout": str(out), "run.oci.hooks.stderr": str(err)}
    all_kinds(either, "cat > /dev/null; echo out $hook; echo err $hook >&2")
    assert either.sh("echo mine; echo mine >&2").run().out == "mine\n"
    if either.runtime == bundles.words():  # crun gives these files to all but the last kind
        assert out.read_text().splitlines() == ["before", *(f"out {kind}{n}" for kind in KINDS for n in range(2))]
        assert err.read_text().splitlines() == [f"err {kind}{n}" for kind in KINDS for n in range(2)]
    else:
        assert out.read_text().splitlines()[:3] == ["before", "out prestart0", "out prestart1"]


def test_one_file_only(box: Box) -> None:
    out = box.folder / "hooks.out"
    box.config["annotations"] = {"run.oci.hooks.stdout": str(out)}
    for kind in ("createRuntime", "createContainer", "startContainer"):
        box.config["hooks"] = {kind: [hook(box, "echo out; echo err >&2; exit 3")]}
        assert box.run().err == f"rundlet: error running {kind} hook #0: exit status 3, output: err\n"
    assert out.read_text() == "out\n" * 3


@pytest.mark.parametrize("path", ["relative", "/no/such/folder/file"])
def test_a_file_that_cannot_be_had(box: Box, path: str) -> None:
    box.config["annotations"] = {"run.oci.hooks.stderr": path}
    all_kinds(box, "echo $hook >> $log")
    done = box.create()
    assert done.status == 1
    assert done.err.startswith("rundlet: /annotations/run.oci.hooks.stderr: ")
    assert lines(box) == box.left() == []


def test_one_may_leave_a_process_behind(box: Box) -> None:
    """Nobody waits for it."""
    box.config["hooks"] = {"createRuntime": [hook(box, "sleep 1000 & exit 0")]}
    assert box.sh("true").run().status == 0
    left = bundles.children()
    assert len(left) == 1
    bundles.kill_all(left)


def test_in_a_user_namespace(box: Box) -> None:
    bundles.user_namespace(box.config)
    os.chown(box.rootfs, 100000, 100000)
    all_kinds(box, "cat > /dev/null; echo $hook $(id -u) >> $log")
    trace(box).chmod(0o666)
    own, *shared = (folder for folder in box.rootfs.parents if not folder.stat().st_mode & 0o001)
    for folder in (own, *shared):
        folder.chmod(0o711)
    try:
        done = box.sh("true").run()
    finally:
        own.chmod(0o700)  # the others are of other workers too, which may be in this very test
    assert (done.status, done.err) == (0, "")
    assert {line.split()[1] for line in lines(box)} == {"0"}
    assert [line.split()[0] for line in lines(box)] == [kind + str(n) for kind in KINDS for n in range(2)]


def test_the_bundle_is_called_as_the_caller_calls_it(box: Box) -> None:
    """By way of a symbolic link, and from elsewhere."""
    link = box.folder / "link"
    link.symlink_to(box.bundle)
    all_kinds(box, 'state=$(cat); echo "$hook $state" >> $log')
    box.sh("true").save()
    done = box.call("run", "--bundle", str(link), box.id, cwd="/")
    assert (done.status, done.err) == (0, "")
    told = {json.loads(line.partition(" ")[2])["bundle"] for line in lines(box)}
    assert (told, len(lines(box))) == ({str(link)}, 12)


def test_those_of_the_runtime_begin_in_the_bundle(either: Box) -> None:
    """Wherever the caller is, at each of the commands."""
    trace(either)
    script = f"cat > /dev/null; echo $(pwd) >> {either.rootfs}/log"
    kinds = ("prestart", "createRuntime", "createContainer", "poststart", "poststop")
    either.config["hooks"] = {kind: [hook(either, script)] for kind in kinds}
    either.sh("sleep 100").save()
    either.ok("create", "--bundle", str(either.bundle), either.id, cwd="/")
    either.call_apart("start", either.id, cwd="/tmp")
    either.ok("delete", "--force", either.id, cwd="/")
    assert lines(either) == [str(either.bundle)] * 5


def test_the_runtime_stays_where_the_caller_is(box: Box) -> None:
    trace(box)
    box.config["hooks"] = {kind: [hook(box, "cat > /dev/null")] for kind in BEFORE_START}
    box.sh("exit").save()
    box.ok("create", "--bundle", str(box.bundle), "--pid-file", "pid", box.id, cwd=box.folder)
    assert (box.folder / "pid").read_text().isdigit()


def test_a_bundle_that_is_gone_keeps_no_poststop_hook_away(box: Box) -> None:
    said = box.folder / "said"
    box.config["hooks"] = {"poststop": [hook(box, f"cat > /dev/null; pwd > {said}")]}
    box.sh("sleep 100").started()
    box.ended()
    shutil.rmtree(box.bundle)
    box.ok("delete", box.id, cwd="/")
    assert said.read_text() == "/\n"


@pytest.mark.parametrize("kind", ["createRuntime", "createContainer", "poststop"])
def test_no_signal_is_ignored_in_a_hook_for_the_runtimes_sake(box: Box, kind: str) -> None:
    log = trace(box)
    box.config["hooks"] = {kind: [hook(box, f"grep SigIgn /proc/self/status > {log}")]}
    assert box.sh("true").run().status == 0
    [ignored] = lines(box)
    assert int(ignored.split()[1], 16) & ~(0b11 << 31) == 0  # 32 and 33 are glibc's own: posix_spawn(3) leaves them ignored


@pytest.mark.parametrize("kind", ["poststart", "poststop"])
def test_a_caller_that_ignores_the_end_of_children(box: Box, kind: str) -> None:
    """Whoever ignores SIGCHLD has us ignore it, and then the kernel keeps no status for us."""
    log = trace(box)
    box.config["hooks"] = {kind: [hook(box, f"echo {kind} > {log}")]}
    box.created()
    ignoring = {"preexec_fn": partial(signal.signal, signal.SIGCHLD, signal.SIG_IGN)}
    for words in (("start", box.id), ("delete", "--force", box.id)):
        done = box.call_apart(*words, **ignoring)
        assert (done.status, done.err) == (0, ""), done
    assert lines(box) == [kind]


def test_a_key_written_with_escapes(box: Box) -> None:
    log = trace(box)
    box.config["hooks"] = {kind: [hook(box, f"echo {kind} >> {log}")] for kind in KINDS if kind != "startContainer"}
    box.save()
    text = (box.bundle / "config.json").read_text()
    (box.bundle / "config.json").write_text(text.replace('"post', '"\\u0070ost').replace('"create', '"\\u0063reate'))
    box.ok("create", "--bundle", str(box.bundle), box.id)
    box.call_apart("start", box.id)
    box.ok("delete", "--force", box.id)
    assert lines(box) == [kind for kind in KINDS if kind != "startContainer"]


def test_a_variable_without_a_name(box: Box) -> None:
    box.config["hooks"] = {"createRuntime": [{"path": "/bin/true", "env": ["=x"]}]}
    done = box.create()
    assert (done.status, "createRuntime hook #0: cannot execute /bin/true: illegal environment variable name" in done.err) == (1, True), done
    assert box.left() == []


def test_descriptors_of_the_caller_are_not_the_hooks(box: Box) -> None:
    """Neither those that are the container's, nor those that the caller forgot to close."""
    log = trace(box)
    script = f"cat > /dev/null; echo $(ls /proc/self/fd) >> {log}"
    box.config["hooks"] = {kind: [hook(box, script)] for kind in ("prestart", "createRuntime", "createContainer", "poststart", "poststop")}
    box.sh("true").save()
    words = box.words("run", "--preserve-fds", "1", "--bundle", str(box.bundle), box.id)
    done = subprocess.run(["sh", "-c", 'exec "$@" 3</dev/null 9</dev/null', "sh", *words], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert lines(box) == ["0 1 2 3"] * 5  # the last is ls's own
