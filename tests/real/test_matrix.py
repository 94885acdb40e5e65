"""The matrix on this machine, of rundlet and its peers: cells that are known beforehand, and nothing left of it anywhere."""

import json
import os
import shlex
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rundlet.confine.matrix.engine import PLACES
from tests import bundles
from tests.bundles import CAPABLE, FACTS, Box, Done

MARK = "rundlet-matrix"
CONFIG = """
settings = [
  "bundle", "open", "nnp=config", "nnp=inherited", "seccomp=default", "capabilities=none", "root=ro", "user=mapped", "user=rootless", "strict",
  "profile=given", "confinement=enforce nnp=config",
]
timeout = 120
[[probe]]
name = "no such program"
command = ["rundlet-none"]
[[probe]]
name = "false"
command = ["false"]
expected = 1
"""
RAN = ("bundle", "open", "nnp=config", "nnp=inherited", "seccomp=default", "capabilities=none", "root=ro", "user=mapped", "strict")
OFF = FACTS["apparmor"]["state"] != "on"
NEEDED = {"CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETUID", "CAP_CHOWN", "CAP_DAC_READ_SEARCH", "CAP_SYSLOG"}
pytestmark = [
    pytest.mark.skipif(not OFF, reason="this is about a machine without AppArmor; tests/lab has one with it"),
    pytest.mark.skipif(not any(Path(place).exists() for place in PLACES), reason="no engine's seccomp profile here"),
    pytest.mark.skipif(not NEEDED <= CAPABLE, reason=f"not capable of {', '.join(sorted(NEEDED - CAPABLE))}"),
]

# setting, probe: what it is, with every runtime
KNOWN = {
    ("open", "mount"): "allowed",
    ("open", "set-uid exec"): "allowed",
    ("open", "file capability"): "allowed",
    ("open", "reboot"): "allowed",
    ("open", "bpf"): "allowed",
    ("open", "open by handle"): "allowed",
    ("open", "signal an exec'd peer"): "allowed",
    ("open", "masked path"): ["mount"],
    ("open", "write /proc/sys"): ["mount"],
    ("open", "open a device"): ["devices"],
    ("nnp=config", "set-uid exec"): ["nnp"],
    ("nnp=config", "file capability"): ["nnp"],
    ("nnp=config", "mount"): "allowed",
    ("nnp=inherited", "set-uid exec"): ["nnp"],
    ("nnp=inherited", "set user id"): "allowed",
    ("seccomp=default", "bpf"): ["seccomp"],
    ("seccomp=default", "open by handle"): ["seccomp"],
    ("seccomp=default", "set-uid exec"): "allowed",
    ("capabilities=none", "mount"): ["capability"],
    ("capabilities=none", "raw socket"): ["capability"],
    ("capabilities=none", "low port"): ["capability"],
    ("capabilities=none", "chown"): ["capability"],
    ("capabilities=none", "mknod"): ["capability"],
    ("capabilities=none", "reboot"): ["capability"],
    ("capabilities=none", "set-uid exec"): "allowed",
    ("capabilities=none", "signal a sibling"): "allowed",
    ("capabilities=none", "read another's file"): [["capability"], ["dac"]],
    ("root=ro", "write to the root"): ["mount"],
    ("root=ro", "mount"): "allowed",
    ("user=mapped", "mknod"): ["namespace"],
    ("user=mapped", "bpf"): ["namespace"],
    ("user=mapped", "open by handle"): ["namespace"],
    ("user=mapped", "mount"): "allowed",
    ("user=mapped", "set-uid exec"): "allowed",
    ("user=mapped", "file capability"): "allowed",
    ("user=mapped", "reboot"): "allowed",
    ("bundle", "set-uid exec"): ["nnp"],
    ("bundle", "bpf"): [["seccomp", "capability"]],
    ("bundle", "mount"): ["capability"],
    ("strict", "set-uid exec"): ["nnp"],
    ("strict", "bpf"): [["seccomp", "capability", "namespace"]],
    **{(setting, "workload"): "allowed" for setting in RAN},
    **{(setting, "false"): "allowed" for setting in RAN},
    **{(setting, "no such program"): "absent" for setting in RAN},
}
ROOTLESS = {
    "set user id": ["namespace"], "chown": ["namespace"], "set-uid exec": ["namespace"], "mount": "allowed", "read another's file": [["dac"], ["namespace"]],
    "open a device": "allowed", "workload": "allowed",
}  # fmt: skip


