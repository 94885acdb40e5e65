"""Cgroups by files: make, limit, fill and remove the directories of a place.

    create → apply → join        on the way in; unmake undoes create
    remove                       on the way out

The names of files and what they take: the kernel's cgroup-v1/*.rst and cgroup-v2.rst.
"""

from posix import O_CLOEXEC, O_DIRECTORY, O_NOFOLLOW, O_RDONLY, O_WRONLY, close, mkdir, open, read, rmdir, strerror, write
from time import monotonic, sleep

from rundlet.cgroup.file import failed, read_file, write_file
from rundlet.cgroup.place import Dir, Place, chief, find, missing
from rundlet.cgroup.tree import below, pids_of
from rundlet.errors import Fault, Refused, StepFailed
from rundlet.kernel import EACCES, EBUSY, EINVAL, ENODEV, ENOENT, ENOSPC, EOPNOTSUPP, EPERM, EROFS, ERRNO
from rundlet.plan.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from rundlet.plan.write import Write

NOT_OURS = (EACCES, EPERM, EROFS)


class Made(Value):
    """What create() did: the `place` with the hierarchies that can be written, and the directories `made`, outer ones first."""

    __slots__ = ("place", "made")

    def __init__(self, place: Place, made: "tuple[str, ...]") -> None:
        self.place = place
        self.made = made


def create(place: Place, need: "Iterable[str]" = (), own: int = 0, named: bool = False) -> Made:
    """Makes the cgroups, with every controller of the host enabled in them as far as that goes; those in `need` must be.

    A hierarchy that may not be written is left out when nothing in `need` is in it, but of a cgroup that is `named` not every one. Raises
    Refused when a cgroup is there and holds processes other than `own`, or is frozen, or cannot have a controller in `need`; StepFailed
    when the kernel refuses a directory. On failure everything made is removed again.
    """
    wanted = set(need)
    made: "list[str]" = []
    dirs: "list[Dir]" = []
    hybrid = len({at.version for at in place.dirs}) > 1
    try:
        for controller in sorted(wanted):
            if find(place, controller) is None:
                raise missing(controller, f"{controller} limit")
        for at in place.dirs:
            try:
                existed = make(at, made)
            except OSError as e:
                last = named and not dirs and at is place.dirs[-1]
                if e.errno in NOT_OURS and not last and not any(find(place, controller) is at for controller in wanted):
                    continue
                raise failed("make the container's cgroup", "mkdir", at.path, e) from None
            if existed:
                _unused(at, own)
            _not_frozen(at, at.path)
            if at.version == 2:
                _enable(at, wanted, [name for name in at.controllers if name in wanted] if hybrid else list(at.controllers))
            elif "cpuset" in at.controllers:
                _fill_cpuset(at)
            dirs.append(at)
    except Fault as fault:
        fault.cleanup += unmake(Made(Place(()), tuple(made)))
        raise
    return Made(Place(tuple(dirs)), tuple(made))


def unmake(made: Made) -> "list[str]":
    """Removes what create() made, inner directories first; returns what could not be undone, in words.

    Outer directories that others have begun to use stay, without a word.
    """
    leaves = {at.path for at in made.place.dirs}
    texts: "list[str]" = []
    for path in reversed(made.made):
        try:
            rmdir(path)
        except OSError as e:
            if e.errno == EBUSY and path in leaves:
                try:
                    _remove(path, 2 if path == made.place.dirs[-1].path and made.place.dirs[-1].version == 2 else 1, monotonic() + 1)
                except Fault as fault:
                    texts.append(str(fault))
            elif e.errno not in (EBUSY, ENOENT):
                texts.append(str(failed("remove the container's cgroup", "rmdir", path, e)))
    return texts


def apply(place: Place, writes: "Iterable[Write]") -> None:
    """Writes limits, in order. Raises StepFailed with the file and the kernel's word, Refused where there is no such controller or file."""
    fd, opened = -1, ""
    try:
        for item in writes:
            wanted: "Write | None" = item
            while wanted is not None:
                at = find(place, wanted.controller)
                if at is None:
                    raise missing(wanted.controller, wanted.what)
                path = f"{at.path}/{wanted.file}"
                try:
                    if path != opened:  # the lines of one file go through one descriptor
                        if fd >= 0:
                            close(fd)
                        fd, opened = -1, ""
                        fd, opened = open(path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW), path
                    write(fd, wanted.text.encode("utf-8", "surrogateescape"))
                    break
                except OSError as e:
                    if e.errno == ENOENT and not opened and wanted.otherwise is not None:
                        wanted = wanted.otherwise
                        continue
                    if e.errno in map(ERRNO.get, wanted.fine):
                        break
                    raise _refusal(wanted, path, e, bool(opened)) from None
    finally:
        if fd >= 0:
            close(fd)


