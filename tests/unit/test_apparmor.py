"""AppArmor: labels as text, the table row by row, the sentences, and the steps."""

import contextlib
import itertools
import re
import sys
from pathlib import Path
from struct import unpack_from
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent.parent))
from rundlet.errors import Refused
from rundlet.kernel import ERRNO
from rundlet.life import policy
from rundlet.plan.apparmor import Transition, by_itself, check, decide, pending_ok, rule, write_failed
from rundlet.plan.asking import proc_steps, steps
from rundlet.plan.label import canonical, components, joined, name_fault, parse
from rundlet.plan.step import Call, Data, Out, Slot, Step
from tests import rulebook as book
from tests.rulebook import CASES, ENFORCING, FREE, LEARNING, LOADED, PLAIN, ROWS, TWO, Case, View, facts, situation

# ------------------------------------------------------------------------------------------------------------------ labels

MODES = ["enforce", "complain", "kill", "unconfined", "user", "mixed"]
NAMES = st.text(st.characters(blacklist_characters="\0\n:&", codec="utf-8"), min_size=1).filter(
    lambda name: "//&" not in name and not name.startswith("/")
)


@pytest.mark.parametrize(
    ("text", "label", "mode"),
    [
        ("unconfined\n", "unconfined", None),
        ("unconfined", "unconfined", None),
        ("web (enforce)\n", "web", "enforce"),
        ("rt//&web (mixed)\n", "rt//&web", "mixed"),
        ("sp ace (x) (complain)\n", "sp ace (x)", "complain"),
        (":box:unconfined\n", ":box:unconfined", None),
        (":box:web (enforce)\0\0\0", ":box:web", "enforce"),
        ("rt//&unconfined (enforce)\n", "rt//&unconfined", "enforce"),
        ("", "", None),
    ],
)
def test_parse(text: str, label: str, mode: str | None) -> None:
    assert parse(text) == (label, mode)


@given(NAMES, st.sampled_from(MODES), st.sampled_from(["", "\n"]))
def test_the_mode_is_behind_the_last_parenthesis(name: str, mode: str, end: str) -> None:
    assert parse(f"{name} ({mode}){end}") == (name, mode)


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("rt", ("rt",)),
        ("rt//&web", ("rt", "web")),
        ("rt//hat//&web//other hat", ("rt//hat", "web//other hat")),
        ("rt//&:box:unconfined", ("rt", ":box:unconfined")),
        (":box://web", (":box:web",)),
        (":box:a//&b", (":box:a", ":box:b")),
        ("rt//&:box:a//&b//&:other:c", ("rt", ":box:a", ":box:b", ":other:c")),
        (":outer//inner:a", (":outer//inner:a",)),
    ],
)
def test_components(label: str, expected: tuple[str, ...]) -> None:
    assert components(label) == expected


@given(st.lists(NAMES, min_size=1, max_size=5))
def test_components_undo_the_kernels_joining(names: list[str]) -> None:
    assert components("//&".join(names)) == tuple(names)


@pytest.mark.parametrize(
    ("profiles", "label"),
    [
        (["web", "rt"], "rt//&web"),
        ([":box:web", "rt"], "rt//&:box:web"),
        ([":box:b", "zz", ":box:a"], "zz//&:box:a//&b"),
        ([":a//b:x", ":z:x", ":b:x"], ":b:x//&:z:x//&:a//b:x"),
        (["a_b", "Z", "a.b"], "Z//&a.b//&a_b"),
        (["web", "web"], "web"),
        ([], ""),
    ],
)
def test_a_label_is_written_as_the_kernel_does(profiles: list[str], label: str) -> None:
    assert joined(profiles) == label
    assert set(components(label)) == set(profiles) or not profiles


@pytest.mark.parametrize("name", ["citt\u00e0", ":box:citt\u00e0", "web\u00a0", "web\v"])
def test_what_the_kernel_takes_for_a_blank_ends_no_name(name: str) -> None:
    assert "the kernel drops the blanks around it" in name_fault(name)


@given(st.sampled_from(["box", "box//inner"]), NAMES.filter(lambda name: name.strip() == name))
def test_both_forms_of_a_namespace_are_one(namespace: str, name: str) -> None:
    assert canonical(f":{namespace}://{name}") == canonical(f":{namespace}:{name}") == f":{namespace}:{name}"
    assert components(f":{namespace}://{name}") == (f":{namespace}:{name}",)


