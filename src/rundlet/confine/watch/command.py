"""rundlet watch: verifies the containers of a root again and again, and tells what changes."""

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from rundlet import log
from rundlet.confine.denials.containers import Container, of_pid
from rundlet.confine.watch import address, lines
from rundlet.confine.watch.denied import Denials
from rundlet.confine.watch.look import Other, look
from rundlet.confine.watch.metrics import Metrics
from rundlet.confine.watch.server import Server
from rundlet.confine.watch.table import Look, Table
from rundlet.confine.watch.watcher import Change, Watcher
from rundlet.errors import Fault, Usage
from rundlet.life import store
from rundlet.life.events import seconds
from rundlet.options import Options

INTERVAL = 30.0  # seconds
HOLDS, DIFFERS, UNKNOWN = 0, 1, 2


@dataclass(frozen=True)
class Watched:
    """What is watched: the containers of a root, or one of another runtime, in `others` as denials have it."""

    what: str  # for people
    root: str
    names: Callable[[], list[str]]
    look: Callable[[str], Look | None]
    others: tuple[Container, ...] = ()
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def told(self, change: Change) -> None:
        """Of one container nothing is left to be watched when it has gone."""
        if self.others and change.kind == "gone":
            self.ended.set()


def _watched(options: Options) -> Watched:
    """What the command line names. Raises Fault."""
    root = store.root(options)
    if bool(options.config) != bool(options.pid):
        raise Usage("watch takes --pid N with --config FILE, or neither; see rundlet watch --help")
    if not options.pid:
        return Watched(root, root, partial(store.names, root), partial(look, root))
    config = options.config or ""
    other = Other(options.pid, config)
    return Watched(other.target.name, root, other.names, other.look, (of_pid(options.pid, config),))


def main(options: Options) -> int:
    """The verb. With --once 0: all hold; 1: one differs; 2: one cannot be told. Without it 0, once a signal has ended it."""
    interval = _interval(options.interval)
    at = address.parse(options.listen)
    watched = _watched(options)
    if options.once:
        return once(watched, options.json)
    allowed = {"localhost", os.uname().nodename.lower(), *(name.lower().rstrip(".") for name in options.allow_host)}
    return asyncio.run(watch(watched, interval, at, frozenset(allowed), options.json))


def _interval(text: str) -> float:
    """Of --interval: a number is of seconds."""
    if not text:
        return INTERVAL
    return seconds(f"{text}s" if text.replace(".", "", 1).isdigit() else text)


def once(watched: Watched, as_json: bool) -> int:
    """Verifies all containers, and prints each; the exit status."""
    verdicts = set()
    for id in watched.names():
        found = watched.look(id)
        if found is None:
            continue
        verdicts.add(found.verdict)
        change = Change("verdict" if found.verdict else "status", time.time(), id, found)
        sys.stdout.write(lines.json_line(lines.document(change)) if as_json else lines.text(change))
    return DIFFERS if "differs" in verdicts else UNKNOWN if "unknown" in verdicts else HOLDS


async def watch(watched: Watched, interval: float, at: address.Address | None, allowed: frozenset[str], as_json: bool) -> int:
    """Watches until SIGINT or SIGTERM comes. Raises Fault where it cannot watch or listen."""

    def tell(change: Change) -> None:
        sys.stdout.write(lines.json_line(lines.document(change)) if as_json else lines.text(change))
        sys.stdout.flush()
        watched.told(change)

    table = Table()
    metrics = Metrics(table)
    watcher = Watcher(table, watched.look, watched.names, tell, metrics.looked, interval, Denials(watched.root, watched.others))
    server = Server(table, metrics, allowed, interval)
    for signo in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(signo, watched.ended.set)
    try:
        if at:
            at = await _listen(server, at)
        _begin(watched, interval, at, as_json)
        running = watcher.run(None if watched.others else watched.root)
        jobs = [asyncio.create_task(job) for job in (running, _ready(watcher), _wait(watched.ended))]
        try:
            await asyncio.wait([jobs[0], jobs[2]], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for job in jobs:
                job.cancel()
            results = await asyncio.gather(*jobs, return_exceptions=True)
        if isinstance(results[0], OSError) and not isinstance(results[0], BrokenPipeError):
            raise Fault(f"cannot watch {watched.what}: {(results[0].strerror or str(results[0])).lower()}")
        if isinstance(results[0], Exception):
            raise results[0]
    finally:
        await server.close()
        _notify("STOPPING=1")
    return 0


async def _listen(server: Server, at: address.Address) -> address.Address:
    try:
        got = await server.listen(at)
    except OSError as failure:
        why = os.strerror(failure.errno).lower() if failure.errno else str(failure)
        raise Fault(f"cannot listen on {at}: {why}; choose another address by --listen ADDR:PORT, or --listen {address.NOWHERE}") from None
    if not at.loopback:
        what = "can read which containers run here, and what of them differs; nothing asks who they are"
        log.warning(f"everybody who reaches {got} {what}", loud=True)
    return got


def _begin(watched: Watched, interval: float, at: address.Address | None, as_json: bool) -> None:
    """The first line."""
    if as_json:
        shown = {"schema": lines.SCHEMA, "time": round(time.time(), 3), "event": "watching", "interval": interval}
        shown |= {"container": watched.what} if watched.others else {"root": watched.root}
        sys.stdout.write(lines.json_line(shown | {"listen": str(at) if at else None}))
    else:
        place = f"; page http://{at}/, metrics http://{at}/metrics" if at else ""
        each = "" if watched.others else "each container "
        what = lines.plain(watched.what)
        sys.stdout.write(f"watching {what}, {each}every {interval:g} s and when something happens to it{place}\n")
    sys.stdout.flush()


async def _ready(watcher: Watcher) -> None:
    """Tells who started us, once all containers have been looked at."""
    await watcher.settled.wait()
    _notify("READY=1")


async def _wait(event: asyncio.Event) -> None:
    await event.wait()


def _notify(state: str) -> None:
    """sd_notify(3), where systemd wants to know."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if path[:1] not in ("/", "@"):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as to:
        try:
            to.sendto(state.encode(), path.replace("@", "\0", 1) if path[0] == "@" else path)
        except OSError as failure:
            log.warning(f"cannot tell {path} the state: {(failure.strerror or '').lower()}")
