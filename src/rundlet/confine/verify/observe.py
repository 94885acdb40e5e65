"""What the kernel says of processes and threads, from /proc, without judgement. One directory descriptor holds each process, so that
another one which gets its number meanwhile is not mistaken for it: proc(5)."""

import os
from dataclasses import dataclass, field
from stat import S_ISREG

from rundlet.confine.verify import filesystem
from rundlet.kernel import EINVAL, NAMESPACES, O_PATH
from rundlet.plan.label import parse

NS_FILES = {kind: {"network": "net", "mount": "mnt"}.get(kind, kind) for kind in NAMESPACES}
LOOK = O_PATH | os.O_CLOEXEC
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
CAPS = ("CapBnd", "CapEff", "CapPrm", "CapInh", "CapAmb")  # in the order of expect.SETS
MEMFD = "/memfd:"


class Gone(Exception):
    """The process has ended."""


@dataclass
class Task:
    """A thread; the first of a process has its number. Ids are the host's."""

    pid: int
    tid: int
    comm: str
    label: str | None  # as the kernel prints it without its mode; None where there is no AppArmor or it was not to be read
    mode: str | None
    nnp: bool
    seccomp: int  # 0 none, 1 strict, 2 filter
    filters: int | None  # None: before Linux 5.9
    capabilities: tuple[int, int, int, int, int]  # in the order of expect.SETS
    uids: tuple[int, ...]  # real, effective, saved, file system
    gids: tuple[int, ...]
    groups: frozenset[int]
    spaces: dict[str, str]  # kind → what readlink says, "mnt:[4026531841]"
    cgroups: dict[str, str]  # hierarchy → path: cgroups(7); cgroup v1 and threaded ones may have threads of a process apart
    unread: dict[str, str] = field(default_factory=dict)  # fact → why it could not be read
    files: "Files | None" = None  # None: not looked at, or the very ones of its process

    @property
    def who(self) -> str:
        """In words."""
        return f"process {self.pid} ({self.comm})" if self.pid == self.tid else f"thread {self.tid} ({self.comm}) of process {self.pid}"


@dataclass
class Leading:
    """A descriptor whose file is in no mount of the process's mount namespace."""

    fd: int
    path: str
    mode: int
    device: tuple[int, int]  # of a device node
    identity: tuple[int, int]  # mount and inode of the file


@dataclass
class Files:
    """What a thread has open, and where its paths begin; most threads share that with their process."""

    cwd: str
    cwd_outside: bool
    root: str
    root_outside: bool
    leading: list[Leading]
    stdio: frozenset[tuple[int, int]]  # identities of those that are descriptors 0, 1 and 2


@dataclass
class Process:
    """A process; `tasks` are its threads, the first of them its own unless that has ended before the others."""

    pid: int
    state: str
    ppid: int
    session: int
    start: int
    tasks: list[Task]
    limits: dict[str, tuple[int, int]]
    oom: int | None
    exe: str
    exe_outside: bool
    unread: dict[str, str] = field(default_factory=dict)

    @property
    def main(self) -> Task:
        """The first thread that lives."""
        return self.tasks[0]


class Mounts:
    """The mount namespaces met so far: name → mount id → the words of its line: proc_pid_mountinfo(5)."""

    def __init__(self) -> None:
        self.known: dict[str, dict[int, list[str]]] = {}

    def of(self, space: str, folder: int, below: str = "") -> dict[int, list[str]]:
        """Those of a namespace, as the thread at `below` sees it that is met first. Look at the container's own process first: one that has
        changed its root sees less."""
        if space not in self.known:
            self.known[space] = _mountinfo(folder, below)
        return self.known[space]


