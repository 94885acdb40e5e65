"""The matrix under AppArmor, of rundlet, crun and runc: what docs/apparmor.md says of each, seen from inside by system calls."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from rundlet.confine.matrix.engine import PLACES
from rundlet.confine.matrix.policy import CONTAINER
from rundlet.plan.label import components, parse
from tests import bundles
from tests.lab import boot

LACKING = "; ".join(
    [f"{name} is missing" for name in ("crun", "runc", "setpriv", "aa-exec") if not shutil.which(name)]
    + ([] if any(Path(place).exists() for place in PLACES) else ["no engine's seccomp profile"])
)  # fmt: skip
if os.environ.get("RUNDLET_LAB") == "1":
    pytest.skip("a lab in the lab would be a hundred times slower", allow_module_level=True)
pytestmark = pytest.mark.skipif(bool(boot.lacking() or LACKING), reason=boot.lacking() or LACKING)

GIVEN = "profile=given"
ENFORCE, COMPLAIN, FREE = (f"confinement={mode} profile=given" for mode in ("enforce", "complain", "unconfined-mode"))
CONFIG = f"""
settings = [
  "bundle", "open", "{GIVEN}", "{ENFORCE}", "profile=stacked", "{ENFORCE} nnp=inherited", "{COMPLAIN} nnp=config", "{COMPLAIN} nnp=inherited",
  "{FREE} nnp=config", "confinement=enforce nnp=config",
]
probes = [
  "set-uid exec", "mount", "keyctl", "write /proc/sys", "sysrq", "load a module", "ptrace a sibling", "signal a sibling", "signal within exec",
  "ptrace an exec'd peer", "signal an exec'd peer",
]
timeout = 300
"""
PEERS = ("crun", "runc")
ALL = ("rundlet", *PEERS)
SIGNALS = ("signal a sibling", "signal within exec", "signal an exec'd peer")
RT = {mode: f"rundlet-matrix-{mode}" for mode in ("enforce", "complain")}

# runtime, setting → the components of the label that the container runs under; None: the runtime refuses
LABELS: dict[tuple[str, str], set[str] | None] = {
    **{(name, "open"): {"unconfined"} for name in ALL},
    **{(name, setting): {CONTAINER} for name in ALL for setting in ("bundle", GIVEN, ENFORCE, f"{FREE} nnp=config")},
    **{(name, "confinement=enforce nnp=config"): {RT["enforce"]} for name in ALL},
    **{("rundlet", f"{ENFORCE} nnp={nnp}"): {CONTAINER, RT["enforce"]} for nnp in ("config", "inherited")},
    **{(name, f"{ENFORCE} nnp={nnp}"): None for name in PEERS for nnp in ("config", "inherited")},
    **{("rundlet", f"{COMPLAIN} nnp={nnp}"): {CONTAINER, RT["complain"]} for nnp in ("config", "inherited")},
}


# of a golden matrix, which the command holds against what it has found in the lab
EXPECTED: list[dict[str, Any]] = [
    {"runtime": "rundlet", "setting": GIVEN, "probe": "mount", "is": "denied", "layers": [["apparmor"]]},
    {"runtime": "crun", "setting": f"{ENFORCE} nnp=config", "probe": "mount", "is": "refused"},
    {"runtime": "runc", "setting": "open", "probe": "mount", "is": "allowed"},
]


@pytest.fixture(autouse=True)
def patience() -> None:
    """The first test waits for a lab of minutes."""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the page is written to, outside of the lab."""
    return tmp_path_factory.mktemp("matrix") / "page.html"


@pytest.fixture(scope="module")
def found(page: Path) -> dict[str, Any]:
    """The document of one lab."""
    (page.parent / "matrix.toml").write_text(CONFIG)
    (page.parent / "expected.json").write_text(json.dumps({"schema": "rundlet.matrix/1", "cells": EXPECTED}))
    words = [*bundles.words(), "matrix", "--lab", "--config", "matrix.toml", "--json", "--html", str(page), "--expect", "expected.json"]
    for name in PEERS:
        words += ["--runtime", name]
    with open(page.parent / "err", "w+") as err:
        done = subprocess.run([*boot.SLOT, *words, "--", "id"], stdout=subprocess.PIPE, stderr=err, stdin=subprocess.DEVNULL, cwd=page.parent)
        err.seek(0)
        said = err.read()
        assert done.returncode == 0, said
        assert said.splitlines()[-1] == f"as expected: {len(EXPECTED)} cells"
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def row(found: dict[str, Any], runtime: str, setting: str) -> dict[str, Any]:
    return next(one for one in found["rows"] if (one["runtime"], one["setting"]) == (runtime, setting))


def cell(found: dict[str, Any], runtime: str, setting: str, probe: str) -> dict[str, Any]:
    return next(one for one in found["cells"] if (one["runtime"], one["setting"], one["probe"]) == (runtime, setting, probe))


def test_the_machine(found: dict[str, Any]) -> None:
    assert found["machine"]["apparmor"] == "on"
    assert found["machine"]["kernel"].startswith("6.1.")
    assert [one["name"] for one in found["runtimes"]] == list(ALL)
    assert not [one for one in found["rows"] if one["status"] == "absent"], "in the lab everything is there"


@pytest.mark.parametrize(("runtime", "setting"), LABELS)
def test_the_label(found: dict[str, Any], runtime: str, setting: str) -> None:
    wanted, seen = LABELS[runtime, setting], row(found, runtime, setting)
    if wanted is None:
        assert seen["status"] == "refused", seen
        assert "peration not permitted" in seen["why"]
        assert cell(found, runtime, setting, "mount")["is"] == "refused"
        return
    assert seen["status"] == "ran", seen
    assert set(components(parse(seen["facts"]["label"])[0])) == wanted


