"""The unit of a container: its name and place, and what limits, device rules and annotations are as properties."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rundlet.errors import BadSpec
from rundlet.plan import systemd
from rundlet.plan.devicefilter import Rule, since_reset
from rundlet.plan.gvariant import INTEGERS, Text
from rundlet.plan.write import Write

NEW = 252


class TestUnit:
    """From /linux/cgroupsPath."""

    @pytest.mark.parametrize(("path", "user", "name", "slice", "cgroup"), [
        (None, False, "rundlet-ID.scope", "system.slice", "/system.slice/rundlet-ID.scope"),
        ("", False, "rundlet-ID.scope", "system.slice", "/system.slice/rundlet-ID.scope"),
        (None, True, "rundlet-ID.scope", "user.slice", "/user.slice/rundlet-ID.scope"),
        ("a-b-c.slice:cri:x1", False, "cri-x1.scope", "a-b-c.slice", "/a.slice/a-b.slice/a-b-c.slice/cri-x1.scope"),
        (":libpod:x", False, "libpod-x.scope", "system.slice", "/system.slice/libpod-x.scope"),
        (":libpod:x", True, "libpod-x.scope", "user.slice", "/user.slice/libpod-x.scope"),
        ("-.slice:p:n", False, "p-n.scope", "-.slice", "/p-n.scope"),
        ("m.slice::n", False, "-n.scope", "m.slice", "/m.slice/-n.scope"),
        ("m.slice:n", False, "n.scope", "m.slice", "/m.slice/n.scope"),
        ("memory.slice:_x:n", False, "_x-n.scope", "memory.slice", "/_memory.slice/__x-n.scope"),
        ("n", False, "n.scope", "system.slice", "/system.slice/n.scope"),
        ("m.slice:p:a-b.slice", False, "a-b.slice", "m.slice", "/a.slice/a-b.slice"),
    ])
    def test_is(self, path: str | None, user: bool, name: str, slice: str, cgroup: str) -> None:
        unit = systemd.unit(path, "ID", user)
        assert (unit.name, unit.slice, unit.path()) == (name, slice, cgroup)

    @pytest.mark.parametrize("path", [
        "/a/b", "a/b", "a.slice:p:n:x", "a:p:n", "a--b.slice:p:n", "-a.slice:p:n", ".slice:p:n", "a.slice:p:-.x/y", "a.slice:p:n m", "a.slice:",
        "a.slice:p:" + "n" * 255, "a b.slice:p:n", "a.slice:p:b--c.slice", "ä.slice:p:n", "a.slice:p:ä", "../a.slice:p:n",
    ])
    def test_is_refused(self, path: str) -> None:
        with pytest.raises(BadSpec, match="^/linux/cgroupsPath: "):
            systemd.unit(path, "ID", False)

    @given(st.text(alphabet="ab-./:\\_é", max_size=12))
    def test_stays_below_the_manager(self, path: str) -> None:
        try:
            cgroup = systemd.unit(path, "ID", False).path()
        except BadSpec:
            return
        parts = cgroup.split("/")[1:]
        assert parts and all(part not in ("", ".", "..") for part in parts)
        assert all(part.endswith(".slice") for part in parts[:-1])

    @pytest.mark.parametrize(("given", "version", "name"), [(None, 2, "container"), (None, 1, ""), ("", 2, ""), ("x", 1, "x"), ("/x/y/", 2, "x/y")])
    def test_subgroup(self, given: str | None, version: int, name: str) -> None:
        annotations = {} if given is None else {"run.oci.systemd.subgroup": given}
        assert systemd.subgroup(annotations, version) == name

    @pytest.mark.parametrize("name", ["..", "a/../..", "a\nb", "a\0"])
    def test_subgroup_is_refused(self, name: str) -> None:
        with pytest.raises(BadSpec):
            systemd.subgroup({"run.oci.systemd.subgroup": name}, 2)


class TestLimits:
    """Texts for files as properties."""

    @pytest.mark.parametrize(("file", "text", "properties"), [
        ("memory.max", "1048576", {"MemoryMax": ("t", 1 << 20)}),
        ("memory.max", "max", {"MemoryMax": ("t", systemd.UNSET)}),
        ("memory.max", "0", {"MemoryMax": ("t", 1)}),  # systemd takes none below 1; the file does
        ("memory.max", "1G", {"MemoryMax": ("t", 1 << 30)}),  # the kernel's own way to write it
        ("memory.high", "48m\n", {"MemoryHigh": ("t", 48 << 20)}),
        ("memory.high", "48x", {}), ("memory.high", "", {}), ("memory.high", "K", {}), ("pids.max", "1K", {}),
        ("memory.low", "0", {"MemoryLow": ("t", 0)}),
        ("memory.high", "5", {"MemoryHigh": ("t", 5)}),
        ("memory.min", "5", {"MemoryMin": ("t", 5)}),
        ("memory.swap.max", "0", {"MemorySwapMax": ("t", 0)}),
        ("memory.limit_in_bytes", "-1", {"MemoryLimit": ("t", systemd.UNSET)}),
        ("pids.max", "7", {"TasksMax": ("t", 7)}),
        ("pids.max", "0", {"TasksMax": ("t", 1)}),
        ("cpu.weight", "100", {"CPUWeight": ("t", 100)}),
        ("cpu.shares", "1024", {"CPUShares": ("t", 1024)}),
        ("cpu.idle", "1", {"CPUWeight": ("t", 0)}),
        ("cpu.idle", "0", {"CPUWeight": ("t", systemd.UNSET)}),
        ("cpu.max", "50000 100000", {"CPUQuotaPerSecUSec": ("t", 500000), "CPUQuotaPeriodUSec": ("t", 100000)}),
        ("cpu.max", "50000", {"CPUQuotaPerSecUSec": ("t", 500000), "CPUQuotaPeriodUSec": ("t", 100000)}),
        ("cpu.max", "50001 100000", {"CPUQuotaPerSecUSec": ("t", 510000), "CPUQuotaPeriodUSec": ("t", 100000)}),
        ("cpu.max", "max 20000", {"CPUQuotaPerSecUSec": ("t", systemd.UNSET), "CPUQuotaPeriodUSec": ("t", 20000)}),
        ("cpu.max", "² 100000", {}),
        ("cpu.max", "50000 ²", {}),
        ("cpu.cfs_quota_us", "-1", {"CPUQuotaPerSecUSec": ("t", systemd.UNSET), "CPUQuotaPeriodUSec": ("t", 100000)}),
        ("cpuset.cpus", "0-3,9", {"AllowedCPUs": ("ay", b"\x0f\x02")}),
        ("cpuset.mems", "0", {"AllowedMemoryNodes": ("ay", b"\x01")}),
        ("cpuset.cpus", "0-7:2/4", {}),
        ("io.weight", "default 200", {"IOWeight": ("t", 200)}),
        ("io.weight", "8:0 200", {"IODeviceWeight": ("a(st)", [("/dev/block/8:0", 200)])}),
        ("io.max", "8:16 rbps=1024 wbps=max riops=5 other=1", {
            "IOReadBandwidthMax": ("a(st)", [("/dev/block/8:16", 1024)]),
            "IOWriteBandwidthMax": ("a(st)", [("/dev/block/8:16", systemd.UNSET)]),
            "IOReadIOPSMax": ("a(st)", [("/dev/block/8:16", 5)]),
        }),
        ("io.max", "8:16 rbps=1G", {}),
        ("blkio.throttle.read_bps_device", "8:0 4096", {"BlockIOReadBandwidth": ("a(st)", [("/dev/block/8:0", 4096)])}),
        ("blkio.throttle.read_iops_device", "8:0 4096", {}),
        ("hugetlb.2MB.max", "0", {}),
    ])
    def test_one(self, file: str, text: str, properties: dict[str, Any]) -> None:
        assert systemd.limits([Write(file.partition(".")[0], file, text, "")], NEW) == properties

    def test_what_goes_together(self) -> None:
        writes = [
            Write("cpu", "cpu.cfs_period_us", "50000", ""), Write("cpu", "cpu.cfs_quota_us", "25000", ""),
            Write("io", "io.bfq.weight", "500", "", otherwise=Write("io", "io.weight", "default 4950", "")),
        ]
        assert systemd.limits(writes, NEW) == {
            "CPUQuotaPeriodUSec": ("t", 50000), "CPUQuotaPerSecUSec": ("t", 500000), "IOWeight": ("t", 4950),
        }
        idle = [Write("cpu", "cpu.weight", "50", ""), Write("cpu", "cpu.idle", "1", "")]
        assert systemd.limits(idle, NEW) == {"CPUWeight": ("t", 0)}

    def test_an_older_systemd(self) -> None:
        writes = [
            Write("cpu", "cpu.max", "50000 100000", ""), Write("cpuset", "cpuset.cpus", "0", ""), Write("cpu", "cpu.idle", "1", ""),
        ]
        assert systemd.limits(writes, 239) == {"CPUQuotaPerSecUSec": ("t", 500000)}


class TestDevices:
    """Device rules as the lists that systemd knows."""

    DENY = Rule(False, "a", None, None, "rwm")

    def test_lists(self) -> None:
        rules = [self.DENY, Rule(True, "c", 1, 3, "rwm"), Rule(True, "b", 8, None, "r"), Rule(True, "c", None, None, "m"), Rule(True, "a", 9, 9, "r")]
        assert systemd.devices(*since_reset(rules), NEW) == {
            "DevicePolicy": ("s", "strict"),
            "DeviceAllow": ("a(ss)", [
                ("/dev/char/1:3", "rwm"), ("block-8", "r"), ("char-*", "m"), ("/dev/block/9:9", "r"), ("/dev/char/9:9", "r"),
            ]),
        }

    @pytest.mark.parametrize("rules", [
        [Rule(True, "a", None, None, "rwm")], [DENY, Rule(True, "c", 1, None, "rwm"), Rule(False, "c", 1, 1, "r")], [DENY, Rule(True, "c", None, 3, "r")],
    ])
    def test_what_no_list_says(self, rules: list[Rule]) -> None:
        assert systemd.devices(*since_reset(rules), NEW) == {}

    def test_an_older_systemd(self) -> None:
        assert systemd.devices(*since_reset([self.DENY]), 239) == {}


class TestAnnotations:
    """org.systemd.property.*"""

    @pytest.mark.parametrize(("name", "text", "property"), [
        ("TimeoutStopSec", "10", ("TimeoutStopUSec", ("t", 10000000))),
        ("TimeoutStopSec", "uint64 10", ("TimeoutStopUSec", ("t", 10000000))),
        ("TimeoutStopSec", "0.5", ("TimeoutStopUSec", ("t", 500000))),
        ("TimeoutStopUSec", "uint64 10", ("TimeoutStopUSec", ("t", 10))),
        ("CollectMode", "'inactive'", ("CollectMode", ("s", "inactive"))),
        ("SendSIGHUP", "true", ("SendSIGHUP", ("b", True))),
        ("CPUWeight", "uint64 5", ("CPUWeight", ("t", 5))),
        ("After", "['a.service', 'b.service']", ("After", ("as", ["a.service", "b.service"]))),
    ])
    def test_is(self, name: str, text: str, property: tuple[str, Any]) -> None:
        assert systemd.annotated({"org.systemd.property." + name: text, "other": "x"}) == dict([property])

    @pytest.mark.parametrize(("name", "text"), [
        ("Slice", "'a.slice'"), ("PIDs", "[uint32 1]"), ("Delegate", "false"), ("Ab", "1"), ("A-b-c", "1"), ("After", "a.service"), ("After", ""),
        ("TimeoutStopSec", "'10'"), ("TimeoutStopSec", "-1"), ("TimeoutStopSec", "true"), ("After", "['a'"), ("After", "'a' 'b'"),
        ("TimeoutStopSec", "1e400"), ("TimeoutStopSec", "1e300"), ("After", r"['\UFFFFFFFF']"), ("After", r"['\ud800']"),
    ])
    def test_is_refused(self, name: str, text: str) -> None:
        with pytest.raises(BadSpec, match=f"^/annotations/org.systemd.property.{name}: "):
            systemd.annotated({"org.systemd.property." + name: text})


def quoted(text: str) -> str:
    """A string in GVariant's text format."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


