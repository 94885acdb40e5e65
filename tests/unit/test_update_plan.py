"""update without a kernel: options to resources, what is merged, and device rules that change."""

from json import dumps
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rundlet.errors import BadSpec
from rundlet.plan import devicechange
from rundlet.plan.devicefilter import DEFAULTS, NAME, Rule, lines
from rundlet.plan.update import OPTIONS, complete, from_options, merge, size
from rundlet.spec import load_resources

MIB = 1 << 20


@pytest.mark.parametrize(
    ("text", "bytes_"),
    [
        ("0", 0), ("1", 1), ("512M", 512 * MIB), ("512m", 512 * MIB), ("512MB", 512 * MIB), ("512MiB", 512 * MIB), ("512 mib", 512 * MIB),
        ("1.5g", 3 << 29), ("0.5k", 512), ("64b", 64), ("2t", 2 << 40), ("1p", 1 << 50), ("-1", -1), ("1.0001k", 1024),
    ],
)
def test_sizes(text: str, bytes_: int) -> None:
    assert size(text, "memory") == bytes_


@pytest.mark.parametrize("text", ["", "-2", "M", "1x", "1..5g", ".5g", "5.", "1e3", "1 2", "0x10", "ib", "8192p", "٣", "-1M", "1  M", "9" * 5000, "0." + "9" * 5000])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(BadSpec, match="^--memory-swap: invalid value for memory-swap: must be"):
        size(text, "memory_swap")


def test_every_option_has_a_place() -> None:
    given_ = dict.fromkeys(OPTIONS, "1")
    made = from_options(given_)
    assert sum(len(section) for section in made.values()) == len(OPTIONS)
    load_resources(dumps(made).encode())
    assert from_options({"cpu_quota": "-1", "cpuset_cpus": "0-2", "memory": "1M"}) == {
        "cpu": {"quota": -1, "cpus": "0-2"}, "memory": {"limit": MIB},
    }
    for name in ("cpu_period", "blkio_weight", "cpu_share", "cpu_burst"):
        for text in ("-1", "9" * 5000):
            with pytest.raises(BadSpec, match="invalid value for"):
                from_options({name: text})


def test_merging() -> None:
    before: dict[str, Any] = {
        "memory": {"limit": 1, "swap": 2}, "cpu": {"shares": 3, "cpus": "0"}, "pids": {"limit": 4}, "devices": [{"allow": True}],
        "hugepageLimits": [{"pageSize": "2MB", "limit": 5}, {"pageSize": "1GB", "limit": 6}],
    }
    asked: dict[str, Any] = {
        "memory": {"limit": 0, "swap": 7, "reservation": None}, "cpu": {"shares": 0, "cpus": "", "burst": 0}, "pids": {"limit": 0},
        "devices": [], "hugepageLimits": [{"pageSize": "2MB", "limit": 0}], "unified": {"memory.high": "8"}, "blockIO": None,
    }
    assert merge(before, asked) == {
        "memory": {"limit": 1, "swap": 7}, "cpu": {"shares": 3, "cpus": "0", "burst": 0}, "pids": {"limit": 0}, "devices": [],
        "hugepageLimits": [{"pageSize": "1GB", "limit": 6}, {"pageSize": "2MB", "limit": 0}], "unified": {"memory.high": "8"},
    }
    assert merge({"unified": {"cpuset.cpus": "0"}}, {"unified": {"cpuset.cpus": ""}}) == {"unified": {"cpuset.cpus": ""}}
    assert merge(before, {"memory": {"limit": -1}})["memory"] == {"limit": -1, "swap": -1}
    assert merge({}, {"memory": {"disableOOMKiller": False}}) == {"memory": {"disableOOMKiller": False}}
    assert before["memory"] == {"limit": 1, "swap": 2}


values = st.recursive(st.none() | st.integers(0, 3) | st.text("ab", max_size=2), lambda inner: st.dictionaries(st.text("xyz", min_size=1), inner))


@given(st.dictionaries(st.text("xyz", min_size=1), values), st.dictionaries(st.text("xyz", min_size=1), values))
def test_merging_again_changes_nothing(before: dict[str, Any], asked: dict[str, Any]) -> None:
    once = merge(before, asked)
    assert merge(once, asked) == once
    assert merge(before, {}) == before


def test_limits_that_depend_on_each_other() -> None:
    def done(asked: str, whole: str) -> Any:
        return complete(load_resources(asked.encode())[0], load_resources(whole.encode())[0])["memory"]

    assert done('{"memory": {"limit": 5}}', '{"memory": {"limit": 5, "swap": 9}}')["swap"] == 9
    assert done('{"memory": {"limit": 5}}', '{"memory": {"limit": 5}}')["swap"] is None
    assert done('{"memory": {"swap": 5}}', '{"memory": {"limit": 3, "swap": 5}}')["limit"] is None
    assert done("{}", '{"memory": {"limit": 5, "swap": 9, "checkBeforeUpdate": true}}')["checkBeforeUpdate"] is True
    assert done("{}", '{"memory": {"limit": 5, "swap": 9}}')["swap"] is None


