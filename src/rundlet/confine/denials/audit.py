"""The kernel's audit system as it is now: whether records are written at all, who takes them, and how many were lost.

Asked by netlink: audit_receive_msg() in kernel/audit.c, struct audit_status in linux/audit.h. It takes CAP_AUDIT_CONTROL.
"""

import errno
import socket
import struct
from dataclasses import dataclass

NETLINK_AUDIT, AUDIT_GET, NLM_F_REQUEST = 9, 1000, 1
HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
STATUS = struct.Struct("=8I")  # mask, enabled, failure, pid, rate_limit, backlog_limit, lost, backlog


@dataclass(frozen=True)
class Status:
    """`there`: whether the kernel writes records. `taker` is the pid of auditd, 0 where nobody takes them; None: not to be known.
    `lost` is the kernel's own count since boot, `rate` its limit in records a second, 0 for none."""

    there: bool | None
    taker: int | None = None
    lost: int | None = None
    rate: int = 0


def status() -> Status:
    """What the kernel says. Raises nothing."""
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_AUDIT) as asked:
            asked.settimeout(1)
            asked.sendto(HEADER.pack(HEADER.size, AUDIT_GET, NLM_F_REQUEST, 1, 0), (0, 0))
            answer = asked.recv(8192)
    except TimeoutError:
        return Status(None)
    except OSError as e:
        # without CONFIG_AUDIT, and with audit=0, there is no such protocol: audit_init()
        return Status(False if e.errno in (errno.EPROTONOSUPPORT, errno.ECONNREFUSED) else None)
    if len(answer) < HEADER.size + STATUS.size or HEADER.unpack_from(answer)[1] != AUDIT_GET:
        return Status(None)  # an error: mostly EPERM
    _, _, _, pid, rate, _, lost, _ = STATUS.unpack_from(answer, HEADER.size)
    return Status(True, pid, lost, rate)