STRINGS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=6)
PLAIN = st.one_of(
    st.booleans().map(lambda value: ("b", value, str(value).lower())),
    STRINGS.map(lambda value: ("s", value, quoted(value))),
    *(
        st.integers(least, most).map(lambda value, kind=kind, signature=signature: (signature, value, f"{kind} {value}"))  # type: ignore[misc]
        for kind, (signature, least, most) in INTEGERS.items()
    ),
)


def tuples(inner: Any) -> Any:
    """Tuples of one or more, and arrays of one kind, of what is given."""
    many = st.lists(inner, min_size=1, max_size=3)
    return many.map(lambda items: (
        f"({''.join(item[0] for item in items)})", tuple(item[1] for item in items), f"({', '.join(item[2] for item in items)},)",
    )) | st.tuples(inner, st.integers(1, 3)).filter(lambda of: of[0][0] != "y").map(
        lambda of: (f"a{of[0][0]}", [of[0][1]] * of[1], f"[{', '.join([of[0][2]] * of[1])}]")
    )


class TestText:
    """GVariant's text format."""

    @given(st.recursive(PLAIN, tuples, max_leaves=6))
    def test_what_is_written_is_read(self, value: tuple[str, Any, str]) -> None:
        signature, held, text = value
        assert Text(f" {text} ").whole() == (signature, held)

    @pytest.mark.parametrize(("text", "value"), [
        ("7", ("i", 7)), ("-0x10", ("i", -16)), ("010", ("i", 8)), ("1.5", ("d", 1.5)), ("1e3", ("d", 1000.0)), ("double 2", ("d", 2.0)),
        ("@as []", ("as", [])), ("@a(st) [('a', 1)]", ("a(st)", [("a", 1)])), ("@(sau) ('a', [])", ("(sau)", ("a", []))), ("()", ("()", ())),
        ('"it\'s"', ("s", "it's")), (r"'\u00e9\n\x'", ("s", "é\nx")), ("objectpath '/a'", ("o", "/a")), ("[byte 1, 2]", ("ay", b"\x01\x02")),
    ])
    def test_is(self, text: str, value: tuple[str, Any]) -> None:
        assert Text(text).whole() == value

    @given(st.text(alphabet="[](),'\"@\\ asu8 btrueint64.x-0", max_size=20))
    def test_anything_else_is_refused_in_words(self, text: str) -> None:
        try:
            Text(text).whole()
        except ValueError as e:
            assert "literal" not in str(e)

    def test_brackets_without_end(self) -> None:
        with pytest.raises(ValueError, match="too many brackets"):
            Text("[" * 100000).whole()