def test_a_loaded_profile_may_be_short_for_unconfined() -> None:
    assert name_fault("uncon")
    assert name_fault("uncon", ["uncon"]) == ""
    assert name_fault(":box:u", [":box://u"]) == ""
    assert name_fault(":box:u", ["u"])
    assert name_fault("unconfined") == name_fault(":box:unconfined") == ""


# ------------------------------------------------------------------------------------------------------------------- table


def told(case: Case) -> str:
    """What the user is told in a case: the refusal, the sentence for the failed write, or the reason of the transition."""
    host, request = situation(case)
    try:
        transition = decide(host, request)
    except Refused as refused:
        return str(refused)
    if case.errno:
        return write_failed(transition, host, ERRNO[case.errno])
    if case.hidden:
        return write_failed(transition, host, ERRNO["EBADMSG"], "check")
    return transition.reason


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.row} {case.name}")
def test_case(case: Case) -> None:
    host, request = situation(case)
    if case.action == "refuse":
        with pytest.raises(Refused):
            decide(host, request)
    else:
        transition = decide(host, request)
        assert (transition.action, transition.row) == (case.action, case.row)
        if case.label or case.action == "keep":
            assert transition.expected == tuple(sorted(case.label))
        if case.hidden:
            assert not pending_ok(transition, f"{next(iter(case.own))}//null-{case.profile} (complain)\n")
    text = told(case)
    for words in case.says:
        assert words in text
    assert "\n" not in text
    assert "  " not in text


def test_the_manual_quotes_what_is_said() -> None:
    manual = (Path(__file__).parents[2] / "docs/apparmor.md").read_text()
    quoted = manual.split("```text\n")[1].split("```")[0].splitlines()
    refusals = [told(case) for case in CASES if case.action == "refuse" or case.errno or case.hidden]
    assert len(quoted) > 10
    assert [line for line in quoted if line not in refusals] == []


def test_every_row_has_a_case_and_each_case_its_row() -> None:
    assert {case.row for case in CASES} == {row.number for row in ROWS}
    for case in CASES:
        view = View(*situation(case))
        assert [row.number for row in ROWS if row.holds(view)] == [case.row], case.name


LABELS = [
    PLAIN, ENFORCING, LEARNING, FREE, book.MISNAMED, book.RULELESS, TWO, book.MIXED, book.HALF, book.ON_UNCONFINED, {"rt": "kill"},
    {"rt": "unknown", "second": "enforce"}, {"rt": "unknown", "rt-free": "unconfined"},
    {"rt-free": "unconfined", "unconfined": "unconfined"},
]
PROFILES = [
    None, "", "web", "nope", "unconfined", "rt", "rt-free", ":box:web", ":box://web", ":box:nope", ":box:unconfined", "uncon", "&web",
    "web ", "web\n", "a//&b", ":box", "w" * 5000,
]


