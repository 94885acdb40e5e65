"""What is tried on an AppArmor kernel: the rulebook's cases by each verb, and the traps that the table does not show.

Data alone. guest.py tries an attempt in the lab and writes down what it saw; test_apparmor_lab.py says what should have been seen.
"""

from collections import defaultdict
from dataclasses import asdict, dataclass
from itertools import cycle

from tests.rulebook import CASES, POLICY, Case

VERBS = ("run", "create", "exec")  # "create" is create and start
UNCONFINED = "kernel/apparmor_restrict_unprivileged_unconfined"
USERNS = "kernel/apparmor_restrict_unprivileged_userns"
REMOVABLE = "profile fleeting flags=(attach_disconnected) { file, capability, network, signal, ptrace, unix, }"

ALL = "file, capability, signal, ptrace, unix, network, mount, remount, umount, pivot_root,"
RUNTIME = "flags=(attach_disconnected) {"
CONTAINER = "flags=(attach_disconnected,mediate_deleted) { file, capability, network, ptrace, unix,"
MORE = f"""
profile guarded {RUNTIME} {ALL} deny /runtime-secret r,
  change_profile -> sealed, change_profile -> &{{sealed,named}}, change_profile -> "&sp ace (x)",
}}
profile only-exec {RUNTIME} {ALL} change_profile -> web, }}
profile only-stack {RUNTIME} {ALL} change_profile -> &web, }}
profile kills flags=(attach_disconnected,kill) {{ {ALL} change_profile -> &sealed, }}
profile by-path {RUNTIME} {ALL} change_profile /bin/busybox -> web, }}
profile by-other-path {RUNTIME} {ALL} change_profile /run/lab/rootfs/bin/busybox -> web, }}
profile by-both {RUNTIME} {ALL} change_profile /bin/busybox -> second, change_profile /elsewhere -> web, }}
profile "run (time)" {RUNTIME} {ALL} change_profile -> web, change_profile -> &web, }}
profile learns-too flags=(attach_disconnected,complain) {{ {ALL} }}
profile "sp ace (x)" {CONTAINER} signal, deny /container-secret r, }}
profile sealed {CONTAINER} signal (send) peer=sealed, signal (receive), deny /container-secret r, }}
profile named {CONTAINER} signal peer=guarded//&named, deny /container-secret r, }}
profile mute {RUNTIME} file, capability, network, unix, mount, remount, umount, pivot_root, change_profile,
  signal peer=mute, ptrace peer=mute,
}}
profile shut flags=(attach_disconnected,mediate_deleted) {{ file, capability, network, unix, signal peer=shut, ptrace peer=shut, }}
profile attached {{ {ALL} change_profile, }}
profile kin {CONTAINER} signal (receive) peer=unconfined, signal (send, receive) peer=kin, }}
"""
EVERYTHING = POLICY + MORE + REMOVABLE


@dataclass(frozen=True)
class Own:
    """What the runtime is when it is called: its label, no_new_privs, and what is kept from it."""

    label: str = "unconfined"
    nnp: bool = False
    hidden: bool = False  # no securityfs: the loaded profiles and their modes cannot be known
    unstackable: bool = False  # the kernel says that it cannot stack
    powerless: bool = False  # no CAP_MAC_OVERRIDE
    callless: bool = False  # no lsm_set_self_attr(2): a seccomp filter answers ENOSYS


@dataclass(frozen=True)
class Attempt:
    """One container, or one exec into the container `into`. `sysctl` is on meanwhile; `removed` takes the profile away before start."""

    name: str
    verb: str
    own: Own = Own()
    profile: str | None = "web"
    nnp: bool = False
    user: bool = False  # a user namespace
    shares: bool = False  # the host's PID namespace
    into: str = "plain"
    sysctl: str = ""
    removed: bool = False

    @property
    def plain(self) -> dict[str, object]:
        """As JSON has it."""
        return asdict(self)


def own(case: Case) -> Own:
    """The runtime of a case of the rulebook."""
    return Own("//&".join(case.own), case.inherited, not case.known, not case.stack)


def of_case(case: Case, verb: str) -> Attempt:
    """A case of the rulebook, tried by a verb."""
    return Attempt(f"{case.row} {case.name}: {verb}", verb, own(case), case.profile, case.config)


REAL = [case for case in CASES if case.state == "on"]


def by_verb() -> list[tuple[Case, str]]:
    """Each row by each verb. Every case by exec, and by run or create in turn; one that is alone in its row by both.

    Malformed names never come as far as the kernel, so those take turns at all three.
    """
    rows: defaultdict[int, list[Case]] = defaultdict(list)
    for case in REAL:
        rows[case.row].append(case)
    chosen: list[tuple[Case, str]] = []
    for row, cases in rows.items():
        if row == 12:
            chosen += zip(cases, cycle(VERBS))
            continue
        chosen += [(case, "exec") for case in cases]
        chosen += zip(cases if len(cases) > 1 else cases * 2, cycle(("run", "create")))
    return chosen