def _refusal(item: "Write", path: str, error: OSError, opened: bool) -> Fault:
    if error.errno == ENOENT and not opened:
        # not in the kernel's words: engines read "no such file or directory" as a missing program
        return Refused(f"cannot set the {item.what}: this kernel has no `{path}`", "do not ask for this limit, or enable it in the kernel")
    hint = ""
    if error.errno == EBUSY and item.file.endswith(".limit_in_bytes"):
        hint = f"{read_file(path.replace('limit_in_bytes', 'usage_in_bytes')).strip()} bytes are in use"
    elif error.errno == EPERM and item.controller == "devices":
        hint = "an outer cgroup, the runtime's own perhaps, denies these devices"
    return failed(f"set the {item.what} to {item.text}", "write", path, error, hint)


def join(place: Place, pid: int, alone: bool = False) -> None:
    """Moves a process, all its threads, into the cgroups; `alone`: and makes sure that it is the only one there.

    On v1, and on v2 without `favordynmods`, the first write waits some ten milliseconds for an RCU grace period (cgroup_threadgroup_rwsem).
    Raises StepFailed, or Refused when it is not alone.
    """
    text = str(pid).encode()
    for at in place.dirs:
        path = f"{at.path}/cgroup.procs"
        try:
            _enter(at, path, text)
        except OSError as e:
            why, hint = strerror(e.errno or 0), _why_not_joined(at, e)  # the words of runc: its users look for them
            what = f"adding pid {pid} to cgroups: {path}: {why[:1].lower()}{why[1:]}"
            raise StepFailed("join the container's cgroup", "write", e.errno or 0, what, (hint,) if hint else ()) from None
    if alone:
        only(place, pid)


def _enter(at: Dir, path: str, text: bytes) -> None:
    fd = open(path, O_WRONLY | O_CLOEXEC)
    try:
        write(fd, text)
    except OSError as e:
        if e.errno != EOPNOTSUPP or at.version == 1:
            raise
        from rundlet.cgroup import threaded

        if not threaded.become(at.mount, at.path):
            raise
        write(fd, text)
    finally:
        close(fd)


def only(place: Place, pid: int) -> None:
    """Makes sure that a process is the only one in the cgroups: create() cannot see another that is about to join. Raises Refused."""
    at = chief(place)
    others = [other for other in pids_of(at.path, hidden=True) if other != pid] if at else []
    if at and others:
        raise _shared(at, len(others))


def _shared(at: Dir, count: int) -> Refused:
    todo = "give this container a cgroupsPath of its own"
    return Refused(f"container's cgroup is not empty: {count} process(es) found in `{at.path}`", todo)


def _why_not_joined(at: Dir, error: OSError) -> str:
    if at.version == 1 and error.errno == ENOSPC:
        return "its cpuset.cpus or cpuset.mems is empty"
    if at.version == 2 and error.errno == EOPNOTSUPP:
        return "it is in a threaded tree, and cannot be made threaded itself; use another cgroupsPath"
    if at.version == 2 and error.errno == EBUSY:
        return "it gives controllers to sub-cgroups (cgroup.subtree_control), so it takes no processes itself; use another cgroupsPath"
    return ""


def remove(place: Place, timeout: float = 10.0) -> None:
    """Removes the cgroups and all below them, waiting up to `timeout` seconds for processes to be gone; those not there are fine.

    Raises StepFailed, with the processes that are left, when they do not go; all hierarchies are tried.
    """
    deadline = monotonic() + timeout
    first: "Fault | None" = None
    for at in place.dirs:
        try:
            _remove(at.path, at.version, deadline)
        except Fault as fault:
            if first is None:
                first = fault
            else:
                first.cleanup.append(str(fault))
    if first is not None:
        raise first


def _remove(path: str, version: int, deadline: float) -> None:
    pause = 0.001
    while True:
        try:
            rmdir(path)
            return
        except OSError as e:
            if e.errno in (ENOENT, ENODEV):
                return
            if e.errno != EBUSY:
                raise failed("remove the container's cgroup", "rmdir", path, e) from None
            for fd, name in below(path):
                try:
                    rmdir(name, dir_fd=fd)
                except OSError:
                    pass  # still busy, or gone: the outer one tells
            if monotonic() > deadline:
                left = pids_of(path)
                hint = f"processes in it: {' '.join(map(str, left))}" if left else ""
                raise failed("remove the container's cgroup", "rmdir", path, e, hint) from None
        if version == 2:
            _until_empty(path, deadline)
        else:
            sleep(pause)
            pause = min(2 * pause, 0.05)


def _until_empty(path: str, deadline: float) -> None:
    """Waits for the end of the last process of a v2 cgroup, or a little where that has come already (rmdir lags behind)."""
    from select import POLLPRI, poll

    try:
        fd = open(f"{path}/cgroup.events", O_RDONLY | O_CLOEXEC)
    except OSError:
        return
    try:
        if b"populated 0" in read(fd, 256):
            sleep(0.001)
            return
        watch = poll()
        watch.register(fd, POLLPRI)
        watch.poll(max(1, int(1000 * min(deadline - monotonic(), 1.0))))
    except OSError:
        pass
    finally:
        close(fd)


def read_text(place: Place, controller: str, file: str) -> "str | None":
    """The text of a file of the controller's cgroup; None when there is no such controller or file."""
    at = find(place, controller)
    if at is None:
        return None
    try:
        return read_file(f"{at.path}/{file}", gone_ok=False)
    except OSError:
        return None


