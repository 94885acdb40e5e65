"""features, spec and completion: what is said of the runtime is so, tried with containers."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from rundlet import cliref, kernel
from tests import bundles
from tests.bundles import CAPABLE, Box, proc_status, status_of

LOCAL = {"network": "net", "mount": "mnt"}


@pytest.fixture
def said(box: Box) -> Any:
    """As engines ask: without an environment, what is written to stdout and stderr read together."""
    done = subprocess.run([*box.runtime, "features"], env={}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=True)
    return json.loads(done.stdout)


def test_a_container_with_all_that_features_name(box: Box, said: Any) -> None:
    """The newest version, each namespace, each capability that there is to give, each kind of hook."""
    box.config["ociVersion"] = said["ociVersionMax"]
    box.namespaces(*(kind for kind in said["linux"]["namespaces"] if kind != "user"))
    box.process["capabilities"] = dict.fromkeys(("bounding", "effective", "permitted"), said["linux"]["capabilities"])
    log = box.folder / "log"
    inside = box.rootfs / "log"
    inside.touch()
    script = "cat > /dev/null; echo {} >> {}"
    box.config["hooks"] = {
        kind: [{"path": "/bin/sh", "args": ["sh", "-c", script.format(kind, "/log" if kind == "startContainer" else log)], "env": ["PATH=/bin"]}]
        for kind in said["hooks"]
    }
    box.save()
    # what the machine does not give is warned about in the log
    warnings = ("--log", str(box.folder / "warnings"))
    assert box.call(*warnings, "run", "--detach", "--bundle", str(box.bundle), box.id).status == 0
    pid = box.pid
    for kind in said["linux"]["namespaces"]:
        name = LOCAL.get(kind, kind)
        assert (os.readlink(f"/proc/{pid}/ns/{name}") == os.readlink(f"/proc/self/ns/{name}")) == (kind == "user")
    have = {name for n, name in enumerate(kernel.CAPABILITIES) if int(proc_status(pid)["CapBnd"], 16) >> n & 1}
    assert have == {*said["linux"]["capabilities"]} & CAPABLE
    box.ended()
    box.ok("delete", box.id)
    assert sorted([*log.read_text().split(), *inside.read_text().split()]) == sorted(said["hooks"])


@pytest.mark.parametrize("version", ["ociVersionMin", "ociVersionMax"])
def test_versions_that_features_name(box: Box, said: Any, version: str) -> None:
    box.config["ociVersion"] = said[version]
    box.sh("exec sleep 1000").started()
    assert box.state["ociVersion"] == said[version]


def test_filters_that_features_name(box: Box, said: Any) -> None:
    """Each action, operator, architecture and flag in a filter of a container that runs."""
    block = said["linux"]["seccomp"]
    assert block["enabled"]
    actions = [action for action in block["actions"] if action not in ("SCMP_ACT_NOTIFY", "SCMP_ACT_ALLOW")]
    calls = ("acct", "swapon", "swapoff", "reboot", "kexec_load", "bpf", "syslog")
    rules: list[dict[str, Any]] = [{"names": [call], "action": action} for call, action in zip(calls, actions, strict=True)]
    calls = ("personality", "quotactl", "settimeofday", "adjtimex", "umount2", "mount", "pivot_root")
    rules += [
        {"names": [call], "action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "value": 1, "valueTwo": 1, "op": op}]}
        for call, op in zip(calls, block["operators"], strict=True)
    ]
    for flag in [None, *block["supportedFlags"]]:
        one = box.another()
        flags = [] if flag in (None, "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV") else [flag]  # that one goes with notify
        one.linux["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "architectures": block["archs"], "flags": flags, "syscalls": rules}
        pid = one.started()
        assert proc_status(pid)["Seccomp"] == "2"
        assert one.exec("grep", "Seccomp:", "/proc/self/status").out.split()[1] == "2"


def test_apparmor_as_features_say_it(box: Box, said: Any) -> None:
    assert said["linux"]["apparmor"]["enabled"] == (bundles.FACTS["apparmor"]["state"] == "on")
    assert said["linux"]["cgroup"]["v1"] == (bundles.CGROUPS["layout"] in ("v1", "hybrid"))
    assert said["linux"]["cgroup"]["v2"] == (bundles.CGROUPS["layout"] in ("v2", "hybrid"))
    box.process["apparmorProfile"] = "no-such-profile"
    done = box.run()
    assert done.status == 1 and "no-such-profile" in done.err


@pytest.mark.skipif(not Path("/proc/self/numa_maps").exists(), reason="a kernel without NUMA")
def test_memory_policies_that_features_name(box: Box, said: Any) -> None:
    """Each is known; the kernel refuses the ones that it has not, with the call's name."""
    flags = said["linux"]["memoryPolicy"]["flags"]
    for mode in said["linux"]["memoryPolicy"]["modes"]:
        box.linux["memoryPolicy"] = {"mode": mode, **({} if mode in ("MPOL_DEFAULT", "MPOL_LOCAL") else {"nodes": "0"})}
        done = box.sh("true").run()
        assert done.status == 0 or "set_mempolicy: invalid argument" in done.err, done
    for flag in flags:
        box.linux["memoryPolicy"] = {"mode": "MPOL_BIND", "nodes": "0", "flags": [flag]}
        assert box.sh("true").run().status == 0, flag


