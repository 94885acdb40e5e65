"""Messages of D-Bus: jeepney, another's implementation, reads what we write, and writes what we read."""

import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jeepney.low_level import Endianness, Header, HeaderFields, MessageType
from jeepney.low_level import Message as Theirs

from rundlet.cgroup import dbus

BASIC: dict[str, st.SearchStrategy[Any]] = {
    "y": st.integers(0, 255), "b": st.booleans(), "n": st.integers(-(1 << 15), (1 << 15) - 1), "q": st.integers(0, (1 << 16) - 1),
    "i": st.integers(-(1 << 31), (1 << 31) - 1), "u": st.integers(0, (1 << 32) - 1), "x": st.integers(-(1 << 63), (1 << 63) - 1),
    "t": st.integers(0, (1 << 64) - 1), "d": st.floats(allow_nan=False), "s": st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    "o": st.sampled_from(["/", "/org/freedesktop/systemd1"]), "g": st.sampled_from(["", "s", "a(sv)", "ai"]),
}  # fmt: skip
kinds = st.recursive(
    st.sampled_from([*BASIC, "v"]),
    lambda inner: inner.map("a{}".format) | st.lists(inner, min_size=1, max_size=3).map(lambda parts: f"({''.join(parts)})"), max_leaves=5,
).filter(lambda kind: "ay" not in kind)  # for jeepney these are bytes


def value_of(kind: str) -> st.SearchStrategy[Any]:
    if kind in BASIC:
        return BASIC[kind]
    if kind == "v":
        return st.sampled_from(["s", "u", "as", "(sb)", "t"]).flatmap(lambda inner: st.tuples(st.just(inner), value_of(inner)))
    if kind[0] == "a":
        return st.lists(value_of(kind[1:]), max_size=3)
    return st.tuples(*map(value_of, dbus.types(kind[1:-1])))


bodies = st.lists(kinds, max_size=4).flatmap(lambda parts: st.tuples(st.just("".join(parts)), st.tuples(*map(value_of, parts))))
names = st.text(st.sampled_from("abc.XYZ"), min_size=1, max_size=9)


def theirs(order: Endianness, kind: MessageType, fields: dict[HeaderFields, Any], signature: str, body: tuple[Any, ...], serial: int) -> bytes:
    if signature:
        fields = {**fields, HeaderFields.signature: signature}
    raw: bytes = Theirs(Header(order, kind, 0, 1, -1, -1, fields), body).serialise(serial)
    return raw


@given(bodies, names, st.integers(1, 1 << 31))
@settings(max_examples=300, deadline=None)
def test_a_call_is_what_jeepney_writes(content: tuple[str, Any], member: str, serial: int) -> None:
    signature, body = content
    fields = {dbus.PATH: "/org", dbus.DESTINATION: "a.b", dbus.INTERFACE: "a.b.C", dbus.MEMBER: member}
    same = {
        HeaderFields.path: "/org", HeaderFields.destination: "a.b", HeaderFields.interface: "a.b.C", HeaderFields.member: member,
    }
    if signature:
        fields[dbus.SIGNATURE] = signature
    assert dbus.call(serial, fields, body) == theirs(Endianness.little, MessageType.method_call, same, signature, body, serial)


@given(st.lists(bodies, min_size=1, max_size=3), st.sampled_from([*Endianness]), st.integers(1, 40))
@settings(max_examples=300, deadline=None)
def test_what_jeepney_writes_is_read_in_any_pieces(contents: list[tuple[str, Any]], order: Endianness, step: int) -> None:
    fields = {HeaderFields.reply_serial: 7, HeaderFields.sender: ":1.2", HeaderFields.error_name: "a.b.Failed"}
    raw = b"".join(theirs(order, MessageType.error, fields, signature, body, 3) for signature, body in contents)
    inbox, found = dbus.Inbox(), []
    for at in range(0, len(raw), step):
        inbox.add(raw[at : at + step])
        while message := inbox.next():
            found.append(message)
    assert [message.body for message in found] == [body for _, body in contents]
    assert {(message.kind, message.fields[dbus.REPLY_SERIAL], message.fields[dbus.ERROR_NAME]) for message in found} == {(dbus.ERROR, 7, "a.b.Failed")}
    assert inbox.held == b""


def test_pairs_are_read() -> None:
    raw = theirs(Endianness.little, MessageType.method_return, {HeaderFields.reply_serial: 1}, "a{sv}", ({"Name": ("s", "web"), "Size": ("t", 5)},), 1)
    inbox = dbus.Inbox()
    inbox.add(raw)
    message = inbox.next()
    assert message and message.body == ([("Name", ("s", "web")), ("Size", ("t", 5))],)


@given(bodies, st.data())
@settings(max_examples=400, deadline=None)
def test_what_is_damaged_is_read_or_refused(content: tuple[str, Any], data: st.DataObject) -> None:
    raw = bytearray(theirs(Endianness.little, MessageType.signal, {HeaderFields.member: "M"}, *content, 1))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    inbox = dbus.Inbox()
    inbox.add(bytes(raw))
    try:
        inbox.next()
    except ValueError:
        pass


@pytest.mark.parametrize(
    "raw", [b"HTTP/1.1 400 Bad", b"l\4\0\2" + bytes(12), b"l\4\0\1" + b"\xff\xff\xff\x7f" + bytes(8)], ids=["text", "version", "size"],
)
def test_what_is_no_message_is_refused(raw: bytes) -> None:
    inbox = dbus.Inbox()
    inbox.add(raw)
    with pytest.raises(ValueError, match="no message of D-Bus|too large"):
        inbox.next()


def test_what_is_nested_too_deeply_is_refused() -> None:
    body = b"".join(b"\1v\0" for _ in range(200)) + b"\1y\0\7"
    raw = bytearray(struct.pack("<4BII", ord("l"), dbus.SIGNAL, 0, 1, len(body), 1))
    dbus._put(raw, "a(yv)", [(dbus.SIGNATURE, ("g", "v"))])
    inbox = dbus.Inbox()
    inbox.add(bytes(raw) + bytes(-len(raw) % 8) + body)
    with pytest.raises(ValueError, match="too deep"):
        inbox.next()


def test_a_number_that_does_not_fit_is_not_written() -> None:
    with pytest.raises(struct.error):
        dbus.call(1, {dbus.SIGNATURE: "y"}, (256,))


@pytest.mark.parametrize(("address", "place"), [
    ("unix:path=/run/dbus/system_bus_socket", b"/run/dbus/system_bus_socket"),
    ("unix:path=/run/user/1000/bus,guid=12ab", b"/run/user/1000/bus"),
    ("unix:abstract=/tmp/dbus-x%2cy", b"\0/tmp/dbus-x,y"),
    ("tcp:host=localhost,port=1;unix:path=/a%20b", b"/a b"),
])  # fmt: skip
def test_where_an_address_leads(address: str, place: bytes) -> None:
    assert dbus.place(address) == place


@pytest.mark.parametrize("address", ["", "unix:", "unixexec:path=/bin/x", "tcp:host=localhost,port=1", "unix:path=/%zz"])
def test_addresses_of_other_kinds_are_refused(address: str) -> None:
    with pytest.raises(ValueError, match="not the address|non-hexadecimal"):
        dbus.place(address)
