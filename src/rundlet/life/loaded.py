"""AppArmor policy as files and as the kernel has it: compiled by apparmor_parser(8), compared by the kernel's own hash, loaded, removed.

    compiled    one or more profiles, each: "version" and its number, perhaps "namespace" and its name, then the struct "profile"

The kernel hashes each profile as the number and the struct: aa_calc_profile_hash() in security/apparmor/crypto.c. It has the hash, and
the text compiled, below policy/profiles: apparmorfs.c. A file that is written to it in one piece is loaded whole or not at all:
aa_replace_profiles() in policy.c.
"""

import posix
import re
import subprocess
from errno import errorcode
from fcntl import LOCK_EX, flock
from hashlib import sha1, sha256

from rundlet import host
from rundlet.errors import Fault, Refused
from rundlet.life import store
from rundlet.life.policy import HASHES, POLICY
from rundlet.plan.label import canonical, components

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    Hashes = dict[str, str]  # by the kernel's name of the algorithm: sha1 up to Linux 6.7, then sha256

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # some engines run commands without any, or without sbin
_VERSION = rb"\x04\x08\x00version\x00\x02(....)"
_NAMESPACE = rb"(?:\x04\x0a\x00namespace\x00\x05..([^\x00]+)\x00)?"
_HEAD = re.compile(_VERSION + _NAMESPACE + rb"(?=\x04\x08\x00profile\x00\x07\x05..([^\x00]+)\x00)", re.DOTALL)


class Malformed(Refused):
    """The parser does not take it."""


class Compiled:
    """One profile as the parser compiles it; `name` is canonical, `text` what the kernel takes for it alone."""

    def __init__(self, name: str, version: bytes, body: bytes, text: bytes) -> None:
        self.name = name
        self.text = text
        hashed = version + body
        self.hashes: "Hashes" = {"sha1": sha1(hashed, usedforsecurity=False).hexdigest(), "sha256": sha256(hashed).hexdigest()}


class Loaded:
    """One profile as the kernel has it; `hashes` is empty where the kernel keeps none, `folder` where it tells of the profile."""

    def __init__(self, name: str, mode: str, hashes: "Hashes", folder: str) -> None:
        self.name = name
        self.mode = mode
        self.hashes = hashes
        self.folder = folder

    def same(self, hashes: "Hashes") -> "bool | None":
        """Whether it has this content; None where the kernel does not tell."""
        return None if not self.hashes else all(hashes.get(kind) == value for kind, value in self.hashes.items())

    def text(self) -> bytes:
        """What it was loaded from, this profile alone; empty where the kernel does not keep that."""
        try:
            whole = store.read(self.folder + "/raw_data")
        except OSError:
            return b""
        return next((one.text for one in split(whole) if one.name == self.name), b"")


# ────────────────────────────────────────────────────────────────────────────────────────────────────────────── the parser


def parser(*words: str, given: bytes = b"") -> "tuple[bytes, str]":
    """What apparmor_parser(8) prints with these words, `given` on its stdin, and its complaints. Raises Malformed with the first of them,
    and Refused where it cannot be run."""
    environment = {key: value for key, value in posix.environ.items() if key != b"PATH"} | {b"PATH": PATH.encode(), b"LC_ALL": b"C"}
    fd = posix.memfd_create("policy", posix.MFD_CLOEXEC)  # a file, which the parser reads whole
    try:
        while given:
            given = given[posix.write(fd, given) :]
        posix.lseek(fd, 0, 0)
        done = subprocess.run(["apparmor_parser", *words], stdin=fd, capture_output=True, env=environment, check=False)
    except FileNotFoundError:
        raise Refused("there is no apparmor_parser, which compiles and loads AppArmor policy", "install the package apparmor") from None
    except OSError as e:
        why = f"cannot run apparmor_parser: {errorcode.get(e.errno or 0, str(e.errno))}"
        raise Refused(why, "the runtime's own profile must permit it") from None
    finally:
        posix.close(fd)
    said = done.stderr.decode("utf-8", "replace")
    if done.returncode:
        raise Malformed(_complaint(said) or f"apparmor_parser failed with status {done.returncode}")
    return done.stdout, said


def _complaint(said: str) -> str:
    """The line that tells why, without what is said of caches; engines take some of its words for other faults."""
    lines = [" ".join(line.split()) for line in said.splitlines() if line.strip() and not line.startswith(("Warning", "Cache "))]
    chosen = next((line for line in lines if "error" in line.lower()), lines[0] if lines else "")
    for words, errno in (("No such file or directory", "ENOENT"), ("Permission denied", "EACCES"), ("Operation not permitted", "EPERM")):
        chosen = chosen.replace(words, errno)
    return chosen.removeprefix("AppArmor parser error").removeprefix(" for").strip(" :.")


def compiled(path: str) -> "list[Compiled]":
    """The profiles of a file, compiled for this kernel, or for the parser's own idea of one where there is no AppArmor.

    Raises Malformed when it does not parse, Refused when it cannot be read.
    """
    try:
        posix.close(posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC))
    except OSError as e:
        raise Refused(f"cannot read {path}: {errorcode.get(e.errno or 0, str(e.errno))}", "name a file of AppArmor profiles") from None
    try:
        text, _ = parser("-Q", "-K", "-S", "-q", path)
    except Malformed as refused:
        why = refused.why.replace(f"{path} in profile {path} ", "").replace(f"{path} in {path} ", "")
        raise Malformed(f"{path}: {why.removeprefix('at ')}") from None
    found = split(text)
    if not found:
        raise Malformed(f"{path}: it holds no AppArmor profile", "name a file of AppArmor profiles")
    return found


