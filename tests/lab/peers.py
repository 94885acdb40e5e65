"""Inside the lab: which rules for peers the kernel takes to be about a process under a stack, and whose profile a script runs under."""

import ctypes
import json
import os
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

LIBC = ctypes.CDLL(None, use_errno=True)
CURRENT = "/proc/thread-self/attr/apparmor/current"
PTRACE_SEIZE = 0x4206
FLAGS = "flags=(attach_disconnected)"
PLAIN = "file, capability, unix, network,"
SIGNALS = {
    "own": "peer=own", "whole": 'peer="rtx//&whole"', "unsorted": 'peer="unsorted//&rtx"', "parts": "peer={parts,rtx}", "star": 'peer="*star"',
    "stars": 'peer="**stars"', "behind": 'peer="rtx//&*"', "any": "",
}
POLICY = f"""
profile rtx {FLAGS} {{ {PLAIN} signal, ptrace, change_profile, }}
profile mute {FLAGS} {{ {PLAIN} ptrace, change_profile, }}
profile halves {FLAGS} {{ {PLAIN} ptrace, change_profile, signal peer=halves, signal peer=any, }}
profile knows {FLAGS} {{ {PLAIN} ptrace, change_profile, signal peer="any//&knows", }}
{"".join(f"profile {name} {FLAGS} {{ {PLAIN} ptrace, signal (send, receive) {peer}, }}" + chr(10) for name, peer in SIGNALS.items())}
profile traces {FLAGS} {{ {PLAIN} signal, ptrace (trace, read, tracedby, readby) peer=traces, }}
profile traces-whole {FLAGS} {{ {PLAIN} signal, ptrace (trace, read, tracedby, readby) peer="rtx//&traces-whole", }}
profile talks {FLAGS} {{ file, capability, network, ptrace, signal, unix peer=(label=nobody), }}
{"".join(f"profile {name} {FLAGS} {{ file, signal, change_profile, }}" + chr(10) for name in ("zz", "Zz", "a", "a.b", "a_b", "a-b"))}
profile script /run/lab/scripts/script {FLAGS} {{ file, }}
profile unreadable /run/lab/scripts/unreadable {FLAGS} {{ /usr/** rm, /etc/** r, /lib/** rm, /lib64/** rm, /proc/** r, }}
profile no-x /run/lab/scripts/no-x {FLAGS} {{ /** rm, }}
profile shell /run/lab/scripts/shell {FLAGS} {{ file, }}
"""


def inside(act: Callable[[], Any]) -> Any:
    """What a child finds."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(reading)
        try:
            found = act()
        except BaseException as failure:
            found = f"{type(failure).__name__}: {failure}"
        os.write(writing, json.dumps(found).encode())
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as stream:
        text = stream.read()
    os.waitpid(pid, 0)
    return json.loads(text)


def change(*labels: str) -> None:
    """Takes on a label, and stacks further ones on it."""
    for n, label in enumerate(labels):
        fd = os.open(CURRENT, os.O_WRONLY)
        os.write(fd, f"{'stack' if n else 'changeprofile'} {label}".encode())
        os.close(fd)


def label() -> str:
    """Of this process."""
    return Path(CURRENT).read_text().rstrip("\n")


class Other:
    """A process under a label, until this ends; it ends with its pipe, so that nobody has to signal it."""

    def __init__(self, *labels: str) -> None:
        ready, told = os.pipe()
        waits, self.hold = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
                signal.signal(number, signal.SIG_IGN)
            os.close(self.hold)
            if labels:
                change(*labels)
            os.write(told, b"x")
            os.close(told)
            for fd in range(3, 64):
                if fd != waits:
                    try:
                        os.close(fd)
                    except OSError:
                        pass
            os.read(waits, 1)
            os._exit(0)
        os.close(waits)
        os.close(told)
        os.read(ready, 1)
        os.close(ready)

    def end(self) -> None:
        """Lets it go."""
        os.close(self.hold)
        os.waitpid(self.pid, 0)


def outcome(act: Callable[[], Any]) -> str:
    """"ok", or the error."""
    try:
        act()
    except OSError as failure:
        return failure.strerror or ""
    return "ok"


def kill(pid: int, number: int = signal.SIGTERM) -> str:
    """Whether the signal is permitted."""
    return outcome(lambda: os.kill(pid, number))


def look(pid: int) -> str:
    """Whether reading by ptrace is permitted."""
    return outcome(lambda: os.readlink(f"/proc/{pid}/exe"))


def seize(pid: int) -> str:
    """Whether tracing is permitted."""
    return "ok" if LIBC.ptrace(PTRACE_SEIZE, pid, 0, 0) == 0 else os.strerror(ctypes.get_errno())


def towards(own: tuple[str, ...], peer: tuple[str, ...], *acts: Callable[[int], str]) -> list[Any]:
    """The label, the peer's, and what may be done to it."""
    other = Other(*peer)
    try:
        def act() -> list[Any]:
            os.close(other.hold)
            theirs = Path(f"/proc/{other.pid}/attr/apparmor/current").read_text().rstrip("\n")
            if own:
                change(*own)
            return [label(), theirs, *(one(other.pid) for one in acts)]

        return inside(act)  # type: ignore[no-any-return]
    finally:
        other.end()


