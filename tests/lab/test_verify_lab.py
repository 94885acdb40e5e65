"""verify on AppArmor kernels, 6.1 and 6.12: what holds, and what was made wrong on purpose, of rundlet's containers and of crun's and runc's.

Each kernel is booted once. What verify said there is one line for each situation, judged here.
"""

import os
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest

from tests.lab import boot
from tests.lab.boot import KERNELS, Results

LACKING = "a lab in the lab would be a hundred times slower" if os.environ.get("RUNDLET_LAB") == "1" else boot.lacking()
pytestmark = pytest.mark.skipif(bool(LACKING), reason=LACKING)


@pytest.fixture(autouse=True)
def patience() -> None:
    """The first test waits for a lab, which has a limit of its own."""


@pytest.fixture(scope="module")
def labs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Results]]:
    """What a lab has seen, by the kernel's name."""
    code = boot.snapshot(tmp_path_factory.mktemp("code"))
    seen = tmp_path_factory.mktemp("seen")
    guests = {suite: boot.Guest(code, seen / suite, suite, module="verify_guest") for suite in KERNELS}
    yield cache(lambda name: guests[name].results())
    for guest in guests.values():
        guest.end()


@pytest.fixture(params=KERNELS)
def seen(labs: Callable[[str], Results], request: pytest.FixtureRequest) -> Results:
    """What was seen on each kernel."""
    return labs(str(request.param))


def report(found: dict[str, Any]) -> dict[str, Any]:
    """What verify said of the container; its status must fit."""
    assert found["err"] == "", found
    assert found["status"] == {"holds": 0, "differs": 1, "unknown": 2}[found["said"]["status"]], found
    return found["said"]["containers"][0]  # type: ignore[no-any-return]


def differs(found: dict[str, Any]) -> dict[str, set[str]]:
    """What differs: fact → what holds instead. Nothing must be unknown."""
    one = report(found)
    assert one["unknown"] == [], one
    facts: dict[str, set[str]] = {}
    for difference in one["differences"]:
        assert difference["asked"], difference
        assert difference["why"], difference
        facts.setdefault(difference["fact"], set()).add(difference["holds"])
    return facts


HOLD = [
    # what verify must call "holds"; the label; words of its notes
    ("right", "site (enforce)", ""),
    ("profile as it was", "site (enforce)", ""),
    ("hat", "site//hat (enforce)", "under site//hat, a hat or child of site"),
    ("child", "site//child (enforce)", "under site//child, a hat or child of site"),
    ("stacked", "outer//&site (enforce)", ""),
    ("an exec under another profile", "", "held to what the exec of process"),
    ("exec by another runtime label", "", "held to what the exec of process"),
    ("no profile asked", "unconfined", ""),
    ("a twin", "", ""),
    ("in a policy namespace", ":vault:site (enforce)", ""),
    ("crun: right", "site (enforce)", ""),
    ("runc: right", "site (enforce)", ""),
    ("crun: a device is allowed", "", ""),
    ("runc: a device is allowed", "", ""),
]


@pytest.mark.parametrize(("name", "label", "note"), HOLD, ids=[name for name, _, _ in HOLD])
def test_holds(seen: Results, name: str, label: str, note: str) -> None:
    found = seen[name]
    assert found.get("label", "") == label
    assert differs(found) == {}
    assert report(found)["status"] == "holds"
    assert note in " ".join(report(found)["notes"])
    assert ("apparmor.label" in report(found)["checked"]) == (name != "no profile asked")


@pytest.mark.parametrize(("name", "label"), [
    ("intruder", "unconfined"), ("intruder under another profile", "elsewhere (enforce)"), ("crun: intruder", "unconfined"), ("runc: intruder", "unconfined"),
])
def test_a_process_from_outside(seen: Results, name: str, label: str) -> None:
    found = differs(seen[name])
    assert found["apparmor.label"] == {label}
    assert {"no-new-privs", "seccomp", "capabilities", "namespace"} <= set(found)  # the cgroup namespace is the host's
    assert any("all but CAP_KILL" in words for words in found["capabilities"])


