"""The narrowest line of a profile that permits what a record of AppArmor says was denied, and what more it would permit. Pure.

Syntax: apparmor.d(5). Every line proposed is one that apparmor_parser(8) takes, save those for what its version has no rules for yet.
"""

import re
from dataclasses import dataclass

from rundlet.confine.denials.pattern import escaped, path, quoted
from rundlet.confine.denials.record import Record
from rundlet.kernel import CAPABILITIES
from rundlet.plan.label import LEARNING, components

# file permissions as the kernel prints them → as a rule has them: file.c map_mask_to_chr_mask(), older: audit_file_mask()
LETTERS = {"r": "r", "w": "w", "c": "w", "d": "w", "a": "a", "l": "l", "k": "k", "m": "m", "x": "ix"}
FAMILIES = frozenset(
    "unix inet ax25 ipx appletalk netrom bridge atmpvc x25 inet6 rose netbeui security key netlink packet ash econet atmsvc rds sna irda "
    "pppox wanpipe llc ib mpls can tipc bluetooth iucv rxrpc isdn phonet ieee802154 caif alg nfc vsock kcm qipcrtr smc xdp mctp".split()
)
KINDS = frozenset("stream dgram seqpacket rdm raw packet".split())
ORDINARY = {"inet", "inet6", "unix"}
MOUNT_FLAGS = frozenset(
    "ro rw nosuid nodev noexec sync remount mand dirsync noatime nodiratime bind rbind move silent acl unbindable runbindable private "
    "rprivate slave rslave shared rshared relatime iversion strictatime nouser".split()
)
PROPAGATION = {"unbindable", "runbindable", "private", "rprivate", "slave", "rslave", "shared", "rshared"}
SIGNAL = re.compile(r"[a-z0-9]+|rtmin\+\d{1,2}")
RLIMITS = frozenset("cpu fsize data stack core rss nofile ofile as nproc memlock locks sigpending msgqueue nice rtprio rttime".split())
# where writing is more than changing a file of the container's own
HOSTS = (
    (re.compile(r"/proc/sys(/|$)"), "it writes settings of the kernel, some of them the whole host's"),
    (re.compile(r"/proc/sysrq-trigger$"), "it can reset the host"),
    (re.compile(r"/proc/(\d+|self|thread-self)/(task/\d+/)?attr/"), "it changes labels: confinement itself"),
    (re.compile(r"/proc/(\d+|self|thread-self)/(task/\d+/)?(mem|[ug]id_map|setgroups)$"), "it changes other processes"),
    (re.compile(r"/sys/kernel/security(/|$)"), "it changes the policy of the host"),
    (re.compile(r"/sys/fs/cgroup(/|$)"), "it changes limits of cgroups"),
    (re.compile(r"/sys(/|$)"), "it changes devices and the kernel of the host"),
    (re.compile(r"/dev/(mem|kmem|port|kcore)$"), "it is the host's memory"),
    (re.compile(r"/dev/(sd|vd|xvd|nvme|dm-|loop|mapper/)"), "it is a disk of the host"),
    (re.compile(r"(/var)?/run/(docker|crio/crio|containerd/containerd|podman/podman)\.sock$"), "it commands the engine, as root"),
)
SECRETS = (
    (re.compile(r"/proc/kcore$|/dev/k?mem$"), "it is the host's memory"),
    (re.compile(r"/proc/(\d+)/(task/\d+/)?(mem|environ|root|cwd|fd)(/|$)"), "it shows what other processes hold"),
    (re.compile(r"/sys/firmware(/|$)|/proc/(kallsyms|timer_list|keys)$"), "it is masked in most containers, as it tells of the host"),
)
NEARLY_ROOT = {
    "sys_admin": "it mounts, and does most of what root does", "sys_module": "it loads code into the kernel",
    "sys_ptrace": "it looks into any process",
    "sys_rawio": "it reaches devices and memory past the kernel", "dac_override": "it passes every check of file permissions",
    "dac_read_search": "it reads any file", "net_admin": "it configures the network", "bpf": "it loads programs into the kernel",
    "perfmon": "it looks into the kernel", "sys_boot": "it reboots the host", "sys_time": "it sets the clock of the host",
    "mac_admin": "it changes the policy of the host", "mac_override": "it passes the policy of the host",
    "syslog": "it reads the kernel's log",
    "mknod": "it makes device nodes", "setuid": "it becomes any user", "setgid": "it becomes any group",
    "sys_chroot": "it changes its root",
    "net_raw": "it forges packets", "setfcap": "it gives capabilities to files", "sys_resource": "it passes limits",
    "checkpoint_restore": "it looks into other processes",
}  # fmt: skip