def everything() -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Every combination of facts and request that the table tells apart."""
    return [
        (facts(own, inherited, state, known, stack), {"profile": profile, "nnp": config})
        for own, inherited, config, state, known, stack, profile in itertools.product(
            LABELS, (False, True), (False, True), ("on", "off", "absent"), (False, True), (False, True), PROFILES
        )
    ]


def test_every_combination_occurs_in_exactly_one_row() -> None:
    for host, request in everything():
        view = View(host, request)
        rows = [row for row in ROWS if row.holds(view)]
        assert len(rows) == 1, (host, request, [row.number for row in rows])
        row = rows[0]
        expected = row.action
        if expected == "as 4-6":
            expected = "stack" if view.confined and view.nnp else "exec"
        try:
            transition = decide(host, request)  # type: ignore[arg-type]
        except Refused:
            assert expected == "refuse", (host, request, row)
        else:
            assert (transition.action, transition.row) == (expected, row.number), (host, request)


# ---------------------------------------------------------------------------------------------------------------- sentences


def stacked(*own: str, profile: str = "web") -> Transition:
    return Transition("stack", profile, tuple(sorted((*own, profile))), "", 6)


def test_the_reason_names_the_rule() -> None:
    transition = decide(facts(ENFORCING), {"profile": "web", "nnp": True})
    assert transition.reason == (
        '"rt" is enforcing and no_new_privs is set by process.noNewPrivileges, so the kernel allows only a narrower label: '
        '"web" is stacked on it'
    )
    free = decide(facts(PLAIN, restrict_unconfined=True), {"profile": "web", "nnp": True})
    assert "before capabilities are dropped" in free.reason
    named = decide(facts(FREE, restrict_unconfined=True), {"profile": "web", "nnp": True})
    assert "before capabilities are dropped" not in named.reason
    unknown = decide(facts({"a": "unknown", "b": "unconfined"}), {"profile": "web", "nnp": True})
    assert unknown.action == "stack"
    assert "unknown mode" in unknown.reason


def test_each_confining_profile_needs_the_rule() -> None:
    host = facts({"rt": "enforce", "second": "unknown", "rt-learns": "complain", "rt-free": "unconfined"})
    text = write_failed(stacked("rt", "second", "rt-learns", "rt-free"), host, ERRNO["EACCES"])
    assert 'the profiles "rt" and "second" each need the rule: change_profile -> &web,' in text


def test_a_rule_that_is_known_to_be_missing_is_asked_for_before_the_kernel_is() -> None:
    """In the words for the kernel's own answer, naming just those that lack it."""
    lacking = {"exec": {"web": ["second"]}, "stack": {"unconfined": ["rt", "second"]}}
    host = facts(TWO, lacking=lacking)
    with pytest.raises(Refused) as found:
        decide(host, {"profile": "web", "nnp": False})
    assert str(found.value) == 'write to `/proc/thread-self/attr/apparmor/exec`: EACCES: the profile "second" needs the rule: change_profile -> web,'
    assert decide(host, {"profile": "web", "nnp": True}).action == "stack"
    assert decide(host, {"profile": "unconfined", "nnp": False}).action == "exec"
    assert decide(facts(TWO, lacking=None), {"profile": "web", "nnp": False}).action == "exec"
    with pytest.raises(Refused, match="is not loaded"):  # as the kernel has it: what is not there before what is not permitted
        decide(facts(TWO, lacking={"exec": {"nope": ["rt"]}, "stack": {}}), {"profile": "nope", "nnp": False})


def test_a_policy_namespace_that_is_not_there_is_named() -> None:
    text = write_failed(Transition("exec", ":box//in:unconfined", (), "", 15), facts(PLAIN), ERRNO["ENOENT"])
    assert text.endswith('there is no policy namespace "box//in"; make it: mkdir /sys/kernel/security/apparmor/policy/namespaces/box/namespaces/in')


def test_a_profile_called_unconfined_is_what_it_is() -> None:
    host = facts({"unconfined": "enforce"}, loaded=["unconfined", "web"])
    assert decide(host, {"profile": "web", "nnp": True}).expected == ("unconfined", "web")
    with pytest.raises(Refused, match="a profile of that name is loaded, and the kernel would take that one"):
        decide(host, {"profile": "unconfined", "nnp": False})


def test_the_unconfined_need_no_rule() -> None:
    for own in (PLAIN, FREE):
        text = write_failed(EXEC, facts(own), ERRNO["EACCES"])
        assert "tracer" in text
        assert "rule" not in text


def test_a_runtime_put_under_unprivileged_userns_is_told_the_way_out() -> None:
    host = facts({"unprivileged_userns": "enforce"})
    with pytest.raises(Refused, match="with the rule: userns,"):
        decide(host, {"profile": "unconfined", "nnp": True})
    assert write_failed(stacked("unprivileged_userns"), host, ERRNO["EACCES"]).endswith("with the rule: userns,")


@pytest.mark.parametrize("interface", ["lsm", "scoped", "legacy"])
@pytest.mark.parametrize("own", [PLAIN, ENFORCING, LEARNING, TWO], ids="+".join)
@pytest.mark.parametrize("action", ["exec", "stack"])
def test_engines_know_a_failed_write_as_one_of_a_label(interface: str, own: dict[str, str], action: str) -> None:
    host = facts(own, interface=interface)
    transition = Transition(action, "web", ("web",), "", 5)  # type: ignore[arg-type]
    for errno in (*ERRNO.values(), 133):
        for call in ("write", "lsm_set_self_attr", "openat2", "read", "check", "lsm_get_self_attr"):
            text = write_failed(transition, host, errno, call)
            assert not re.search("permission denied|operation not permitted|no such file or directory", text, re.I)
            found = re.search("`/proc/[a-z0-9-].+/attr.*`", text)
            assert found
            assert found[0].endswith("/exec`")
            assert "\n" not in text


