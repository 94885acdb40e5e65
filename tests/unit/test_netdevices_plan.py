"""rtnetlink messages, read: whatever the kernel might answer; and the plan of a move."""

from struct import pack
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rundlet.confine.text import plan_lines
from rundlet.errors import Fault
from rundlet.executor.program import Program
from rundlet.plan import netdevices
from rundlet.plan.stages import Plan, Stage
from tests.unit.test_plan import KEEP


def attribute(number: int, value: bytes) -> bytes:
    return pack("=HH", 4 + len(value), number) + value + bytes(-len(value) % 4)


def message(kind: int, body: bytes) -> bytes:
    return pack("=IHHII", 16 + len(body), kind, 0, 1, 0) + body + bytes(-len(body) % 4)


def address(index: int = 7, scope: int = 0, flags: int = 0x80, wide: int | None = None, label: bytes = b"eth0\0", family: int = 2) -> bytes:
    """RTM_NEWADDR of 192.0.2.1/24, or 2001:db8::1/64."""
    text = bytes([192, 0, 2, 1]) if family == 2 else bytes.fromhex("20010db8" + "0" * 22 + "01")
    body = pack("=4BI", family, 24 if family == 2 else 64, flags & 0xFF, scope, index)
    body += attribute(1, text) + (attribute(2, text) + attribute(3, label) if family == 2 else b"")
    body += attribute(6, bytes(16)) + (attribute(8, pack("=I", wide)) if wide is not None else b"")
    return message(20, body)


def test_a_device() -> None:
    text = message(16, pack("=BxHiII", 0, 1, 7, 0x1043, 0) + attribute(3, b"eth0\0"))
    assert netdevices.link(text, "eth0") == netdevices.Device("eth0", 7, True)
    with pytest.raises(Fault):
        netdevices.link(message(2, pack("=i", -19)), "eth0")
    assert netdevices.error(message(2, pack("=i", -19) + bytes(16))) == 19
    assert netdevices.error(text) == 0


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (address(), True),
        (address(family=10, wide=0x80), True),
        (address(index=8), False),
        (address(scope=254), False),
        (address(scope=253), False),
        (address(flags=0), False),  # somebody renews it
        (address(flags=0x80, wide=0x100), False),
        (address(flags=0, wide=0x280), True),
    ],
)
def test_which_addresses_are_kept(text: bytes, kept: bool) -> None:
    assert len(netdevices.addresses(text, 7)) == kept


def test_what_of_an_address_is_kept() -> None:
    found = netdevices.addresses(address(family=10, wide=0x80 | 0x200 | 0x40), 7)[0]
    assert found == pack("=4BI", 10, 64, 0, 0, 0) + attribute(1, bytes.fromhex("20010db8" + "0" * 22 + "01")) + attribute(8, pack("=I", 0x200))
    assert netdevices.shown(found) == "2001:db8:0:0:0:0:0:1/64"


@pytest.mark.parametrize(("label", "new"), [(b"eth0\0", b"net1\0"), (b"eth0:a\0", b"net1:a\0"), (b"eth01\0", b"eth01\0")])
def test_the_label_follows_the_name(label: bytes, new: bytes) -> None:
    found = netdevices.addresses(address(label=label), 7)[0]
    assert attribute(3, new) in netdevices.labelled(found, "eth0", "net1")


@given(st.binary(max_size=200), st.integers(0, 10))
def test_damage_is_no_harm(text: bytes, cut: int) -> None:
    for damaged in (text, address()[: -cut or None] + text, text + address()):
        netdevices.addresses(damaged, 7)
        netdevices.done(damaged)
        netdevices.error(message(2, pack("=i", -5)) + damaged)


names = st.text("abcdefgh0123456789", min_size=1, max_size=15)


@given(st.lists(st.tuples(names, names, st.integers(0, 3), st.booleans()), min_size=1, max_size=3, unique_by=lambda row: row[1]))
def test_every_plan_can_be_sent_and_printed(rows: list[Any]) -> None:
    addresses = netdevices.addresses(address() + address(family=10), 7)
    devices = tuple((netdevices.Device(old, 7, up, (addresses * 2)[:count]), new) for old, new, count, up in rows)
    for steps in (netdevices.move(devices), netdevices.move_back(devices)):
        for step in steps:
            program = Program((step,), {}, {"netns": 9, "hostns": 10})
            assert len(program.where) >= len(step.calls)
        assert plan_lines(Plan((Stage("network devices", steps),), KEEP, {}, 0, True, False))
    # whether a name is free is seen before anything of that device is moved
    kinds = [step.kind for step in netdevices.move(devices)]
    assert kinds.count(netdevices.FREE) == len(devices)
