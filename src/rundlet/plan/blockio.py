"""Limits of block I/O: /linux/resources/blockIO as texts for files of cgroup v1 and v2.

Sources: the kernel's cgroup-v1/blkio-controller.rst, cgroup-v2.rst, block/bfq-iosched.rst; runtime-spec config-linux.md, "Block IO".
"""

from rundlet.plan.write import Write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal, TypeAlias

    from rundlet.spec.types import BlockIO

    Throttle: TypeAlias = Literal["throttleReadBpsDevice", "throttleWriteBpsDevice", "throttleReadIOPSDevice", "throttleWriteIOPSDevice"]


def io_weight(weight: int) -> int:
    """io.weight (1 to 10000) for a weight of v1 (10 to 1000)."""
    return 1 + (min(max(weight, 10), 1000) - 10) * 9999 // 990


THROTTLES: "tuple[tuple[Throttle, str, str, str], ...]" = (
    ("throttleReadBpsDevice", "blkio.throttle.read_bps_device", "rbps", "limit of bytes read"),
    ("throttleWriteBpsDevice", "blkio.throttle.write_bps_device", "wbps", "limit of bytes written"),
    ("throttleReadIOPSDevice", "blkio.throttle.read_iops_device", "riops", "limit of reads"),
    ("throttleWriteIOPSDevice", "blkio.throttle.write_iops_device", "wiops", "limit of writes"),
)


def v1(io: "BlockIO") -> "list[Write]":
    """The writes for the controller `blkio`."""
    weight, leaf = io["weight"] or None, io["leafWeight"] or None

    def weigh(file: str, text: str, what: str) -> Write:
        # CFQ's files before 5.0, BFQ's since
        return Write("blkio", f"blkio.{file}", text, what, otherwise=Write("blkio", f"blkio.bfq.{file}", text, what))

    out: "list[Write]" = []
    if weight is not None:
        out.append(weigh("weight", str(weight), "block I/O weight"))
    if leaf is not None:
        out.append(Write("blkio", "blkio.leaf_weight", str(leaf), "block I/O leaf weight"))
    for device in io["weightDevice"]:
        number = f"{device['major']}:{device['minor']}"
        if device["weight"]:
            out.append(weigh("weight_device", f"{number} {device['weight']}", f"block I/O weight of {number}"))
        if device["leafWeight"]:
            out.append(Write("blkio", "blkio.leaf_weight_device", f"{number} {device['leafWeight']}", f"block I/O leaf weight of {number}"))
    for key, file, _, what in THROTTLES:
        for limit in io[key]:
            number = f"{limit['major']}:{limit['minor']}"
            out.append(Write("blkio", file, f"{number} {limit['rate']}", f"{what} of {number}"))
    return out


def v2(io: "BlockIO") -> "list[Write]":
    """The writes for the controller `io`, which knows no leaf weights."""
    weight = io["weight"] or None
    out: "list[Write]" = []
    if weight is not None:
        what = "block I/O weight"
        other = Write("io", "io.weight", f"default {io_weight(weight)}", what)
        out.append(Write("io", "io.bfq.weight", str(weight), what, otherwise=other))
    for device in io["weightDevice"]:
        if device["weight"]:
            number = f"{device['major']}:{device['minor']}"
            what = f"block I/O weight of {number}"
            other = Write("io", "io.weight", f"{number} {io_weight(device['weight'])}", what)
            out.append(Write("io", "io.bfq.weight", f"{number} {device['weight']}", what, otherwise=other))
    for key, _, word, what in THROTTLES:
        for limit in io[key]:
            number = f"{limit['major']}:{limit['minor']}"
            out.append(Write("io", "io.max", f"{number} {word}={limit['rate'] or 'max'}", f"{what} of {number}"))
    return out
