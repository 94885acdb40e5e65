"""How processes are scheduled, where their memory comes from, which kernel they believe to run on: seen from outside by the tools of the host."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.bundles import CAPABLE, CGROUPS, Box, children, eventually, user_namespace

NICE = pytest.mark.skipif("CAP_SYS_NICE" not in CAPABLE, reason="the runtime lacks CAP_SYS_NICE")
SMP = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one CPU only")
RELEASE = tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2])
NUMA = pytest.mark.skipif(not Path("/proc/self/numa_maps").exists(), reason="a kernel without NUMA")
WEIGHTED = pytest.mark.skipif(RELEASE < (6, 9), reason="a kernel without MPOL_WEIGHTED_INTERLEAVE")
FIRST, SECOND = (sorted(os.sched_getaffinity(0)) * 2)[:2]


def scheduling(pid: int | str) -> list[str]:
    """chrt(1): policy and flags, priority, and the three times of SCHED_DEADLINE."""
    out = subprocess.run(["chrt", "-p", str(pid)], capture_output=True, text=True, check=True).stdout
    return [line.rpartition(": ")[2] for line in out.splitlines()]


def io_priority(pid: int | str) -> str:
    return subprocess.run(["ionice", "-p", str(pid)], capture_output=True, text=True, check=True).stdout.strip()


def told(box: Box, script: str) -> tuple[int, str]:
    """The first process's pid, and what a script of it says before it goes on."""
    pid = box.sh(f"{script}; echo; echo end; exec sleep 1000").started()
    assert eventually(lambda: box.output.read_text().endswith("end\n"))
    return pid, box.output.read_text().rpartition("\nend")[0].strip()


def cpus(pid: int | str) -> set[int]:
    return os.sched_getaffinity(int(pid))


def executed(box: Box, process: dict[str, Any] | None = None, *options: str, **how: Any) -> int:
    """One more process in the container, by words or by a file; its pid."""
    pid_file = box.folder / "exec.pid"
    words = ["--detach", "--pid-file", str(pid_file), *options, "--"]
    if process is None:
        words += ["sleep", "1000"]
    else:
        file = box.folder / "process.json"
        file.write_text(json.dumps({"args": ["/bin/sleep", "1000"], "cwd": "/", **process}))
        words[:0] = ["--process", str(file)]
    done = box.exec(*words, **how)
    assert (done.status, done.err) == (0, ""), done
    return int(pid_file.read_text())


