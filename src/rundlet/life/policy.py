"""The AppArmor policy in the kernel: of a profile its mode, and the hash of what was loaded, as securityfs tells them.

    /sys/kernel/security/apparmor/policy/[namespaces/NS/]profiles/NAME.N/{name,mode,sha1 or sha256,profiles/…}
    /sys/kernel/security/apparmor/policy/[namespaces/NS/]revision

Source: aa_fs and __aafs_profile_mkdir() in security/apparmor/apparmorfs.c. The kernel hashes what apparmor_parser(8) gave it, where
apparmor.hash_policy is on.
"""

import posix

from rundlet.errors import Refused
from rundlet.life.store import read
from rundlet.plan.label import canonical, split_namespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from rundlet.life.store import Record

POLICY = "/sys/kernel/security/apparmor/policy"
HASHES = ("sha256", "sha1")


def profiles(names: "Iterable[str]") -> "list[dict[str, str]]":
    """Of each profile, by the names that labels have, what is known: "name", "mode", and "sha256" or "sha1". Those not loaded are left out,
    and so is all where securityfs is not to be read."""
    found = []
    for name in names:
        namespace, profile = split_namespace(name)
        if profile == "unconfined":
            continue
        try:
            folder = _folder(namespace, profile)
            if folder:
                found.append({"name": name, **_about(folder)})
        except OSError:
            pass
    return found


def revision(namespaces: "Iterable[str]") -> "bytes | None":
    """How often the policy of each policy namespace ("" for the reader's own) has changed; None where that is not to be read.

    Source: __aa_bump_ns_revision() and ns_revision_read() in apparmorfs.c: loading, replacing and removing a profile count.
    """
    found = []
    for namespace in sorted(namespaces):
        try:
            # the first read of an open file never waits, save for a policy that has never changed
            fd = posix.open(_top(namespace) + "/revision", posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NONBLOCK)
            try:
                found.append(posix.read(fd, 64))
            finally:
                posix.close(fd)
        except OSError:
            return None
    return b" ".join(found)


def same(record: "Record", own: "str | None", profile: "str | None") -> None:
    """Raises Refused where the `profile` is the one that the container was given by its name in another policy namespace than `own`, the
    command's: here that name is another profile's, and labels read otherwise. None: it cannot be known."""
    expect, theirs = record["expect"], record.get("policy", "root")
    if own and own != theirs and profile and expect and expect["action"] != "keep" and expect["profile"] == canonical(profile):
        raise Refused(
            f'the container has its profile "{profile}" from the policy namespace "{theirs}", and in the command\'s own, "{own}", '
            "the name is that of another one",
            f'do it from "{theirs}", or name a profile with exec --apparmor',
        )


def _top(namespace: str) -> str:
    """The directory of a policy namespace."""
    return POLICY + "".join(f"/namespaces/{part}" for part in namespace.split("//")) if namespace else POLICY


def _about(folder: str) -> "dict[str, str]":
    about = {"mode": _text(folder + "/mode")}
    for kind in HASHES:
        try:
            about[kind] = _text(f"{folder}/{kind}")
            break
        except FileNotFoundError:
            pass
    return about


def _folder(namespace: str, profile: str) -> str:
    """The directory of a profile; empty where there is none. That of a hat or child is in its parent's."""
    top = _top(namespace)
    whole = ""
    for part in profile.split("//"):
        whole = f"{whole}//{part}" if whole else part
        top = _named(top + "/profiles", part, whole)
        if not top:
            return ""
    return top


def _named(folder: str, name: str, whole: str) -> str:
    """The directory below `folder` of the profile called `name`: mangle_name() of the kernel, a dot and a number."""
    kept = [c for c in name.lstrip("/.") if c.isalnum() or c.isspace() or c in "._-/"]
    start = "".join("." if c == "/" else "_" if c.isspace() else c for c in kept) + "."
    for entry in posix.listdir(folder):
        if entry.startswith(start) and _text(f"{folder}/{entry}/name") in (whole, name):
            return f"{folder}/{entry}"
    return ""


def _text(path: str) -> str:
    return read(path).decode("utf-8", "surrogateescape").rstrip("\n")
