"""rundlet state: what a container is doing, as JSON. Engines ask often, so it reads two small files and nothing else."""

import posix

from rundlet import jsontext
from rundlet.errors import WrongState
from rundlet.life import store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rundlet.options import Options


def main(options: "Options") -> int:
    """The verb."""
    container = store.find(options, lock=False)
    if not container.complete:
        raise WrongState(f"container {options.id} does not exist yet, or its creation was cut off")
    record = container.record
    shown = store.shown(container)
    if "apparmor" in record:
        of = record["apparmor"]
        shown["apparmor"] = {"file": of["file"], "loaded": sorted(of["loaded"]), "onDelete": "remove" if of["remove"] else "keep"}
    posix.write(1, (jsontext.dumps(shown, 2) + "\n").encode())
    return 0
