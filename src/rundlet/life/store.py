"""What is known of containers on disk: one folder each below the root, `state.json` replaced whole, the folder itself the lock.

    <root>/<id>/state.json    the record: written first as "creating", so that whatever dies leaves what delete needs to clean up
    <root>/<id>/config.json   the configuration as it was read at create: exec and delete go by it, whatever becomes of the bundle
    <root>/<id>/steps.json    the steps of the last stage by name, for start to say which one failed
    <root>/<id>/unit.json     of a container in a unit of systemd which one it is, and its cgroups, should the record be damaged
    <root>/<id>/start         the socket on which the first process waits for start
    <root>/<id>/record.json   what was asked, decided and observed, for whoever asks later: record.py
    <root>/<id>/execs         what those execs were held to that asked for more or other than the container: execs.py
"""

import posix
from fcntl import LOCK_EX, LOCK_NB, LOCK_UN, flock
from posix import O_CLOEXEC, O_CREAT, O_DIRECTORY, O_RDONLY, O_TRUNC, O_WRONLY

from rundlet import jsontext, log
from rundlet.errors import BadSpec, Fault, Usage, WrongState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NotRequired, TypedDict

    from rundlet.executor.client import Executor
    from rundlet.executor.program import Program
    from rundlet.executor.template import Packed
    from rundlet.life.preload import Policy
    from rundlet.life.rdt import Group
    from rundlet.life.systemd import Made
    from rundlet.options import Options
    from rundlet.plan.step import Step

    class Expect(TypedDict):
        """What must hold of the first process once it has executed its program."""

        action: str
        profile: str
        label: list[str]
        nnp: bool
        seccomp: bool
        bounding: int

    class Unit(TypedDict):
        """unit.json."""

        systemd: Made
        cgroup: list[list[object]]

    class Record(TypedDict):
        """state.json. `phase` is what the commands brought about; status() asks the kernel as well."""

        version: int
        ociVersion: str
        id: str
        phase: str  # creating, created, running
        pid: int  # 0 until there is a process
        start_time: int  # of the process in clock ticks since boot: a pid alone may be somebody else's by now
        bundle: str
        rootfs: str
        created: str
        owner: str
        annotations: dict[str, str]
        cgroup: list[list[object]]
        expect: Expect | None
        keyring: NotRequired[bool]  # whether the container has a session keyring of its own
        rdt: NotRequired[Group]  # its group of resctrl
        policy: NotRequired[str]  # the policy namespace in which its profile has its name, where that is not the first one
        apparmor: NotRequired[Policy]  # the profiles that it brought along
        systemd: NotRequired[Made]  # the unit, where systemd made the cgroup


LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-.:@")
VERSION = 1
PIECE = 1 << 16  # what is read at once: more would be mapped and unmapped each time


def root(options: "Options") -> str:
    """The folder of all containers: --root, else /run/rundlet, else for a user $XDG_RUNTIME_DIR/rundlet, /run/user/UID/rundlet or
    /tmp/rundlet-UID, whichever there is.

    An engine run by a user calls as root of a user namespace: then it is that user's folder, unless USER says root, as in a system
    container, which has a /run of its own; runc has the same rule. Raises Fault for a folder in /tmp that another user made.
    """
    if options.root:
        return absolute(options.root)
    uid = posix.geteuid()
    runtime = posix.environ.get(b"XDG_RUNTIME_DIR", b"").decode("utf-8", "surrogateescape")
    if uid == 0:
        if not runtime or posix.environ.get(b"USER") == b"root":
            return "/run/rundlet"
        from rundlet.host import user_namespace

        return runtime + "/rundlet" if user_namespace() else "/run/rundlet"
    if runtime:
        return runtime + "/rundlet"
    if posix.access(f"/run/user/{uid}", posix.W_OK):
        return f"/run/user/{uid}/rundlet"
    return _in_tmp(f"/tmp/rundlet-{uid}", uid)


def _in_tmp(path: str, uid: int) -> str:
    """The folder, made if it is not there; everybody may make things in /tmp, so it has to be the user's, and closed to others."""
    try:
        posix.mkdir(path, 0o700)
    except FileExistsError:
        pass
    found = posix.lstat(path)
    if found.st_uid != uid or found.st_mode & 0o170077 != 0o040000:
        raise Fault(f"{path} is not a folder of user {uid} alone; set XDG_RUNTIME_DIR, or give --root DIR")
    return path


