"""rundlet list: all containers of the root, as a table, as ids or as JSON."""

import sys
from fcntl import LOCK_EX, LOCK_NB, flock

from rundlet import jsontext, log
from rundlet.errors import Fault, WrongState
from rundlet.life import store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rundlet.options import Options

COLUMNS = ("ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER")


def main(options: "Options") -> int:
    """The verb."""
    rows = states(store.root(options))
    if options.quiet:
        text = "".join(f"{row['id']}\n" for row in rows)
    elif options.format == "json":
        text = jsontext.dumps(rows) + "\n"
    else:
        table = [COLUMNS] + [tuple(str(row[key]) for key in ("id", "pid", "status", "bundle", "created", "owner")) for row in rows]
        widths = [max(len(line[i]) for line in table) for i in range(len(COLUMNS))]
        text = "".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() + "\n" for line in table)
    sys.stdout.write(text)
    return 0


def states(top: str) -> "list[dict[str, object]]":
    """The states of all containers in the folder `top`, by id; of one that is damaged a warning."""
    rows: "list[dict[str, object]]" = []
    for name in store.names(top):
        try:
            container = store.find_in(top, name, lock=False)
            try:
                if not container.complete and not container.damaged and _idle(container.fd):
                    log.warning(f"container {name} was never completed; remove it with delete --force")
                row = store.shown(container)
            finally:
                container.close()
        except WrongState:
            continue  # removed meanwhile, or being made, or what there is to say of it was said
        except Fault as fault:
            log.warning(str(fault))
            continue
        if "unchecked" in row:
            from rundlet.life import late

            log.warning(f"container {name}: {late.WHY}", loud=True)
        rows.append(row)
    return rows


def _idle(fd: int) -> bool:
    """Whether no command is busy with the container whose folder this is."""
    try:
        flock(fd, LOCK_EX | LOCK_NB)
    except BlockingIOError:
        return False
    return True
