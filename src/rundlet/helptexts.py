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
    "update": (
        "change the limits of a container",
        "What is not given stays as it is. Sizes are in bytes, or with a letter (512M); -1 takes a limit away. When a limit is refused, "
        "those written before it are taken back.",
    ),
    "mounts": (
        "add mounts to a running container, or remove them",
        "ACTION is add or remove. FILE holds a list of mounts in the form of config.json's. All of them are made, or none.",
    ),
    "pause": ("freeze every process of a container", "Until resume, or until it is killed."),
    "resume": ("let the processes of a paused container go on", ""),
    "ps": (
        "list the processes of a container",
        "Runs ps(1) with the options behind ID (-ef if there are none), and leaves out what is not the container's.",
    ),
    "events": (
        "print what a container uses, again and again, and when it runs out of memory",
        "One line of JSON an event, until the container ends.",
    ),
    "spec": ("write a config.json to start from", ""),
    "features": ("print what this runtime supports, as JSON", ""),
    "info": ("print what this runtime can do on this machine", "The same as features and host, in short and for people."),
    "explain": (
        "print what create would do with a bundle, without doing it",
        "Each decision with its reason; with --steps the plan, in the order in which it would be carried out. Exits with 0 if the "
        "container would be made, 1 if it would be refused.",
    ),
    "profile": (
        "look at AppArmor profiles: check, load, diff or derive",
        "check FILE|NAME...: will it do for a container here? load FILE: load it, all or nothing. diff A B: what does one permit that the "
        "other does not? derive: a profile that still works when it is stacked on the runtime's. Exits with 0 when it holds, 1 when it "
        "differs, 2 when that cannot be told.",
    ),
    "host": ("print what was found out about this machine", "The facts that plans are made from: kernel, AppArmor, cgroups, capabilities."),
    "verify": (
        "compare every process of a container with what was asked for",
        "What the kernel says of the containers named, of --all, or of the one of any runtime whose first process is --pid and whose "
        "configuration is --config. "
        "Exits with 0 where all holds, 1 where something differs, 2 where something could not be told.",
    ),
    "record": (
        "print what was asked of a container, decided, and observed",
        "What was decided, and why, and what held when its program ran: written once, at its start.",
    ),
    "watch": (
        "keep verifying the containers, and tell what changes",
        "Verifies each container when something happens to it and once in every interval, or the one of any runtime whose first process is "
        "--pid and whose configuration is --config. Prints a line for each change, and serves a page for people and metrics for "
        "Prometheus. Changes nothing itself. Exits with 2 where something keeps it from running.",
    ),
    "denials": (
        "print what the kernel denied to containers, why, and what would permit it",
        "Reads the kernel's log, auditd's file and the journal for records of AppArmor and seccomp. Exits with 0 if nothing was denied, 1 "
        "if something was, 2 if that cannot be told.",
    ),
    "lab": (
        "run a command under a kernel that has AppArmor",
        "Boots Debian's kernel in QEMU over this machine's root, which it cannot change. Exits with the command's status, with 124 after "
        "--timeout, and with 125 if the lab failed.",
    ),
    "matrix": (
        "try what a container may do under each setting, and find the layer that denies",
        "Runs harmless probes, and COMMAND, in containers of BUNDLE (or of one made of busybox) across settings of AppArmor, no_new_privs, "
        "seccomp, capabilities, read-only root and user namespaces. Each denial is followed to its layer by taking layers away. "
        "Exits with 0 when all is as expected, 1 when something differs, 2 when that cannot be told.",
    ),
    "completion": ("print the shell's completion rules", "SHELL is bash, zsh or fish."),
    "man": ("print the man page", "To read it: rundlet man | man -l -"),
}

