"""rundlet ps: the processes of a container, those of its sub-cgroups too, by ps(1) or as pids."""

import subprocess
import sys

from rundlet import jsontext
from rundlet.cgroup import place, tasks
from rundlet.errors import Fault, Refused
from rundlet.life import store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rundlet.options import Options

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # some engines run commands without any


def main(options: "Options") -> int:
    """The verb."""
    container = store.find(options, lock=False)
    record = container.record
    container.close()
    at = place.load(record["cgroup"])
    if at.dirs:
        pids = sorted(tasks.pids(at))
    else:
        pids = [record["pid"]] if store.alive(record) else []  # of a container without cgroups nobody knows more
    if options.format == "json":
        sys.stdout.write(jsontext.dumps(pids) + "\n")
    else:
        args = options.args[1:] if options.args[:1] == ["--"] else options.args
        sys.stdout.write(table(listing(args or ["-ef"]), set(pids)))
    return 0


def listing(args: "list[str]") -> str:
    """What ps(1) prints. Raises Fault when it fails or is not installed."""
    from os import environ

    environment = {**environ, "PATH": environ.get("PATH") or PATH}
    try:
        done = subprocess.run(["ps", *args], capture_output=True, text=True, errors="surrogateescape", env=environment, check=False)
    except FileNotFoundError:
        raise Refused('exec: "ps": executable file not found in $PATH', "install procps, or use --format json") from None
    if done.returncode:
        raise Fault(f"ps {' '.join(args)}: exit status {done.returncode}: {' '.join((done.stdout + done.stderr).split())}")
    return done.stdout


def table(text: str, pids: "set[int]") -> str:
    """The header of a listing of ps(1), and its lines of these processes. Raises Fault when it has no column PID."""
    header, *lines = text.splitlines() or [""]
    names = header.split()
    if "PID" not in names:
        raise Fault("couldn't find PID field in ps output; choose options of ps that print it")
    column = names.index("PID")
    kept = [header]
    for line in lines:
        fields = line.split()
        if len(fields) > column and fields[column].isdigit() and int(fields[column]) in pids:
            kept.append(line)
    return "\n".join(kept) + "\n"