@pytest.mark.parametrize("nnp", ["config", "inherited"])
@pytest.mark.parametrize("mode", [ENFORCE, COMPLAIN])
def test_signals_under_a_stack(found: dict[str, Any], mode: str, nnp: str) -> None:
    """A profile that names itself as the peer does not mean a stack that it is part of: rule 2, and why not to stack needlessly."""
    for probe in (*SIGNALS, "ptrace a sibling", "ptrace an exec'd peer"):
        seen = cell(found, "rundlet", f"{mode} nnp={nnp}", probe)
        assert (seen["is"], seen["layers"], seen["errno"]) == ("denied", [["apparmor"]], "EACCES"), seen
        assert seen["why"] == "without nnp it would be allowed too", "the experiments leave two, the log decides"
        assert all(line.startswith(f'apparmor, {CONTAINER}: "{CONTAINER}" does not let its own processes') for line in seen["log"]), seen
        assert any(f"{CONTAINER}//&" in line or f"//&{CONTAINER}" in line for line in seen["log"])


@pytest.mark.parametrize("runtime", ["rundlet", "runc"])
def test_signals_where_nothing_is_stacked(found: dict[str, Any], runtime: str) -> None:
    for setting in (GIVEN, f"{FREE} nnp=config", "bundle"):
        for probe in SIGNALS:
            assert cell(found, runtime, setting, probe)["is"] == "allowed", (setting, probe)


def test_crun_s_exec_under_a_runtime_in_unconfined_mode(found: dict[str, Any]) -> None:
    """It signals the container first, whose profile takes signals from what is unconfined by name alone."""
    for probe in ("signal within exec", "signal an exec'd peer"):
        seen = cell(found, "crun", f"{FREE} nnp=config", probe)
        assert seen["is"] == "refused", seen
        assert "exec: " in seen["why"]
    assert cell(found, "crun", f"{FREE} nnp=config", "signal a sibling")["is"] == "allowed"


def test_runc_under_a_complaining_runtime_enforces_nothing(found: dict[str, Any]) -> None:
    """Rule 4: exec is accepted, and the label stays. Ours stacks, and the profile is enforced."""
    setting = f"{COMPLAIN} nnp=config"
    assert set(components(parse(row(found, "runc", setting)["facts"]["label"])[0])) == {RT["complain"]}
    assert cell(found, "runc", setting, "mount")["is"] == "allowed"
    seen = cell(found, "rundlet", setting, "mount")
    assert (seen["is"], seen["layers"], seen["errno"]) == ("denied", [["apparmor"]], "EACCES"), seen
    assert "the probe mount none at /dev/.rundlet-matrix/mnt/" in seen["log"][0], seen


@pytest.mark.parametrize("runtime", ALL)
def test_layers(found: dict[str, Any], runtime: str) -> None:
    for setting, probe, layers in (
        (GIVEN, "mount", [["apparmor"]]), (GIVEN, "write /proc/sys", [["apparmor", "mount"]]), (GIVEN, "sysrq", [["apparmor", "mount"]]),
        ("open", "sysrq", [["mount"]]), ("bundle", "set-uid exec", [["nnp"]]), ("bundle", "mount", [["apparmor", "capability"]]),
        ("bundle", "load a module", [["seccomp", "capability"]]), (f"{FREE} nnp=config", "set-uid exec", [["nnp"]]),
    ):  # fmt: skip
        seen = cell(found, runtime, setting, probe)
        assert (seen["is"], seen.get("layers")) == ("denied", layers), seen
    for setting in (GIVEN, "open", "bundle"):
        assert cell(found, runtime, setting, "workload")["is"] == "allowed"
    for setting in ("open", GIVEN):
        for probe in ("set-uid exec", "keyctl", "load a module"):
            assert cell(found, runtime, setting, probe)["is"] == "allowed", (setting, probe)


def test_the_page_is_written_outside_of_the_lab(found: dict[str, Any], page: Path) -> None:
    assert found["containers"] > len(found["rows"])
    assert "rundlet-matrix-container//&amp;rundlet-matrix-enforce" in page.read_text()


def test_signals_and_ptrace_work_under_a_stack_with_a_derived_profile(tmp_path: Path) -> None:
    """In containers: `profile derive` makes what test_signals_under_a_stack misses."""
    original, derived = tmp_path / "web", tmp_path / "web.stacked"
    original.write_text(
        "abi <abi/3.0>,\nprofile web flags=(attach_disconnected,mediate_deleted) {\n  file, capability, network, umount,\n"
        f"  signal (receive) peer={RT['enforce']},\n  ptrace (readby) peer={RT['enforce']},\n"
        "  signal (send, receive) peer=web,\n  ptrace (trace, tracedby, read, readby) peer=web,\n}\n"
    )
    subprocess.run([*bundles.words(), "profile", "derive", "--profile", original, "--runtime-label", RT["enforce"], "--output", derived], check=True)
    probes = [*SIGNALS, "ptrace a sibling", "ptrace an exec'd peer"]
    (tmp_path / "matrix.toml").write_text(
        f'settings = ["{ENFORCE} nnp=config"]\nprobes = {json.dumps(probes)}\nprofile = "web"\npolicy = ["web.stacked"]\ntimeout = 300\n'
    )
    words = [*boot.SLOT, *bundles.words(), "matrix", "--lab", "--config", "matrix.toml", "--json"]
    done = subprocess.run(words, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, cwd=tmp_path, check=True)
    found = json.loads(done.stdout)
    [ran] = found["rows"]
    assert set(components(parse(ran["facts"]["label"])[0])) == {"web", RT["enforce"]}
    assert {one["probe"]: one["is"] for one in found["cells"]} == dict.fromkeys(probes, "allowed"), found["cells"]