@pytest.mark.parametrize(
    ("errno", "call", "words"),
    [
        (
            "ENOENT", "write",
            ': ENOENT: apparmor profile "web" of the policy namespace "root" is not loaded; load it with: apparmor_parser -r FILE',
        ),
        ("EACCES", "lsm_set_self_attr", ': EACCES: the profile "rt" needs the rule: change_profile -> &web,'),
        ("ENOSYS", "openat2", ": ENOSYS: openat2 failed; a seccomp filter around the runtime has to permit it"),
        ("EPERM", "write", ': EPERM: "rt" confines the runtime, and no_new_privs allows no change to "web"'),
        ("EINVAL", "write", ': EINVAL: "stack web" is not understood'),
        ("ENOMEM", "write", ': ENOMEM: the kernel does not take "stack web"'),
        (
            "EACCES", "openat2",
            'EACCES: openat2 failed; the profile "rt" needs the rule: owner @{PROC}/@{pid}/task/@{tid}/attr/apparmor/exec rw,',
        ),
        ("EBADMSG", "check", 'the pending label read back is not "web"'),
    ],
)
def test_what_a_failed_write_says(errno: str, call: str, words: str) -> None:
    assert words in write_failed(stacked("rt"), facts(ENFORCING), ERRNO[errno], call)


@pytest.mark.parametrize(
    ("name", "action", "line"),
    [
        ("web", "exec", "change_profile -> web,"),
        ("web", "stack", "change_profile -> &web,"),
        (":box:web", "stack", "change_profile -> &:box:web,"),
        ("/usr/bin/web//hat", "exec", "change_profile -> /usr/bin/web//hat,"),
        ("sp ace (x)", "exec", 'change_profile -> "sp ace (x)",'),
        ("sp ace (x)", "stack", 'change_profile -> "&sp ace (x)",'),
        ("q u[x]", "stack", 'change_profile -> "&q u\\[x\\]",'),
        ("a{b,c}*", "exec", 'change_profile -> "a\\{b,c\\}\\*",'),
    ],
)
def test_rule(name: str, action: str, line: str) -> None:
    assert rule(Transition(action, name, (name,), "", 5)) == line  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------------------------ checks

EXEC = Transition("exec", "web", ("web",), "", 5)


@pytest.mark.parametrize(
    ("transition", "label", "mode", "words"),
    [
        (EXEC, "web", "enforce", None),
        (EXEC, "web", "complain", None),
        (EXEC, "web (enforce)\n", None, None),
        (EXEC, "unconfined", None, '"web" was not applied'),
        (EXEC, "rt", "complain", '"web" was not applied'),
        (EXEC, "web//&unconfined", "enforce", "apparmor_restrict_unprivileged_unconfined"),
        (EXEC, "rt//null-web", "complain", "learning profile"),
        (EXEC, "rt//&web", "enforce", 'under the apparmor label "rt//&web" (enforce), not under "web"'),
        (stacked("rt"), "web//&rt", "mixed", None),
        (stacked("rt"), "rt//&web", "enforce", None),
        (stacked("rt"), "web", "enforce", 'not under "rt//&web"'),
        (stacked("rt"), "rt", "enforce", '"web" was not applied'),
        (stacked("rt"), "rt//&rt//null-web", "complain", "learning profile"),
        (stacked("rt", profile=":box:web"), "rt//&:box:web", "enforce", None),
        (stacked("rt", profile=":box:web"), "rt", "enforce", 'not under "rt//&:box:web"'),
        (Transition("stack", ":box:web", (":box:a", ":box:web"), "", 15), ":box:a//&web", "enforce", None),
        (Transition("exec", "unconfined", ("unconfined",), "", 4), "unconfined", None, None),
        (Transition("exec", "unconfined", ("unconfined",), "", 4), "web", "enforce", '"unconfined" was not applied'),
        (Transition("keep", "", ("rt",), "", 1), "anything", "enforce", None),
    ],
)
def test_check(transition: Transition, label: str, mode: str | None, words: str | None) -> None:
    found = check(transition, label, mode)
    if words is None:
        assert found is None
    else:
        assert found
        assert words in found


