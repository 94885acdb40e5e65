"""What the kernel tells of containers, so that nobody has to ask again and again.

    the root of containers     inotify(7): a container's folder is made, or removed
    its folder                 state.json is replaced: created, started, updated; execs is written to
    its cgroups                inotify sees every write to their files, those of cgroup v1 too: a limit changed by hand, a process that
                               joins (exec writes to cgroup.procs), frozen and thawed; the kernel itself writes to cgroup.events
    its first process          a pidfd becomes readable when it ends: pidfd_open(2); so do those of processes that differ
    AppArmor's policy          apparmor/revision becomes readable when a profile is loaded, replaced or removed: security/apparmor/
                               apparmorfs.c ns_revision_poll()

What no file tells of, such as a process that changes its own capabilities or joins by setns(2), is found by the interval's look.
"""

import asyncio
import os
import posix
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from asyncinotify import Event, Inotify, Mask, Watch

from rundlet.life import store

ROOT_MASK = Mask.CREATE | Mask.DELETE | Mask.MOVED_FROM | Mask.MOVED_TO | Mask.DELETE_SELF | Mask.MOVE_SELF | Mask.ONLYDIR
ABOVE_MASK = Mask.CREATE | Mask.MOVED_TO | Mask.DELETE_SELF | Mask.MOVE_SELF | Mask.ONLYDIR
FOLDER_MASK = Mask.MOVED_TO | Mask.MODIFY | Mask.ONLYDIR | Mask.DONT_FOLLOW
CGROUP_MASK = Mask.MODIFY | Mask.ONLYDIR | Mask.DONT_FOLLOW
REVISION = "/sys/kernel/security/apparmor/revision"


@dataclass
class Followed:
    """What is open for one container."""

    folder: Watch | None = None
    pidfds: dict[tuple[int, int], int] = field(default_factory=dict)  # by pid and start time; -1: it has ended
    cgroups: dict[str, Watch] = field(default_factory=dict)


