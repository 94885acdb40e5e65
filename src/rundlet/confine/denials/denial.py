"""What a record means, as others use it: a value, whatever log it comes from."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Denial:
    """One thing that the kernel did not let a process do, or would not have, or was told to write down.

    time        seconds since the epoch
    layer       "apparmor" or "seccomp"
    verdict     "denied"; "allowed": a complaining profile or a logging filter let it pass; "audited": permitted, a rule wants it logged;
                "killed": the process, or its thread
    pid, comm   who did it; pid as the host counts
    label       the profile that said no; of seccomp, the label of the process ("" where it has none)
    operation   AppArmor's word for it, or the system call
    what        what it was done to, in a few words
    peer        the label of the other process, where there is one
    container   its id, None where none is known, or several may be: those are in `maybe`
    meaning     a sentence
    rule        what would permit it: for AppArmor a line of the profile `label`, for seccomp an entry of the filter; None where none would
    widens      why that would be more than this one access, a phrase each
    raw         the record
    count       how often it happened
    """

    time: float
    layer: str
    verdict: str
    pid: int
    comm: str
    label: str
    operation: str
    what: str
    peer: str | None
    container: str | None
    meaning: str
    rule: str | None
    widens: tuple[str, ...]
    raw: str
    count: int = 1
    maybe: tuple[str, ...] = ()

    @property
    def refused(self) -> bool:
        """Whether it counts as found: what was permitted and only written down does not."""
        return self.verdict != "audited"

    @property
    def same(self) -> tuple[object, ...]:
        """Equal for what is the same thing happening again."""
        return self.layer, self.verdict, self.comm, self.label, self.operation, self.what, self.peer, self.container, self.maybe, self.rule
