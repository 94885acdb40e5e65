"""What is the same for all containers that are looked at: the host's namespaces, AppArmor, cgroups and processes. Each is read once."""

import os
from functools import cached_property
from typing import TYPE_CHECKING

from rundlet import host
from rundlet.cgroup import layout
from rundlet.confine.verify import deathsignal, inside, spaces
from rundlet.errors import Refused
from rundlet.life import policy, store
from rundlet.plan.label import canonical, parse

if TYPE_CHECKING:
    from rundlet.host import Facts


class Host:
    """What is the same for all containers, read once, and when it is first wanted."""

    def __init__(self) -> None:
        self.spaces = spaces.host()
        self.facts: Facts | None = None
        self.apparmor, self.policy_namespace = "unknown", None
        try:
            self.facts = host.facts()
            self.apparmor = self.facts["apparmor"]["state"]
            self.policy_namespace = self.facts["apparmor"]["namespace"]
        except Refused:
            pass  # it cannot be told whether AppArmor is on
        self.cgroup = self.facts["cgroup"] if self.facts else layout.read()
        about = os.stat("/")
        self.root = about.st_dev, about.st_ino
        self.programs: dict[int, bytes] = {}
        self.profiles: dict[str, dict[str, str] | None] = {}
        self._modes: dict[str, str] | None = None
        self._asked = False
        self._pids: dict[str, list[int]] | None = None

    @property
    def modes(self) -> dict[str, str] | None:
        """The modes of the loaded profiles; None where they are kept from us."""
        if not self._asked:
            self._asked = True
            try:
                text = store.read("/sys/kernel/security/apparmor/profiles").decode("utf-8", "surrogateescape")
                self._modes = {canonical(name): mode or "" for name, mode in map(parse, text.splitlines())}
            except OSError:
                pass
        return self._modes

    @cached_property
    def mounts(self) -> dict[int, inside.Mount]:
        """The host's mounts, by number."""
        lines = store.read("/proc/self/mountinfo").decode("utf-8", "surrogateescape").splitlines()
        return {mount.id: mount for mount in (inside.parse(line.split(" ")) for line in lines)}

    @property
    def peers(self) -> set[int]:
        """Their peer groups."""
        return {mount.shared for mount in self.mounts.values()} - {0}

    def mounts_below(self, folder: str) -> list[str]:
        """Where mounts are below a folder, by paths as seen from there."""
        real = os.path.realpath(folder) if folder else ""
        return [mount.point[len(real) :] for mount in self.mounts.values() if real and mount.point.startswith(real + "/")]

    def pids(self, space: str) -> list[int]:
        """The processes of a PID namespace."""
        if self._pids is None:
            self._pids = {}
            for name in os.listdir("/proc"):
                if name.isdigit():
                    try:
                        self._pids.setdefault(os.readlink(f"/proc/{name}/ns/pid"), []).append(int(name))
                    except OSError:
                        continue
        return self._pids.get(space, [])

    @cached_property
    def deaths(self) -> dict[int, int] | None:
        """The parent-death signals, by thread; None where they are not to be learnt."""
        return deathsignal.read()

    def profile(self, name: str) -> dict[str, str] | None:
        """What securityfs says of a profile: life/policy.py."""
        if name not in self.profiles:
            found = policy.profiles([name])
            self.profiles[name] = found[0] if found else None
        return self.profiles[name]
