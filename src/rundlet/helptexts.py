"""What the help, the man page and the completions say of each verb and option of the table in options.py.

A verb's option may differ in meaning from one of the same name elsewhere: its key is then "verb option".
"""

SUMMARY = "an OCI container runtime that decides in one readable place what a container may do, and checks afterwards"

# verb → (one line, more)
VERBS = {
    "create": (
        "create a container from a bundle, stopped before its program",
        "Reads config.json of the bundle, makes namespaces, mounts, cgroup and confinement, and waits for start.",
    ),
    "start": (
        "run the program of a created container",
        "Compares the confinement of what runs with the plan; a container that differs is killed.",
    ),
    "run": ("create and start a container", "Without --detach, forwards signals to it, waits for its end, and exits with its status."),
    "state": ("print a container's state as JSON", ""),
    "kill": ("send a signal to a container", "SIGNAL is a number or a name, with or without SIG; TERM if not given."),
    "delete": ("remove what a stopped container left", "Runs its poststop hooks, and removes its cgroup and its state."),
    "list": ("list the containers", ""),
    "exec": (
        "run another program in a running container",
        "Everything after ID is the command, unless --process gives it. The program is confined as the container's own is. "
        "Exits with the program's status, and with 255 if it could not be run.",
    ),
    "spec": ("write a config.json to start from", ""),
    "features": ("print what this runtime supports, as JSON", ""),
    "explain": (
        "print what create would do with a bundle, without doing it",
        "The plan: each decision with its reason, and every step in the order in which it would be carried out.",
    ),
    "host": ("print what was found out about this machine", "The facts that plans are made from: kernel, AppArmor, cgroups, capabilities."),
    "lab": (
        "run a command under a kernel that has AppArmor",
        "Boots Debian's kernel in QEMU over this machine's root, which it cannot change.",
    ),
    "completion": ("print the shell's completion rules", "SHELL is bash, zsh or fish."),
    "man": ("print the man page", "To read it: rundlet man | man -l -"),
}

OPTIONS = {
    "root": "keep the containers' state here (default: /run/rundlet; for users $XDG_RUNTIME_DIR/rundlet)",
    "log": "append errors and warnings to this file",
    "log-format": "how lines of the log are written; a JSON log holds errors alone, unless --debug is given",
    "debug": "tell more, and show where unexpected errors come from",
    "cgroup-manager": "who makes cgroups",
    "systemd-cgroup": "the same as --cgroup-manager=systemd",
    "rootless": "accepted for runc's sake; it is found out",
    "criu": "the criu program for checkpoints",
    "version": "print the version",
    "help": "print this help",
    "bundle": "the folder that holds config.json and the root (default: the current one)",
    "spec bundle": "write into this folder (default: the current one)",
    "config": "read this file instead of the bundle's config.json",
    "console-socket": "send the terminal's descriptor to this Unix socket",
    "pid-file": "write the process ID to this file",
    "preserve-fds": "pass on this many descriptors after stderr",
    "no-pivot": "enter the root by chroot, for roots on a ramdisk",
    "no-new-keyring": "keep the caller's session keyring",
    "no-subreaper": "do not adopt orphans of the container",
    "detach": "return as soon as the program runs",
    "keep": "do not delete the container when it ends",
    "all": "signal every process of the container",
    "force": "kill it first if it runs; no error if there is none",
    "quiet": "print IDs only",
    "format": "how to print",
    "process": "read the process from this file, in the form of config.json's process",
    "tty": "give it a terminal",
    "cwd": "its working directory in the container",
    "exec env": "set a variable of its environment",
    "lab env": "set a variable of the command",
    "user": "run as this user and group, by number",
    "additional-gids": "a further group, by number",
    "process-label": "its SELinux label",
    "apparmor": "its AppArmor profile",
    "no-new-privs": "programs that it executes gain no privileges",
    "cap": "a further capability",
    "ignore-paused": "permit this in a paused container too: it runs when the container is resumed",
    "cgroup": "run in this cgroup below the container's",
    "spec rootless": "for a container of an unprivileged user",
    "json": "print JSON",
    "steps": "print every system call too",
    "assume": "plan for the machine whose facts are in this file (from `rundlet host --json`)",
    "kernel": "boot this kernel (a bzImage or vmlinux file)",
    "suite": "boot Debian's kernel of this suite",
    "timeout": "end the command after this many seconds",
    "memory": "memory of the machine, in MiB",
    "append": "more words for the kernel's command line, such as apparmor=0",
}
