"""The options of a mount, sorted: what each of them is for. config.md, "Mounts"; mount(8)."""

from rundlet import kernel as k
from rundlet.plan.value import Value

# option: (attribute bits to set, bits to clear)
ATTRIBUTES = {
    "ro": (0x1, 0), "rw": (0, 0x1), "nosuid": (0x2, 0), "suid": (0, 0x2), "nodev": (0x4, 0), "dev": (0, 0x4),
    "noexec": (0x8, 0), "exec": (0, 0x8), "nodiratime": (0x80, 0), "diratime": (0, 0x80),
    "nosymfollow": (0x200000, 0), "symfollow": (0, 0x200000),
    # the access time is one field of several values: setting one clears the field first
    "noatime": (0x10, 0x70), "atime": (0, 0x70), "relatime": (0, 0x70), "norelatime": (0x20, 0x70), "strictatime": (0x20, 0x70),
    "nostrictatime": (0, 0x70),
}
# the same for a mount and all below it: config.md, "recursive" options since 1.1
DEEP = {"r" + word: bits for word, bits in ATTRIBUTES.items() if "r" + word not in ATTRIBUTES}
PROPAGATION = {
    "shared": (k.MS_SHARED, False), "slave": (k.MS_SLAVE, False), "private": (k.MS_PRIVATE, False), "unbindable": (k.MS_UNBINDABLE, False),
    "rshared": (k.MS_SHARED, True), "rslave": (k.MS_SLAVE, True), "rprivate": (k.MS_PRIVATE, True), "runbindable": (k.MS_UNBINDABLE, True),
}
# flags of a superblock as fsconfig(2) takes them; a bind mount has no superblock of its own, so there they mean nothing
SUPERBLOCK = {
    "sync": ("sync", True), "async": ("sync", False), "dirsync": ("dirsync", True), "lazytime": ("lazytime", True),
    "nolazytime": ("lazytime", False), "mand": ("mand", True), "nomand": ("mand", False),
}
# what is rundlet's own to do: option → the fields of Options that it sets
OWN = {
    "bind": ("bind",), "rbind": ("bind", "recursive"), "remount": ("remount",), "idmap": ("mapped",), "ridmap": ("mapped", "mapped_deep"),
    "tmpcopyup": ("copyup",), "copy-symlink": ("copy_symlink",), "src-nofollow": ("src_nofollow",), "dest-nofollow": ("dest_nofollow",),
}
# fsconfig(2) knows no such words, and filesystems that number their inodes' versions do so unasked since Linux 5.18
NOTHING = ("defaults", "silent", "loud", "iversion", "noiversion")

# an engine gives the files another SELinux label for them, and not every one takes them out: buildah leaves them to a bind mount
ENGINES = ("z", "Z")


class Options(Value):
    """The options of one mount, sorted: mount attributes, propagation, what the filesystem itself is told, and what rundlet does itself.

    `maps` is the text behind `idmap=`. Of options that contradict each other the later one holds.
    """

    __slots__ = (
        "bind", "recursive", "remount", "set", "clear", "deep_set", "deep_clear", "propagation", "deep", "data", "mapped", "mapped_deep",
        "maps", "copyup", "copy_symlink", "src_nofollow", "dest_nofollow",
    )

    def __init__(self, words: "list[str]") -> None:
        self.bind = self.recursive = self.remount = self.deep = self.mapped = self.mapped_deep = False
        self.copyup = self.copy_symlink = self.src_nofollow = self.dest_nofollow = False
        self.set = self.clear = self.deep_set = self.deep_clear = self.propagation = 0
        self.maps = ""
        flags: "dict[str, None]" = {}
        data: "list[tuple[str, str | None]]" = []
        for word in words:
            if word in ATTRIBUTES:
                on, off = ATTRIBUTES[word]
                self.set, self.clear = self.set & ~off | on, self.clear & ~on | off
            elif word in OWN:
                for field in OWN[word]:
                    setattr(self, field, True)
            elif word in PROPAGATION:
                self.propagation, self.deep = PROPAGATION[word]
            elif word in DEEP:
                on, off = DEEP[word]
                self.deep_set, self.deep_clear = self.deep_set & ~off | on, self.deep_clear & ~on | off
            elif word in SUPERBLOCK:
                flag, wanted = SUPERBLOCK[word]
                flags.pop(flag, None)
                if wanted:
                    flags[flag] = None
            elif word not in NOTHING and word:
                name, equals, value = word.partition("=")
                if equals and name in ("idmap", "ridmap"):
                    self.mapped, self.mapped_deep, self.maps = True, name == "ridmap", value
                else:
                    data.append((name, value if equals else None))
        self.data = (*flags.items(), *data)

    def others(self) -> "list[str]":
        """What is for the filesystem alone to understand, as it was written; not what engines have let through that was for them."""
        words = [name if value is None else f"{name}={value}" for name, value in self.data]
        return [word for word in words if word not in SUPERBLOCK and word not in ENGINES]


def words() -> "list[str]":
    """Every mount option that is understood, besides those that a filesystem understands; sorted."""
    return sorted({*ATTRIBUTES, *DEEP, *PROPAGATION, *SUPERBLOCK, *OWN, *NOTHING})
