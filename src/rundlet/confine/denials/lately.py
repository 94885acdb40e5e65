"""The two lines that a failed command adds: what the kernel denied to its processes, and what would permit that."""

from rundlet.confine.denials.decode import decode
from rundlet.confine.denials.denial import Denial

HARMLESS = "/memfd:"  # the executor is then executed from its file


def two(lines: list[str]) -> list[str]:
    """At most two sentences about the records in these lines; none where they tell of no denial."""
    found = [denial for denial in map(decode, lines) if denial and denial.verdict in ("denied", "killed") and HARMLESS not in denial.what]
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