UNCONFINED = "the peer is unconfined: so is most of the host"
RULELESS = {"no new privs", "label not found", "profile not found", "profile transition not found", "ptrace prevents transition"}


@dataclass(frozen=True)
class Proposal:
    """A line of policy, None where none would help, and why it would permit more than this one access, a phrase each."""

    rule: str | None = None
    widens: tuple[str, ...] = ()


NONE = Proposal()


def propose(record: Record) -> Proposal:
    """What would permit it. Raises nothing, whatever the record holds."""
    if record.get("info") in RULELESS:
        return NONE  # none of these is for want of a rule
    if record.get("info").startswith("Failed name lookup"):
        return NONE  # a flag of the profile decides how such a name is looked at
    if LEARNING in record.get("profile") and not record.get("profile").partition(LEARNING)[2].startswith("/"):
        return NONE  # a profile that is not loaded: rules do not make up for it
    return RULES.get(class_of(record), _none)(record)


def class_of(record: Record) -> str:
    """AppArmor's class of what was done; kernels before 6.2 do not say it, but the operation does."""
    operation, said = record.get("operation"), record.get("class")
    if operation in ("change_profile", "change_onexec", "stack", "stack_onexec", "change_hat", "change_hatv"):
        return "change"
    if record.get("family"):
        return "unix" if record.get("family") == "unix" and ("addr" in record.fields or "peer_addr" in record.fields) else "net"
    by_operation = {
        "capable": "cap", "signal": "signal", "ptrace": "ptrace", "mount": "mount", "umount": "umount", "pivotroot": "pivot",
        "setrlimit": "rlimit", "userns_create": "userns", "uring_sqpoll": "io_uring", "uring_override": "io_uring",
    }  # fmt: skip
    if operation in by_operation:
        return by_operation[operation]
    if said == "posix_mqueue" or operation.startswith("mqueue"):
        return "mqueue"
    if said in ("net", "file", "cap", "signal", "ptrace", "rlimit", "io_uring"):
        return said
    return "file" if record.get("name") and (record.get("denied_mask") or record.get("requested_mask")) else ""


def mask(record: Record) -> str:
    """What was asked for and not permitted; of what was permitted, what was asked for. Old kernels print "r::w": owner, other."""
    for name in ("denied_mask", "denied", "requested_mask", "requested"):
        if record.get(name):
            return record.get(name).replace("::", "").replace(":", "")
    return ""


def own_path(record: Record) -> bool:
    """Whether the file is the process's own user's."""
    return "fsuid" in record.fields and record.get("fsuid") == record.get("ouid")


def _none(record: Record) -> Proposal:
    return NONE


def _file(record: Record) -> Proposal:
    name = record.get("name")
    if not name.startswith("/") or name.endswith("apparmor/.null"):
        return NONE  # apparmor.d(5): a rule for files begins with a slash; and that one stands for another file
    wanted = mask(record)
    letters = {LETTERS[letter] for letter in wanted if letter in LETTERS}
    if "w" in letters:
        letters.discard("a")  # the parser takes one of them
    if not letters:
        return NONE
    shown, wide = path(name)
    widens = ["it matches others of the kind: the number is another one each time"] if wide else []
    if letters & {"w", "a"}:
        widens += [why for place, why in HOSTS if place.match(name)][:1]
    widens += [why for place, why in SECRETS if place.match(name) and not widens][:1]
    who = "owner " if own_path(record) else ""
    target = record.get("target")
    if "l" in letters and target.startswith("/"):
        if letters != {"l"}:
            return NONE
        return Proposal(f"{who}link {shown} -> {path(target)[0]},", tuple(widens))
    order = [letter for letter in ("r", "w", "a", "m", "l", "k", "ix") if letter in letters]
    return Proposal(f"{who}{shown} {''.join(order)},", tuple(widens))