def itself(*labels: str) -> list[Any]:
    """Whether a process may signal another one of its label."""
    return towards(labels, labels, kill)


def talk(*labels: str) -> list[Any]:
    """Whether it may send to itself through a pair of sockets."""
    def act() -> list[Any]:
        change(*labels)
        one, other = socket.socketpair()
        return [label(), outcome(lambda: (one.send(b"x"), other.recv(1)))]

    return inside(act)  # type: ignore[no-any-return]


def ordered(*labels: str) -> str:
    """The label of a process that stacks these."""
    def act() -> str:
        change(*labels)
        return label()

    return inside(act)  # type: ignore[no-any-return]


def facts() -> dict[str, Any]:
    """What the kernel does, by what was asked of it."""
    subprocess.run(["apparmor_parser", "-r"], input=POLICY, text=True, check=True)
    found: dict[str, Any] = {}
    for name in SIGNALS:
        found[f"signals: {name}"] = {"alone": itself(name), "stacked": itself("rtx", name)}
    for name in ("mute", "halves", "knows"):
        found[f"the runtime's rules: {name}"] = itself(name, "any")
    for name in ("traces", "traces-whole"):
        found[f"ptrace: {name}"] = {
            "alone": towards((name,), (name,), look, seize), "stacked": towards(("rtx", name), ("rtx", name), look, seize),
        }
    found["unix sockets"] = {"alone": talk("talks"), "stacked": talk("rtx", "talks")}
    features = Path("/sys/kernel/security/apparmor/features")
    found["unix features"] = [(features / name).exists() for name in ("network_v8", "network/af_unix")]
    found["on unconfined"] = itself("unconfined", "own")
    found["order"] = ordered("zz", "a_b", "a", "Zz", "a.b", "a-b")
    found["the runtime signals"] = [towards(("rtx",), ("rtx", name), kill) for name in ("own", "whole", "parts", "any")]
    found["unconfined signals"] = [towards((), (*more, name), kill) for more in ((), ("rtx",)) for name in ("own", "any")]
    return found | scripts()


def scripts() -> dict[str, Any]:
    """Under whose profile scripts run."""
    folder = Path("/run/lab/scripts")
    folder.mkdir()
    says = 'print(open("/proc/self/attr/apparmor/current").read().strip())\n'
    texts = dict.fromkeys(("script", "unreadable", "no-x"), "#!/usr/bin/python3 -ISB\n" + says)
    texts |= {"shell": "#!/bin/sh\nexec /usr/bin/python3 -ISB /run/lab/scripts/said\n", "said": says, "nested": "#!/run/lab/scripts/script\n" + says}
    for name, text in texts.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    (folder / "link").symlink_to("script")
    calls = {
        "script": ["script"], "by a link": ["link"], "by the interpreter": ["/usr/bin/python3", "script"], "a shell script": ["shell"],
        "unreadable": ["unreadable"], "without x": ["no-x"], "an interpreter that is a script": ["nested"],
    }
    found = {}
    for name, words in calls.items():
        done = subprocess.run([*words[:-1], str(folder / words[-1])], capture_output=True, text=True)
        found[f"scripts: {name}"] = [done.returncode, done.stdout.strip(), done.stderr.strip()]
    return found


def grid(profile: str, runtime: str) -> dict[str, Any]:
    """What a process may do to each peer, alone under the profile and stacked on the runtime's: signals, looking, tracing."""
    def signals(number: int) -> Callable[[int], str]:
        return lambda pid: kill(pid, number)

    acts = {"term": signals(signal.SIGTERM), "usr1": signals(signal.SIGUSR1), "usr2": signals(signal.SIGUSR2), "read": look, "trace": seize}
    ours = {"alone": (profile,), "stacked": (runtime, profile)}
    theirs = {"alone": (profile,), "stacked": (runtime, profile), "runtime": (runtime,), "stranger": ("stranger",), "unconfined": ()}
    found: dict[str, Any] = {}
    for name, own in ours.items():
        for other, peer in theirs.items():
            found[f"{name} to {other}"] = dict(zip(acts, towards(own, peer, *acts.values())[2:], strict=True))
            if other not in ours:
                found[f"{other} to {name}"] = dict(zip(acts, towards(peer, own, *acts.values())[2:], strict=True))
    return {"grid": found}
