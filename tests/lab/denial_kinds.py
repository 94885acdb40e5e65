"""What is tried in a container of the lab, each under a profile that does not let it: the words for trial.c, and the rules that come of it.

Data alone. denials.py tries; each time the rules proposed for what was denied are added to the profile, until it succeeds. They are to be these.
"""

from dataclasses import dataclass

BOX, PEER, RUNTIME = "box", "box-peer", "box-runtime"
NASTY = '/srv/h{i}*?é [x]^\\"b'
BASE = """
  /trial mrix, /srv/ r, capability setuid, capability setgid, capability sys_ptrace, signal (receive) peer=unconfined,
  ptrace (readby) peer=box-path, signal (send) set=(kill) peer=unconfined, owner /proc/*/attr/** rw, owner /proc/*/task/*/attr/** rw,
"""
FLAGS = "flags=(attach_disconnected,mediate_deleted)"


@dataclass(frozen=True)
class Kind:
    """One thing to try. `rules` are those of the profile, in the order in which they were found to be missing; `peers` those of the other's.

    `wider`: whether one of them permits more than this one thing. `still` is something alike that is to be denied in the end. `base`: what the
    profile has besides. With `fails` no rule helps, and that is told in these words. In `words` {peer} is the pid of a process under PEER."""

    name: str
    words: tuple[str, ...]
    rules: tuple[str, ...] = ()
    peers: tuple[str, ...] = ()
    wider: bool = False
    still: tuple[str, ...] = ()
    base: str = ""
    fails: str = ""


def kind(name: str, words: str, *rules: str, wider: bool = False, still: str = "", **more: object) -> Kind:
    """A kind whose words hold no blanks."""
    return Kind(name, tuple(words.split()), rules, wider=wider, still=tuple(still.split()), **more)  # type: ignore[arg-type]


MOUNT = "capability sys_admin,"
KINDS = (
    kind("read a file", "read /srv/f", "owner /srv/f r,", still="read /srv/g"),
    kind("read another user's file", "read /srv/of-five", "/srv/of-five r,", still="write /srv/of-five", base="capability dac_override, capability dac_read_search,"),
    kind("read as a user", "as 5 read /srv/of-five", "owner /srv/of-five r,", still="read /srv/of-five"),
    Kind("read a file with a nasty name", ("read", NASTY), (r'owner "/srv/h\{i\}\*\?é \[x\]\^\134\"b" r,',), still=("read", '/srv/hixxé x\\"b')),
    kind("write a file", "write /srv/f", "owner /srv/f w,", still="read /srv/f"),
    kind("read and write a file", "readwrite /srv/f", "owner /srv/f rw,"),
    kind("append to a file", "append /srv/f", "owner /srv/f a,", still="write /srv/f"),
    kind("create a file", "create /srv/new", "owner /srv/new w,"),
    kind("a file without a name", "nameless /srv", 'owner "/srv/#[0-9]*" rw,', wider=True),
    kind("truncate a file", "truncate /srv/f", "owner /srv/f w,"),
    kind("make a folder", "mkdir /srv/folder", "owner /srv/folder/ w,"),
    kind("make a link", "symlink /srv/symlink", "owner /srv/symlink w,"),
    kind("rename a file", "rename /srv/old /srv/renamed", "owner /srv/old rw,", "owner /srv/renamed w,"),
    kind("link a file", "link /srv/f /srv/linked", "owner link /srv/linked -> /srv/f,", base="owner /srv/f rwkl,"),
    kind("remove a file", "unlink /srv/removed", "owner /srv/removed w,"),
    kind("change a mode", "chmod /srv/f", "owner /srv/f w,"),
    kind("lock a file", "lock /srv/f", "owner /srv/f k,", base="owner /srv/f r,"),
    kind("map a file executable", "map /srv/f", "owner /srv/f m,", base="owner /srv/f r,"),
    kind("execute a program", "exec /srv/program", "owner /srv/program ix,", still="write /srv/program"),
    kind("a capability", "chroot", "capability sys_chroot,", wider=True),
    kind("another capability", "hostname", "capability sys_admin,", wider=True),
    kind("a device", "mknod /srv/device", "owner /srv/device w,", "capability mknod,", wider=True),
    kind("a port", "bind 7", "capability net_bind_service,", wider=True, base="network inet stream,"),
    kind("a socket", "socket 2 1 0", "network inet stream,", still="socket 2 2 0"),
    kind("a raw socket", "socket 2 3 1", "network inet raw,", "capability net_raw,", wider=True),
    kind("a netlink socket", "socket 16 3 0", "network netlink raw,", wider=True),
    kind("a unix socket", "socket 1 1 0", "network unix stream,"),
    Kind("a signal to a child", ("child", "15"), ("signal (send) set=(term) peer=box,", "signal (receive) set=(term) peer=box,"), still=("child", "1")),
    Kind(
        "a signal to a peer", ("kill", "{peer}", "28"), ("signal (send) set=(winch) peer=box-peer,",), ("signal (receive) set=(winch) peer=box,",),
        still=("kill", "{peer}", "1"),
    ),
    Kind(
        "whether a peer is there", ("kill", "{peer}", "0"), ("signal (send) set=(exists) peer=box-peer,",), ("signal (receive) set=(exists) peer=box,",),
    ),
    Kind("trace a peer", ("seize", "{peer}"), ("ptrace (trace) peer=box-peer,",), ("ptrace (tracedby) peer=box,",), wider=True),
    kind("mount a filesystem", "apart mount tmpfs /mnt tmpfs 6", MOUNT, "mount fstype=tmpfs options=(rw, nosuid, nodev) tmpfs -> /mnt/,", wider=True),
    kind(
        "bind a folder", "apart mount /srv /mnt /none 4096", "mount options=(rw, bind) /srv/ -> /mnt/,", wider=True, base=MOUNT,
        still="apart mount /srv /srv /none 4096",
    ),
    Kind("remount", ("apart", "mount", "", "/", "", "4129"), ("remount options=(ro, bind) /,",), wider=True, base=MOUNT),
    Kind("change propagation", ("apart", "mount", "", "/", "", "0x84000"), ("mount options=(rw, rslave) -> /,",), wider=True, base=MOUNT),
    kind("unmount", "apart umount /proc", "umount /proc/,", wider=True, base=MOUNT, still="apart umount /dev"),
    kind(
        "change the root", "pivot /mnt", "pivot_root oldroot=/mnt/old/ /mnt/,", wider=True,
        base=MOUNT + " mount fstype=tmpfs, mount options=(rw, rprivate) -> /, /mnt/old/ w,",
    ),
    Kind("change the profile", ("forked", "put", "/proc/thread-self/attr/apparmor/current", f"changeprofile {PEER}"), (f"change_profile -> {PEER},",), wider=True),
    Kind("stack a profile", ("forked", "put", "/proc/thread-self/attr/apparmor/current", f"stack {PEER}"), (f"change_profile -> &{PEER},",)),
    Kind("change the profile on exec", ("forked", "onexec", f"exec {PEER}", "/trial"), (f"change_profile -> {PEER},",), wider=True),
    Kind("a profile that is not loaded", ("forked", "onexec", "exec nope", "/trial"), base="change_profile,", fails='the profile "nope" is not loaded'),
    Kind("no_new_privs", ("forked", "late", f"exec {PEER}", "/trial"), base="change_profile,", fails="no_new_privs is set"),
)