def split(text: bytes) -> "list[Compiled]":
    """The profiles of a compiled text, in its order."""
    heads = list(_HEAD.finditer(text))
    ends = [*(head.start() for head in heads[1:]), len(text)]
    found = []
    for head, end in zip(heads, ends, strict=False):
        version, namespace, name = head.groups()
        full = (b":" + namespace + b":" + name if namespace else name).decode("utf-8", "surrogateescape")
        found.append(Compiled(canonical(full), version, text[head.end() : end], text[head.start() : end]))
    return found


# ────────────────────────────────────────────────────────────────────────────────────────────────────────────── the kernel


def lock() -> int:
    """A lock of this machine's policy among commands of rundlet; closing the descriptor ends it."""
    try:
        fd = posix.open(POLICY, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC)
    except OSError as e:
        why = f"cannot open {POLICY}: {errorcode.get(e.errno or 0, str(e.errno))}"
        raise Refused(why, "mount securityfs on /sys/kernel/security") from None
    flock(fd, LOCK_EX)
    return fd


def loaded() -> "dict[str, Loaded]":
    """The profiles that the kernel has, children too, by canonical name; those of policy namespaces below the own one included.

    Raises Refused when it does not tell.
    """
    try:
        return {one.name: one for one in _below(POLICY, "")}
    except OSError as e:
        why = f"cannot read the loaded profiles in {POLICY}: {errorcode.get(e.errno or 0, str(e.errno))}"
        raise Refused(why, "mount securityfs on /sys/kernel/security") from None


def _below(folder: str, namespace: str) -> "Iterator[Loaded]":
    for entry in posix.listdir(folder + "/profiles"):
        yield from _one(f"{folder}/profiles/{entry}", namespace, "")
    try:
        inner = posix.listdir(folder + "/namespaces")
    except FileNotFoundError:
        inner = []
    for name in inner:
        yield from _below(f"{folder}/namespaces/{name}", f"{namespace}//{name}" if namespace else name)


def _one(folder: str, namespace: str, parent: str) -> "Iterator[Loaded]":
    try:
        own = store.read(folder + "/name").decode("utf-8", "surrogateescape").rstrip("\n")
        mode = store.read(folder + "/mode").decode().strip()
        hashes = {kind: store.read(f"{folder}/{kind}").decode().strip() for kind in HASHES if _there(f"{folder}/{kind}")}
        inner = posix.listdir(folder + "/profiles") if _there(folder + "/profiles") else []
    except FileNotFoundError:
        return  # removed meanwhile
    name = own if not parent or own.startswith(parent + "//") else f"{parent}//{own}"
    yield Loaded(f":{namespace}:{name}" if namespace else name, mode, {kind: text for kind, text in hashes.items() if text}, folder)
    for entry in inner:
        yield from _one(f"{folder}/profiles/{entry}", namespace, name)


def _there(path: str) -> bool:
    try:
        posix.stat(path)
    except OSError:
        return False
    return True


def load(profiles: "Sequence[Compiled]", replace: bool) -> None:
    """Loads them, all or none; with `replace` over what is there of these names, else one of them is a failure. Raises Refused."""
    parser("-r" if replace else "-a", "-K", "-q", "-B", given=b"".join(one.text for one in profiles))


def remove(names: "Sequence[str]") -> None:
    """Removes profiles, with their children. Raises Refused."""
    text = "".join(f'profile "{_escaped(name)}" {{}}\n' for name in names)
    parser("-R", "-K", "-q", given=text.encode("utf-8", "surrogateescape"))


def _escaped(name: str) -> str:
    return name.replace("\\", "\\\\").replace('"', '\\"')


# ─────────────────────────────────────────────────────────────────────────────────────────────────────────────── who uses it


def labels() -> "dict[int, set[str]]":
    """The profiles that each process runs under, by pid, all its threads together; those that may not be read are left out."""
    found: "dict[int, set[str]]" = {}
    for pid in filter(str.isdigit, posix.listdir("/proc")):
        try:
            tasks = posix.listdir(f"/proc/{pid}/task")
        except OSError:
            continue
        for task in tasks:
            try:
                found.setdefault(int(pid), set()).update(components(host.label_of(int(task))[0]))
            except (Refused, OSError):
                continue  # it has ended
    return found


def within(name: str, profile: str) -> bool:
    """Whether `name` is the profile or a child of it."""
    return name == profile or name.startswith(profile + "//")


def users(profile: str, top: str, but: str) -> str:
    """Who uses a profile or a child of it, in words; "" for nobody. `but` is the container below `top` that does not count."""
    for name in store.names(top):
        if name == but:
            continue
        try:
            container = store.find_in(top, name, lock=False)
        except Fault:
            continue
        try:
            record = container.record if container.complete else None
        finally:
            container.close()
        expect = record and record["expect"]
        needed = [*(record.get("apparmor") or {"uses": []})["uses"], *(expect["label"] if expect else [])] if record else []
        if any(within(one, profile) for one in needed):
            return f"container {name}"
    for pid, names in labels().items():
        found = store.stat(pid) if any(within(one, profile) for one in names) else None
        if found and found[0] not in "ZX":  # what has ended and waits for its parent to ask for the status uses nothing
            return f"process {pid}"
    return ""
