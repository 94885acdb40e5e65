"""What must have been seen of each trap of cases.py: the container's label, from outside and from inside, or why there is none."""

from dataclasses import dataclass

from tests.lab.cases import UNCONFINED, USERNS, VERBS

ALL = {"public", "runtime-secret", "container-secret"}
RUNTIMES = {"public", "runtime-secret"}  # what the container's profile denies is container-secret


@dataclass(frozen=True)
class Runs:
    """The container runs, under this label, reads these files, and one process of it can signal another."""

    label: str
    reads: set[str]
    signals: bool = True


@dataclass(frozen=True)
class Killed:
    """It was killed after the exec, for the label it had then."""

    label: str
    says: str


@dataclass(frozen=True)
class Not:
    """It never ran; the words tell why."""

    says: tuple[str, ...]
    status: int = 1


REMOVED = Not(('the label "fleeting" is still the one asked for', 'the profile "fleeting" or one of the runtime was removed', "`/proc/thread-self/attr/apparmor/exec`"))
REFUSED = Not(('cannot apply the apparmor profile "sealed"', 'the label would be "sealed//&unconfined"', "CAP_MAC_OVERRIDE"))
ADDED = "adds unconfined where the runtime is unconfined and lacks CAP_MAC_OVERRIDE"
# a rule for the program exists, but not for this profile: the kernel says no at the execve itself
NO_PAIR = Not(('exec: "sh": permission denied',), 126)
TRAPS: dict[str, Runs | Killed | Not] = {
    "both deny: run": Runs("guarded//&sealed", {"public"}, False),
    "both deny: exec": Runs("guarded//&sealed", {"public"}, False),
    "only the container's denies: run": Runs("sealed", RUNTIMES),
    # a complaining profile of the runtime lets everything pass, and the container's is enforced all the same
    "a complaining runtime's container denies: run": Runs("rt-learns//&sealed", RUNTIMES, False),
    "a complaining runtime's container denies: create": Runs("rt-learns//&sealed", RUNTIMES, False),
    "a complaining runtime's container denies, inherited: exec": Runs("rt-learns//&sealed", RUNTIMES, False),
    "a complaining runtime, no no_new_privs: run": Runs("sealed", RUNTIMES),
    "two complaining profiles: run": Runs("learns-too//&rt-learns//&sealed", RUNTIMES, False),
    "not loaded, two complaining profiles: run": Not(('"nope"', "is not loaded")),
    # rules for signals name the peer's whole label: `peer=sealed` is not `guarded//&sealed`
    "signals, unconfined: run": Runs("sealed", RUNTIMES),
    "signals, unconfined mode: run": Runs("sealed", RUNTIMES),
    "signals, unconfined mode: exec": Runs("sealed", RUNTIMES),
    "signals, stacked, peer by the profile: run": Runs("guarded//&sealed", {"public"}, False),
    "signals, stacked, peer by the label: run": Runs("guarded//&named", {"public"}),
    "exec rule alone, no no_new_privs: run": Runs("web", ALL),
    "exec rule alone, no_new_privs: run": Not(('"only-exec"', "change_profile -> &web,")),
    "stack rule alone, no no_new_privs: run": Not(('"only-stack"', "change_profile -> web,")),
    "stack rule alone, no_new_privs: run": Runs("only-stack//&web", ALL, False),
    "one of two has no rule: run": Not(('"only-exec"', "change_profile -> &web,")),
    # profile_onexec() in the kernel's domain.c: a program that no rule names passes
    "a rule for the path inside: run": Runs("web", ALL),
    "a rule for the path outside: run": Runs("web", ALL),
    "a rule for the path, but to another profile: run": NO_PAIR,
    "a rule for the path, but to another profile: create": NO_PAIR,
    "a rule for the path, but to another profile: exec": NO_PAIR,
    **{f"kill mode, no rule: {verb}": Not(('the profile "kills" needs the rule: change_profile -> web,', "EACCES")) for verb in VERBS},
    **{f"kill mode, no rule, no_new_privs: {verb}": Not(('the profile "kills" needs the rule: change_profile -> &web,',)) for verb in VERBS},
    "kill mode, a rule: run": Runs("kills//&sealed", RUNTIMES, False),
    "blanks and parentheses: run": Runs("sp ace (x)", RUNTIMES),
    "blanks and parentheses, stacked: run": Runs("guarded//&sp ace (x)", {"public"}),
    "blanks and parentheses, the runtime's: run": Runs("run (time)//&web", ALL, False),
    "blanks and parentheses, kept: run": Runs("run (time)", ALL),
    "inside a policy namespace: run": Runs(":box:web", ALL),
    "inside a policy namespace, confined from outside: run": Runs("rt//&:box:web", ALL),
    "inside a policy namespace, not loaded there: run": Not(('"second"', 'the policy namespace "box"', "-n box")),
    "as the container, no_new_privs": Runs("web", ALL),
    "as the container, no_new_privs, confined": Runs("rt//&web", ALL, False),
    "as the container, unconfined mode": Runs("web", ALL),
    "as the container, confined": Runs("web", ALL),
    "as the container, inside a policy namespace": Not(('"web" from the policy namespace "root"', 'own, "box"', "--apparmor")),
    "into a container that takes signals from unconfined alone": Runs("kin", ALL),
    "as the container, in a user namespace": Runs("web", ALL),
    "as a stacked container": Runs("rt//&web", ALL, False),
    "as a stacked container, unconfined mode": Runs("rt//&web", ALL, False),
    "as a stacked container, confined by another": Runs("rt//&second//&web", ALL, False),
    "as a stacked container without no_new_privs": Runs("rt//&web", ALL, False),
    "as a stacked container without no_new_privs, confined": Runs("rt//&web", ALL, False),
    "as a stacked container without no_new_privs, confined by another": Runs("rt//&web", ALL, False),
    "as a stacked container, no rule": Not(('"only-stack"', "change_profile -> &rt//&web,")),
    "user namespace: run": Runs("web", ALL),
    "user namespace, stacked: run": Runs("guarded//&sealed", {"public"}, False),
    "the host's PID namespace: run": Runs("guarded//&sealed", {"public"}, False),
    # the kernel puts unconfined in the place of a profile that is removed: seen before the exec
    "the profile goes before start: create": REMOVED,
    "the profile goes before start, stacked: create": REMOVED,
    "no system call: run": Runs("web", ALL),
    "no system call, stacked: run": Runs("guarded//&sealed", {"public"}, False),
    "restricted: run": Runs("sealed", RUNTIMES),
    "restricted, user namespace: run": Runs("sealed", RUNTIMES),
    "restricted: exec": Runs("sealed", RUNTIMES),
    "restricted, user namespace: exec": Runs("sealed", RUNTIMES),
    "restricted, unconfined mode, powerless: run": Runs("sealed", RUNTIMES),
    "restricted, powerless: run": REFUSED,
    "restricted, powerless: create": REFUSED,
    "restricted, powerless: exec": REFUSED,
    "restricted, powerless, unconfined asked: run": Runs("unconfined", ALL),
    "restricted, powerless, hidden: run": Killed("sealed//&unconfined", ADDED),
    "restricted, powerless, hidden: create": Killed("sealed//&unconfined", ADDED),
    "restricted, powerless, hidden: exec": Killed("sealed//&unconfined", ADDED),
    "restricted user namespaces: run": Runs("sealed", RUNTIMES),
}
# the exec that says nothing goes by the container's no_new_privs
INHERITED = {
    "as the container, no_new_privs": "1", "as the container, no_new_privs, confined": "1",
    "as the container, unconfined mode": "0", "as the container, confined": "0",
    "into a container that takes signals from unconfined alone": "1", "as the container, in a user namespace": "1",
    "as a stacked container": "1", "as a stacked container, unconfined mode": "1", "as a stacked container, confined by another": "1",
}
LACKING = {"bookworm": {UNCONFINED, USERNS}, "backports": {USERNS}}  # the one is Linux 6.7's, the other Ubuntu's
