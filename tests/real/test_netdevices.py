"""Network devices of the host that are moved into a container, and the loopback device of every container; looked at by ip(8)."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest

from tests.bundles import Box, eventually, user_namespace

NUMBERS = count()


def ip(*words: str, pid: int | None = None, netns: str = "") -> str:
    """Runs ip(8), in the network namespace of a process or of a name."""
    prefix = ["nsenter", f"--net=/proc/{pid}/ns/net"] if pid else ["nsenter", f"--net={netns}"] if netns else []
    return subprocess.run([*prefix, "ip", *words], capture_output=True, text=True, check=True).stdout


def shown(name: str, **where: Any) -> dict[str, Any]:
    """A device as ip(8) tells it."""
    return json.loads(ip("-json", "address", "show", "dev", name, **where))[0]  # type: ignore[no-any-return]


def there(name: str, **where: Any) -> bool:
    return name in {device["ifname"] for device in json.loads(ip("-json", "link", **where))}


def addresses(name: str, **where: Any) -> set[str]:
    """Those of global scope."""
    found = shown(name, **where)["addr_info"]
    return {f"{a['local']}/{a['prefixlen']}" for a in found if a["scope"] == "global"}


def makeable() -> tuple[str, ...]:
    """The words with which ip(8) makes a device here: a fact of the kernel."""
    if not shutil.which("ip") or os.geteuid() != 0:
        return ()
    name = f"rdf{os.getpid()}"  # other workers ask at the same time
    for words in (("type", "dummy"), ("type", "veth", "peer", "name", f"{name}p")):
        if subprocess.run(["ip", "link", "add", name, *words], capture_output=True).returncode == 0:
            subprocess.run(["ip", "link", "del", name], check=True)
            return words[:2]
    return ()


KIND = makeable()
pytestmark = pytest.mark.skipif(not KIND, reason="this kernel makes neither dummy nor veth devices")


@pytest.fixture
def device() -> Iterator[str]:
    """A device of the host's, and another whose name ends on p, which are gone afterwards wherever they are."""
    name = f"rd{os.getpid() % 100000}x{next(NUMBERS) % 100}"
    ip("link", "add", name, *KIND, *(("peer", "name", name + "p") if KIND[1] == "veth" else ()))
    if KIND[1] != "veth":
        ip("link", "add", name + "p", *KIND)
    yield name
    for left in (name, name + "p"):  # the kernel may be about to do it: a namespace ends some time after its last process
        subprocess.run(["ip", "link", "del", left], capture_output=True)
    assert eventually(lambda: not there(name) and not there(name + "p"))


