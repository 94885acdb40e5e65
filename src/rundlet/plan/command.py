"""The program that a process becomes, its environment, and the texts of one container that its plan is filled in with."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rundlet.spec.types import Process

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def environment(process: "Process") -> "list[str]":
    """The environment, each variable once: of several the last one counts, where most programs would find the first."""
    return list({entry.partition("=")[0]: entry for entry in process["env"]}.values())


def candidates(process: "Process") -> "list[str]":
    """Where the program may be: itself when it has a slash, else one path for each folder of the process's PATH. execvp(3)."""
    name = process["args"][0]
    if "/" in name:
        return [name]
    path = next((entry[5:] for entry in environment(process) if entry[:5] == "PATH="), PATH)
    return [f"{folder or '.'}/{name}" for folder in path.split(":")]


def places(process: "Process") -> "list[str]":
    """The same below the root, as openat2 takes them: what is relative begins at the working directory, which is inside."""
    return [
        path.lstrip("/") if path[:1] == "/" else f"{process['cwd'].lstrip('/')}/{path}".lstrip("/") for path in candidates(process)
    ]


def has_home(process: "Process") -> bool:
    """Whether the environment says where the user's home is; an empty HOME says nothing."""
    return any(entry[:5] == "HOME=" and len(entry) > 5 for entry in environment(process))


def home(passwd: bytes, uid: int) -> str:
    """The home directory of `uid` in the text of a passwd file; / when it is not there. passwd(5)."""
    for line in passwd.split(b"\n"):
        fields = line.split(b":")
        if len(fields) == 7 and fields[2] == b"%d" % uid and fields[5][:1] == b"/":
            return fields[5].decode("utf-8", "surrogateescape")
    return "/"


def executes(process: "Process") -> str:
    """What the step does that becomes the program."""
    return f"execute {' '.join(process['args'])}"


def joins(keyring: str) -> str:
    """What the step does that gives the process a session keyring."""
    return f"join the session keyring {keyring}"
