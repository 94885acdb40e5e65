"""The AppArmor table of docs/apparmor.md as data: which transition each situation calls for, and why none is weaker.

ROWS tells the rows apart by the situation alone; CASES are named situations with what must come of them. The pure tests compare
them with decide(); a test on an AppArmor kernel loads POLICY, takes on the label of each case and does the same for real.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

NAMESPACE = "box"  # a policy namespace below the runtime's
# What a runtime's profile may change to and stack; `rt-no-rule` may neither, and the rest needs no rule.
RULES = "change_profile -> {0},\n  change_profile -> &{0},".format("{web,unconfined,rt,second,:box:web}")
POLICY = f"""
profile rt flags=(attach_disconnected) {{ file, capability, signal, ptrace, unix, network, mount, umount, pivot_root,
  {RULES}
}}
profile second flags=(attach_disconnected) {{ file, capability, signal, ptrace, unix, network, mount, umount, pivot_root,
  {RULES}
}}
profile rt-learns flags=(attach_disconnected,complain) {{ file, capability, signal, ptrace, unix, network, mount, umount, pivot_root, }}
profile rt-free flags=(attach_disconnected,unconfined) {{ }}
profile unconfined_x flags=(attach_disconnected) {{ file, capability, signal, ptrace, unix, network, mount, umount, pivot_root,
  {RULES}
}}
profile rt-no-rule flags=(attach_disconnected) {{ file, capability, signal, ptrace, unix, network, mount, umount, pivot_root, }}
profile web flags=(attach_disconnected,mediate_deleted) {{ file, capability, network, ptrace, unix,
  signal (send) peer=web, signal (receive),
}}
"""
BOX_POLICY = "profile web flags=(attach_disconnected,mediate_deleted) { file, capability, network, signal, unix, }"
LOADED = ("rt", "second", "rt-learns", "rt-free", "unconfined_x", "rt-no-rule", "web", ":box:web")

PLAIN = {"unconfined": "unconfined"}
ENFORCING = {"rt": "enforce"}
LEARNING = {"rt-learns": "complain"}
FREE = {"rt-free": "unconfined"}
MISNAMED = {"unconfined_x": "enforce"}
RULELESS = {"rt-no-rule": "enforce"}
TWO = {"rt": "enforce", "second": "enforce"}
MIXED = {"rt": "enforce", "rt-learns": "complain"}
HALF = {"rt": "enforce", "rt-free": "unconfined"}
ON_UNCONFINED = {"rt": "enforce", "unconfined": "unconfined"}


@dataclass(frozen=True)
class Case:
    """One situation and its outcome: `action` is keep, exec, stack or refuse; `label` is what the container runs under.

    `says` are words of the refusal. `errno` is the kernel's answer to a write that the decision cannot foresee, `hidden` a profile
    that the facts do not tell to be missing; both make a refusal, told by the words.
    """

    name: str
    row: int
    action: str
    own: dict[str, str] = field(default_factory=lambda: PLAIN)
    profile: str | None = "web"
    config: bool = False  # process.noNewPrivileges
    inherited: bool = False  # the runtime's own no_new_privs
    state: str = "on"
    known: bool = True  # whether the list of loaded profiles can be read
    stack: bool = True
    label: tuple[str, ...] = ()
    says: tuple[str, ...] = ()
    errno: str = ""
    hidden: bool = False


def facts(
    own: dict[str, str], inherited: bool = False, state: str = "on", known: bool = True, stack: bool = True, **more: Any
) -> Any:
    """Facts of a host, as host.facts() gives the parts of them that count here."""
    on = state == "on"
    modes = {mode for name, mode in own.items() if name != "unconfined"}
    return {
        "apparmor": {
            "state": state, "label": "//&".join(sorted(own)) if on else None,
            "mode": (modes.pop() if len(modes) == 1 else "mixed") if on and modes else None,
            "components": [{"name": name, "mode": mode} for name, mode in own.items()] if on else [],
            "namespace": "root" if on else None, "stack": stack and on, "post_nnp_subset": stack and on,
            "loaded": list(LOADED) if known and on else None, "interface": "lsm",
            "restrict_unconfined": None, "restrict_userns": None, **more,
        },
        "nnp": inherited, "caps": {"effective": ["CAP_MAC_OVERRIDE"], "bounding": []}, "user_namespace": False,
    }


def situation(case: Case) -> tuple[Any, Any]:
    """Facts and request of a case."""
    return facts(case.own, case.inherited, case.state, case.known, case.stack), {"profile": case.profile, "nnp": case.config}


CASES = (
    Case("no profile, unconfined", 1, "keep", profile=None, label=("unconfined",)),
    Case("no profile, enforcing", 1, "keep", ENFORCING, None, label=("rt",)),
    Case("no profile, enforcing, no_new_privs", 1, "keep", ENFORCING, None, config=True, inherited=True, label=("rt",)),
    Case("no profile, no AppArmor", 1, "keep", profile=None, state="absent"),
    Case("an empty name is no profile", 1, "keep", ENFORCING, "", label=("rt",)),
    Case("no AppArmor", 2, "refuse", state="absent", says=("the kernel has no AppArmor", '"web"', "process.apparmorProfile")),
    Case("AppArmor off", 2, "refuse", state="off", says=("AppArmor is off", "apparmor=0", '"web"')),
    Case("no AppArmor, unconfined asked", 3, "keep", profile="unconfined", state="absent"),
    Case("AppArmor off, unconfined asked", 3, "keep", profile="unconfined", state="off"),
    Case("unconfined", 4, "exec", label=("web",)),
    Case("unconfined, no_new_privs from the config", 4, "exec", config=True, label=("web",)),
    Case("unconfined, no_new_privs inherited", 4, "exec", inherited=True, label=("web",)),
    Case("unconfined mode", 4, "exec", FREE, label=("web",)),
    Case("unconfined mode, no_new_privs from the config", 4, "exec", FREE, config=True, label=("web",)),
    Case("unconfined mode, no_new_privs inherited", 4, "exec", FREE, inherited=True, label=("web",)),
    Case("unconfined, unconfined asked", 4, "exec", profile="unconfined", label=("unconfined",)),
    Case("unconfined mode, unconfined asked, no_new_privs", 4, "exec", FREE, "unconfined", config=True, label=("unconfined",)),
    Case("enforcing", 5, "exec", ENFORCING, label=("web",)),
    Case("complaining", 5, "exec", LEARNING, label=("web",)),
    Case("named like unconfined", 5, "exec", MISNAMED, label=("web",)),
    Case("enforcing, no rule", 5, "exec", RULELESS, errno="EACCES", says=('"rt-no-rule"', "change_profile -> web,")),
    Case("enforcing, no_new_privs from the config", 6, "stack", ENFORCING, config=True, label=("rt", "web")),
    Case("enforcing, no_new_privs inherited", 6, "stack", ENFORCING, inherited=True, label=("rt", "web")),
    Case("enforcing, no_new_privs from both", 6, "stack", ENFORCING, config=True, inherited=True, label=("rt", "web")),
    Case("complaining, no_new_privs from the config", 6, "stack", LEARNING, config=True, label=("rt-learns", "web")),
    Case("complaining, no_new_privs inherited", 6, "stack", LEARNING, inherited=True, label=("rt-learns", "web")),
    Case("named like unconfined, no_new_privs", 6, "stack", MISNAMED, config=True, label=("unconfined_x", "web")),
    Case(
        "enforcing, no rule, no_new_privs", 6, "stack", RULELESS, config=True, errno="EACCES",
        says=('"rt-no-rule"', "change_profile -> &web,"),
    ),
    Case(
        "the kernel cannot stack", 7, "refuse", ENFORCING, config=True, stack=False,
        says=("this kernel cannot do", '"rt"', '"web"', "process.noNewPrivileges"),
    ),
    Case("not loaded", 8, "refuse", profile="nope", says=('"nope"', "is not loaded", '"root"', "apparmor_parser -r FILE")),
    Case("not loaded, enforcing, no_new_privs", 8, "refuse", ENFORCING, "nope", config=True, says=('"nope"', "is not loaded")),
    Case("not loaded, complaining", 8, "refuse", LEARNING, "nope", says=('"nope"', "is not loaded")),
    Case("not loaded, not known", 4, "exec", profile="nope", known=False, errno="ENOENT", says=('"nope"', "is not loaded")),
    Case(
        "not loaded, not known, complaining", 5, "exec", LEARNING, "nope", known=False, hidden=True,
        says=('"nope"', "a complaining profile hides"),
    ),
    Case(
        "not loaded, not known, complaining, no_new_privs", 6, "stack", LEARNING, "nope", config=True, known=False, hidden=True,
        says=('"nope"', "a complaining profile hides"),
    ),
    Case(
        "unconfined asked, enforcing, no_new_privs", 9, "refuse", ENFORCING, "unconfined", config=True,
        says=("cannot become unconfined", '"rt"', "process.noNewPrivileges"),
    ),
    Case("unconfined asked, complaining, inherited", 9, "refuse", LEARNING, "unconfined", inherited=True, says=("inherited",)),
    Case(
        "unconfined asked, a stack, no_new_privs", 9, "refuse", ON_UNCONFINED, "unconfined", config=True,
        says=("cannot become unconfined",),
    ),
    Case("unconfined asked, enforcing", 10, "exec", ENFORCING, "unconfined", label=("unconfined",)),
    Case(
        "unconfined asked, enforcing, no rule", 10, "exec", RULELESS, "unconfined", errno="EACCES",
        says=('"rt-no-rule"', "change_profile -> unconfined,"),
    ),
    Case("already the label", 11, "exec", ENFORCING, "rt", label=("rt",)),
    Case("already the label, no_new_privs", 11, "stack", ENFORCING, "rt", config=True, label=("rt",)),
    Case("already in the stack, no_new_privs", 11, "stack", TWO, "second", inherited=True, label=("rt", "second")),
    Case("already the label, unconfined mode", 11, "exec", FREE, "rt-free", config=True, label=("rt-free",)),
    Case("a newline in the name", 12, "refuse", profile="web\n", says=("newline", "web\\x0a")),
    Case("a NUL in the name", 12, "refuse", profile="web\0x", says=("NUL",)),
    Case("a leading ampersand", 12, "refuse", profile="&web", says=("&", "stack")),
    Case("a blank before the name", 12, "refuse", profile=" web", says=("blanks",)),
    Case("a blank behind the name", 12, "refuse", profile="web ", says=("blanks",)),
    Case("a long name", 12, "refuse", profile="w" * 4001, says=("4000 bytes",)),
    Case("short for unconfined", 12, "refuse", profile="uncon", says=("short for unconfined",)),
    Case("a stack for a name", 12, "refuse", profile="web//&rt", says=("a stack of profiles",)),
    Case("a namespace without a profile", 12, "refuse", profile=":box:", says=("no profile",)),
    Case("a namespace without an end", 12, "refuse", profile=":box", says=("no profile",)),
    Case("a learning profile", 12, "refuse", profile="rt//null-web", says=("invents",)),
    Case("two profiles", 14, "exec", TWO, label=("web",)),
    Case("two profiles, no_new_privs", 14, "stack", TWO, config=True, label=("rt", "second", "web")),
    Case("two modes, no_new_privs", 14, "stack", MIXED, inherited=True, label=("rt", "rt-learns", "web")),
    Case("one of two in unconfined mode, no_new_privs", 14, "stack", HALF, config=True, label=("rt", "rt-free", "web")),
    Case("stacked on unconfined, no_new_privs", 14, "stack", ON_UNCONFINED, config=True, label=("rt", "unconfined", "web")),
    Case("a policy namespace, unconfined", 15, "exec", profile=":box:web", config=True, label=(":box:web",)),
    Case("a policy namespace, two slashes", 15, "exec", profile=":box://web", label=(":box:web",)),
    Case("a policy namespace, enforcing", 15, "exec", ENFORCING, ":box:web", label=(":box:web",)),
    Case("a policy namespace, enforcing, no_new_privs", 15, "stack", ENFORCING, ":box:web", config=True, label=("rt", ":box:web")),
    Case("not loaded in the namespace", 8, "refuse", profile=":box:nope", says=('"box"', "apparmor_parser -n box -r FILE")),
)


@dataclass(frozen=True)
class Row:
    """A row of the table: the situation it is for, in words and as a test of facts and request, and what it says to do."""

    number: int
    when: str
    holds: Callable[["View"], bool]
    action: str


class View:
    """A situation in the words of the table. It shares no code with the decision."""

    def __init__(self, facts: dict[str, Any], request: dict[str, Any]) -> None:
        host = facts["apparmor"]
        self.profile: str = request["profile"] or ""
        self.on = host["state"] == "on"
        self.modes = {part["name"]: part["mode"] for part in host["components"]}
        self.confined = any(mode != "unconfined" for mode in self.modes.values())
        self.nnp = request["nnp"] or facts["nnp"]
        self.inner = self.profile.startswith(":")
        self.free = self.profile.split(":")[-1].removeprefix("//") == "unconfined"
        plain = self.profile.replace("://", ":") if not self.inner else ":" + self.profile[1:].replace("://", ":", 1)
        self.missing = host["loaded"] is not None and plain not in host["loaded"] and not self.free
        self.bad = self.profile != "" and (
            self.profile[0] in "& " or self.profile[-1] in ": " or len(self.profile) > 4000 or self.profile == "uncon"
            or any(c in self.profile for c in ("\0", "\n", "//&", "//null-")) or (self.inner and self.profile.count(":") < 2)
        )
        self.asked = self.profile != "" and not self.bad
        self.lost = self.free and self.confined and self.nnp
        self.stuck = self.confined and self.nnp and not host["stack"]
        granted = self.asked and self.on and not self.missing and not self.lost and not self.stuck
        self.plain_case = granted and not self.inner and not self.free
        self.ordinary = self.plain_case and len(self.modes) == 1 and self.profile not in self.modes


ROWS = (
    Row(1, "no profile asked", lambda v: not v.profile, "keep"),
    Row(2, "AppArmor absent or off, profile named", lambda v: v.asked and not v.on and v.profile != "unconfined", "refuse"),
    Row(3, "AppArmor absent or off, unconfined asked", lambda v: not v.on and v.profile == "unconfined", "keep"),
    Row(
        4, "L unconfined by name or by mode",
        lambda v: not v.confined and (v.ordinary or (v.on and v.asked and v.free and not v.inner)), "exec",
    ),
    Row(5, "L confined, no no_new_privs", lambda v: v.ordinary and v.confined and not v.nnp, "exec"),
    Row(6, "L confined, no_new_privs", lambda v: v.ordinary and v.confined and v.nnp, "stack"),
    Row(7, "as 6, the kernel cannot stack", lambda v: v.on and v.asked and not v.missing and not v.lost and v.stuck, "refuse"),
    Row(8, "P not loaded", lambda v: v.on and v.asked and v.missing, "refuse"),
    Row(9, "unconfined asked, L confined, no_new_privs", lambda v: v.on and v.asked and v.lost, "refuse"),
    Row(
        10, "unconfined asked, L confined, no no_new_privs",
        lambda v: v.on and v.asked and v.free and not v.inner and v.confined and not v.nnp, "exec",
    ),
    Row(11, "P already in the label", lambda v: v.plain_case and v.profile in v.modes, "as 4-6"),
    Row(12, "a name the kernel takes for another", lambda v: v.bad, "refuse"),
    Row(14, "L is a stack", lambda v: v.plain_case and len(v.modes) > 1 and v.profile not in v.modes, "as 4-6"),
    Row(
        15, "a profile of a policy namespace",
        lambda v: v.on and v.asked and v.inner and not v.missing and not v.lost and not v.stuck, "as 4-6",
    ),
)