def absolute(path: str) -> str:
    """An absolute path, cleaned of `.` and doubled slashes; `..` stays, since what it means is for the kernel to say.

    Raises Fault where the current directory has no path any more.
    """
    if path[:1] != "/":
        try:
            path = posix.getcwd() + "/" + path
        except OSError as e:
            why = (e.strerror or "").lower()
            raise Fault(f"cannot tell the current directory: {why}; change to one that is there, or give absolute paths") from None
    parts = [part for part in path.split("/") if part not in ("", ".")]
    return "/" + "/".join(parts)


def check_id(name: str) -> str:
    """The id itself; raises Usage when it cannot be one: it becomes the name of a folder and of a cgroup."""
    if not name or len(name) > 1024 or not LETTERS.issuperset(name) or name in (".", ".."):
        bad = next((f"invalid character `{letter}` in the ID; " for letter in name if letter not in LETTERS), "")
        raise Usage(f'"{name}" cannot be a container id: {bad}letters, digits and _ + - . : @ only')
    return name


class Container:
    """A container's folder, locked for as long as this object is open; `record` is None until there is one."""

    def __init__(self, folder: str, fd: int, record: "Record | None", damaged: bool = False) -> None:
        self.folder = folder
        self.fd = fd
        self.damaged = damaged  # there was a record, which nobody can read any more
        self.shared = False  # whether the lock was let go
        self._record = record
        self.last: "Program | Packed | None" = None  # the last stage, where this very command has sent it
        self.waiting: "tuple[Executor, tuple[Step, ...] | Packed] | None" = None  # who waits for this very command, and for what
        self.decided: "dict[str, Any] | None" = None  # what goes into record.json, where this very command has decided it

    @property
    def record(self) -> "Record":
        """The record; raises WrongState where creation was cut off before there was one."""
        if self._record is None:
            raise WrongState(f"the container {self.folder.rpartition('/')[2]} was never completed; remove it with delete --force")
        return self._record

    @property
    def complete(self) -> bool:
        """Whether there is a record."""
        return self._record is not None

    def write(self, record: "Record") -> None:
        """Replaces the record, whole or not at all."""
        put(self.fd, "state.json", jsontext.dumps(record).encode())
        self._record = record

    def config(self) -> bytes:
        """The text of the configuration as it was at create."""
        return read(self.folder + "/config.json")

    def unit(self) -> "Unit | None":
        """What was written beside the record of a unit of systemd; None where there is none."""
        try:
            return jsontext.loads(read(self.folder + "/unit.json"), "unit.json")  # type: ignore[return-value]
        except (FileNotFoundError, BadSpec):
            return None

    def exists(self) -> bool:
        """Whether its folder has not been removed meanwhile."""
        return posix.fstat(self.fd).st_nlink > 0

    def unlock(self) -> None:
        """Lets other commands at the container, such as the one that this command waits for."""
        flock(self.fd, LOCK_UN)
        self.shared = True

    def locked(self, act: "Callable[[], None]") -> None:
        """Calls `act` while no other command is at the container: where the lock was let go, it is taken for this alone. Raises WrongState
        when the container has been deleted meanwhile."""
        if not self.shared:
            act()
            return
        flock(self.fd, LOCK_EX)
        try:
            if not self.exists():
                raise WrongState(f"container {self.folder.rpartition('/')[2]} does not exist")
            act()
        finally:
            flock(self.fd, LOCK_UN)

    def close(self) -> None:
        """Lets go of the lock."""
        posix.close(self.fd)

    def remove(self) -> None:
        """Removes the folder; the state last, so that what is cut off here can be removed again."""
        names = posix.listdir(self.folder)
        if "notify" in names:
            names.remove("notify")
            for name in posix.listdir(self.folder + "/notify"):
                posix.unlink(f"{self.folder}/notify/{name}")
            posix.rmdir(self.folder + "/notify")
        for name in sorted(names, key=lambda name: name == "state.json"):
            posix.unlink(f"{self.folder}/{name}")
        posix.rmdir(self.folder)