STARTED: set[str] = set()  # what the names of containers begin with, of each matrix that was started here


def begun(folder: Path, *words: str, **how: Any) -> "subprocess.Popen[str]":
    """The command, everything that it makes being in the folder."""
    env = {**os.environ, "TMPDIR": str(folder / "made")}
    process = subprocess.Popen([*bundles.words(), "matrix", *words], stdin=subprocess.DEVNULL, env=env, cwd=folder, text=True, **how)
    STARTED.add(f"{MARK}-{process.pid}-")
    return process


def matrix(folder: Path, *words: str) -> Done:
    """The command, to its end."""
    with open(folder / "out", "w+") as out, open(folder / "err", "w+") as err:
        status = begun(folder, *words, stdout=out, stderr=err).wait()
        out.seek(0)
        err.seek(0)
        return Done(status, out.read(), err.read())


def left(folder: Path) -> list[str]:
    """What there is anywhere of a matrix that was started here; there may be others on this machine."""
    found = [str(path) for path in (folder / "made").iterdir()]
    found += [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(folder) in line]
    for mount in set(bundles.CGROUPS["mounts"].values()):
        # what other tests remove meanwhile is passed over: os.walk()
        found += [f"{at}/{name}" for at, names, _ in os.walk(mount) for name in names if name.startswith(tuple(STARTED))]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            # the probes' files are mounted into each container
            if str(folder) in (process / "cmdline").read_text() + (process / "mountinfo").read_text():
                found.append(f"{process.name}: {(process / 'cmdline').read_text()}")
        except OSError:
            pass  # it has ended
    keys = Path("/proc/keys").read_text().splitlines()
    return found + [line for line in keys if any(name in line for name in STARTED) and not line.split()[1].startswith(("R", "-"))]


def nothing_left(folder: Path) -> bool:
    """After a while: the kernel collects keyrings that nobody has any more when it comes to it (security/keys/gc.c)."""
    def nothing() -> bool:
        bundles.reap()  # what was killed has lost its parent, and holds its keyring until it is reaped
        return not left(folder)

    return bundles.eventually(nothing, 60)


@pytest.fixture(scope="module")
def folder(busybox: Path) -> Iterator[Path]:
    """Where users can come by, which they cannot at pytest's folders."""
    with tempfile.TemporaryDirectory(prefix="test-of-the-matrix-") as name:
        made = Path(name)
        made.chmod(0o755)
        (made / "made").mkdir(mode=0o755)
        (made / "matrix.toml").write_text(CONFIG)
        yield made


@pytest.fixture(scope="module")
def runtimes(folder: Path) -> list[str]:
    """The peers that are here; crun as it has to be called."""
    words = []
    if bundles.crun():
        (folder / "crun").write_text(f'#!/bin/sh\nexec {shlex.join(bundles.crun())} "$@"\n')
        (folder / "crun").chmod(0o755)
        words += ["--runtime", str(folder / "crun")]
    found = subprocess.run(["sh", "-c", "command -v runc"], capture_output=True, text=True).stdout.strip()
    return words + (["--runtime", found] if found else [])


@pytest.fixture(scope="module")
def done(folder: Path, runtimes: list[str]) -> Done:
    """The command, once for all tests."""
    return matrix(folder, "--config", "matrix.toml", *runtimes, "--json", "--html", "page.html", "--", "sh", "-c", "test $$ != 1")