class Inside:
    """Which mounts are in a thread's mount namespace."""

    def __init__(self, folder: int, below: str, space: str, mounts: Mounts) -> None:
        self.folder, self.below = folder, below
        self.known = mounts.of(space, folder, below)
        self.own: dict[int, list[str]] | None = None

    def has(self, mount: int) -> bool:
        """Whether it is one of them, by what was seen before, or by what this thread sees."""
        if mount in self.known:
            return True
        if self.own is None:
            self.own = _mountinfo(self.folder, self.below)
        return mount in self.own


def _mountinfo(folder: int, below: str) -> dict[int, list[str]]:
    try:
        lines = read(folder, below + "mountinfo").decode("utf-8", "surrogateescape").splitlines()
    except OSError as e:
        if e.errno == EINVAL:
            raise ProcessLookupError from None  # it is about to end: mounts_open_common() in fs/proc_namespace.c
        raise
    return {int(words[0]): words for words in (line.split(" ") for line in lines)}


def read(folder: int, name: str) -> bytes:
    """A whole file below a directory."""
    fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
    try:
        parts = []
        while part := os.read(fd, 1 << 16):
            parts.append(part)
            if len(part) < 2048:  # the kernel fills pages as long as there is something
                break
        return b"".join(parts)
    finally:
        os.close(fd)


def hold(pid: int) -> int:
    """A process's directory. Raises Gone."""
    try:
        return os.open(f"/proc/{pid}", FOLDER)
    except (FileNotFoundError, ProcessLookupError):
        raise Gone from None


def hold_living(pid: int) -> int:
    """The directory of the first thread of a process that has not ended: of one that has, /proc shows no files and no namespaces. Raises
    Gone."""
    folder = hold(pid)
    try:
        if stat(folder)[0] != "Z":
            return os.dup(folder)
        for name in sorted(os.listdir(f"/proc/{pid}/task"), key=int):
            if read(folder, f"task/{name}/stat").rpartition(b")")[2].split()[0] not in (b"Z", b"X"):
                return os.open(f"task/{name}", FOLDER, dir_fd=folder)
        raise Gone
    except (FileNotFoundError, ProcessLookupError):
        raise Gone from None
    finally:
        os.close(folder)


def stat(folder: int) -> tuple[str, int, int, int]:
    """State letter, parent, session and start time of the process: proc_pid_stat(5)."""
    fields = read(folder, "stat").rpartition(b")")[2].split()
    return fields[0].decode(), int(fields[1]), int(fields[3]), int(fields[19])


def owner(pid: int) -> int:
    """Whose a process's files in /proc are: root's where it is not dumpable. Of the directory itself that tells nothing: proc(5)."""
    folder = hold(pid)
    try:
        return os.stat("status", dir_fd=folder).st_uid
    except (FileNotFoundError, ProcessLookupError):
        raise Gone from None
    finally:
        os.close(folder)


def process(pid: int, apparmor: bool, mounts: Mounts, files: bool = True) -> Process:
    """All there is to know of a process; `files`: its descriptors too. Raises Gone when it has ended, or ends meanwhile."""
    folder = hold(pid)
    try:
        return _process(folder, pid, apparmor, mounts, files)
    except (FileNotFoundError, ProcessLookupError):
        raise Gone from None
    finally:
        os.close(folder)


def _process(folder: int, pid: int, apparmor: bool, mounts: Mounts, files: bool) -> Process:
    state, ppid, session, start = stat(folder)
    text = read(folder, "status")
    threads = int(_field(text, b"Threads") or 1)
    if state == "X" or (state == "Z" and threads == 1):
        raise Gone
    tasks = [] if state == "Z" else [_task(folder, "", pid, pid, text, apparmor)]
    if threads > 1:
        for name in sorted(os.listdir(f"/proc/{pid}/task"), key=int):
            if int(name) != pid:
                try:
                    tasks.append(_task(folder, f"task/{name}/", pid, int(name), read(folder, f"task/{name}/status"), apparmor))
                except (FileNotFoundError, ProcessLookupError):
                    continue  # threads come and go
    if not tasks:
        raise Gone
    first, below = tasks[0], "" if tasks[0].tid == pid else f"task/{tasks[0].tid}/"
    found = Process(pid, state, ppid, session, start, tasks, {}, None, "", False)
    try:
        found.oom = int(read(folder, "oom_score_adj"))
        found.limits = _limits(read(folder, "limits").decode())
    except PermissionError as e:
        found.unread["rlimit"] = _why(e)
    if files and "mount" in first.spaces:
        try:
            inside = Inside(folder, below, first.spaces["mount"], mounts)
            first.files = _files(folder, below, inside)
            found.exe, found.exe_outside = _place(folder, below + "exe", inside)
            for task in tasks[1:]:
                _files_of_thread(folder, task, first, mounts)
        except PermissionError as e:
            found.unread["descriptor"] = _why(e)
    if stat(folder)[3] != start:
        raise Gone
    return found


