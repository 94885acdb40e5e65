"""An executor that one process starts and another one uses: whose child it is, what it has, and what is refused."""

import os
from _socket import socket
from collections.abc import Iterator

import pytest

from rundlet.errors import StepFailed
from rundlet.executor import client, given
from rundlet.plan.step import Call, Out, Slot, Step
from tests.bundles import children

Launched = tuple[given.Given, socket]


@pytest.fixture
def launched() -> Iterator[Launched]:
    null = os.open("/dev/null", os.O_RDWR)
    made, control = given.launch([null] * 4)
    os.close(null)
    yield made, control
    control.close()
    os.waitpid(made.pid, 0)


def read(slot: str) -> Step:
    return Step("read", Call("read", Slot(slot), Out(slot, 8), 8))


def test_it_has_what_it_was_started_with_and_what_it_is_sent(launched: Launched) -> None:
    made, control = launched
    assert (made.number, made.pid in children()) == (4, True)
    assert os.getpgid(made.pid) == made.pid
    fds = {}
    for name in ("one", "two"):
        fds[name] = os.memfd_create(name)
        os.write(fds[name], name.encode())
        os.lseek(fds[name], 0, os.SEEK_SET)
    executor = given.take(made, control, fds)
    for fd in fds.values():
        os.close(fd)
    reply = executor.run([read("one"), read("two")])
    assert (reply.outs["one"].rstrip(b"\0"), reply.outs["two"].rstrip(b"\0")) == (b"one", b"two")
    found = {int(fd): os.readlink(f"/proc/{made.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{made.pid}/fd")}
    assert sorted(found) == list(range(7))
    assert [found[fd] for fd in range(4)] == ["/dev/null"] * 4
    for fd in range(4, 7):
        with open(f"/proc/{made.pid}/fdinfo/{fd}") as info:
            flags = next(int(line.split()[1], 8) for line in info if line.startswith("flags"))
        assert flags & os.O_CLOEXEC


def test_a_descriptor_at_another_place_is_refused(launched: Launched) -> None:
    """The plan says numbers; were one somebody else's, a step would do its work on the wrong file."""
    made, control = launched
    executor = client.Executor(made.pid, control, {})
    executor.run([Step("leave a gap", Call("close", 0))])
    fd = os.memfd_create("one")
    with pytest.raises(StepFailed, match="receive the descriptors"):
        given.take(made, control, {"one": fd})
    os.close(fd)


def test_it_ends_with_who_gives_it_programs(launched: Launched) -> None:
    made, control = launched
    given.take(made, control, {}).close()
    assert os.waitid(os.P_PID, made.pid, os.WEXITED | os.WNOWAIT)