OPTIONS = {
    "root": "keep the containers' state here (default: /run/rundlet; for users $XDG_RUNTIME_DIR/rundlet)",
    "log": "append errors and warnings to this file, or with file:, journald: or syslog: in front to the file, journal or system log",
    "log-level": "what is told: nothing but errors, warnings too, or with debug and trace what --debug tells",
    "log-format": "how lines of the log are written; a JSON log holds errors alone, unless --debug is given",
    "debug": "tell more, and show where unexpected errors come from",
    "cgroup-manager": "who makes cgroups",
    "systemd-cgroup": "the same as --cgroup-manager=systemd",
    "rootless": "false: no user namespace is added for a user (auto: it is, where none is asked for)",
    "criu": "accepted and ignored: there are no checkpoints yet",
    "version": "print the version",
    "help": "print this help",
    "bundle": "the folder that holds config.json and the root (default: the current one)",
    "spec bundle": "write into this folder (default: the current one)",
    "config": "read this file instead of the bundle's config.json",
    "console-socket": "send the terminal's descriptor to this Unix socket",
    "pidfd-socket": "send a pidfd of the process to this Unix socket",
    "pid-file": "write the process ID to this file",
    "preserve-fds": "pass on this many descriptors after stderr (and after those of LISTEN_FDS)",
    "no-pivot": "enter the root by chroot, for roots on a ramdisk",
    "no-new-keyring": "keep the caller's session keyring",
    "no-subreaper": "do not adopt orphans of the container",
    "apparmor-file": "load the container's AppArmor profile from this file first; a relative path is below the bundle",
    "apparmor-on-delete": "what becomes of a profile loaded that way when the container is deleted: keep (the default) or remove",
    "apparmor-replace": "load it even over a profile of that name with another content",
    "detach": "return as soon as the program runs",
    "keep": "do not delete the container when it ends",
    "all": "signal every process of the container",
    "verify all": "every container",
    "pid": "the first process of a container of any runtime",
    "verify config": "the configuration that it is held to, or the bundle it is in",
    "watch config": "the configuration that it is held to, or the bundle it is in",
    "denials config": "the configuration that it was made from, or the bundle it is in",
    "regex": "ID is a regular expression: do it for each container in whose id it is found",
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
    "cgroup": "run in this cgroup below the container's; with cgroup v1 CONTROLLER[,CONTROLLER...]:PATH for one hierarchy",
    "resources": "read the limits from this file (`-` is standard input), in the form of config.json's linux.resources",
    "blkio-weight": "weight of its block I/O, 10 to 1000",
    "cpu-period": "length of a scheduling period in microseconds",
    "cpu-quota": "CPU time in a period in microseconds; -1 is no limit",
    "cpu-burst": "unused CPU time that may be made up for in a period, in microseconds",
    "cpu-share": "CPU weight beside other containers, 2 to 262144",
    "cpu-rt-period": "length of a period of realtime scheduling in microseconds (cgroup v1)",
    "cpu-rt-runtime": "realtime CPU time in such a period in microseconds (cgroup v1)",
    "cpu-idle": "1: run only when a CPU has nothing else to do",
    "cpuset-cpus": "CPUs to run on, such as 0-2,7",
    "cpuset-mems": "memory nodes to use",
    "update memory": "limit of memory",
    "memory-reservation": "memory that is reclaimed last",
    "memory-swap": "limit of memory and swap together",
    "kernel-memory": "accepted and ignored: Linux has no such limit any more",
    "kernel-memory-tcp": "accepted and ignored",
    "pids-limit": "limit of processes; -1 is no limit",
    "l3-cache-schema": "share of the L3 cache, as in /linux/intelRdt/l3CacheSchema",
    "mem-bw-schema": "share of the memory bandwidth, as in /linux/intelRdt/memBwSchema",
    "interval": "time between two prints, such as 500ms or 1m30s (default: 5s)",
    "watch interval": "time between two looks at a container, such as 10s or 5m, or a number of seconds (default: 30s)",
    "listen": "serve the page and the metrics here: ADDR:PORT, PORT for one of the loopback, or none (default: 127.0.0.1:9617)",
    "allow-host": "answer requests for this host name too, besides addresses, localhost and the name of this machine",
    "once": "verify all containers once, print what is found, and exit with 0: all hold, 1: one differs, 2: one cannot be told",
    "stats": "print once what is used, and end",
    "spec rootless": "for a container of an unprivileged user",
    "json": "print JSON",
    "follow": "go on until interrupted, with what is denied from now on",
    "since": "look at what happened since then: 10m, 2h, a date or time of ISO 8601, or boot (default: the container's creation, or boot)",
    "steps": "print the plan too, every step with its system calls",
    "assume": "plan for the machine whose facts are in this file (from `rundlet host --json`)",
    "matrix config": "read what is varied and tried from this TOML file",
    "runtime": "compare this runtime too; may be given many times",
    "lab": "do it under a kernel that has AppArmor (see rundlet lab)",
    "matrix suite": "boot Debian's kernel of this suite for --lab, bookworm (the default) or backports",
    "expect": "hold the result against the document in this file",
    "html": "write a page for people to this file",
    "profile": "derive from the profiles of this file",
    "runtime-label": "the runtime's label (default of check: its own)",
    "output": "write the derived profile to this file",
    "replace": "load it even over a profile of that name with another content",
    "kernel": "boot this kernel (a bzImage or vmlinux file)",
    "suite": "boot Debian's kernel of this suite, bookworm (the default) or backports",
    "timeout": "end the command after this many seconds",
    "memory": "memory of the machine, in MiB (default: 2048)",
    "append": "more words for the kernel's command line, such as apparmor=0",
    "systemd": "boot it with systemd as its first process",
}