class TestScheduler:
    """sched_setattr(2)."""

    @pytest.mark.parametrize("policy", ["SCHED_OTHER", "SCHED_BATCH", "SCHED_IDLE"])
    def test_policies_for_everybody(self, box: Box, policy: str) -> None:
        box.process["scheduler"] = {"policy": policy, "nice": 7}
        pid, stat = told(box, "cat /proc/self/stat")
        assert scheduling(pid)[:2] == [policy, "0"]
        # nice and policy, as proc_pid_stat(5) counts them
        fields = stat.rpartition(")")[2].split()
        assert (fields[16], fields[38]) == ("0" if policy == "SCHED_IDLE" else "7", str(getattr(os, policy)))
        assert os.getpriority(os.PRIO_PROCESS, pid) == (0 if policy == "SCHED_IDLE" else 7)  # sched(7)

    @NICE
    @pytest.mark.parametrize("policy", ["SCHED_FIFO", "SCHED_RR"])
    def test_policies_of_real_time(self, box: Box, policy: str) -> None:
        box.process["scheduler"] = {"policy": policy, "priority": 3}
        box.linux["cgroupsPath"] = f"/{box.id}"
        if CGROUPS["mounts"].get("cpu") and Path(CGROUPS["mounts"]["cpu"], "cpu.rt_runtime_us").exists():
            box.linux["resources"] = {"cpu": {"realtimePeriod": 1000000, "realtimeRuntime": 10000}}
        assert scheduling(box.started())[:2] == [policy, "3"]

    @NICE
    def test_deadline_and_flags(self, box: Box) -> None:
        box.process["scheduler"] = {
            "policy": "SCHED_DEADLINE", "flags": ["SCHED_FLAG_RESET_ON_FORK"], "nice": 19, "runtime": 42000, "deadline": 100000, "period": 1000000,
        }
        assert scheduling(box.started())[:3] == ["SCHED_DEADLINE|SCHED_RESET_ON_FORK", "0", "42000/100000/1000000"]

    @NICE
    def test_a_negative_nice(self, box: Box) -> None:
        box.process["scheduler"] = {"policy": "SCHED_OTHER", "nice": -5}
        assert os.getpriority(os.PRIO_PROCESS, box.started()) == -5

    @NICE
    @pytest.mark.parametrize("policy", ["SCHED_DEADLINE", "SCHED_OTHER"])
    def test_in_a_user_namespace(self, box: Box, policy: str) -> None:
        """Where nobody has the right to: it is done from outside, for create and for exec."""
        user_namespace(box.config)
        os.chown(box.rootfs, 100000, 100000)
        times = {"runtime": 42000, "deadline": 100000, "period": 1000000} if policy == "SCHED_DEADLINE" else {"nice": -3}
        box.process["scheduler"] = {"policy": policy, **times}
        box.process["ioPriority"] = {"class": "IOPRIO_CLASS_RT", "priority": 2}
        for pid in (box.started(), executed(box)):
            assert scheduling(pid)[0] == policy
            assert io_priority(pid) == "realtime: prio 2"
            if policy == "SCHED_OTHER":
                assert os.getpriority(os.PRIO_PROCESS, pid) == -3

    def test_exec_by_words_is_scheduled_as_the_container(self, box: Box) -> None:
        box.process["scheduler"] = {"policy": "SCHED_BATCH", "nice": 19}
        box.started()
        pid = executed(box)
        assert scheduling(pid)[0] == "SCHED_BATCH"
        assert os.getpriority(os.PRIO_PROCESS, pid) == 19

    @NICE
    def test_exec_by_a_file_says_it_for_itself(self, box: Box) -> None:
        box.process["scheduler"] = {"policy": "SCHED_BATCH", "nice": 19}
        box.started()
        assert scheduling(executed(box, {}))[0] == "SCHED_OTHER"
        asked = {"policy": "SCHED_DEADLINE", "flags": ["SCHED_FLAG_RESET_ON_FORK"], "runtime": 42000, "deadline": 100000, "period": 1000000}
        assert scheduling(executed(box, {"scheduler": asked}))[0] == "SCHED_DEADLINE|SCHED_RESET_ON_FORK"

    def test_a_policy_that_no_kernel_has(self, box: Box) -> None:
        box.process["scheduler"] = {"policy": "SCHED_ISO"}
        done = box.run("--detach")
        assert done.status == 1
        assert "set the scheduler to SCHED_ISO: sched_setattr: invalid argument; no kernel has it" in done.err
        assert box.left() == []

    @pytest.mark.elsewhere
    @SMP
    @NICE
    @pytest.mark.skipif("cpuset" not in CGROUPS["mounts"] and CGROUPS["layout"] != "v2", reason="no cpusets here")
    def test_deadline_on_some_cpus_only(self, box: Box) -> None:
        box.linux["resources"] = {"cpu": {"cpus": str(FIRST), "mems": "0"}}
        box.process["scheduler"] = {"policy": "SCHED_DEADLINE", "runtime": 42000, "deadline": 1000000, "period": 1000000}
        done = box.run("--detach")
        assert done.status == 1
        assert "process scheduler can't be used together with AllowedCPUs" in done.err
        assert box.left() == []