def _files_of_thread(folder: int, task: Task, first: Task, mounts: Mounts) -> None:
    from rundlet.confine.verify import kcmp

    below = f"task/{task.tid}/"
    if kcmp.same(first.tid, task.tid) or "mount" not in task.spaces:
        return
    try:
        task.files = _files(folder, below, Inside(folder, below, task.spaces["mount"], mounts))
    except (FileNotFoundError, ProcessLookupError):
        pass  # it has just ended


def _task(folder: int, below: str, pid: int, tid: int, text: bytes, apparmor: bool) -> Task:
    unread: dict[str, str] = {}
    label, mode = None, None
    if apparmor:
        try:
            label, mode = _label(folder, below)
        except PermissionError as e:
            unread["apparmor.label"] = _why(e)
    spaces: dict[str, str] = {}
    for kind, file in NS_FILES.items():
        try:
            spaces[kind] = os.readlink(f"{below}ns/{file}", dir_fd=folder)
        except FileNotFoundError:
            if kind == "mount":
                raise  # every kernel has these: it is about to end
            continue  # a kernel without this kind
        except PermissionError as e:
            unread["namespace"] = _why(e)
    value = {}
    for line in text.splitlines():
        key, _, rest = line.partition(b":")
        value[key] = rest
    filters = value.get(b"Seccomp_filters")
    return Task(
        pid, tid, value[b"Name"].strip().decode("utf-8", "replace"), label, mode, int(value.get(b"NoNewPrivs", b"0")) == 1,
        int(value.get(b"Seccomp", b"0")), None if filters is None else int(filters),
        tuple(int(value.get(key.encode(), b"0"), 16) for key in CAPS),  # type: ignore[arg-type]
        tuple(map(int, value[b"Uid"].split())), tuple(map(int, value[b"Gid"].split())), frozenset(map(int, value[b"Groups"].split())),
        spaces, cgroups(folder, below), unread,
    )


def _label(folder: int, below: str) -> tuple[str | None, str | None]:
    for name in ("attr/apparmor/current", "attr/current"):
        try:
            return parse(read(folder, below + name).decode("utf-8", "surrogateescape"))
        except FileNotFoundError:
            continue
        except OSError as e:
            if isinstance(e, (PermissionError, ProcessLookupError)):
                raise
            return None, None  # EINVAL: the attribute is nobody's
    return None, None


def cgroups(folder: int, below: str = "") -> dict[str, str]:
    """Where a process, or the thread at `below`, is in each hierarchy, by controller, or "unified": cgroups(7)."""
    found = {}
    for line in read(folder, below + "cgroup").decode("utf-8", "surrogateescape").splitlines():
        number, names, path = line.split(":", 2)
        for key in ("unified",) if number == "0" else names.split(","):
            found[key] = path
    return found


def own_cgroups() -> dict[str, str]:
    """Where verify itself is."""
    folder = os.open("/proc/self", FOLDER)
    try:
        return cgroups(folder)
    finally:
        os.close(folder)