@pytest.fixture(scope="module")
def found(done: Done) -> dict[str, Any]:
    """Its document."""
    assert done.status == 0, done.err
    return json.loads(done.out)  # type: ignore[no-any-return]


def cells(found: dict[str, Any]) -> dict[tuple[str, str, str], dict[str, Any]]:
    return {(cell["runtime"], cell["setting"], cell["probe"]): cell for cell in found["cells"]}


def is_known(cell: dict[str, Any], known: Any) -> None:
    if isinstance(known, str):
        assert cell["is"] == known, cell
        return
    layers = known if isinstance(known[0], list) else [known]
    assert (cell["is"], cell["layers"]) == ("denied", layers), cell


def test_cells_that_are_known(found: dict[str, Any]) -> None:
    seen = cells(found)
    for runtime in (one["name"] for one in found["runtimes"]):
        for (setting, probe), known in KNOWN.items():
            is_known(seen[runtime, setting, probe], known)


@pytest.mark.parametrize("runtime", ["rundlet", "runc"])
def test_without_root(found: dict[str, Any], runtime: str) -> None:
    if runtime not in {one["name"] for one in found["runtimes"]}:
        pytest.skip(f"no {runtime} here")
    seen = cells(found)
    for probe, known in ROOTLESS.items():
        is_known(seen[runtime, "user=rootless", probe], known)


def test_every_cell_is_there_once_and_none_is_guessed(found: dict[str, Any]) -> None:
    names = [[one["name"] for one in found[kind]] for kind in ("runtimes", "settings", "probes")]
    assert len(found["cells"]) == len(cells(found)) == len(names[0]) * len(names[1]) * len(names[2])
    assert len(found["rows"]) == len(names[0]) * len(names[1])
    assert {"rundlet"} <= set(names[0])
    for cell in found["cells"]:
        assert cell["is"] in ("allowed", "denied", "refused", "unknown", "absent")
        assert ("layers" in cell) == (cell["is"] == "denied")
        assert cell["is"] == "denied" or cell["is"] == "allowed" or cell["why"], "the others say why"


def test_what_needs_apparmor_is_not_dropped_silently(found: dict[str, Any]) -> None:
    for row in found["rows"]:
        if row["setting"] in ("profile=given", "confinement=enforce nnp=config"):
            assert (row["status"], row["why"]) == ("absent", "no AppArmor")


def test_the_facts_of_each_row(found: dict[str, Any]) -> None:
    for row in found["rows"]:
        if row["status"] != "ran":
            continue
        facts = row["facts"]
        assert facts["pid"] == 1, row
        assert any(f" {name}" in row["command"] for name in STARTED), "so what is left can be told from others'"
        assert facts["nnp"] == (row["setting"] in ("nnp=config", "nnp=inherited", "bundle", "strict")), row
        assert facts["seccomp"] == ("filter" if row["setting"] in ("seccomp=default", "bundle", "strict") else "none"), row
        assert (facts["capabilities"] == "0x0") == (row["setting"] in ("capabilities=none", "strict")), row
        assert ("--no-new-privs" in row["command"]) == (row["setting"] == "nnp=inherited")
        assert ("--reuid" in row["command"]) == (row["setting"] == "user=rootless")


def test_nothing_is_left(done: Done, folder: Path) -> None:
    assert done.status == 0, done.err
    assert nothing_left(folder), left(folder)


