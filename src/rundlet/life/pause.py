"""rundlet pause and resume: the freezer, on and off."""

from rundlet.cgroup import place, tasks
from rundlet.errors import Refused, WrongState
from rundlet.life import store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rundlet.options import Options


def main(options: "Options") -> int:
    """The verbs `pause` and `resume`."""
    container = store.find(options)
    try:
        record = container.record
        now = store.settled(container)
        at = place.load(record["cgroup"])
        if options.verb == "pause":
            if now not in ("created", "running"):
                raise WrongState(f"cannot pause a container that is {now}: container not running")
            if not at.dirs:
                raise Refused("cannot pause a container that was made without cgroups", "make it with --cgroup-manager=cgroupfs")
            tasks.freeze(at)
        else:
            if now != "paused":
                raise WrongState(f"cannot resume a container that is {now}: container not paused")
            tasks.thaw(at)
    finally:
        container.close()
    return 0
