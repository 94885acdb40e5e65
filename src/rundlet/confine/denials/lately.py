"""The two lines that a failed command adds: what the kernel denied to its processes, and what would permit that."""

import re
from collections.abc import Iterable

from rundlet.confine.denials.containers import known, whose
from rundlet.confine.denials.decode import decode
from rundlet.confine.denials.denial import Denial
from rundlet.life import store
from rundlet.options import Options

NUMBER = re.compile(r'( comm=)"\d+"')
HARMLESS = "/memfd:"  # the executor is then executed from its file


def of(lines: list[str]) -> list[Denial]:
    """The denials in these lines."""
    return [denial for denial in map(decode, lines) if denial]


def of_command(lines: list[str]) -> list[Denial]:
    """The same, where they are about processes of ours alone: one that is executed by a descriptor is called by its number, fs/exec.c."""
    return of([NUMBER.sub(r'\1"rundlet"', line) for line in lines])


def of_container(lines: list[str], options: Options, pid: int) -> list[Denial]:
    """Those of them that are of process `pid`, or for certain of the container that a command is about."""
    containers = known(store.root(options))
    return [mine for mine in (whose(denial, containers) for denial in of(lines)) if mine.pid == pid or mine.container == options.id]


def two(denials: Iterable[Denial]) -> list[str]:
    """At most two sentences about these; none where nothing was denied."""
    found = [denial for denial in denials if denial.verdict in ("denied", "killed") and HARMLESS not in denial.what]
    if not found:
        return []
    # one that no rule would permit is known for a cause; otherwise the last is what the command stumbled over
    chosen = next((denial for denial in reversed(found) if not denial.rule), found[-1])
    said = [f"{chosen.layer}: {chosen.meaning}"]
    if chosen.rule:
        said.append(permit(chosen))
    else:
        others = [denial for denial in found if denial.meaning != chosen.meaning]
        said += [f"{others[-1].layer}: {others[-1].meaning}"] if others else []
    return said


def permit(denial: Denial) -> str:
    """What would permit it, and where that is written."""
    place = f'in the profile "{denial.label.partition("//null-")[0]}"' if denial.layer == "apparmor" else "in /linux/seccomp/syscalls"
    wider = f" (wider: {'; '.join(denial.widens)})" if denial.widens else ""
    return f"{denial.layer}: to permit it, {place}: {denial.rule}{wider}"