@pytest.mark.parametrize(
    ("transition", "own", "label", "may"),
    [
        # change_profile, stacking on itself, a hat, the exec of another program, of one that a complaining profile does not know
        (EXEC, "unconfined", "other", True),
        (EXEC, "rt", "other", True),
        (EXEC, "unconfined", "web//&other", True),
        (EXEC, "unconfined", "web//hat", True),
        (EXEC, "rt", "unconfined", True),
        (EXEC, "rt-learns", "web//null-/bin/x", True),
        (stacked("rt"), "rt", "other//&rt", True),
        (stacked("rt"), "rt", "rt//&unconfined", True),
        (stacked("rt-learns"), "rt-learns", "rt-learns//null-/bin/x//&web", True),
        # the exec of one that was under the label before: all the same, or as a complaining one learns
        (EXEC, "unconfined", "unconfined", False),
        (EXEC, "rt-learns", "rt-learns", False),
        (EXEC, "rt-learns", "rt-learns//null-web", False),
        (stacked("rt-learns"), "rt-learns", "rt-learns", False),
        (stacked("rt-learns"), "rt-learns", "rt-learns//&rt-learns//null-web", False),
        # kernel.apparmor_restrict_unprivileged_unconfined
        (EXEC, "unconfined", "unconfined//&web", False),
        (EXEC, "unconfined", "other//&unconfined", False),
        (Transition("exec", ":box:web", (":box:web",), "", 15), ":box:unconfined", ":box:unconfined//&web", False),
        # one that is in the stack already
        (Transition("stack", "rt-learns", ("rt-learns",), "", 11), "rt-learns", "rt-learns//null-/bin/x", True),
    ],
)
def test_what_a_process_may_have_done_by_itself(transition: Transition, own: str, label: str, may: bool) -> None:
    assert check(transition, label, "mixed") is not None
    assert by_itself(transition, label, components(own)) == may


def test_a_label_that_the_kernel_would_add_to_is_refused() -> None:
    def situation(own: dict[str, str] = PLAIN, namespace: str | None = "root", **more: Any) -> Any:
        host = {**facts(own, restrict_unconfined=True), "caps": {"effective": ["CAP_SYS_ADMIN"]}, **more}
        host["apparmor"]["namespace"] = namespace
        return host

    request: Any = {"profile": "web", "nnp": False}
    full = {"effective": ["CAP_MAC_OVERRIDE"]}
    for host in (situation(), situation(caps=full, user_namespace=True)):
        with pytest.raises(Refused, match='the label would be "unconfined//&web"'):
            decide(host, request)
        assert decide(host, {"profile": "unconfined", "nnp": False}).action == "exec"
    # where it is not so, or not to be known, which the check after the exec finds out
    for host in (situation(caps=full), situation(FREE), situation(namespace=None), situation(namespace="box")):
        assert decide(host, request).expected == ("web",)


@pytest.mark.parametrize(
    ("profile", "text", "good"),
    [
        ("web", "web (enforce)\n", True),
        ("web", "web (complain)\0\0\0\0", True),
        ("web", "web2 (enforce)\n", False),
        ("web", "web", False),
        ("web", "", False),
        ("web", "rt//null-web (complain)\n", False),
        ("web", "web//&rt (enforce)\n", False),
        ("sp ace (x)", "sp ace (x) (enforce)\n", True),
        ("sp ace", "sp ace (x) (enforce)\n", False),
        ("unconfined", "unconfined\n", True),
        ("unconfined", "unconfined_x (enforce)\n", False),
        (":box:web", ":box:web (enforce)", True),
        (":box:web", "web (enforce)", False),
        (":box:unconfined", ":box:unconfined\n", True),
    ],
)
def test_pending_ok(profile: str, text: str, good: bool) -> None:
    assert pending_ok(Transition("exec", profile, (profile,), "", 5), text) is good
    assert pending_ok(stacked("rt", profile=profile), text) is good


