"""What a runtime without privileges decides beforehand, and how it tells of the kernel's refusals."""

import json
from pathlib import Path
from typing import Any

import pytest

from rundlet import spec
from rundlet.cgroup.place import Dir, Place
from rundlet.errors import Refused, StepFailed
from rundlet.life import idmaps, rootless
from rundlet.life.spec import template

ALONE = [{"containerID": 0, "hostID": 1000, "size": 1}]
MANY = [*ALONE, {"containerID": 1, "hostID": 100000, "size": 65536}]


def facts(capabilities: list[str] | None = None, **changes: Any) -> Any:
    """A user's facts."""
    apparmor = {"restrict_userns": None, "components": [{"name": "unconfined", "mode": "unconfined"}]}
    own = {"uid": 1000, "gid": 1000, "nnp": False, "seccomp": 0, "user_namespace": False, "caps": {"effective": capabilities or []}}
    return {**own, "apparmor": {**apparmor, **changes.pop("apparmor", {})}, **changes}


def config(maps: list[dict[str, int]] | None = None, **user: Any) -> Any:
    """A configuration of a user, with these maps for users and groups; without, one of root."""
    raw: Any = template(maps is not None)
    if maps is not None:
        raw["linux"]["uidMappings"] = raw["linux"]["gidMappings"] = maps
    raw["process"]["user"] |= user
    return spec.load(json.dumps(raw).encode())[0]


# ── id maps ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_ones_own_id_needs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idmaps, "FOLDERS", ())
    idmaps.check(config(ALONE)["linux"], facts(nnp=True))
    assert idmaps.groups_denied(config(ALONE)["linux"], facts())
    assert not idmaps.groups_denied(config(ALONE)["linux"], facts(["CAP_SETGID"]))


def test_more_takes_a_helper(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idmaps, "FOLDERS", ("/nothere",))
    with pytest.raises(Refused, match="/linux/gidMappings: it takes newgidmap .* none in /nothere; install the package uidmap"):
        idmaps.check(config(MANY)["linux"], facts())
    idmaps.check(config(MANY)["linux"], facts(["CAP_SETUID", "CAP_SETGID"]))


def test_a_helper_gains_nothing_under_no_new_privs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("newuidmap", "newgidmap"):
        (tmp_path / name).write_text("")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setattr(idmaps, "FOLDERS", (str(tmp_path),))
    idmaps.check(config(MANY)["linux"], facts())
    with pytest.raises(Refused, match="under no_new_privs no program gains privilege"):
        idmaps.check(config(MANY)["linux"], facts(nnp=True))


def test_somebody_elses_id_is_not_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idmaps, "FOLDERS", ())
    with pytest.raises(Refused):
        idmaps.check(config(ALONE)["linux"], facts(uid=1001, gid=1000))


# ── configurations ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_groups_that_cannot_be_had() -> None:
    with pytest.raises(Refused, match="/process/user/additionalGids"):
        rootless.check(config(ALONE, additionalGids=[0]), facts())


def test_no_user_namespace() -> None:
    with pytest.raises(Refused, match="/linux/namespaces: making them takes CAP_SYS_ADMIN, which user 1000 lacks"):
        rootless.check(config(), facts())
    rootless.check(config(), facts(["CAP_SYS_ADMIN"]))


def test_a_user_namespace_is_added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idmaps, "FOLDERS", ())
    raw: Any = template()
    raw["process"]["user"] = {"uid": 7, "gid": 8}
    text = json.dumps(raw).encode()
    added = spec.load(rootless.with_users(text, spec.load(text)[0]))[0]
    assert {"type": "user", "path": None} in added["linux"]["namespaces"]
    assert [m["containerID"] for m in added["linux"]["uidMappings"]] == [7]
    assert [m["containerID"] for m in added["linux"]["gidMappings"]] == [8]
    assert not any(word.startswith("gid=") for mount in added["mounts"] for word in mount["options"])


def test_maps_are_added_to_a_user_namespace_that_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idmaps, "FOLDERS", ())
    raw: Any = template()
    raw["linux"]["namespaces"].append({"type": "user"})
    raw["linux"]["uidMappings"] = maps = [{"containerID": 0, "hostID": 7000, "size": 5}]
    text = json.dumps(raw).encode()
    added = spec.load(rootless.with_users(text, spec.load(text)[0]))[0]["linux"]
    assert [space["type"] for space in added["namespaces"]].count("user") == 1
    assert added["uidMappings"] == maps
    assert [(m["containerID"], m["size"]) for m in added["gidMappings"]] == [(0, 1)]


