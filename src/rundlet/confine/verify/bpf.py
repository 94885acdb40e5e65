"""bpf(2), by ctypes, since an executor for each container would cost more; and the device filters of a cgroup v2, read from the kernel."""

import ctypes
import os
from _struct import pack, pack_into, unpack_from

from rundlet.kernel import CALLS, MACHINES
from rundlet.plan.devicechange import INFO_SIZE, MOST, OBJ_GET_INFO_BY_FD, PROG_GET_FD_BY_ID, PROG_QUERY
from rundlet.plan.devicefilter import CGROUP_DEVICE

QUERY_EFFECTIVE = 1  # those of outer cgroups too, which must all allow
NUMBER = CALLS["bpf"][MACHINES.get(os.uname().machine, 0)]
LARGEST = 1 << 20
libc = ctypes.CDLL(None, use_errno=True)


def bpf(command: int, attributes: bytes) -> int:
    """The system call. Raises OSError."""
    return _bpf(command, ctypes.create_string_buffer(attributes, len(attributes)))


def _bpf(command: int, attributes: "ctypes.Array[ctypes.c_char]") -> int:
    answer: int = libc.syscall(NUMBER, command, attributes, len(attributes))
    if answer < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return answer


def filters(cgroup: str, known: "dict[int, bytes]") -> "list[bytes]":
    """The programs in force on the cgroup at this path, those of outer ones too. `known` holds those met before, by their number.

    Raises OSError: it takes CAP_BPF and CAP_NET_ADMIN, or CAP_SYS_ADMIN, on the host.
    """
    fd = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        ids = ctypes.create_string_buffer(4 * MOST)
        asked = ctypes.create_string_buffer(pack("=IIIIQI", fd, CGROUP_DEVICE, QUERY_EFFECTIVE, 0, ctypes.addressof(ids), MOST), 32)
        _bpf(PROG_QUERY, asked)
        count = unpack_from("=I", asked, 24)[0]
        return [_program(number, known) for number in unpack_from(f"={count}I", ids)]
    finally:
        os.close(fd)


def _program(number: int, known: "dict[int, bytes]") -> bytes:
    if number not in known:
        fd = bpf(PROG_GET_FD_BY_ID, pack("=III", number, 0, 0))
        try:
            size = unpack_from("=I", _info(fd, None), 20)[0]  # xlated_prog_len of struct bpf_prog_info
            code = ctypes.create_string_buffer(min(size, LARGEST))
            _info(fd, code)
            known[number] = code.raw
        finally:
            os.close(fd)
    return known[number]


def _info(fd: int, code: "ctypes.Array[ctypes.c_char] | None") -> bytes:
    info = ctypes.create_string_buffer(INFO_SIZE)
    if code is not None:
        pack_into("=I", info, 20, len(code))
        pack_into("=Q", info, 32, ctypes.addressof(code))  # xlated_prog_insns
    bpf(OBJ_GET_INFO_BY_FD, pack("=IIQ", fd, INFO_SIZE, ctypes.addressof(info)))
    return info.raw
