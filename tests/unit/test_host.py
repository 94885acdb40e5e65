"""The host's facts: those of this machine, and AppArmor's from trees of files as its kernels show them."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from rundlet import host
from rundlet.errors import Refused

RELEASES = {"lsm": "6.12.95+deb12-amd64", "scoped": "6.1.0-45-amd64", "legacy": "5.4.0-216-generic"}


class Tree:
    """A made-up /proc and /sys, of real files."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("proc/thread-self", "security", "module"):
            (root / name).mkdir(parents=True)

    def put(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def on(self, label: str = "unconfined\n", scoped: bool = True) -> None:
        self.put("module/apparmor/parameters/enabled", "Y\n")
        self.put(f"proc/thread-self/attr/{'apparmor/' if scoped else ''}current", label)

    def securityfs(self, profiles: str) -> None:
        self.put("security/apparmor/profiles", profiles)
        self.put("security/apparmor/.ns_name", "root\n")
        self.put("security/apparmor/features/domain/stack", "yes\n")
        self.put("security/apparmor/features/domain/post_nnp_subset", "yes\n")


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    made = Tree(tmp_path)
    monkeypatch.setattr(host, "PROC", str(tmp_path / "proc"))
    monkeypatch.setattr(host, "SECURITY", str(tmp_path / "security"))
    monkeypatch.setattr(host, "MODULES", str(tmp_path / "module"))
    return made


# ------------------------------------------------------------------------------------------------------------- this machine


def test_the_facts_of_this_machine() -> None:
    facts = host.facts(everything=True)
    assert facts["kernel"] == os.uname().release
    assert facts["arch"] == os.uname().machine
    assert (facts["uid"], facts["gid"]) == (os.geteuid(), os.getegid())
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    assert facts["nnp"] == (status["NoNewPrivs"].strip() == "1")
    assert facts["seccomp"] == int(status["Seccomp"])
    assert len(facts["caps"]["effective"]) == int(status["CapEff"], 16).bit_count()
    assert len(facts["caps"]["bounding"]) == int(status["CapBnd"], 16).bit_count()
    assert json.loads(json.dumps(facts)) == facts
    enabled = Path("/sys/module/apparmor/parameters/enabled")
    assert facts["apparmor"]["state"] == ("absent" if not enabled.exists() else "on" if enabled.read_text() == "Y\n" else "off")


def test_no_new_privs_is_that_of_the_calling_thread() -> None:
    code = "from rundlet import host; import sys; sys.exit(40 + host.facts()['nnp'])"
    inherits = ["setpriv", "--no-new-privs"]
    for prefix, status in (([], 40), (inherits, 41)):
        done = subprocess.run([*prefix, sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
        assert done.returncode == status + (1 if not prefix and host.facts()["nnp"] else 0)


def test_a_user_namespace_is_told_from_the_hosts() -> None:
    code = "from rundlet import host; import sys; sys.exit(40 + host.facts()['user_namespace'])"
    own = host.facts()["user_namespace"]
    assert own == (os.readlink("/proc/self/ns/user") != host.INITIAL)
    if own or os.geteuid():
        return
    done = subprocess.run(["unshare", "--user", sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    assert done.returncode == 41


def test_facts_may_be_read_from_any_thread() -> None:
    found = []
    thread = threading.Thread(target=lambda: found.append(host.facts()))
    thread.start()
    thread.join()
    assert found == [host.facts()]


@pytest.mark.parametrize(("status", "why"), [(None, "ENOENT; mount a procfs on /proc"), ("", "not that of the runtime's PID namespace")])
def test_without_a_procfs_nothing_can_be_told(tree: Tree, status: str | None, why: str) -> None:
    if status is not None:
        tree.put("proc/thread-self/status", status)
    with pytest.raises(Refused, match=why):
        host.facts()


@pytest.mark.skipif(bool(os.geteuid()), reason="a PID namespace needs root")
def test_the_proc_of_another_pid_namespace_is_refused() -> None:
    """What is in the folder of a pid there is of another process."""
    code = "from rundlet import host; print(host.facts()['uid'])"
    words = [sys.executable, "-c", code]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    for more, status, says in ((["--mount-proc"], 0, ""), ([], 1, "which is 1; mount a procfs there")):
        done = subprocess.run(["unshare", "--pid", "--fork", *more, *words], env=environment, capture_output=True, text=True)
        assert done.returncode == status
        assert says in done.stderr


# ------------------------------------------------------------------------------------------------------------------ AppArmor


def test_absent(tree: Tree) -> None:
    found = host.apparmor(RELEASES["lsm"], None, True)
    assert (found["state"], found["label"], found["components"], found["loaded"]) == ("absent", None, [], None)


def test_off(tree: Tree) -> None:
    tree.put("module/apparmor/parameters/enabled", "N\n")
    assert host.apparmor(RELEASES["lsm"], ["apparmor"], True)["state"] == "off"


@pytest.mark.parametrize("text", ["", "y\n", "YES\n", "1\n"])
def test_an_unknown_switch_is_an_error(tree: Tree, text: str) -> None:
    tree.put("module/apparmor/parameters/enabled", text)
    with pytest.raises(Refused, match="cannot tell whether AppArmor is on.*neither Y nor N"):
        host.apparmor(RELEASES["lsm"], None, False)


def test_an_unreadable_switch_is_an_error(tree: Tree) -> None:
    (tree.root / "module/apparmor/parameters/enabled").mkdir(parents=True)  # EISDIR: permissions do not keep root from reading
    with pytest.raises(Refused, match="cannot tell whether AppArmor is on: .*: EISDIR"):
        host.apparmor(RELEASES["lsm"], None, False)


def test_no_sysfs_is_an_error(tree: Tree) -> None:
    (tree.root / "module").rmdir()
    with pytest.raises(Refused, match="mount sysfs"):
        host.apparmor(RELEASES["lsm"], None, False)


def test_what_hides_the_switch_is_an_error(tree: Tree) -> None:
    tree.put("proc/thread-self/attr/apparmor/current", "unconfined\n")
    with pytest.raises(Refused, match="the kernel has it, but .*/apparmor does not exist; mount sysfs"):
        host.apparmor(RELEASES["lsm"], None, False)


def test_unconfined(tree: Tree) -> None:
    tree.on()
    found = host.apparmor(RELEASES["lsm"], ["capability", "apparmor"], False)
    assert (found["label"], found["mode"]) == ("unconfined", None)
    assert found["components"] == [{"name": "unconfined", "mode": "unconfined"}]
    assert (found["namespace"], found["loaded"]) == (None, None)
    assert (found["restrict_unconfined"], found["restrict_userns"]) == (None, None)
    assert found["stack"]  # no securityfs, but the scoped files are younger than stacking


@pytest.mark.parametrize(
    ("label", "modes"),
    [
        ("rt (enforce)\n", {"rt": "enforce"}),
        ("rt (complain)\n", {"rt": "complain"}),
        ("rt-free (unconfined)\n", {"rt-free": "unconfined"}),
        ("rt-free (-)\n", {"rt-free": "unconfined"}),
        ("sp ace (x) (kill)\n", {"sp ace (x)": "kill"}),
        ("rt//&rt-free (enforce)\n", {"rt": "enforce", "rt-free": "unconfined"}),
        ("rt//&web (mixed)\n", {"rt": "enforce", "web": "complain"}),
        ("rt//&unconfined (enforce)\n", {"rt": "enforce", "unconfined": "unconfined"}),
        ("rt//&:box:web//&other (mixed)\n", {"rt": "enforce", ":box:web": "enforce", ":box:other": "unknown"}),
        ("rt//&removed (mixed)\n", {"rt": "enforce", "removed": "unknown"}),
        ("unconfined (enforce)\n", {"unconfined": "enforce"}),
    ],
)
def test_the_mode_of_each_profile(tree: Tree, label: str, modes: dict[str, str]) -> None:
    tree.on(label)
    tree.securityfs("web (complain)\nrt-free (unconfined)\nrt (enforce)\n:box://web (enforce)\n")
    found = host.apparmor(RELEASES["lsm"], None, False)
    assert {part["name"]: part["mode"] for part in found["components"]} == modes
    assert found["loaded"] is None  # not asked for


@pytest.mark.parametrize(
    ("label", "mode"), [("unconfined\n", "unconfined"), ("unconfined (complain)\n", "complain"), ("rt//&unconfined (mixed)\n", "complain")]
)
def test_a_profile_may_be_called_unconfined(tree: Tree, label: str, mode: str) -> None:
    tree.on(label)
    tree.securityfs("rt (enforce)\nunconfined (complain)\n")
    found = host.apparmor(RELEASES["lsm"], None, True)
    assert found["components"][-1] == {"name": "unconfined", "mode": mode}


def test_modes_of_a_stack_are_unknown_without_the_list(tree: Tree) -> None:
    tree.on("rt//&web (enforce)\n")
    found = host.apparmor(RELEASES["lsm"], None, True)
    assert [part["mode"] for part in found["components"]] == ["unknown", "unknown"]
    assert found["loaded"] is None


@pytest.mark.parametrize("label", ["unconfined\n", "rt (complain)\n", "rt (enforce)\n", "rt (kill)\n"])
def test_rules_that_cannot_be_asked_for_are_unknown(tree: Tree, label: str) -> None:
    """There is no `.access` here; what complains or is unconfined needs no rule."""
    tree.on(label)
    tree.securityfs("web (enforce)\n")
    assert host.apparmor(RELEASES["lsm"], None, True, "web", everything=True)["lacking"] is None


def test_what_is_loaded(tree: Tree) -> None:
    tree.on()
    tree.securityfs("sp ace (x) (complain)\nweb//hat (enforce)\n:box://web (enforce)\n:box:other (kill)\n")
    found = host.apparmor(RELEASES["lsm"], None, True)
    assert found["loaded"] == ["sp ace (x)", "web//hat", ":box:web", ":box:other"]
    assert (found["namespace"], found["stack"], found["post_nnp_subset"]) == ("root", True, True)


def test_a_kernel_that_cannot_stack(tree: Tree) -> None:
    tree.on()
    tree.securityfs("")
    tree.put("security/apparmor/features/domain/stack", "no\n")
    assert not host.apparmor(RELEASES["lsm"], None, False)["stack"]


@pytest.mark.parametrize(("text", "value"), [("0\n", False), ("1\n", True)])
def test_the_two_switches(tree: Tree, text: str, value: bool) -> None:
    tree.on()
    tree.put("proc/sys/kernel/apparmor_restrict_unprivileged_unconfined", text)
    tree.put("proc/sys/kernel/apparmor_restrict_unprivileged_userns", text)
    found = host.apparmor(RELEASES["lsm"], None, False)
    assert (found["restrict_unconfined"], found["restrict_userns"]) == (value, value)


@pytest.mark.parametrize(
    ("release", "scoped", "interface"),
    [
        ("6.12.95+deb12-amd64", True, "lsm"), ("6.8.0", True, "lsm"), ("6.8-rc1", True, "lsm"), ("7.0", True, "lsm"),
        ("10.2.1", True, "lsm"), ("6.7.12", True, "scoped"), ("6.1.0-45-amd64", True, "scoped"), ("5.4.0-216-generic", False, "legacy"),
    ],
)
def test_the_interface(tree: Tree, release: str, scoped: bool, interface: str) -> None:
    tree.on("rt (enforce)\n", scoped)
    found = host.apparmor(release, ["apparmor"], False)
    assert (found["interface"], found["label"]) == (interface, "rt")


def test_the_old_files_are_read_only_where_apparmor_owns_them(tree: Tree) -> None:
    tree.on("system_u:system_r:init_t:s0", scoped=False)
    with pytest.raises(Refused, match=r"attr belongs to another of capability,selinux"):
        host.apparmor(RELEASES["legacy"], ["capability", "selinux"], False)


def test_the_scoped_files_come_first(tree: Tree) -> None:
    tree.on("rt (enforce)\n")
    tree.put("proc/thread-self/attr/current", "fake (enforce)\n")
    assert host.apparmor(RELEASES["scoped"], None, False)["label"] == "rt"


def test_the_label_of_another_process(tree: Tree) -> None:
    tree.on()
    tree.put("proc/77/attr/apparmor/current", "rt//&web (mixed)\n")
    assert host.label_of(77) == ("rt//&web", "mixed")
    with pytest.raises(Refused, match=r"^read from `.*/78/attr/apparmor/current`: ENOENT; "):
        host.label_of(78)


def test_names_of_capabilities() -> None:
    assert host._names("0") == []
    assert host._names("0000000000000021") == ["CAP_CHOWN", "CAP_KILL"]
    assert host._names("20000000000") == ["CAP_41"]