# ── cgroups ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def v2(mount: Path, own: str) -> Any:
    return {"layout": "v2", "mounts": {"unified": str(mount)}, "own": {"unified": own}, "controllers": ["memory", "pids"]}


def test_beside_the_runtimes_own(tmp_path: Path) -> None:
    (tmp_path / "user/app").mkdir(parents=True)
    (tmp_path / "user/cgroup.procs").write_text("")
    cgroups = v2(tmp_path, "/user/app")
    assert rootless.place(cgroups, None, "box").dirs == (Dir(f"{tmp_path}/user/box", str(tmp_path), 2, ("memory", "pids")),)
    assert rootless.shown(cgroups, Place(())) == [(f"{tmp_path}/user/app", 2, ["memory", "pids"])]


def test_a_cgroup_that_processes_cannot_be_moved_to(tmp_path: Path) -> None:
    """What is around both is not the user's: here it is not even there."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "other").mkdir()
    with pytest.raises(Refused, match=f"/linux/cgroupsPath: user 0 may not make the cgroup {tmp_path}/mine/box and move processes to it; have"):
        rootless.place(v2(tmp_path, "/other/app"), "/mine/box", "box")
    (tmp_path / "other").chmod(0o555)
    assert rootless.place(v2(tmp_path / "missing", "/other/app"), None, "box") == Place(())


def test_limits_take_a_cgroup(tmp_path: Path) -> None:
    asked: Any = {**config()["linux"]["resources"], "pids": {"limit": 5}}
    with pytest.raises(Refused, match="/linux/resources: cannot set the .* user 1000 may not make a cgroup with the pids controller"):
        rootless.limits(asked, v2(tmp_path, "/"), Place(()), facts())
    assert rootless.limits(config()["linux"]["resources"], v2(tmp_path, "/"), Place(()), facts()) == ()


# ── what the kernel said ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("kind", "errno", "switches", "given", "why"),
    [
        ("clone", 28, {"user/max_user_namespaces": "0"}, {}, "user.max_user_namespaces is 0; allow some"),
        ("clone", 28, {"user/max_net_namespaces": "0"}, {}, "user.max_net_namespaces is 0"),
        ("clone", 28, {}, {}, "as many namespaces as user.max_"),
        ("clone", 1, {"kernel/unprivileged_userns_clone": "0"}, {}, "kernel.unprivileged_userns_clone is 0; permit it: sysctl"),
        ("clone", 1, {}, {"seccomp": 2}, "a seccomp filter confines the runtime itself"),
        ("clone", 1, {}, {"apparmor": {"restrict_userns": True}}, "kernel.apparmor_restrict_unprivileged_userns is 1"),
        ("clone", 13, {"kernel/apparmor_restrict_unprivileged_userns": "1"}, {}, "kernel.apparmor_restrict_unprivileged_userns may be 1"),
        ("propagation", 13, {}, {"apparmor": {"restrict_userns": True}}, "the rule: userns,"),
        ("clone", 13, {}, {"apparmor": {"components": [{"name": "rt", "mode": "enforce"}]}}, 'the runtime\'s profile "rt" needs the rule: userns,'),
        ("clone", 1, {}, {"apparmor": {"components": [{"name": "rt", "mode": "enforce"}]}}, ""),
        ("mount", 13, {}, {"apparmor": {"components": [{"name": "rt", "mode": "enforce"}]}}, ""),
        ("mount", 1, {}, {"apparmor": {"restrict_userns": True, "components": [{"name": "unprivileged_userns", "mode": "enforce"}]}}, "userns,"),
        ("mount", 13, {}, {"apparmor": {"restrict_userns": True, "components": [{"name": "rt", "mode": "unconfined"}]}}, ""),
        ("mount", 22, {}, {"apparmor": {"restrict_userns": True}}, ""),
        ("mount", 1, {"kernel/unprivileged_userns_clone": "0"}, {}, ""),
        ("clone", 1, {}, {}, ""),
        ("clone", 12, {}, {}, "its first process has ended"),
        ("exec", 13, {}, {"apparmor": {"restrict_userns": True}}, ""),
    ],
)
def test_the_switch_behind_a_refusal(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str, errno: int, switches: dict[str, str], given: dict[str, Any], why: str,
) -> None:
    for name, text in switches.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    monkeypatch.setattr(rootless, "SWITCHES", f"{tmp_path}/")
    failed = StepFailed("x", "clone3", errno, "what the kernel said")
    fault = rootless.told(failed, kind, facts(**given))
    if why:
        assert str(fault).startswith("what the kernel said; ") and why in str(fault)
    else:
        assert fault is failed