# ── spec ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("how", ["here", "--bundle"])
def test_what_spec_writes_runs(either: Box, how: str) -> None:
    """Root's: read-only, with few capabilities, no new privileges, no devices, namespaces of its own."""
    words = ["spec", "--bundle", str(either.bundle)] if how == "--bundle" else ["spec"]
    if either.runtime != bundles.words():
        words = ["spec"]  # crun of Debian 12 writes where it is
    done = either.call(*words, cwd=either.bundle)
    assert (done.status, done.out, done.err) == (0, "", "")
    either.config = json.loads((either.bundle / "config.json").read_text())
    assert either.process["terminal"] and either.process["args"] == ["sh"]
    either.process["terminal"] = False
    either.process["env"] = ["PATH=/bin"]
    either.linux["cgroupsPath"] = f"/{either.id}"
    script = "touch /x 2>&1; ulimit -n; grep CapBnd /proc/self/status; head -c 1 /proc/kcore | wc -c; uname -n; exec sleep 1000"
    pid = either.sh(script).started()
    assert bundles.eventually(lambda: len(either.output.read_text().splitlines()) == 5)
    refused, files, bounding, masked, name = either.output.read_text().splitlines()
    assert "Read-only file system" in refused and not (either.rootfs / "x").exists()
    assert (files, int(bounding.split()[1], 16), masked) == ("1024", 1 << 5 | 1 << 10 | 1 << 29, "0")
    assert name == either.config["hostname"]
    status = proc_status(pid)
    assert (status["NoNewPrivs"], int(status["CapBnd"], 16)) == ("1", 1 << 5 | 1 << 10 | 1 << 29)
    for kind in ("pid", "net", "ipc", "uts", "mnt"):
        assert os.readlink(f"/proc/{pid}/ns/{kind}") != os.readlink(f"/proc/self/ns/{kind}")


def test_spec_leaves_a_configuration_alone(either: Box) -> None:
    (either.bundle / "config.json").write_text("mine")
    done = either.call("spec", cwd=either.bundle)
    assert done.status == 1 and "config.json" in done.err and "exist" in done.err
    assert (either.bundle / "config.json").read_text() == "mine"
    assert sorted(os.listdir(either.bundle)) == ["config.json", "rootfs"]


# ── completion ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_bash_completes_the_ids_of_containers(box: Box) -> None:
    other = box.another()
    box.started()
    other.created()
    (box.folder / "commands").mkdir()
    command = box.folder / "commands/rundlet"
    command.write_text("#!/bin/sh\nexec " + " ".join(f"'{word}'" for word in box.runtime) + ' "$@"\n')
    command.chmod(0o755)
    script = f'PATH={command.parent}:$PATH; eval "$(rundlet completion bash)"\n' + (
        'COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _rundlet; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    for verb in ("state", "delete", "kill", "exec"):
        words = ["rundlet", "--root", str(box.root), verb, box.id.rpartition("-")[0]]
        done = subprocess.run(["bash", "-c", script, "bash", *words], capture_output=True, text=True, check=True)
        assert (sorted(done.stdout.split()), done.stderr) == (sorted([box.id, other.id]), "")
    for shell in cliref.SHELLS:
        assert "rundlet" in box.ok("completion", shell).out
    pid = box.pid
    box.ok("kill", box.id, "KILL")
    assert status_of(pid) == 137