class TestIoPriority:
    """ioprio_set(2)."""

    @pytest.mark.parametrize(
        ("asked", "shown"),
        [
            ({"class": "IOPRIO_CLASS_BE", "priority": 5}, "best-effort: prio 5"),
            ({"class": "IOPRIO_CLASS_IDLE", "priority": 0}, "idle"),
            pytest.param({"class": "IOPRIO_CLASS_RT", "priority": 1}, "realtime: prio 1", marks=NICE),
        ],
    )
    def test_classes(self, box: Box, asked: dict[str, Any], shown: str) -> None:
        box.process["ioPriority"] = asked
        pid, said = told(box, "ionice -p $$")
        assert io_priority(pid) == said == shown
        assert io_priority(executed(box)) == shown

    def test_exec_by_a_file(self, box: Box) -> None:
        box.started()
        assert io_priority(executed(box, {"ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 6}})) == "best-effort: prio 6"


@pytest.mark.elsewhere
@SMP
class TestAffinity:
    """sched_setaffinity(2): execCPUAffinity, and what the caller was pinned to."""

    def pinned(self) -> None:
        os.sched_setaffinity(0, {FIRST})

    def test_the_callers_affinity_is_not_the_containers(self, box: Box) -> None:
        box.save()
        assert box.call("run", "--detach", "--bundle", str(box.bundle), box.id, preexec_fn=self.pinned).status == 0
        assert cpus(box.pid) == os.sched_getaffinity(0)
        assert cpus(executed(box, preexec_fn=self.pinned)) == os.sched_getaffinity(0)

    @pytest.mark.skipif("cpuset" not in CGROUPS["mounts"] and CGROUPS["layout"] != "v2", reason="no cpusets here")
    def test_the_cgroups_cpus(self, box: Box) -> None:
        box.linux["resources"] = {"cpu": {"cpus": str(SECOND), "mems": "0"}}
        box.save()
        assert box.call("run", "--detach", "--bundle", str(box.bundle), box.id, preexec_fn=self.pinned).status == 0
        assert cpus(box.pid) == {SECOND}
        assert cpus(executed(box, preexec_fn=self.pinned)) == {SECOND}

    @pytest.mark.parametrize("text", [f"{SECOND}", f"{FIRST},{SECOND}", f"{FIRST}-{SECOND}"])
    def test_final(self, box: Box, text: str) -> None:
        box.started()
        wanted = {int(word) for word in text.replace("-", ",").split(",")}
        asked = {"execCPUAffinity": {"initial": str(FIRST), "final": text}}
        assert cpus(executed(box, asked)) == wanted
        file = box.folder / "process.json"
        file.write_text(json.dumps({"args": ["/bin/nproc"], "cwd": "/", **asked}))
        assert box.exec("--process", str(file), "--").out == f"{len(wanted)}\n"

    @pytest.mark.skipif(CGROUPS["layout"] == "none", reason="no freezer here")
    def test_initial_holds_until_it_is_in_the_cgroup(self, box: Box) -> None:
        """Seen where it has to wait there: the container is paused."""
        box.process["execCPUAffinity"] = {"initial": str(FIRST), "final": str(SECOND)}
        pid = box.started()
        box.ok("pause", box.id)
        words = box.words("exec", "--ignore-paused", box.id, "taskset", "-p", "1")
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as child:
            procs = box.cgroups()[0] / "cgroup.procs"
            assert eventually(lambda: len(procs.read_text().split()) == 2)
            [waits] = {*procs.read_text().split()} - {str(pid)}
            assert cpus(waits) == {FIRST}
            box.ok("resume", box.id)
            assert child.wait() == 0
        assert cpus(pid) == os.sched_getaffinity(0)

    def test_without_final_the_cgroup_decides(self, box: Box) -> None:
        box.started()
        assert cpus(executed(box, {"execCPUAffinity": {"initial": str(FIRST)}})) == os.sched_getaffinity(0)

    def test_from_the_containers_configuration(self, box: Box) -> None:
        box.process["execCPUAffinity"] = {"initial": str(FIRST), "final": str(SECOND)}
        assert cpus(box.started()) == os.sched_getaffinity(0)  # it is for exec
        assert cpus(executed(box)) == {SECOND}
        assert cpus(executed(box, {})) == {SECOND}

    @pytest.mark.parametrize("when", ["initial", "final"])
    def test_cpus_that_are_not_there(self, box: Box, when: str) -> None:
        box.process["execCPUAffinity"] = {when: "8000"}
        pid = box.started()
        done = box.exec("true")
        assert done.status == 255
        assert "run on the CPUs 8000" in done.err
        assert f"/process/execCPUAffinity/{when}" in done.err
        assert children() == [pid]


class TestPersonality:
    """personality(2)."""

    @pytest.mark.parametrize(("domain", "shown"), [("LINUX", "00000000"), ("LINUX32", "00000008")])
    def test_domains(self, box: Box, domain: str, shown: str) -> None:
        box.linux["personality"] = {"domain": domain}
        first, said = told(box, "uname -m")
        for pid in (first, executed(box)):
            assert Path(f"/proc/{pid}/personality").read_text().strip() == shown
        machine = {("x86_64", "LINUX32"): "i686", ("aarch64", "LINUX32"): "armv8l"}.get((os.uname().machine, domain), os.uname().machine)
        assert (said, box.exec("uname", "-m").out) == (machine, f"{machine}\n")

    @pytest.mark.skipif(os.uname().machine != "x86_64", reason="the name of 32 bits is x86's")
    def test_the_machine_has_another_name(self, box: Box) -> None:
        box.linux["personality"] = {"domain": "LINUX32", "flags": []}
        assert box.says("uname -m") == "i686\n"

    @pytest.mark.parametrize("nnp", [True, False])
    def test_a_filter_that_refuses_the_call(self, box: Box, nnp: bool) -> None:
        box.process["noNewPrivileges"] = nnp
        box.linux["personality"] = {"domain": "LINUX32"}
        box.linux["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["personality"], "action": "SCMP_ACT_ERRNO"}]}
        pid = box.started()
        assert Path(f"/proc/{pid}/personality").read_text().strip() == "00000008"

    def test_flags_are_warned_about(self, box: Box) -> None:
        box.linux["personality"] = {"domain": "LINUX", "flags": ["ADDR_NO_RANDOMIZE"]}
        box.save()
        log = box.folder / "log"
        assert box.call("--log", str(log), "run", "--detach", "--bundle", str(box.bundle), box.id).status == 0
        assert "/linux/personality/flags" in log.read_text()


@NUMA
class TestMemoryPolicy:
    """set_mempolicy(2), as /proc/self/numa_maps tells it."""

    FIRST_LINE = "head -n 1 /proc/self/numa_maps | cut -d ' ' -f 2"

    @pytest.mark.parametrize(
        ("policy", "shown"),
        [
            ({"mode": "MPOL_DEFAULT"}, "default"),
            ({"mode": "MPOL_LOCAL"}, "local"),
            ({"mode": "MPOL_INTERLEAVE", "nodes": "0"}, "interleave:0"),
            ({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}, "bind=static:0"),
            ({"mode": "MPOL_PREFERRED", "nodes": "0", "flags": ["MPOL_F_RELATIVE_NODES"]}, "prefer=relative:0"),
            ({"mode": "MPOL_PREFERRED_MANY", "nodes": "0"}, "prefer (many):0"),
            ({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_NUMA_BALANCING"]}, "bind=balancing:0"),
            pytest.param({"mode": "MPOL_WEIGHTED_INTERLEAVE", "nodes": "0"}, "weighted interleave:0", marks=WEIGHTED),
        ],
    )
    def test_modes(self, box: Box, policy: dict[str, Any], shown: str) -> None:
        box.linux["memoryPolicy"] = policy
        pid, said = told(box, self.FIRST_LINE)
        assert said == shown.partition(" ")[0]
        assert Path(f"/proc/{pid}/numa_maps").read_text().splitlines()[0].split(" ", 1)[1].startswith(shown)
        assert box.exec("sh", "-c", self.FIRST_LINE).out == f"{said}\n"

    def test_of_the_first_process(self, box: Box) -> None:
        box.linux["memoryPolicy"] = {"mode": "MPOL_INTERLEAVE", "nodes": "0"}
        assert box.says(self.FIRST_LINE) == "interleave:0\n"

    @pytest.mark.parametrize(
        "policy",
        [
            {"mode": "MPOL_BIND", "nodes": "1000"},
            {"mode": "MPOL_DEFAULT", "nodes": "0-7", "flags": ["MPOL_F_NUMA_BALANCING", "MPOL_F_STATIC_NODES", "MPOL_F_RELATIVE_NODES"]},
        ],
    )
    def test_what_the_kernel_refuses(self, box: Box, policy: dict[str, Any]) -> None:
        box.linux["memoryPolicy"] = policy
        done = box.run("--detach")
        assert done.status == 1
        assert "set_mempolicy: invalid argument" in done.err
        assert box.left() == []

    @pytest.mark.parametrize(
        ("policy", "where"),
        [
            ({"mode": "INTERLEAVE", "nodes": "0"}, "/linux/memoryPolicy/mode"),
            ({"nodes": "0-7"}, "/linux/memoryPolicy/mode"),
            ({"mode": "MPOL_PREFERRED", "nodes": "0", "flags": ["badflag"]}, "/linux/memoryPolicy/flags/0"),
            ({"mode": "MPOL_BIND", "nodes": "0-9876543210"}, "/linux/memoryPolicy/nodes"),
        ],
    )
    def test_what_is_malformed(self, box: Box, policy: dict[str, Any], where: str) -> None:
        box.linux["memoryPolicy"] = policy
        done = box.run()
        assert done.status == 1
        assert done.err.startswith(f"rundlet: {where}: ")