LIMIT_NAMES = {
    "Max cpu time": "RLIMIT_CPU", "Max file size": "RLIMIT_FSIZE", "Max data size": "RLIMIT_DATA", "Max stack size": "RLIMIT_STACK",
    "Max core file size": "RLIMIT_CORE", "Max resident set": "RLIMIT_RSS", "Max processes": "RLIMIT_NPROC",
    "Max open files": "RLIMIT_NOFILE", "Max locked memory": "RLIMIT_MEMLOCK", "Max address space": "RLIMIT_AS",
    "Max file locks": "RLIMIT_LOCKS",
    "Max pending signals": "RLIMIT_SIGPENDING", "Max msgqueue size": "RLIMIT_MSGQUEUE", "Max nice priority": "RLIMIT_NICE",
    "Max realtime priority": "RLIMIT_RTPRIO", "Max realtime timeout": "RLIMIT_RTTIME",
}


def _limits(text: str) -> dict[str, tuple[int, int]]:
    """/proc/PID/limits: a name of 25 columns, then soft, hard and unit: fs/proc/base.c proc_pid_limits()."""
    found = {}
    for line in text.splitlines()[1:]:
        name = LIMIT_NAMES.get(line[:25].rstrip())
        soft, hard = line[25:].split()[:2]
        if name:
            found[name] = (1 << 64) - 1 if soft == "unlimited" else int(soft), (1 << 64) - 1 if hard == "unlimited" else int(hard)
    return found


def _files(folder: int, below: str, inside: Inside) -> Files:
    """What a thread has open. Links of /proc are read, and only what lies in no mount of its namespace is looked at more closely."""
    leading, stdio = [], set()
    fds = os.open(below + "fd", FOLDER, dir_fd=folder)
    try:
        for name in os.listdir(fds):
            try:
                link = os.readlink(name, dir_fd=fds)
                if link[:1] != "/" or link.startswith(MEMFD):
                    continue
                info = read(folder, f"{below}fdinfo/{name}")
                mount = _mount_id(info)
                if inside.has(mount):
                    continue
                about = filesystem.about(fds, name)
                if S_ISREG(about.mode) and _without_paths(fds, name):
                    continue
                identity = mount, int(_field(info, b"ino") or about.inode)
                if len(name) == 1 and name in "012":
                    stdio.add(identity)
                leading.append(Leading(int(name), link, about.mode, about.node, identity))
            except FileNotFoundError:
                continue  # closed meanwhile
    finally:
        os.close(fds)
    return Files(*_place(folder, below + "cwd", inside), *_place(folder, below + "root", inside), leading, frozenset(stdio))


def _without_paths(fds: int, name: str) -> bool:
    fd = os.open(name, LOOK, dir_fd=fds)
    try:
        return filesystem.without_paths(fd)
    finally:
        os.close(fd)


def _place(folder: int, name: str, inside: Inside) -> tuple[str, bool]:
    """Where a link of the process leads, and whether that is outside of its mount namespace."""
    link = os.readlink(name, dir_fd=folder)
    if link.startswith(MEMFD):
        return link, False
    fd = os.open(name, LOOK, dir_fd=folder)
    try:
        return link, not inside.has(mount_of(fd))
    finally:
        os.close(fd)


def mount_of(fd: int) -> int:
    """The id of the mount that one of our own descriptors is on."""
    own = os.open(f"/proc/self/fdinfo/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return _mount_id(os.read(own, 4096))
    finally:
        os.close(own)


def _mount_id(text: bytes) -> int:
    return int(_field(text, b"mnt_id") or -1)


def _field(text: bytes, name: bytes) -> bytes:
    """The value of `name:` in a file of lines; empty where it is not there."""
    return (b"\n" + text).partition(b"\n" + name + b":")[2].partition(b"\n")[0].strip()


def _why(error: OSError) -> str:
    return f"{(error.strerror or '').lower()}; it takes CAP_SYS_PTRACE over the container's user namespace: run verify as root of the host"
