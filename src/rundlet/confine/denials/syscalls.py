"""What a record of seccomp means: the call by name, what became of it, and the entry of the filter that would permit it. Pure, but that
libseccomp is asked for names.

The kernel writes down what kills and what SCMP_ACT_LOG lets pass; errors, traps and calls handed on only where the filter was loaded with
SECCOMP_FILTER_FLAG_LOG, and each action only while kernel.seccomp.actions_logged has it: seccomp_log() in kernel/seccomp.c.
"""

import json

from rundlet.confine.denials.record import Record
from rundlet.kernel import SIGNALS

ARCHITECTURES = {  # linux/audit.h; libseccomp's own numbers are the same
    0xC000003E: "x86_64", 0x4000003E: "x32", 0x40000003: "i386", 0xC00000B7: "aarch64", 0x40000028: "arm", 0xC00000F3: "riscv64",
    0xC0000015: "ppc64le", 0x80000016: "s390x", 0x80000015: "ppc64", 0x00000016: "s390", 0xC0000102: "loongarch64", 0x40000008: "mipsel",
    0xC0000008: "mips64el",
}  # fmt: skip
X86_64, X32, X32_BIT = 0xC000003E, 0x4000003E, 0x40000000
# SECCOMP_RET_…, linux/seccomp.h → what became of the call, in a verdict and in words
ACTIONS = {
    0x80000000: ("killed", "the filter kills the process for it"),
    0x00000000: ("killed", "the filter kills the thread for it"),
    0x00030000: ("denied", "the filter sends the process SIGSYS for it"),
    0x00050000: ("denied", "the filter answers it with an error"),
    0x7FC00000: ("audited", "the filter hands it to an agent, who decides"),
    0x7FF00000: ("audited", "the filter hands it to a tracer, who decides"),
    0x7FFC0000: ("allowed", "the filter lets it pass and has it logged"),
}
FAR = {
    "it changes mounts": "mount umount umount2 move_mount open_tree fsopen fsmount fsconfig fspick mount_setattr pivot_root",
    "it makes or enters namespaces, in which the kernel offers far more of itself": "unshare setns clone clone3",
    "it loads programs into the kernel, or looks into it": "bpf perf_event_open",
    "it loads code into the kernel": "init_module finit_module delete_module kexec_load kexec_file_load",
    "it reaches into other processes": "ptrace process_vm_readv process_vm_writev kcmp pidfd_getfd process_madvise",
    "keys know no namespaces": "keyctl add_key request_key",
    "what is asked for through io_uring passes by every filter": "io_uring_setup io_uring_enter io_uring_register",
    "it opens files past the container's root": "open_by_handle_at name_to_handle_at",
    "it is for the whole host": "reboot swapon swapoff acct settimeofday clock_settime clock_adjtime adjtimex quotactl syslog",
    "it reaches devices past the kernel": "iopl ioperm",
    "it makes faults of the kernel wait, which exploits need": "userfaultfd",
}
WIDENS = {name: why for why, names in FAR.items() for name in names.split()}


def architecture(record: Record) -> tuple[int, str]:
    """The architecture of the call, as a number for libseccomp and by name."""
    number = record.number("arch", 16)
    if number == X86_64 and record.number("syscall") >= X32_BIT:
        number = X32
    return number, ARCHITECTURES.get(number, f"{number:#x}")


def call(record: Record) -> str:
    """The name of the system call; its number where libseccomp does not know it, or is not there."""
    number = record.number("syscall", 10)
    try:
        import pyseccomp

        return str(pyseccomp.resolve_syscall(architecture(record)[0], number).decode("ascii", "replace"))
    except (ImportError, RuntimeError, OSError, ValueError, ArithmeticError, TypeError):
        return f"system call {number}"


def verdict(record: Record) -> tuple[str, str]:
    """What became of the call: as a Denial has it, and in words."""
    code = record.number("code", 16)
    return ACTIONS.get(code & 0xFFFF0000, ("denied", f"the filter answers it with {code:#x}"))


def explain(record: Record) -> str:
    """The sentence."""
    number, name = architecture(record)
    known, called = call(record), record.get("comm") or f"process {record.pid}"
    _, outcome = verdict(record)
    signal = record.number("sig")
    said = f"{called} called {known}: {outcome}"
    by_number = {held: short for short, held in reversed(SIGNALS.items())}
    if signal and record.number("code", 16) not in (0x00030000,):
        said += f" (SIG{by_number.get(signal, signal)})"
    if record.number("compat") or number == X32:
        said += f"; it is a call of {name}, which the filter must list among its architectures"
    return said


def rule(record: Record) -> tuple[str | None, tuple[str, ...]]:
    """The entry for /linux/seccomp/syscalls that permits the call, and why that is more; None for one without a name."""
    known = call(record)
    if known.startswith("system call ") or verdict(record)[0] == "audited":
        return None, ()
    entry = json.dumps({"names": [known], "action": "SCMP_ACT_ALLOW"})
    return entry, (WIDENS[known],) if known in WIDENS else ()