def test_two_at_once(folder: Path) -> None:
    (folder / "twice.toml").write_text('settings = ["bundle", "nnp=config", "user=mapped"]\ntimeout = 120\n')
    both = [begun(folder, "--config", "twice.toml", "--json", stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
    said = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    seen = [cells(json.loads(out)) for out, _ in said]
    assert {key: cell["is"] for key, cell in seen[0].items()} == {key: cell["is"] for key, cell in seen[1].items()}
    for (setting, probe), known in KNOWN.items():
        for found in seen:
            if ("rundlet", setting, probe) in found:
                is_known(found["rundlet", setting, probe], known)
    assert nothing_left(folder), left(folder)


def test_progress_is_told_row_by_row(done: Done, found: dict[str, Any]) -> None:
    lines = done.err.splitlines()
    assert len(lines) == len(found["rows"])
    assert lines[0] == f"rundlet matrix: 1 of {len(lines)}: rundlet: bundle"


def test_a_kernel_of_the_lab_is_not_this_machines(folder: Path) -> None:
    done = matrix(folder, "--suite", "backports")
    assert (done.status, done.out) == (2, "")
    assert done.err == "rundlet: matrix takes --suite with --lab: here it is this machine's own kernel\n"


@pytest.mark.parametrize(("path", "why"), [("none/page.html", "none is no directory"), ("made", "it is a directory")])
def test_a_page_that_cannot_be_written_is_said_beforehand(folder: Path, path: str, why: str) -> None:
    done = matrix(folder, "--html", path)
    assert (done.status, done.out) == (2, "")
    assert done.err == f"rundlet: cannot write {path}: {why}; give --html a file that can be written\n"


def test_the_page(done: Done, folder: Path, found: dict[str, Any]) -> None:
    assert done.status == 0
    page = (folder / "page.html").read_text()
    assert page.count("<tr data-text") == sum(row["status"] != "absent" for row in found["rows"])


def test_held_against_another(folder: Path, found: dict[str, Any]) -> None:
    """All by the command: as expected, one cell otherwise, one that cannot be told; and both of the latter."""
    (folder / "small.toml").write_text('settings = ["nnp=config"]\nprobes = ["set-uid exec", "mount", "keyctl"]\n')
    golden = {"schema": found["schema"], "cells": [cell for cell in found["cells"] if (cell["runtime"], cell["setting"]) == ("rundlet", "nnp=config")]}
    golden["cells"] = [cell for cell in golden["cells"] if cell["probe"] in ("set-uid exec", "mount")]
    assert len(golden["cells"]) == 2

    def held() -> Done:
        (folder / "golden.json").write_text(json.dumps(golden))
        return matrix(folder, "--config", "small.toml", "--expect", "golden.json")

    done = held()
    assert (done.status, done.err.splitlines()[-1]) == (0, "as expected: 2 cells")
    assert "nnp: set-uid exec" in done.out
    golden["cells"][0]["layers"] = [["seccomp"]]
    done = held()
    assert (done.status, done.err.splitlines()[-1]) == (
        1, "differs: rundlet / nnp=config / set-uid exec: expected denied by seccomp, is denied by nnp",
    )  # fmt: skip
    golden["cells"].append({"runtime": "rundlet", "setting": "profile=given", "probe": "mount", "is": "denied", "layers": [["apparmor"]]})
    assert held().status == 1
    del golden["cells"][0]
    done = held()
    assert (done.status, done.err.splitlines()[-1]) == (2, "cannot tell: rundlet / profile=given / mount: expected denied by apparmor, not tried")
    assert nothing_left(folder), left(folder)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["a", "b"], "matrix takes one bundle; a command goes behind --: rundlet matrix a -- b"), (["--config", "none.toml"], "cannot read none.toml"),
        (["--runtime", "rundlet-none"], "no runtime rundlet-none"), (["--runtime", "false"], "false --version ends with status 1; name a runtime"),
        (["nowhere"], "nowhere/config.json"), (["--expect", "none.json"], "cannot read none.json"),
    ],
)  # fmt: skip
def test_what_cannot_be_done(folder: Path, words: list[str], says: str) -> None:
    done = matrix(folder, *words)
    assert (done.status, done.out) == (2, "")
    assert done.err.count("\n") == 1
    assert done.err.startswith("rundlet: ")
    assert says in done.err
    assert nothing_left(folder), left(folder)


