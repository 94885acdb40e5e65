"""The facts that are compared, each by a name that stays the same between versions: what it is, and why it matters when it differs."""

FACTS = {
    "apparmor.label": (
        "every process runs under the AppArmor profile that was asked for, or a hat or child of it",
        "what the profile denies is not denied to this process",
    ),
    "apparmor.mode": ("the profile enforces", "a profile that does not enforce denies nothing: what it would deny is logged at most"),
    "apparmor.policy": (
        "the profile in the kernel is the one that the container was started under",
        "the container is held to other rules than those it was started under",
    ),
    "no-new-privs": ("no_new_privs is set", "a set-user-ID program in the container gives it privileges"),
    "seccomp": ("a seccomp filter is in force", "every system call of the kernel is within reach"),
    "capabilities": ("no capability beyond those asked for", "a capability more is a way to more than was asked for: capabilities(7)"),
    "user": ("the user and group are those asked for, or may have become others", "files and processes of that user are within reach"),
    "groups": ("no supplementary group beyond those asked for", "files of that group are within reach"),
    "id-map": ("the ids of the user namespace are mapped as asked", "the container's users are other users of the host than was asked for"),
    "namespace": ("every process is in the container's namespaces", "what the namespace keeps apart is not kept apart from this process"),
    "root": (
        "the root filesystem is the one asked for, and as read-only as asked",
        "files beside the image, or the image itself, are within reach",
    ),
    "propagation": ("mounts made in the container stay in it", "mounts made on one side appear on the other"),
    "mount": ("each mount is there, of its type and with the restrictions asked for", "what the mount shows or keeps out is not as asked"),
    "masked-path": ("masked paths are masked", "the container reads what of the kernel's or the host's was to be hidden from it"),
    "read-only-path": ("read-only paths are read-only, with all below", "the container may write settings of the host's kernel"),
    "cgroup": (
        "every process is in the container's cgroup",
        "no limit of the container holds for this process, and what ends the container does not end it",
    ),
    "limit": ("the limits of the cgroup are those asked for, or lower", "the container may take more from the host than was asked for"),
    "devices": ("no device beyond those asked for can be opened", "a device such as the host's disk or memory is within reach"),
    "rlimit": ("the resource limits of each process are those asked for, or lower", "a process may take more than was asked for"),
    "oom-score": ("oom_score_adj is the one asked for, or higher", "when memory runs out others are killed in its stead"),
    "descriptor": (
        "no open file or directory leads out of the container",
        "through a directory of the host every file of the host is within reach (CVE-2024-21626)",
    ),
    "working-directory": (
        "the working directory is inside the container", "from there every file of the host is within reach (CVE-2024-21626)",
    ),
    "program": (
        "the program that runs is a file of the container",
        "the container can open and perhaps overwrite it through /proc/PID/exe (CVE-2019-5736)",
    ),
    "hidden": (
        "the process that waits for start lets nobody inspect it", "others in its user namespace can trace it while it is privileged",
    ),
    "parent-death": (
        "the process that waits for start does not end with whoever made it",
        "the container ends when the command that made it does",
    ),
    "process": ("there is a process to look at", "nothing is known of a container that does not run"),
}


def why(fact: str) -> str:
    """Why a difference in this fact matters."""
    return FACTS[fact][1]