def _capability(record: Record) -> Proposal:
    name = record.get("capname")
    number = record.number("capability")
    if not re.fullmatch(r"[a-z_]+", name) and "capability" in record.fields and 0 <= number < len(CAPABILITIES):
        name = CAPABILITIES[number].removeprefix("CAP_").lower()
    if not re.fullmatch(r"[a-z_]+", name):
        return NONE
    return Proposal(f"capability {name},", (f"a capability: {NEARLY_ROOT.get(name, 'it holds for whatever the kernel asks it for')}",))


def _peer(record: Record) -> tuple[str, tuple[str, ...]]:
    """The condition for the other process, and what it lets in."""
    peer = record.get("peer")
    if not peer:
        return "", ("it holds for every process",)
    wide = (UNCONFINED,) if peer == "unconfined" else ()
    return f" peer={quoted(peer)}", wide


def _signal(record: Record) -> Proposal:
    access = mask(record)
    if access not in ("send", "receive"):
        return NONE
    peer, widens = _peer(record)
    signal = record.get("signal")
    known = SIGNAL.fullmatch(signal) and signal not in ("unmapped", "unknown")
    kind = f" set=({signal})" if known else ""
    return Proposal(f"signal ({access}){kind}{peer},", widens if kind else (*widens, "every signal: the kernel did not name this one"))


def _ptrace(record: Record) -> Proposal:
    access = mask(record)
    if access not in ("trace", "read", "tracedby", "readby"):
        return NONE
    peer, widens = _peer(record)
    others = record.get("peer") and record.get("profile") not in components(record.get("peer"))
    if access in ("trace", "read") and others and not widens:
        widens = ("it looks into processes of another profile",)
    return Proposal(f"ptrace ({access}){peer},", widens)


def _network(record: Record) -> Proposal:
    family, kind = record.get("family"), record.get("sock_type")
    if family not in FAMILIES or kind not in KINDS:
        return NONE
    widens = []
    if family == "packet" or (kind == "raw" and family in ORDINARY):
        widens.append("it forges and reads packets")
    elif family == "netlink":
        widens.append("it asks the kernel of network, devices and more, and with capabilities changes them")
    elif family not in ORDINARY:
        widens.append(f"a way into the kernel that few programs need: {family}")
    return Proposal(f"network {family} {kind},", tuple(widens))


def _unix(record: Record) -> Proposal:
    known = {"create", "bind", "listen", "accept", "connect", "shutdown", "getattr", "setattr", "getopt", "setopt", "send", "receive"}
    access = [word for word in re.split(r"[ ,]+", mask(record)) if word in known]
    kind = record.get("sock_type")
    if not access or kind not in KINDS:
        return NONE
    parts = [f"unix ({', '.join(access)}) type={kind}"]
    if record.get("addr") not in ("", "none"):
        parts.append(f"addr={quoted(record.get('addr'))}")
    peer = [f"label={quoted(record.get('peer'))}"] if record.get("peer") else []
    if record.get("peer_addr") not in ("", "none"):
        peer.append(f"addr={quoted(record.get('peer_addr'))}")
    if peer and not {"create", "bind", "listen"} & set(access):
        parts.append(f"peer=({', '.join(peer)})")
    return Proposal(f"{' '.join(parts)},", (UNCONFINED,) if record.get("peer") == "unconfined" else ())


MOUNTS = "a mount can cover what other rules protect by path"