TABLE = by_verb()
OFF = [of_case(case, verb) for case in CASES if case.state == "off" for verb in VERBS]  # on a kernel started with apparmor=0

# Containers that stay, for exec to go into: verb "stay" is run --detach.
HOMES = [
    Attempt("plain", "stay", profile=None),
    Attempt("web with no_new_privs", "stay", nnp=True),
    Attempt("web without no_new_privs", "stay"),
    Attempt("kin", "stay", profile="kin", nnp=True),
    Attempt("in a user namespace", "stay", nnp=True, user=True),
    Attempt("web on rt", "stay", Own("rt"), nnp=True),
    Attempt("web on rt, inherited", "stay", Own("rt", nnp=True)),
]
GUARDED, LEARNS, FREE = Own("guarded"), Own("rt-learns"), Own("rt-free")
FREE_NNP, BOX, OUTER = Own("rt-free", nnp=True), Own(":box:unconfined"), Own("rt//&:box:unconfined")
TRAPS = [
    # both profiles deny: what one of them allows, the other does not
    Attempt("both deny: run", "run", GUARDED, "sealed", True),
    Attempt("both deny: exec", "exec", GUARDED, "sealed", True),
    Attempt("only the container's denies: run", "run", GUARDED, "sealed"),
    Attempt("a complaining runtime's container denies: run", "run", LEARNS, "sealed", True),
    Attempt("a complaining runtime's container denies: create", "create", LEARNS, "sealed", True),
    Attempt("a complaining runtime's container denies, inherited: exec", "exec", Own("rt-learns", True), "sealed"),
    Attempt("a complaining runtime, no no_new_privs: run", "run", LEARNS, "sealed"),
    Attempt("two complaining profiles: run", "run", Own("rt-learns//&learns-too"), "sealed", True),
    Attempt("not loaded, two complaining profiles: run", "run", Own("rt-learns//&learns-too"), "nope", True),
    # signals within a container whose profile names its peers
    Attempt("signals, unconfined: run", "run", profile="sealed", nnp=True),
    Attempt("signals, unconfined mode: run", "run", FREE, "sealed", True),
    Attempt("signals, unconfined mode: exec", "exec", FREE_NNP, "sealed"),
    Attempt("signals, stacked, peer by the profile: run", "run", GUARDED, "sealed", True),
    Attempt("signals, stacked, peer by the label: run", "run", GUARDED, "named", True),
    # rules
    Attempt("exec rule alone, no no_new_privs: run", "run", Own("only-exec")),
    Attempt("exec rule alone, no_new_privs: run", "run", Own("only-exec"), nnp=True),
    Attempt("stack rule alone, no no_new_privs: run", "run", Own("only-stack")),
    Attempt("stack rule alone, no_new_privs: run", "run", Own("only-stack"), nnp=True),
    Attempt("one of two has no rule: run", "run", Own("rt//&only-exec"), nnp=True),
    Attempt("a rule for the path inside: run", "run", Own("by-path")),
    Attempt("a rule for the path outside: run", "run", Own("by-other-path")),
    Attempt("a rule for the path, but to another profile: run", "run", Own("by-both")),
    Attempt("a rule for the path, but to another profile: create", "create", Own("by-both")),
    Attempt("a rule for the path, but to another profile: exec", "exec", Own("by-both")),
    # a profile that has a process killed for what it may not do
    *(Attempt(f"kill mode, no rule: {verb}", verb, Own("kills")) for verb in VERBS),
    *(Attempt(f"kill mode, no rule, no_new_privs: {verb}", verb, Own("kills"), nnp=True) for verb in VERBS),
    Attempt("kill mode, a rule: run", "run", Own("kills"), "sealed", True),
    # names
    Attempt("blanks and parentheses: run", "run", profile="sp ace (x)", nnp=True),
    Attempt("blanks and parentheses, stacked: run", "run", GUARDED, "sp ace (x)", True),
    Attempt("blanks and parentheses, the runtime's: run", "run", Own("run (time)"), nnp=True),
    Attempt("blanks and parentheses, kept: run", "run", Own("run (time)"), None),
    # policy namespaces
    Attempt("inside a policy namespace: run", "run", BOX, nnp=True),
    Attempt("inside a policy namespace, confined from outside: run", "run", OUTER, nnp=True),
    Attempt("inside a policy namespace, not loaded there: run", "run", BOX, "second"),
    # exec takes after the container
    Attempt("as the container, no_new_privs", "exec as it is", into="web with no_new_privs"),
    Attempt("as the container, no_new_privs, confined", "exec as it is", Own("rt"), into="web with no_new_privs"),
    Attempt("as the container, unconfined mode", "exec as it is", FREE, into="web without no_new_privs"),
    Attempt("as the container, confined", "exec as it is", Own("rt"), into="web without no_new_privs"),
    Attempt("as the container, inside a policy namespace", "exec as it is", BOX, into="web without no_new_privs"),
    Attempt("into a container that takes signals from unconfined alone", "exec as it is", FREE, into="kin"),
    Attempt("as the container, in a user namespace", "exec as it is", into="in a user namespace"),
    Attempt("as a stacked container", "exec as it is", into="web on rt"),
    Attempt("as a stacked container, unconfined mode", "exec as it is", FREE, into="web on rt"),
    Attempt("as a stacked container, confined by another", "exec as it is", Own("second"), into="web on rt"),
    Attempt("as a stacked container without no_new_privs", "exec as it is", into="web on rt, inherited"),
    Attempt("as a stacked container without no_new_privs, confined", "exec as it is", Own("rt"), into="web on rt, inherited"),
    Attempt("as a stacked container without no_new_privs, confined by another", "exec as it is", Own("second"), into="web on rt, inherited"),
    Attempt("as a stacked container, no rule", "exec as it is", Own("only-stack"), into="web on rt"),
    # user namespaces
    Attempt("user namespace: run", "run", nnp=True, user=True),
    Attempt("user namespace, stacked: run", "run", GUARDED, "sealed", True, user=True),
    # what the program leaves is ended by its cgroup: it has been waited for, and its pid is that of a session
    Attempt("the host's PID namespace: run", "run", GUARDED, "sealed", True, shares=True),
    # what is only seen after the exec
    Attempt("the profile goes before start: create", "create", profile="fleeting", nnp=True, removed=True),
    Attempt("the profile goes before start, stacked: create", "create", LEARNS, "fleeting", True, removed=True),
    # where the system call is kept away, the file is written
    Attempt("no system call: run", "run", Own(callless=True), nnp=True),
    Attempt("no system call, stacked: run", "run", Own("guarded", callless=True), "sealed", True),
    # the kernel stacks on unconfined whatever a runtime without privileges writes
    Attempt("restricted: run", "run", profile="sealed", nnp=True, sysctl=UNCONFINED),
    Attempt("restricted, user namespace: run", "run", profile="sealed", nnp=True, user=True, sysctl=UNCONFINED),
    Attempt("restricted: exec", "exec", profile="sealed", nnp=True, sysctl=UNCONFINED),
    Attempt("restricted, user namespace: exec", "exec", profile="sealed", nnp=True, into="in a user namespace", sysctl=UNCONFINED),
    Attempt("restricted, unconfined mode, powerless: run", "run", Own("rt-free", powerless=True), "sealed", True, sysctl=UNCONFINED),
    Attempt("restricted, powerless: run", "run", Own(powerless=True), "sealed", True, sysctl=UNCONFINED),
    Attempt("restricted, powerless: create", "create", Own(powerless=True), "sealed", True, sysctl=UNCONFINED),
    Attempt("restricted, powerless: exec", "exec", Own(powerless=True), "sealed", True, sysctl=UNCONFINED),
    Attempt("restricted, powerless, unconfined asked: run", "run", Own(powerless=True), "unconfined", sysctl=UNCONFINED),
    # where it is not known, it is found out
    Attempt("restricted, powerless, hidden: run", "run", Own(powerless=True, hidden=True), "sealed", True, sysctl=UNCONFINED),
    Attempt("restricted, powerless, hidden: create", "create", Own(powerless=True, hidden=True), "sealed", True, sysctl=UNCONFINED),
    Attempt("restricted, powerless, hidden: exec", "exec", Own(powerless=True, hidden=True), "sealed", True, sysctl=UNCONFINED),
    Attempt("restricted user namespaces: run", "run", profile="sealed", nnp=True, user=True, sysctl=USERNS),
]

# What a runtime does to a container that its profile does not let it signal or trace: of each the words after the runtime's, {id} being
# a container that runs under "shut". Each has a container of its own.
DEEDS = {
    "signal": ["kill", "{id}", "TERM"],
    "signal all": ["kill", "--all", "{id}", "USR1"],
    "exec": ["exec", "{id}", "true"],
    "kill": ["kill", "{id}", "KILL"],
    "delete": ["delete", "--force", "{id}"],
}
MUTE, ATTACHED = Own("mute"), Own("attached")
