"""Network devices of the host that become the container's: rtnetlink messages, read and written. config-linux.md 1.3, "Network Devices".

    looked at    index, addresses, whether it is up: before anything is made
    moved        from the host's namespace into the container's, renamed in the same message, its addresses set anew, up
    moved back   when what follows fails

A helper of the host's carries the steps out: it has a socket in either namespace, and what it may do does not depend on who owns them.
Nothing is taken back when the container ends: its network namespace decides what becomes of its devices. Sources: rtnetlink(7),
include/uapi/linux/{netlink,rtnetlink,if_link,if_addr}.h, net/core/rtnetlink.c.
"""

from _struct import pack, unpack_from

from rundlet import kernel as k
from rundlet.errors import Fault
from rundlet.plan.step import Call, Data, Part, Ptr, Scratch, Slot, Step
from rundlet.plan.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from rundlet.plan.step import Target

AF_NETLINK, SOCK_RAW, NETLINK_ROUTE = 16, 3, 0
NLMSG_ERROR, NLMSG_DONE = 2, 3
RTM_NEWLINK, RTM_GETLINK, RTM_NEWADDR, RTM_GETADDR = 16, 18, 20, 22
REQUEST, ACK, DUMP, CREATE_OR_REPLACE = 0x1, 0x4, 0x300, 0x500
IFLA_IFNAME, IFLA_NET_NS_FD = 3, 28
IFA_ADDRESS, IFA_LOCAL, IFA_LABEL, IFA_FLAGS = 1, 2, 3, 8
IFA_KEPT = (1, 2, 3, 4, 9, 11)  # address, local, label, broadcast, route priority, protocol
IFA_F_PERMANENT = 0x80
IFA_F_ASKED = 0x02 | 0x10 | 0x100 | 0x200 | 0x400  # nodad, homeaddress, mngtmpaddr, noprefixroute, autojoin: those that one can ask for
IFF_UP = 0x1
FREE = "network device name"
ANSWER = Scratch("answer", 512)  # longer ones are cut off: only their beginnings count
SAID = ("EPERM", "ENODEV", "EEXIST", "EBUSY", "EINVAL", "EOPNOTSUPP", "ENOMEM", "EACCES")


class Device(Value):
    """A device as it is on the host; `addresses` as messages of RTM_NEWADDR without header, their index left zero."""

    __slots__ = ("name", "index", "up", "addresses")

    def __init__(self, name: str, index: int, up: bool, addresses: "tuple[bytes, ...]" = ()) -> None:
        self.name = name
        self.index = index
        self.up = up
        self.addresses = addresses


# ── looking ──


def ask_link(name: str) -> bytes:
    """The message that asks for the device of this name."""
    return _message(RTM_GETLINK, REQUEST, pack("16x") + _name(name))


def ask_addresses() -> bytes:
    """The message that asks for every address of the namespace."""
    return _message(RTM_GETADDR, REQUEST | DUMP, pack("8x"))


def error(text: bytes) -> int:
    """The errno that an answer brings; 0 for none."""
    for kind, body in _messages(text):
        if kind == NLMSG_ERROR:
            return -int(unpack_from("=i", body)[0])
    return 0


def done(text: bytes) -> bool:
    """Whether this is the last part of an answer to a question for many."""
    return any(kind in (NLMSG_DONE, NLMSG_ERROR) for kind, _ in _messages(text))


def link(text: bytes, name: str) -> Device:
    """The device in the answer to ask_link(). Raises Fault when there is none in it."""
    for kind, body in _messages(text):
        if kind == RTM_NEWLINK and len(body) >= 16:
            index, flags = unpack_from("=iI", body, 4)
            return Device(name, index, bool(flags & IFF_UP))
    raise Fault(f"the kernel's answer about the network device {name} holds none")