# ── the parts of create ──────────────────────────────────────────────────────────────────────────────────────────────────────


def make(at: Dir, made: "list[str]") -> bool:
    """mkdir -p below the mount; whether the directory was there already."""
    try:
        mkdir(at.path, 0o755)
        made.append(at.path)
        return False
    except FileExistsError:
        return True
    except FileNotFoundError:
        pass
    path, existed = at.mount, True
    for part in at.path[len(at.mount) + 1 :].split("/"):
        path = f"{path}/{part}"
        try:
            mkdir(path, 0o755)
            made.append(path)
            existed = False
        except FileExistsError:
            existed = True
    return existed


def _unused(at: Dir, own: int) -> None:
    try:
        close(open(at.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC))
        found = [pid for pid in pids_of(at.path, hidden=True) if pid != own]
    except OSError as e:
        raise failed("use the container's cgroup", "open", at.path, e) from None
    if found:
        raise _shared(at, len(found))


def thawed(place: Place, subgroup: str) -> None:
    """Sees that no cgroup of a unit to be, with the container's at `subgroup` in it, is there already and frozen. Raises Refused.

    Once there is a unit it goes with the cgroup, whoever has made that.
    """
    for at in place.dirs:
        for path in {at.path, at.path.removesuffix(f"/{subgroup}")}:
            _not_frozen(at, path)


def _not_frozen(at: Dir, path: str) -> None:
    """A process that joins a frozen cgroup stops there, and who waits for it waits for ever."""
    if at.version == 2:
        frozen = "frozen 1" in read_file(f"{path}/cgroup.events")
    else:
        frozen = "freezer" in at.controllers and read_file(f"{path}/freezer.state").strip() not in ("", "THAWED")
    if frozen:
        todo = "thaw it, or the outer cgroup that is frozen, or use another cgroupsPath"
        raise Refused(f"container's cgroup unexpectedly frozen: `{path}`", todo)


def _enable(at: Dir, need: "set[str]", wanted: "list[str]") -> None:
    """Passes controllers down from the root of the unified hierarchy to `at`; those in `need` must arrive."""
    if not wanted:
        return
    here = read_file(f"{at.path}/cgroup.controllers").split()
    absent = [name for name in wanted if name not in here]
    if not absent:
        return
    path = at.mount
    for part in at.path[len(at.mount) :].split("/")[1:]:
        given = read_file(f"{path}/cgroup.subtree_control").split()
        lacking = [name for name in absent if name not in given]
        error = _pass_on(at.mount, path, lacking) if lacking else None
        if error is not None:
            # one that is refused takes the others with it, as that of memory does below a threaded cgroup; that the cgroup has processes
            # is the same for all
            singly = error.errno != EBUSY
            for name in lacking:
                refused = _pass_on(at.mount, path, [name]) if singly else error
                if refused is not None and name in need:
                    raise _not_passed(at, path, name, refused)
                if refused is not None:
                    absent.remove(name)
        path = f"{path}/{part}"


def _pass_on(mount: str, path: str, names: "list[str]") -> "OSError | None":
    """Enables controllers below a cgroup; the error when it refuses."""
    # where only such controllers are asked for as may be threaded, the kernel would take this for the wish to make a cgroup with
    # processes the root of a threaded tree; the root of all, without a type, may have processes, and so may threaded ones
    kind = read_file(f"{path}/cgroup.type")
    try:
        if kind == "domain invalid\n":
            from rundlet.cgroup import threaded

            threaded.become(mount, path)
        elif kind and kind != "threaded\n" and read_file(f"{path}/cgroup.procs"):
            return OSError(EBUSY, "")
        write_file(f"{path}/cgroup.subtree_control", " ".join(f"+{name}" for name in names))
    except OSError as e:
        return e
    return None


def _not_passed(at: Dir, path: str, name: str, error: OSError) -> Refused:
    why = strerror(error.errno or 0).lower()
    todo = "choose another cgroupsPath"
    if error.errno == EBUSY:
        why = "it has processes of its own (cgroup v2 gives controllers below cgroups without processes only)"
        todo = "move them into a sub-cgroup"
    elif error.errno == EOPNOTSUPP:
        why = "it is threaded"
    elif error.errno in (ENOENT, EINVAL):
        why, todo = "it has not been given that controller itself", f"have {name} enabled there by whoever manages the outer cgroups"
    return Refused(f"cannot give the cgroup `{at.path}` the {name} controller: `{path}/cgroup.subtree_control`: {why}", todo)


def _fill_cpuset(at: Dir) -> None:
    """A new cpuset of v1 has no cpus and no memory nodes, and takes no process: give it, and new outer ones, those of the next outer."""
    for file in ("cpuset.cpus", "cpuset.mems"):
        path, empty = at.path, []
        while path != at.mount and not (text := read_file(f"{path}/{file}").strip()):
            empty.append(path)
            path = path.rpartition("/")[0]
        text = read_file(f"{path}/{file}").strip()
        for inner in reversed(empty):
            try:
                write_file(f"{inner}/{file}", text)
            except OSError as e:
                raise failed("fill the container's cpuset", "write", f"{inner}/{file}", e) from None