@pytest.mark.parametrize(
    ("config", "says"), [("{", "config.json: line 1 column 2"), ("[]", "config.json: must be an object"), ('{"root": null}', "/ociVersion: is required")],
)  # fmt: skip
def test_a_bundle_that_is_none(folder: Path, config: str, says: str) -> None:
    (folder / "bundle").mkdir(exist_ok=True)
    (folder / "bundle/config.json").write_text(config)
    done = matrix(folder, "bundle")
    assert (done.status, done.out, done.err.count("\n")) == (2, "", 1)
    assert done.err.startswith(f"rundlet: {says}")
    assert nothing_left(folder), left(folder)


def test_a_bundle_of_one_s_own(box: Box, folder: Path) -> None:
    """Its own user, environment and masks; what it would share with the host, it does not."""
    box.namespaces("pid", "mount")
    box.process["user"] = {"uid": 7, "gid": 7}
    box.process["noNewPrivileges"] = False
    box.process["apparmorProfile"] = None
    (box.bundle / "data").mkdir()
    (box.rootfs / "data").mkdir()
    box.mount("/data", "data", "bind")
    box.config["hooks"] = {"poststop": [{"path": "/bin/touch", "args": ["touch", str(folder / "hooked")]}]}
    box.save()
    before = {path: path.stat().st_mtime_ns for path in box.bundle.rglob("*")}
    (folder / "own.toml").write_text('settings = ["bundle"]\n')
    done = matrix(folder, str(box.bundle), "--config", "own.toml", "--json", "--", "sh", "-c", 'test "$(id -u)" = 7 && test -d /data')
    assert done.status == 0, done.err
    found = json.loads(done.out)
    seen = {cell["probe"]: cell for cell in found["cells"]}
    assert found["notes"] == ["a network namespace of its own", "an ipc namespace of its own", "a uts namespace of its own", "no hooks"]
    assert seen["workload"]["is"] == "allowed"
    assert seen["set-uid exec"]["is"] == "allowed"
    is_known(seen["write to the root"], ["dac"])
    assert not (folder / "hooked").exists()
    assert {path: path.stat().st_mtime_ns for path in box.bundle.rglob("*")} == before, "the bundle is as it was"
    assert nothing_left(folder), left(folder)


def test_a_workload_that_fails_is_followed_to_its_layer(folder: Path) -> None:
    (folder / "load.toml").write_text('settings = ["capabilities=none"]\nprobes = ["keyctl"]\n')
    done = matrix(folder, "--config", "load.toml", "--json", "--", "mount", "-t", "tmpfs", "none", "/tmp")
    seen = {cell["probe"]: cell for cell in json.loads(done.out)["cells"]}
    is_known(seen["workload"], ["capability"])
    assert seen["workload"]["errno"] == "status 1"


def test_it_can_be_ended(folder: Path) -> None:
    """In the middle of its work, as an engine's unit is stopped."""
    with open(folder / "err", "w+") as err:
        process = begun(folder, "--", "sleep", "1000", stdout=err, stderr=err)
        assert bundles.eventually(lambda: any("sleep\0" in text and "1000" in text for text in commands(process.pid)))
        process.terminate()
        assert process.wait(bundles.PATIENCE) == 128 + 15
    assert nothing_left(folder), left(folder)


def commands(pid: int) -> list[str]:
    """Command lines of a process' descendants."""
    found = []
    for child in bundles.children(pid):
        try:
            found += [Path(f"/proc/{child}/cmdline").read_text(), *commands(child)]
        except (FileNotFoundError, ProcessLookupError):
            pass
    return found


def test_a_workload_without_an_end(folder: Path) -> None:
    """It is unknown, and so is what would have come after it; what came before is not."""
    (folder / "long.toml").write_text('settings = ["open"]\nprobes = ["keyctl", "signal an exec\'d peer", "signal within exec"]\ntimeout = 10\n')
    done = matrix(folder, "--config", "long.toml", "--json", "--", "sleep", "1000")
    assert done.status == 0, done.err
    seen = {cell["probe"]: (cell["is"], cell.get("why")) for cell in json.loads(done.out)["cells"]}
    lost = ("unknown", "no answer within 10 seconds")
    assert seen == {"keyctl": ("allowed", None), "workload": lost, "signal within exec": ("allowed", None), "signal an exec'd peer": lost}
    assert nothing_left(folder), left(folder)