@pytest.fixture
def netns(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A network namespace by path, such as engines make."""
    path = tmp_path_factory.mktemp("netns") / "netns"
    path.touch()
    subprocess.run(["unshare", f"--net={path}", "true"], check=True)
    yield str(path)
    subprocess.run(["umount", str(path)], check=True)


def test_the_loopback_device_is_up(either: Box) -> None:
    pid = either.started()
    found = shown("lo", pid=pid)
    assert "UP" in found["flags"]
    assert [a["local"] for a in found["addr_info"]][:1] == ["127.0.0.1"]


def test_the_loopback_device_of_a_user_namespace(box: Box) -> None:
    user_namespace(box.config)
    os.chown(box.rootfs, 100000, 100000)
    assert "UP" in shown("lo", pid=box.started())["flags"]


def test_of_a_namespace_that_is_joined_nothing_is_changed(box: Box, netns: str) -> None:
    box.without("network")
    box.linux["namespaces"].append({"type": "network", "path": netns})
    assert "UP" not in shown("lo", pid=box.started())["flags"]


@pytest.mark.parametrize("new", ["", "inside0"])
def test_moved_with_all_it_has(box: Box, device: str, new: str) -> None:
    ip("link", "set", device, "mtu", "1789", "address", "02:11:22:33:44:55")
    ip("address", "add", "169.254.169.77/32", "dev", device)
    ip("address", "add", "192.0.2.9/24", "broadcast", "192.0.2.255", "dev", device, "label", f"{device}:a"[:15])
    ip("address", "add", "127.0.0.33/8", "scope", "host", "dev", device)
    ip("-6", "address", "add", "2001:db8::7/64", "dev", device, "nodad")
    box.linux["netDevices"] = {device: {"name": new} if new else {}}
    pid = box.started()
    name = new or device
    assert not there(device)
    found = shown(name, pid=pid)
    assert found["mtu"] == 1789
    assert found["address"] == "02:11:22:33:44:55"
    assert "UP" in found["flags"]
    assert addresses(name, pid=pid) == {"169.254.169.77/32", "192.0.2.9/24", "2001:db8::7/64"}
    labels = {a["local"]: a.get("label") for a in found["addr_info"] if a["family"] == "inet"}
    assert labels == {"169.254.169.77": name, "192.0.2.9": f"{name}:a"[:15]}


def test_moved_while_it_is_up(box: Box, device: str) -> None:
    ip("link", "set", device, "up")
    ip("address", "add", "192.0.2.1/24", "dev", device)
    ip("-6", "address", "add", "2001:db8::1/64", "dev", device, "nodad")
    box.linux["netDevices"] = {device: {"name": "eth0"}}
    assert addresses("eth0", pid=box.started()) == {"192.0.2.1/24", "2001:db8::1/64"}


def test_sysctls_of_a_device_find_it(box: Box, device: str) -> None:
    box.linux["netDevices"] = {device: {"name": "eth0"}}
    box.linux["sysctl"] = {"net.ipv4.conf.eth0.forwarding": "1"}
    assert box.says("cat /proc/sys/net/ipv4/conf/eth0/forwarding") == "1\n"


def test_several(box: Box, device: str) -> None:
    box.linux["netDevices"] = {device: {"name": "a0"}, device + "p": {"name": "a1"}}
    pid = box.started()
    assert there("a0", pid=pid) and there("a1", pid=pid)


def test_a_name_that_is_taken_on_the_host_is_free_inside(box: Box, device: str) -> None:
    """Renamed by the very message that moves it."""
    box.linux["netDevices"] = {device: {"name": device + "p"}}
    assert there(device + "p", pid=box.started())
    assert there(device + "p")


def test_into_a_user_namespace(box: Box, device: str) -> None:
    user_namespace(box.config)
    os.chown(box.rootfs, 100000, 100000)
    ip("address", "add", "192.0.2.1/24", "dev", device)
    box.linux["netDevices"] = {device: {}}
    pid = box.started()
    assert addresses(device, pid=pid) == {"192.0.2.1/24"}


def test_into_a_namespace_that_is_joined_where_it_stays(box: Box, device: str, netns: str) -> None:
    """Its network namespace decides what becomes of a device: the end of the container is none of it."""
    ip("address", "add", "192.0.2.1/24", "dev", device)
    box.without("network")
    box.linux["namespaces"].append({"type": "network", "path": netns})
    box.linux["netDevices"] = {device: {"name": "kept0"}}
    assert box.sh("true").run().status == 0
    assert addresses("kept0", netns=netns) == {"192.0.2.1/24"}


def test_a_joined_namespace_whose_owner_is_the_host(box: Box, device: str, netns: str) -> None:
    user_namespace(box.config)
    os.chown(box.rootfs, 100000, 100000)
    box.without("network")
    box.config["mounts"] = [m for m in box.config["mounts"] if m["type"] != "sysfs"]
    box.linux["maskedPaths"] = []
    box.linux["namespaces"].append({"type": "network", "path": netns})
    box.linux["netDevices"] = {device: {}}
    assert there(device, pid=box.started())


def test_a_name_that_is_taken_inside(box: Box, device: str, netns: str) -> None:
    ip("link", "add", "mine0", *KIND, netns=netns)
    box.without("network")
    box.linux["namespaces"].append({"type": "network", "path": netns})
    box.linux["netDevices"] = {device: {"name": "mine0"}}
    done = box.run()
    assert done.status == 1
    assert f"/linux/netDevices/{device}/name" in done.err
    assert "file exists" in done.err
    assert there(device)
    assert there("mine0", netns=netns)
    assert box.left() == []


def test_back_when_the_container_cannot_be_made(box: Box, device: str, netns: str) -> None:
    ip("link", "set", device, "up")
    ip("address", "add", "192.0.2.1/24", "dev", device)
    ip("-6", "address", "add", "2001:db8::1/64", "dev", device, "nodad")
    box.linux["netDevices"] = {device: {"name": "eth0"}}
    box.process["args"] = ["nothere"]
    assert box.run().status == 127
    assert addresses(device) == {"192.0.2.1/24", "2001:db8::1/64"}
    assert "UP" in shown(device)["flags"]
    box.without("network")
    box.linux["namespaces"].append({"type": "network", "path": netns})
    assert box.run().status == 127
    assert addresses(device) == {"192.0.2.1/24", "2001:db8::1/64"}
    assert not there("eth0", netns=netns)
    assert box.left() == []


def test_a_device_that_cannot_be_moved(box: Box) -> None:
    """The kernel's own loopback device belongs to its namespace: rtnetlink says so in its answer."""
    box.linux["netDevices"] = {"lo": {"name": "lo2"}}
    done = box.run()
    assert done.status == 1
    assert "move the network device lo into the container, as lo2: rtnetlink: invalid argument; /linux/netDevices/lo" in done.err
    assert "UP" in shown("lo")["flags"]
    assert box.left() == []


def test_a_device_that_is_not_there(box: Box) -> None:
    box.linux["netDevices"] = {"nothere0": {}}
    done = box.run()
    assert done.status == 1
    assert done.err == "rundlet: /linux/netDevices/nothere0: there is no such network device on the host: `ip link` lists those that there are\n"
    assert box.left() == []


@pytest.mark.parametrize("how", ["none", "own"])
def test_without_a_network_namespace(box: Box, device: str, how: str) -> None:
    box.without("network")
    box.config["mounts"] = [m for m in box.config["mounts"] if m["type"] != "sysfs"]
    if how == "own":
        box.linux["namespaces"].append({"type": "network", "path": "/proc/self/ns/net"})
    box.linux["netDevices"] = {device: {}}
    done = box.run()
    assert done.status == 1
    assert "unable to move network devices without a NET namespace" in done.err
    assert there(device)
    assert box.left() == []


def test_explain_shows_the_messages(box: Box, device: str, boxes: Callable[..., Box]) -> None:
    box.linux["netDevices"] = {device: {"name": "eth0"}}
    box.save()
    text = box.ok("explain", "--steps", str(box.bundle)).out
    assert "── network devices" in text
    assert f"move the network device {device} into the container, as eth0" in text
    assert there(device)
