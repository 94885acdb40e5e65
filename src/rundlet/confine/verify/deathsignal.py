"""The parent-death signals of all threads, which the kernel tells nobody else: PR_SET_PDEATHSIG, prctl(2).

A program of sixteen instructions for the kernel's task iterator reads them: Documentation/bpf/bpf_iterators.rst. Where the fields are is
said by the kernel's own types: Documentation/bpf/btf.rst. It takes CAP_BPF and CAP_PERFMON, or CAP_SYS_ADMIN, and reads nothing else.
"""

import ctypes
import os
from _struct import iter_unpack, pack, unpack_from
from functools import cache

from rundlet.confine.verify.bpf import bpf
from rundlet.life import store
from rundlet.plan.devicefilter import PROG_LOAD

TYPES = "/sys/kernel/btf/vmlinux"
INITIAL = "pid:[4026531836]"  # PROC_PID_INIT_INO of include/linux/proc_ns.h: the kernel's own numbers of threads are of this namespace
LINK_CREATE, ITER_CREATE = 28, 33  # linux/bpf.h enum bpf_cmd
TRACING, TRACE_ITER, SEQ_WRITE = 26, 28, 127  # BPF_PROG_TYPE_TRACING, BPF_TRACE_ITER, bpf_seq_write()
LICENCE = b"Dual BSD/GPL\0"  # of these instructions, beside the project's own: docs/decisions/0018-task-iterator.md
STRUCT, UNION, ENUM, FUNC_PROTO, DATASEC, ENUM64, FUNC = 4, 5, 6, 13, 15, 19, 12
WORDS = {STRUCT: 3, UNION: 3, ENUM: 2, FUNC_PROTO: 2, DATASEC: 3, ENUM64: 3}  # of each member, behind the three of every type
MORE = {1: 1, 3: 3, 14: 1, 17: 1}  # words behind the three: of INT, ARRAY, VAR, DECL_TAG
LARGEST = 1 << 16


def read() -> dict[int, int] | None:
    """The signals by thread, of those that have one; None where they are not to be learnt."""
    held: list[int] = []
    found = b""
    try:
        where = _places() if os.readlink("/proc/self/ns/pid") == INITIAL else None
        if where is None:
            return None
        held.append(_load(*where))
        held.append(bpf(LINK_CREATE, pack("=IIIIQII", held[-1], 0, TRACE_ITER, 0, 0, 0, 0)))
        held.append(bpf(ITER_CREATE, pack("=II", held[-1], 0)))
        while piece := os.read(held[-1], LARGEST):
            found += piece
    except OSError:
        return None
    finally:
        for fd in held:
            os.close(fd)
    return dict(iter_unpack("=II", found))


@cache
def _places() -> tuple[int, int, int] | None:
    """places() of this kernel. Raises OSError."""
    return places(store.read(TYPES))


def places(types: bytes) -> tuple[int, int, int] | None:
    """The number of the iterator's type, and where in task_struct, in bytes, the thread's number and its signal are."""
    if len(types) < 24 or types[:2] != pack("=H", 0xEB9F):
        return None
    head, types_at, types_size, texts_at, texts_size = unpack_from("=5I", types, 4)
    texts = types[head + texts_at : head + texts_at + texts_size]
    rows = memoryview(types[head + types_at : head + types_at + types_size]).cast("I")
    names = {name: texts.find(f"\0{name}\0".encode()) + 1 for name in ("task_struct", "bpf_iter_task", "pid", "pdeath_signal")}
    at, number, iterator = 0, 1, 0
    fields: dict[int, int] = {}
    while at < len(rows) and not (iterator and fields):
        name, about = rows[at], rows[at + 1]
        kind, count = about >> 24 & 31, about & 0xFFFF
        if kind == FUNC and name == names["bpf_iter_task"]:
            iterator = number
        elif kind == STRUCT and name == names["task_struct"] and count:
            members = range(at + 3, at + 3 + 3 * count, 3)
            fields = {rows[member]: (rows[member + 2] & 0xFFFFFF) // 8 for member in members}
        at += 3 + (count * WORDS[kind] if kind in WORDS else MORE.get(kind, 0))
        number += 1
    try:
        return (iterator, fields[names["pid"]], fields[names["pdeath_signal"]]) if iterator else None
    except KeyError:
        return None


def _load(iterator: int, pid: int, death: int) -> int:
    """Loads the program; its descriptor. Raises OSError."""
    code = b"".join(
        pack("=BBhi", operation, to | of << 4, offset, number)
        for operation, to, of, offset, number in (
            (0xBF, 6, 1, 0, 0),  # r6 = struct bpf_iter__task
            (0x79, 7, 6, 8, 0),  # r7 = its task
            (0x15, 7, 0, 11, 0),  # none behind the last
            (0x61, 0, 7, death, 0),
            (0x15, 0, 0, 9, 0),  # without a signal
            (0x63, 10, 0, -4, 0),
            (0x61, 0, 7, pid, 0),
            (0x63, 10, 0, -8, 0),
            (0x79, 1, 6, 0, 0),  # r1 = its meta
            (0x79, 1, 1, 0, 0),  # and of that the seq_file
            (0xBF, 2, 10, 0, 0),
            (0x07, 2, 0, 0, -8),
            (0xB7, 3, 0, 0, 8),
            (0x85, 0, 0, 0, SEQ_WRITE),
            (0xB7, 0, 0, 0, 0),
            (0x95, 0, 0, 0, 0),
        )
    )
    held, licence = ctypes.create_string_buffer(code, len(code)), ctypes.create_string_buffer(LICENCE)
    about = pack("=IIQQ", TRACING, len(code) // 8, ctypes.addressof(held), ctypes.addressof(licence)).ljust(68, b"\0")
    about += pack("=I", TRACE_ITER)
    return bpf(PROG_LOAD, about.ljust(108, b"\0") + pack("=III", iterator, 0, 0))