def addresses(text: bytes, index: int) -> "tuple[bytes, ...]":
    """Of an answer to ask_addresses() the permanent addresses of global scope that a device has, in the order of the kernel.

    Those are what the specification wants kept; the others the kernel makes by itself, or somebody renews them.
    """
    found = []
    for kind, body in _messages(text):
        if kind != RTM_NEWADDR or len(body) < 8:
            continue
        family, length, flags, scope, of = unpack_from("=4BI", body)
        attributes = dict(_attributes(body[8:]))
        if IFA_FLAGS in attributes:
            flags = unpack_from("=I", attributes[IFA_FLAGS])[0]
        if of != index or scope or not flags & IFA_F_PERMANENT:
            continue
        kept = b"".join(_attribute(number, value) for number, value in attributes.items() if number in IFA_KEPT)
        found.append(pack("=4BI", family, length, 0, scope, 0) + kept + _attribute(IFA_FLAGS, pack("=I", flags & IFA_F_ASKED)))
    return tuple(found)


def labelled(address: bytes, old: str, new: str) -> bytes:
    """An address of a device that has another name now: the label of an IPv4 address begins with it, ip-address(8)."""
    head, attributes = address[:8], dict(_attributes(address[8:]))
    label = attributes.get(IFA_LABEL)
    if label is not None:
        text = label.rstrip(b"\0").decode()
        if text == old or text.startswith(old + ":"):
            attributes[IFA_LABEL] = (new + text[len(old) :]).encode()[:15] + b"\0"
    return head + b"".join(_attribute(number, value) for number, value in attributes.items())


# ── moving ──


def enter() -> Step:
    """A socket in the namespace at hand, "host", and one in that behind the slot "netns", "inside"."""
    return Step(
        "open the network namespace of the container",
        Call("socket", AF_NETLINK, SOCK_RAW | k.SOCK_CLOEXEC, NETLINK_ROUTE, into="host"),
        Call("setns", Slot("netns"), k.NAMESPACES["network"]),
        Call("socket", AF_NETLINK, SOCK_RAW | k.SOCK_CLOEXEC, NETLINK_ROUTE, into="inside"),
        kind="network device",
        hint="/linux/netDevices: moving devices of the host takes its CAP_SYS_ADMIN and CAP_NET_ADMIN; run as root, or leave them out",
    )


def move(devices: "tuple[tuple[Device, str], ...]") -> "tuple[Step, ...]":
    """Moves devices into the container's namespace, each to the name that it is to have there, once a step of kind FREE has made sure that
    it is free."""
    steps = [enter()]
    for device, name in devices:
        where = f"/linux/netDevices/{device.name}"
        steps.append(Step(
            f"see that no network device of the container is named {name}", *_ask("inside", name),
            Call("check", Part(ANSWER, 4), pack("=H", NLMSG_ERROR), 2, k.ERRNO["EEXIST"]),
            kind=FREE, hint=f"{where}/name: file exists: the container's network namespace has a device {name} already",
        ))
        steps += _moved("host", "inside", "netns", device, device.name, name, True)
    return tuple(steps)


def move_back(devices: "tuple[tuple[Device, str], ...]") -> "tuple[Step, ...]":
    """Moves devices back whose names were free: what is there under them now are these devices, or nothing."""
    return tuple(step for device, name in devices for step in _moved("inside", "host", "hostns", device, name, device.name, device.up))


def _moved(source: str, target: str, namespace: str, device: Device, old: str, new: str, up: bool) -> "list[Step]":
    """A device from one namespace to the other; a device that is not there is left alone when it is to come back."""
    words = f"move the network device {device.name} " + (f"into the container, as {new}" if target == "inside" else "back")
    back = target == "host"
    found = Call("check", Part(ANSWER, 4), pack("=H", RTM_NEWLINK), 2, k.ERRNO["ENODEV"], fine=("ENODEV",) if back else (),
                 on_fine="end" if back else "")
    there = [Part(ANSWER, 20)]
    moving = Step(
        words, *_ask(source, old), found,
        *_tell(source, RTM_NEWLINK, 0, [pack("4x"), *there, pack("8x"), _attribute(IFLA_NET_NS_FD, pack("=I", 0))[:4], Slot(namespace),
                                        _name(new)]),
        kind="network device", hint="" if back else f"/linux/netDevices/{device.name}",
    )
    steps = [moving]
    for address in device.addresses:
        body = labelled(address, device.name, new)
        steps.append(Step(
            f"give {new} its address {shown(address)}", *_ask(target, new), found,
            *_tell(target, RTM_NEWADDR, CREATE_OR_REPLACE, [body[:4], *there, body[8:]]), kind="network device",
        ))
    if up:
        steps.append(Step(
            f"bring {new} up", *_ask(target, new), found,
            *_tell(target, RTM_NEWLINK, 0, [pack("4x"), *there, pack("=II", IFF_UP, IFF_UP)]), kind="network device",
        ))
    return steps