def put(folder: int, name: str, text: bytes) -> None:
    """Writes a file by way of another name, so that readers see the old or the new. Raises Fault."""
    fd = -1
    try:
        fd = posix.open(name + ".new", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600, dir_fd=folder)
        while text:
            text = text[posix.write(fd, text) :]
        posix.rename(name + ".new", name, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError as e:
        raise Fault(f"cannot write {name} in the container's folder: {(e.strerror or '').lower()}") from None
    finally:
        if fd >= 0:
            posix.close(fd)


def pidfd(pid: int) -> int:
    """pidfd_open(2). Raises ProcessLookupError when there is no such process; to the kernel one that has been waited for, and whose session
    or process group lives on, is no process either, with another errno."""
    try:
        return posix.pidfd_open(pid)
    except OSError as e:
        from rundlet.kernel import EINVAL, ESRCH

        if e.errno == EINVAL:
            raise ProcessLookupError(ESRCH, "no such process") from None
        raise


def read(path: str, folder: "int | None" = None) -> bytes:
    """A whole file; a relative path is taken from the `folder` behind a descriptor."""
    fd = posix.open(path, O_RDONLY | O_CLOEXEC, dir_fd=folder)
    try:
        return whole(fd)
    finally:
        posix.close(fd)


def whole(fd: int) -> bytes:
    """What is left to read of a file."""
    parts = []
    while part := posix.read(fd, PIECE):
        parts.append(part)
    return b"".join(parts)


def make(options: "Options") -> Container:
    """Makes the folder of a new container and locks it; raises Fault when there is one."""
    folder = f"{root(options)}/{check_id(options.id)}"
    _directories(folder.rpartition("/")[0])
    try:
        posix.mkdir(folder, 0o700)
    except FileExistsError:
        raise Fault(f"container with the id {options.id} already exists; choose another, or remove it with delete") from None
    except OSError as e:
        raise Fault(f"cannot make {folder}: {(e.strerror or '').lower()}; give --root a folder that can be written") from None
    try:
        fd = posix.open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    except FileNotFoundError:
        fd = -1
    if fd >= 0:
        flock(fd, LOCK_EX)
    # until the lock is ours delete --force may take the folder for one that was never completed, and another create make its own
    if fd < 0 or not posix.fstat(fd).st_nlink or posix.listdir(fd):
        raise Fault(f"container {options.id} was deleted while it was being created")
    return Container(folder, fd, None)


def _directories(path: str) -> None:
    try:
        posix.mkdir(path, 0o700)
    except FileExistsError:
        pass
    except OSError as e:
        outer = path.rpartition("/")[0]
        if outer and not posix.access(outer, posix.F_OK):
            _directories(outer)
            _directories(path)
            return
        raise Fault(f"cannot make {path}: {(e.strerror or '').lower()}; give --root a folder that can be written") from None


def find(options: "Options", lock: bool = True, wait: bool = True) -> Container:
    """The container named on the command line, its folder locked. Raises WrongState when there is none.

    Without `wait` a container that another command is busy with is a fault at once.
    """
    return find_in(root(options), check_id(options.id), lock, wait)


def find_in(top: str, name: str, lock: bool = True, wait: bool = True) -> Container:
    """As find(), in the folder `top`."""
    folder = f"{top}/{name}"
    try:
        fd = posix.open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        raise WrongState(f"container {name} does not exist") from None
    except OSError as e:
        raise Fault(f"cannot look at {folder}: {(e.strerror or '').lower()}") from None
    if lock:
        try:
            flock(fd, LOCK_EX | (0 if wait else LOCK_NB))
        except BlockingIOError:
            posix.close(fd)
            raise WrongState(f"another command is busy with the container {name}") from None
        if posix.fstat(fd).st_nlink == 0:  # deleted by the command that held the lock; another may have its name by now
            posix.close(fd)
            raise WrongState(f"container {name} does not exist")
    try:
        # by the descriptor: while we waited for the lock the folder may have gone, and another container of that name have come
        text = read("state.json", fd)
    except (FileNotFoundError, NotADirectoryError):
        if posix.fstat(fd).st_nlink == 0:  # deleted by the command that held the lock
            posix.close(fd)
            raise WrongState(f"container {name} does not exist") from None
        return Container(folder, fd, None)
    try:
        record = _record(text, name)
    except BadSpec as fault:
        log.warning(f"{folder}/{fault}")
        return Container(folder, fd, None, True)
    return Container(folder, fd, record)


KEYS = (
    ("version", int), ("ociVersion", str), ("id", str), ("phase", str), ("pid", int), ("start_time", int), ("bundle", str), ("rootfs", str),
    ("created", str), ("owner", str), ("annotations", dict), ("cgroup", list),
)


def _record(text: bytes, name: str) -> "Record":
    """The record in the text of a state.json. Raises BadSpec when it is damaged, Fault when it is another version's."""
    record = jsontext.loads(text, "state.json")
    if type(record) is not dict or type(record.get("version")) is not int:
        raise BadSpec("state.json", "damaged: no version")
    if record["version"] != VERSION:
        raise Fault(f"container {name} was made by another version of rundlet (record {record['version']})")
    for key, kind in KEYS:
        if type(record.get(key)) is not kind:
            raise BadSpec("state.json", f"damaged: no {key}")
    return record  # type: ignore[return-value]


def names(top: str) -> "list[str]":
    """The ids of all containers, sorted. Raises Fault where the folder cannot be read."""
    try:
        return sorted(posix.listdir(top))
    except FileNotFoundError:
        return []
    except OSError as e:
        raise Fault(f"cannot read {top}: {(e.strerror or '').lower()}; name the folder of your containers by --root") from None


def alive(record: "Record") -> bool:
    """Whether the first process still runs: the same process (by its start time), and no zombie."""
    found = stat(record["pid"]) if record["pid"] else None
    return found is not None and found[1] == record["start_time"] and found[0] not in "ZX"


def same(one: "Record", other: "Record") -> bool:
    """Whether two records are of the same container, by its first process: names and pids are used again."""
    return (one["pid"], one["start_time"]) == (other["pid"], other["start_time"])


def stat(pid: int) -> "tuple[str, int] | None":
    """(state letter, start time in ticks) of a process; None when there is none: proc_pid_stat(5).

    One whose first thread has ended before the others is a zombie by its letter, and runs: here it sleeps."""
    try:
        fields = read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    letter = fields[0].decode()
    return "S" if letter == "Z" and int(fields[17]) > 1 else letter, int(fields[19])


def settled(container: "Container") -> str:
    """As status(), of a locked container with which more is to be done: where the start that let its program go was cut off before it had
    looked how that runs, this is made up for. Raises Refused where it does not run as was decided: then it is killed."""
    now = status(container.record)
    if now in ("running", "paused") and container.record["phase"] == "created":
        from rundlet.life import late

        late.check(container)
        now = status(container.record)
    return now


def status(record: "Record") -> str:
    """creating, created, running, paused or stopped: what the kernel says of the process, whatever the record believes."""
    if not alive(record):
        return "creating" if record["phase"] == "creating" and not record["pid"] else "stopped"
    waiting = record["phase"] != "running" and waits(record)
    if record["phase"] == "creating" and waiting:
        return "creating"
    from rundlet.cgroup import place, tasks

    return "paused" if tasks.frozen(place.load(record["cgroup"])) else "created" if waiting else "running"


def waits(record: "Record") -> bool:
    """Whether the process is still the executor: a start that was cut off may have let it go without saying so in the record."""
    try:
        link = posix.readlink(f"/proc/{record['pid']}/exe")
    except OSError:
        return True
    return link == "/memfd:rundlet (deleted)" or link.removesuffix(" (deleted)").endswith("/rundlet/executor/executor")


def state(record: "Record", of: "str | None" = None) -> "dict[str, object]":
    """The state as the specification has it (runtime.md, "State"), with `of` as the status when it is known."""
    now = of or status(record)
    shown: "dict[str, object]" = {
        "ociVersion": record["ociVersion"], "id": record["id"], "pid": 0 if now == "stopped" else record["pid"], "status": now,
        "bundle": record["bundle"],
    }
    if record["annotations"]:
        shown["annotations"] = record["annotations"]
    return shown


def shown(container: "Container") -> "dict[str, object]":
    """The state of a container, and what else is known of it."""
    record = container.record
    found = state(record) | {"rootfs": record["rootfs"], "created": record["created"], "owner": record["owner"]}
    if record["phase"] == "created" and found["status"] in ("running", "paused"):
        from rundlet.life import late

        found |= late.told(container)
    return found