@pytest.mark.parametrize(("name", "besides"), [
    ("a twin with a capability more", set()), ("runc: an exec with a capability more", set()),
    ("crun: an exec with a capability more", {"no-new-privs", "rlimit"}),  # which crun's exec gives only where it is asked for again
])
def test_a_capability_more(seen: Results, name: str, besides: set[str]) -> None:
    found = differs(seen[name])
    assert set(found) == {"capabilities"} | besides
    assert all(words.endswith(": also CAP_SYS_ADMIN") for words in found["capabilities"])


def test_a_mask_that_was_unmounted(seen: Results) -> None:
    for name, also in (("mask unmounted", {}), *((f"{peer}: mask unmounted and limit raised", {"limit": {"max"}}) for peer in ("crun", "runc"))):
        assert differs(seen[name]) == {"masked-path": {"the file itself"}, **also}
        assert [one["subject"] for one in report(seen[name])["differences"] if one["fact"] == "masked-path"] == ["/proc/keys"]


def test_another_policy_namespace(seen: Results) -> None:
    record = seen["in a policy namespace"]["record"]
    assert (record["observed"]["label"], [one["name"] for one in record["profiles"]]) == (":vault:site", [":vault:site"])
    assert seen["the profile of that name outside of it"]["label"] == "site (enforce)"
    assert differs(seen["the profile of that name outside of it"])["apparmor.label"] == {"site (enforce)"}


def test_a_profile_that_was_replaced(seen: Results) -> None:
    found = differs(seen["profile replaced"])
    assert seen["profile replaced"]["label"] == "site (enforce)"  # the label does not tell
    assert set(found) == {"apparmor.policy"}
    assert "it was replaced" in " ".join(found["apparmor.policy"])


def test_a_profile_that_complains(seen: Results) -> None:
    found = differs(seen["profile complains"])
    assert seen["profile complains"]["label"] == "site (complain)"
    assert found["apparmor.mode"] == {"complain"}
    assert "mode complain" in found["apparmor.policy"]
    for name in ("crun", "runc"):  # nobody has written down what they were started under
        assert differs(seen[f"{name}: profile complains"]) == {"apparmor.mode": {"complain"}}


def test_a_profile_that_is_gone(seen: Results) -> None:
    assert differs(seen["profile unloaded"]) == {"apparmor.label": {"unconfined"}, "apparmor.policy": {"not loaded any more"}}
    # to load it anew does not bring it back to whom it was taken from
    assert differs(seen["profile loaded anew"]) == {"apparmor.label": {"unconfined"}}
    for name in ("crun", "runc"):
        assert differs(seen[f"{name}: profile unloaded"]) == {"apparmor.label": {"unconfined"}}


def test_limits_raised_by_hand(seen: Results) -> None:
    assert differs(seen["limits raised by hand"]) == {"rlimit": {"200"}, "limit": {"max"}}


@pytest.mark.parametrize("name", ["crun", "runc"])
def test_a_device_filter_that_another_runtime_has_made(seen: Results, name: str) -> None:
    assert differs(seen[f"{name}: a device beyond"]) == {"devices": {"allowed: b 8:0 r"}}


def test_created(seen: Results) -> None:
    one = report(seen["created"])
    assert (one["status"], one["state"], one["differences"]) == ("unknown", "created", [])
    assert {unknown["fact"] for unknown in one["unknown"]} == {"apparmor.label", "no-new-privs", "seccomp", "capabilities", "user"}
    record = seen["created"]["record"]
    assert (record["observed"], record["profiles"], record["decided"]["profile"]) == (None, None, "site")


def test_the_record(seen: Results) -> None:
    record = seen["right"]["record"]
    assert record["schema"] == "rundlet.record/1"
    assert (record["asked"]["apparmorProfile"], record["decided"]["action"], record["decided"]["label"]) == ("site", "exec", ["site"])
    observed = record["observed"]
    assert (observed["label"], observed["mode"], observed["noNewPrivileges"], observed["seccomp"]) == ("site", "enforce", True, 2)
    assert observed["capabilities"]["bounding"] == f"{1 << 5:016x}"
    [profile] = record["profiles"]
    assert (profile["name"], profile["mode"]) == ("site", "enforce")
    assert len(profile.get("sha256") or profile["sha1"]) in (64, 40)
    assert all(record["hashes"][kind] for kind in ("config", "seccomp", "plan"))
    assert record["host"]["apparmor"]["state"] == "on"