def shown(address: bytes) -> str:
    """An address and the length of its prefix, to be read; of IPv6 every group is written."""
    attributes = dict(_attributes(address[8:]))
    raw = attributes.get(IFA_LOCAL) or attributes.get(IFA_ADDRESS, b"")
    if len(raw) == 4:
        return ".".join(map(str, raw)) + f"/{address[1]}"
    return ":".join(f"{group:x}" for group in unpack_from(f">{len(raw) // 2}H", raw)) + f"/{address[1]}"


def _ask(socket: str, name: str) -> "list[Call]":
    """Asks for a device; its beginning, or the error, is in ANSWER then."""
    text = ask_link(name)
    return [
        Call("sendto", Slot(socket), text, len(text), 0, 0, 0),
        Call("recvfrom", Slot(socket), ANSWER, ANSWER.size, 0, 0, 0),
    ]


def _tell(socket: str, kind: int, flags: int, parts: "list[bytes | Part | Slot]") -> "list[Call]":
    """Sends a message put together of pieces, and fails with the errno that the kernel acknowledges it with.

    A Part is four bytes of an earlier answer, the index of a device; a Slot a descriptor's number.
    """
    size = 16 + sum(len(part) if isinstance(part, bytes) else 4 for part in parts)
    pieces: "list[tuple[Target, int]]" = [(pack("=IHHII", size, kind, REQUEST | ACK | flags, 1, 0), 16)]
    for part in parts:
        if isinstance(part, bytes):
            pieces.append((part, len(part)))
        else:
            pieces.append((Data(part) if isinstance(part, Slot) else part, 4))
    vector = Data(*[word for to, length in pieces for word in (Ptr(to), pack("Q", length))])
    message = Data(bytes(16), Ptr(vector), pack("Q", len(pieces)), bytes(24))
    refused = Part(ANSWER, 16)
    calls = [
        Call("sendmsg", Slot(socket), message, 0),
        Call("recvfrom", Slot(socket), ANSWER, ANSWER.size, 0, 0, 0),
        Call("check", refused, bytes(4), 4, k.ERRNO["EIO"], fine=("EIO",), on_zero="end"),
    ]
    for name in SAID:
        calls += [
            Call("check", refused, pack("=i", -k.ERRNO[name]), 4, k.ERRNO["EIO"], fine=("EIO",), on_fine=f"not {name}"),
            Call("value", -k.ERRNO[name]),
            Call("value", 0, label=f"not {name}"),
        ]
    return [*calls, Call("value", -k.ERRNO["EIO"])]


# ── messages ──


def _message(kind: int, flags: int, body: bytes) -> bytes:
    return pack("=IHHII", 16 + len(body), kind, flags, 1, 0) + body


def _name(name: str) -> bytes:
    return _attribute(IFLA_IFNAME, name.encode() + b"\0")


def _attribute(number: int, value: bytes) -> bytes:
    return pack("=HH", 4 + len(value), number) + value + bytes(-len(value) % 4)


def _messages(text: bytes) -> "Iterator[tuple[int, bytes]]":
    """(type, what follows the header) of each message; a damaged rest is left out."""
    at = 0
    while at + 16 <= len(text):
        size, kind = unpack_from("=IH", text, at)
        if not 16 <= size <= len(text) - at:
            return
        yield kind, text[at + 16 : at + size]
        at += size + (-size % 4)


def _attributes(text: bytes) -> "Iterator[tuple[int, bytes]]":
    at = 0
    while at + 4 <= len(text):
        size, number = unpack_from("=HH", text, at)
        if not 4 <= size <= len(text) - at:
            return
        yield number & 0x3FFF, text[at + 4 : at + size]
        at += size + (-size % 4)