class Events:
    """Calls `changed(id)` when something happened to a container, `all_changed()` when it may have happened to any, or to the list."""

    def __init__(self, root: str | None, changed: Callable[[str], None], all_changed: Callable[[], None]) -> None:
        self.root = Path(root) if root is not None else None  # of containers of another runtime nothing is there
        self.changed = changed
        self.all_changed = all_changed
        self.inotify = Inotify()
        self.followed: dict[str, Followed] = {}
        self._owners: dict[int, str] = {}  # watch descriptor → container
        self._top: Watch | None = None  # of the root, or of the nearest folder above it that is there
        self._revision = -1

    def start(self) -> None:
        """Begins with the root and the policy; raises OSError where the kernel has no more watches."""
        self._watch_top()
        try:
            self._revision = posix.open(REVISION, posix.O_RDONLY | posix.O_NONBLOCK | posix.O_CLOEXEC)
        except OSError:
            return  # no AppArmor, or not ours to read: the interval is left
        self._read_revision()
        asyncio.get_running_loop().add_reader(self._revision, self._policy_changed)

    def close(self) -> None:
        """Closes everything."""
        for id in list(self.followed):
            self.forget(id)
        if self._revision >= 0:
            asyncio.get_running_loop().remove_reader(self._revision)
            posix.close(self._revision)
        self.inotify.close()

    async def run(self) -> None:
        """Hands on what inotify says, for ever."""
        async for event in self.inotify:
            self._handle(event)

    # ── a container ──────────────────────────────────────────────────────────────────────────────────────────────────────────

    def meet(self, id: str) -> None:
        """Watches a container's folder. What happened before is not told: look once after it."""
        if id in self.followed:
            return
        one = self.followed[id] = Followed()
        if self.root:
            one.folder = self._add(self.root / id, FOLDER_MASK, id)

    def follow(self, id: str, processes: Iterable[tuple[int, int]], cgroups: Sequence[str]) -> None:
        """Watches what a look has found of a container: processes (pid, start time) whose end matters, and its cgroups."""
        one = self.followed.get(id)
        if one is None:
            return
        wanted = set(processes)
        for process in one.pidfds.keys() - wanted:
            self._let_go(one.pidfds.pop(process))
        for process in wanted - one.pidfds.keys():
            one.pidfds[process] = self._hold(id, process)
        for path in set(one.cgroups) - set(cgroups):
            self._remove(one.cgroups.pop(path))
        new = [path for path in cgroups if path not in one.cgroups]
        for path in new:
            if watch := self._add(Path(path), CGROUP_MASK, id):
                one.cgroups[path] = watch
        if one.cgroups.keys() & new:
            self.changed(id)  # what was written there since they were looked at has not been told

    def forget(self, id: str) -> None:
        """Lets go of a container."""
        one = self.followed.pop(id, None)
        if one is None:
            return
        for fd in one.pidfds.values():
            self._let_go(fd)
        for watch in [one.folder, *one.cgroups.values()]:
            if watch is not None:
                self._remove(watch)

    def _hold(self, id: str, process: tuple[int, int]) -> int:
        pid, start = process
        try:
            fd = store.pidfd(pid)
        except ProcessLookupError:
            self.changed(id)  # it has just ended
            return -1
        found = store.stat(pid)
        if found is None or found[1] != start:
            posix.close(fd)  # the pid is another process's by now
            self.changed(id)
            return -1
        asyncio.get_running_loop().add_reader(fd, self._ended, id, process)
        return fd

    def _let_go(self, fd: int) -> None:
        if fd >= 0:
            asyncio.get_running_loop().remove_reader(fd)
            posix.close(fd)

    def _ended(self, id: str, process: tuple[int, int]) -> None:
        one = self.followed[id]
        self._let_go(one.pidfds[process])  # it stays readable
        one.pidfds[process] = -1
        self.changed(id)

    # ── inotify ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _add(self, path: Path, mask: Mask, owner: str) -> Watch | None:
        """A watch; None where there is no such directory any more, or not for us."""
        try:
            watch = self.inotify.add_watch(path, mask)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return None
        self._owners[watch.wd] = owner
        return watch

    def _remove(self, watch: Watch) -> None:
        if self._owners.pop(watch.wd, None) is None:
            return  # the kernel has removed it with the directory
        try:
            self.inotify.rm_watch(watch)
        except OSError:
            pass  # and has not told us yet

    def _watch_top(self) -> None:
        """Watches the root, or what is there on the way to it."""
        self._top = None
        if not self.root:
            return
        for path in (self.root, *self.root.parents):
            try:
                self._top = self.inotify.add_watch(path, ROOT_MASK if path == self.root else ABOVE_MASK)
            except (FileNotFoundError, NotADirectoryError):
                continue
            if path != self.root and os.path.lexists(path / self._next(path)):
                self._watch_top()  # it was made meanwhile
            return
        raise FileNotFoundError(f"nothing leads to {self.root}")

    def _handle(self, event: Event) -> None:
        if Mask.Q_OVERFLOW in event.mask:
            self.all_changed()
            return
        watch = event.watch
        if watch is None:
            return
        if watch is self._top:
            self._handle_top(event)
            return
        owner = self._owners.get(watch.wd)
        if Mask.IGNORED in event.mask:
            self._owners.pop(watch.wd, None)
        if owner is None:
            return
        name = str(event.name or "")
        if Mask.IGNORED in event.mask:
            one = self.followed.get(owner)
            if one:
                one.cgroups = {path: kept for path, kept in one.cgroups.items() if kept is not watch}
        elif name.endswith((".events", ".events.local")) and name != "cgroup.events":
            return  # the kernel counts: what a container uses is no matter of ours
        self.changed(owner)

    def _handle_top(self, event: Event) -> None:
        assert self._top is not None
        above = self._top.path != self.root
        if event.mask & (Mask.DELETE_SELF | Mask.MOVE_SELF | Mask.IGNORED) or (above and str(event.name) == self._next(self._top.path)):
            before = self._top
            if Mask.IGNORED not in event.mask:
                try:
                    self.inotify.rm_watch(before)
                except OSError:
                    pass
            self._watch_top()
            self.all_changed()
        elif event.name is not None and not above:
            self.changed(str(event.name))

    def _next(self, path: Path) -> str:
        """The name of what leads from `path` to the root."""
        assert self.root
        return self.root.relative_to(path).parts[0]

    # ── AppArmor ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _policy_changed(self) -> None:
        self._read_revision()
        self.all_changed()

    def _read_revision(self) -> None:
        try:
            posix.pread(self._revision, 64, 0)  # from the start: only a read of all of it counts as having seen it
        except BlockingIOError:
            pass