def _mount(record: Record) -> Proposal:
    place = record.get("name")
    flags = [flag for flag in re.split(r"[ ,]+", record.get("flags")) if flag in MOUNT_FLAGS]
    if not place.startswith("/"):
        return NONE
    options = f" options=({', '.join(flags)})" if flags else ""
    at = path(place)[0]
    if "remount" in flags:
        rest = [flag for flag in flags if flag != "remount"]
        return Proposal(f"remount {at}," if not rest else f"remount options=({', '.join(rest)}) {at},", (MOUNTS,))
    if PROPAGATION & set(flags):
        return Proposal(f"mount{options} -> {at},", ("mounts may reach the host, or come from it",))
    source = record.get("srcname")
    kind = record.get("fstype")
    words = ["mount"] + ([f"fstype={quoted(kind)}"] if kind else []) + ([options.strip()] if options else [])
    words += [path(source)[0]] if source else []
    return Proposal(f"{' '.join(words)} -> {at},", (MOUNTS,))


def _umount(record: Record) -> Proposal:
    place = record.get("name")
    return Proposal(f"umount {path(place)[0]},", ("what a mount covers comes to light",)) if place.startswith("/") else NONE


def _pivot(record: Record) -> Proposal:
    new, old = record.get("name"), record.get("srcname")
    if not new.startswith("/"):
        return NONE
    before = f"oldroot={path(old)[0]} " if old.startswith("/") else ""
    return Proposal(f"pivot_root {before}{path(new)[0]},", ("a new root makes every rule by path mean another file",))


def _change(record: Record) -> Proposal:
    name = record.get("target") or record.get("name")
    if not name or "hat" in record.get("operation") or record.get("info").startswith("change_profile unprivileged"):
        return NONE
    stacks = record.get("operation") in ("stack", "stack_onexec")
    shown = quoted(name) if not stacks else f"&{name}" if quoted(name) == name else f'"&{escaped(name)}"'
    return Proposal(f"change_profile -> {shown},", () if stacks else (f"it leaves this profile for {name}",))


def _rlimit(record: Record) -> Proposal:
    which, value = record.get("rlimit"), record.get("value")
    if which not in RLIMITS or not value.isdigit() or int(value) >= 1 << 63:
        return NONE
    if which == "nice":  # the kernel's 40 to 1 are -20 to 19: getrlimit(2)
        value = str(20 - int(value))
        if not -20 <= int(value) <= 19:
            return NONE
    unit = "us" if which == "rttime" else "s" if which == "cpu" else ""
    return Proposal(f"set rlimit {which} <= {value}{unit},", ("it is the most that every program of the profile may ask for",))


def _userns(record: Record) -> Proposal:
    return Proposal("userns create,", ("a process has every capability in a user namespace of its own",))


def _io_uring(record: Record) -> Proposal:
    access = "override_creds" if "override" in mask(record) + record.get("operation") else "sqpoll"
    if access == "sqpoll":
        return Proposal("io_uring (sqpoll),", ("a thread of the kernel works for the process",))
    label = record.get("tcontext") or record.get("peer")
    return Proposal(f"io_uring (override_creds){f' label={quoted(label)}' if label else ''},", ("it uses credentials of another process",))


def _mqueue(record: Record) -> Proposal:
    known = ("create", "open", "delete", "read", "write", "getattr", "setattr")
    access = [word for word in known if word in re.split(r"[ ,]+", mask(record))]
    name = record.get("name")
    if not access or not name.startswith("/"):
        return NONE
    return Proposal(f"mqueue ({', '.join(access)}) type=posix {quoted(name)},")


RULES = {
    "file": _file, "cap": _capability, "signal": _signal, "ptrace": _ptrace, "net": _network, "unix": _unix, "mount": _mount,
    "umount": _umount, "pivot": _pivot, "change": _change, "rlimit": _rlimit, "userns": _userns, "io_uring": _io_uring, "mqueue": _mqueue,
}  # fmt: skip
