"""A profile that cannot be given is refused before anything is made; `unconfined` and no profile at all need no AppArmor.

On a kernel without AppArmor these are rows 2 and 3 of the table; on one with it, the same requests are rows 8 and 4.
"""

import json

import pytest

from tests.bundles import FACTS, Box, Done

STATE = FACTS["apparmor"]["state"]
NAME = "rundlet-test-no-such-profile"
SAYS = {
    "absent": ("the kernel has no AppArmor", f'"{NAME}"', "remove process.apparmorProfile"),
    "off": ("AppArmor is off", f'"{NAME}"', "remove process.apparmorProfile"),
    "on": (f'"{NAME}"', "is not loaded", "apparmor_parser -r FILE"),
}


def is_refused(done: Done, status: int = 1) -> None:
    assert done.status == status, done
    assert done.err.startswith("rundlet: ")
    assert done.err.count("\n") == 1
    for words in SAYS[STATE]:
        assert words in done.err
    # engines take these words for other faults
    assert "permission denied" not in done.err
    assert "no such file" not in done.err


@pytest.mark.parametrize("verb", ["run", "create"])
@pytest.mark.parametrize("nnp", [False, True])
def test_a_profile_is_refused_before_anything_is_made(box: Box, verb: str, nnp: bool) -> None:
    box.process["apparmorProfile"] = NAME
    box.process["noNewPrivileges"] = nnp
    box.save()
    is_refused(box.call(verb, "--bundle", str(box.bundle), box.id))
    assert box.left() == []


@pytest.mark.parametrize("profile", ["unconfined", "", None])
def test_unconfined_is_to_be_had_anywhere(box: Box, profile: str | None) -> None:
    if profile is not None:
        box.process["apparmorProfile"] = profile
    box.process["noNewPrivileges"] = False  # with it, a confined runtime could not become unconfined
    box.started()
    done = box.exec("echo", "here")
    assert (done.status, done.out, done.err) == (0, "here\n", "")


def test_exec_refuses_and_the_container_goes_on(box: Box) -> None:
    box.started()
    is_refused(box.exec("--apparmor", NAME, "--", "true"), 255)
    process = {"args": ["true"], "cwd": "/", "apparmorProfile": NAME}
    (box.folder / "process.json").write_text(json.dumps(process))
    is_refused(box.call_apart("exec", "--process", str(box.folder / "process.json"), box.id), 255)
    assert box.exec("true").status == 0
    assert box.status == "running"


def test_explain_says_so(box: Box) -> None:
    box.process["apparmorProfile"] = NAME
    box.save()
    done = box.call("explain", str(box.bundle))
    assert done.status == 1
    assert done.out.startswith("refused ")
    for words in SAYS[STATE]:
        assert words in " ".join(done.out.split())  # the columns break lines