def test_by_a_user(folder: Path) -> None:
    """What takes root is not here, and says so; the rest is tried."""
    with tempfile.TemporaryDirectory(prefix="test-of-the-matrix-") as name:
        os.chown(name, 50007, 50007)
        (Path(name) / "matrix.toml").write_text('settings = ["open", "user=rootless", "user=rootless nnp=config"]\n')
        become = ["setpriv", "--reuid=50007", "--regid=50007", "--clear-groups", "--inh-caps=-all", "--"]
        words = [*become, *bundles.words(), "matrix", "--config", "matrix.toml", "--json", "--", "id"]
        env = {**os.environ, "TMPDIR": name, "XDG_RUNTIME_DIR": name}
        done = subprocess.run(words, capture_output=True, text=True, cwd=name, env=env)
        assert done.returncode == 0, done.stderr
        assert os.listdir(name) == ["matrix.toml"]
    found = json.loads(done.stdout)
    seen = {(cell["setting"], cell["probe"]): cell for cell in found["cells"]}
    assert [row["status"] for row in found["rows"]] == ["absent", "ran", "ran"]
    assert seen["open", "mount"]["why"] == "no root"
    for probe, is_ in (("mount", "allowed"), ("workload", "allowed"), ("set-uid exec", "absent"), ("signal an exec'd peer", "allowed")):
        assert seen["user=rootless", probe]["is"] == is_, seen["user=rootless", probe]
    assert seen["user=rootless", "mknod"]["layers"] == [], "a user cannot take the namespace away, so nobody knows"
    is_known(seen["user=rootless", "masked path"], ["mount"])


@pytest.mark.parametrize(("action", "errno"), [("SCMP_ACT_KILL_PROCESS", "SIGSYS"), ("SCMP_ACT_ERRNO", "EPERM")])
def test_a_filter_of_one_s_own(folder: Path, action: str, errno: str) -> None:
    """Found too where the probe is killed; and what else is allowed stays so."""
    denied = {"keyctl": "keyctl", "ptrace a sibling": "ptrace", "unshare user": "unshare", "signal a sibling": "kill", "signal within exec": "kill"}
    rules = [{"names": sorted(set(denied.values())), "action": action}]
    (folder / "own.json").write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}))
    (folder / "filter.toml").write_text(
        f'settings = ["seccomp=default"]\nseccomp = "own.json"\nprobes = {json.dumps([*denied, "mount", "chroot"])}\n'
    )
    done = matrix(folder, "--config", "filter.toml", "--json")
    assert done.status == 0, done.err
    seen = {cell["probe"]: cell for cell in json.loads(done.out)["cells"]}
    for probe in denied:
        is_known(seen[probe], ["seccomp"])
        assert seen[probe]["errno"] == errno
    assert (seen["mount"]["is"], seen["chroot"]["is"]) == ("allowed", "allowed")


def test_without_masks_there_is_nothing_to_deny(box: Box, folder: Path) -> None:
    for kind in ("maskedPaths", "readonlyPaths"):
        del box.linux[kind]
    box.linux["resources"] = {"devices": [{"allow": True, "access": "rwm"}]}
    box.save()
    (folder / "free.toml").write_text('settings = ["open"]\nprobes = ["masked path", "write /proc/sys", "open a device"]\n')
    done = matrix(folder, str(box.bundle), "--config", "free.toml", "--json")
    assert done.status == 0, done.err
    assert {cell["probe"]: cell["is"] for cell in json.loads(done.out)["cells"]} == dict.fromkeys(("masked path", "write /proc/sys", "open a device"), "allowed")