def test_a_learning_profile_is_never_the_pending_one() -> None:
    assert not pending_ok(Transition("exec", "rt//null-web", (), "", 5), "rt//null-web (complain)\n")


# ------------------------------------------------------------------------------------------------------------------- steps


def test_keep_writes_nothing() -> None:
    for interface in ("lsm", "scoped", "legacy"):
        assert steps(Transition("keep", "", ("rt",), "", 1), interface) == ()


@pytest.mark.parametrize(("interface", "path"), [("scoped", "thread-self/attr/apparmor/exec"), ("legacy", "thread-self/attr/exec")])
@pytest.mark.parametrize(
    ("transition", "text", "start"),
    [
        (EXEC, b"exec web", b"web ("),
        (stacked("rt"), b"stack web", b"web ("),
        (Transition("exec", "unconfined", (), "", 4), b"exec unconfined", b"unconfined\n"),
    ],
)
def test_by_file(interface: str, path: str, transition: Transition, text: bytes, start: bytes) -> None:
    (step,) = steps(transition, interface)  # type: ignore[arg-type]
    assert step.kind == "label"
    names = [call.name for call in step.calls]
    assert names == ["openat2", "write", "close", "openat2", "read", "check", "close"]
    for opened in (step.calls[0], step.calls[3]):
        assert opened.args[:2] == (Slot("proc"), path)
        assert unpack_from("=QQQ", opened.args[2])[2] == 0x03  # type: ignore[arg-type]  # RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS
    assert step.calls[1].args == (Slot("label"), text, len(text))
    assert step.calls[5].args[1:] == (start, len(start), ERRNO["EBADMSG"])
    assert not any(call.fine for call in step.calls)


def test_by_call() -> None:
    (step,) = steps(stacked("rt"), "lsm")
    first = step.calls[0]
    assert first.name == "lsm_set_self_attr"
    assert (first.fine, first.on_fine) == (("ENOSYS", "EPERM"), "file")
    assert isinstance(first.args[1], Data)
    (ctx,) = first.args[1].parts
    assert isinstance(ctx, bytes)
    assert unpack_from("=QQQQ", ctx) == (104, 0, 32 + 9, 9)
    assert ctx[32:] == b"stack web"
    assert first.args == (101, first.args[1], len(ctx), 0)
    by_file = [call.label for call in step.calls].index("file")
    assert step.calls[by_file - 1].on_zero == "end"
    assert Step(step.what, *step.calls[by_file:], kind="label") == steps(stacked("rt"), "scoped")[0]


@pytest.mark.parametrize("interface", ["lsm", "scoped", "legacy"])
def test_only_a_missing_system_call_is_forgiven(interface: str) -> None:
    for profile in LOADED:
        for action in ("exec", "stack"):
            (step,) = steps(Transition(action, profile, (profile,), "", 5), interface)  # type: ignore[arg-type]
            assert [call.name for call in step.calls if call.fine] == (["lsm_set_self_attr"] if interface == "lsm" else [])
            outs = {arg.name: arg.size for call in step.calls for arg in call.args if isinstance(arg, Out)}
            assert outs["pending"] >= len(profile) + 32


def test_the_procfs_is_checked_before_it_is_used() -> None:
    (step,) = proc_steps()
    opened, magic, compared = step.calls
    assert (opened.name, opened.args[1], opened.into) == ("openat", "/proc", "proc")
    assert (magic.name, magic.args[0]) == ("fstatfs", Slot("proc"))
    assert compared == Call("check", magic.args[1], (0x9FA0).to_bytes(8, sys.byteorder), 8, ERRNO["ENODEV"])


@pytest.mark.parametrize(
    ("record", "own", "profile", "refused"),
    [
        ({}, "root", "web", False), ({}, "box", "web", True), ({"policy": "box"}, "root", "web", True), ({"policy": "box"}, "box", "web", False),
        ({}, None, "web", False), ({}, "box", "other", False), ({}, "box", None, False),
    ],
)
def test_a_name_from_another_policy_namespace_is_not_taken_for_the_containers(
    record: Any, own: str | None, profile: str | None, refused: bool
) -> None:
    record = {"expect": {"action": "exec", "profile": "web"}, **record}
    with pytest.raises(Refused, match="the name is that of another one") if refused else contextlib.nullcontext():
        policy.same(record, own, profile)