def test_shares_come_back_with_the_end_of_idleness() -> None:
    whole = load_resources(b'{"cpu": {"shares": 7, "idle": 0}}')[0]
    shares = [complete(load_resources(asked)[0], whole)["cpu"]["shares"] for asked in (b'{"cpu": {"idle": 0}}', b'{"cpu": {"idle": 1}}', b"{}")]
    assert shares == [7, None, None]


def test_weights_of_disks_come_with_that_of_all() -> None:
    whole = load_resources(b'{"blockIO": {"weight": 9, "weightDevice": [{"major": 8, "minor": 0, "weight": 70}]}}')[0]
    found = [complete(load_resources(asked)[0], whole)["blockIO"]["weightDevice"] for asked in (b'{"blockIO": {"weight": 9}}', b"{}")]
    assert found == [whole["blockIO"]["weightDevice"], []]


def listing(given_: "tuple[tuple[str, str], ...]") -> str:
    """devices.list of a cgroup of v1 that these lines were written to: security/device_cgroup.c, devcgroup_seq_show."""
    denies = bool(given_) and given_[0] == ("devices.deny", "a")
    return "".join(f"{text}\n" for _, text in given_[1:]) if denies else "a *:* rwm\n"


class Kernel:
    """A cgroup of devices on v1 whose default is to deny: exceptions are added, and those of the same device reduced."""

    def __init__(self, listed: str) -> None:
        self.allowed = {line.rpartition(" ")[0]: set(line.rpartition(" ")[2]) for line in listed.splitlines()}

    def write(self, file: str, text: str) -> None:
        assert text != "a"
        device, _, access = text.rpartition(" ")
        if file == "devices.allow":
            self.allowed.setdefault(device, set()).update(access)
        else:
            self.allowed[device] -= set(access)

    def list(self) -> "set[tuple[str, str]]":
        return {(device, "".join(sorted(bits))) for device, bits in self.allowed.items() if bits}


accesses = st.sets(st.sampled_from("rwm"), min_size=1).map(lambda bits: "".join(bit for bit in "rwm" if bit in bits))
exceptions = st.lists(st.builds(Rule, st.just(True), st.sampled_from("bc"), st.integers(1, 3), st.integers(1, 2), accesses), max_size=5)
NOTHING = Rule(False, "a", None, None, "rwm")


@given(exceptions, exceptions)
def test_device_rules_change_without_a_gap(old: "list[Rule]", new: "list[Rule]") -> None:
    before, after = lines([NOTHING, *old, *DEFAULTS]), lines([NOTHING, *new, *DEFAULTS])
    kernel, wanted = Kernel(listing(before)), Kernel(listing(after)).list()
    kept = kernel.allowed.keys() & Kernel(listing(after)).allowed.keys()
    both = {device: kernel.allowed[device] & Kernel(listing(after)).allowed[device] for device in kept}
    for file, text in devicechange.v1(listing(before), [NOTHING, *new, *DEFAULTS]):
        kernel.write(file, text)
        assert all(bits <= kernel.allowed[device] for device, bits in both.items())
    assert kernel.list() == wanted


def test_a_change_of_the_default_is_a_new_start() -> None:
    everything = [Rule(True, "a", None, None, "rwm")]
    assert devicechange.v1("a *:* rwm\n", [NOTHING, *DEFAULTS]) == lines([NOTHING, *DEFAULTS])
    assert devicechange.v1("c 1:3 rwm\n", everything) == (("devices.allow", "a"),)
    assert devicechange.v1(listing(lines([NOTHING, *DEFAULTS])), [NOTHING, *DEFAULTS]) == ()


def test_the_program_that_is_ours_is_replaced() -> None:
    assert devicechange.ids(b"\x05\0\0\0\x07\0\0\0" + bytes(4 * 62)) == [5, 7]
    assert devicechange.ours(bytes(64) + NAME) and not devicechange.ours(bytes(64) + b"sd_devices\0\0\0\0\0\0")
    assert [len(step.calls) for step in devicechange.about([5, 7])] == [2, 2]
    load, attach = devicechange.steps(b"12345678", "/cg", 1, "6.1.0")
    assert "load" in load.what and "in the place of" in attach.what
    assert devicechange.steps(b"", "/cg", None, "6.1.0") == ()
    (detach,) = devicechange.steps(b"", "/cg", 0, "6.1.0")
    assert "detach" in detach.what
