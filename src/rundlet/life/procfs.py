"""What only the runtime may set of a process, from outside: files of proc(5), and hard limits."""

import posix
from posix import O_CLOEXEC, O_WRONLY

from rundlet import kernel
from rundlet.errors import Fault, StepFailed
from rundlet.life import store
from rundlet.life.process import higher

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rundlet.spec.types import Rlimit


def write_oom_score(pid: int, score: int) -> None:
    """Sets oom_score_adj; one that holds already is not written, since the kernel refuses even that to some: proc(5)."""
    path = f"/proc/{pid}/oom_score_adj"
    if int(store.read(path)) != score:
        write_file(path, str(score), f"set oom_score_adj to {score}", "lowering it takes CAP_SYS_RESOURCE; raise /process/oomScoreAdj")


def raise_limits(pid: int, limits: "list[Rlimit]") -> None:
    """Raises hard limits where the process, in its user namespace, is not allowed to: prlimit(2)."""
    for index, _ in higher(limits, pid) if limits else ():
        import resource

        number = kernel.RLIMITS[limits[index]["type"]]
        new = -1 if limits[index]["hard"] >= 1 << 63 else limits[index]["hard"]
        try:
            resource.prlimit(pid, number, (resource.prlimit(pid, number)[0], new))
        except (OSError, ValueError) as e:
            raise Fault(f"limit {limits[index]['type']}: raising the hard limit to {new}: {e}; it takes CAP_SYS_RESOURCE") from None


def write_file(path: str, text: str, what: str, hint: str = "") -> None:
    """Writes a file of proc at once, as the kernel wants it. Raises StepFailed: `what` was being done, and perhaps a `hint`."""
    fd = -1
    try:
        fd = posix.open(path, O_WRONLY | O_CLOEXEC)
        posix.write(fd, text.encode())
    except OSError as e:
        call, why = "write" if fd >= 0 else "open", (e.strerror or "").lower()
        message = f"{what}: {'write to' if fd >= 0 else call} {path}: {why}"
        raise StepFailed(what, call, e.errno or 0, message, (hint,) if hint else ()) from None
    finally:
        if fd >= 0:
            posix.close(fd)
