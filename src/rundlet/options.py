"""The command line: the one table of verbs and options, and the parser that reads it.

--help, the man page and the completions are made from the same table (cliref.py); their texts are in helptexts.py, so that
a container's start does not pay for reading them.

A row of the table is words, one an option:

    force,f              a flag, with the other spellings it has
    bundle,b=DIR         an option with a value, and what the help calls it
    preserve-fds=N       N is a whole number
    format,f=table|json  one of these
    env,e=NAME=VALUE...  may be given many times; otherwise the last one wins
    a>b=c                a flag that stands for --b=c

Spelling is that of Go's flag package, because engines write it: `--f v`, `--f=v`, `-f v`, `-f=v`, `-long-name v`, `--flag=false`;
and that of getopt: `-dt`, `-b/dir`. `--` ends the options; a word like `-9` is none.
"""

from rundlet.errors import Usage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rundlet.executor.client import Executor

GLOBAL = (
    "root=DIR log=FILE log-format=text|json log-level=warning|warn|error|info|debug|trace debug "
    "cgroup-manager=cgroupfs|systemd|disabled systemd-cgroup>cgroup-manager=systemd rootless=auto|true|false criu=PATH version,v,V help,h"
)

_CREATE = (
    "bundle,b=DIR config,f=FILE console-socket=PATH pidfd-socket=PATH pid-file=FILE preserve-fds=N no-pivot no-new-keyring no-subreaper "
    "apparmor-file=FILE apparmor-on-delete=ACTION apparmor-replace "
    "help,h"
)

# verb → (the module whose main() does it, the words it takes, its options). Words: [may be left out], and `...` takes the rest as it is,
# outside of the brackets just many of them; behind [--] that is a command of its own, and options may stand before or after the words in
# front of it.
VERBS = {
    "create": ("rundlet.life.create", "ID", _CREATE),
    "start": ("rundlet.life.start", "ID", "help,h"),
    "run": ("rundlet.life.run", "ID", "detach,d keep " + _CREATE),
    "state": ("rundlet.life.state", "ID", "help,h"),
    "kill": ("rundlet.life.kill", "ID [SIGNAL]", "all,a regex,r help,h"),
    "delete": ("rundlet.life.delete", "ID", "force,f regex,r help,h"),
    "list": ("rundlet.life.list", "", "quiet,q format,f=table|json help,h"),
    "exec": (
        "rundlet.life.exec",
        "ID [COMMAND...]",
        "process,p=FILE detach,d tty,t console-socket=PATH pidfd-socket=PATH pid-file=FILE cwd=DIR env,e=NAME=VALUE... "
        "user,u=UID[:GID] additional-gids,g=GID... process-label=LABEL apparmor=PROFILE no-new-privs cap,c=CAPABILITY... preserve-fds=N "
        "ignore-paused cgroup=PATH... help,h",
    ),
    "update": (
        "rundlet.life.update",
        "ID",
        "resources,r=FILE blkio-weight=WEIGHT cpu-period=USEC cpu-quota=USEC cpu-burst=USEC cpu-share=WEIGHT cpu-rt-period=USEC "
        "cpu-rt-runtime=USEC cpu-idle=FLAG cpuset-cpus=LIST cpuset-mems=LIST memory=SIZE memory-reservation=SIZE memory-swap=SIZE "
        "kernel-memory=SIZE kernel-memory-tcp=SIZE pids-limit=COUNT l3-cache-schema=TEXT mem-bw-schema=TEXT help,h",
    ),
    "mounts": ("rundlet.life.mounts", "ACTION ID FILE", "help,h"),
    "pause": ("rundlet.life.pause", "ID", "help,h"),
    "resume": ("rundlet.life.pause", "ID", "help,h"),
    "ps": ("rundlet.life.ps", "ID [OPTION...]", "format,f=table|json help,h"),
    "events": ("rundlet.life.events", "ID", "interval=TIME stats help,h"),
    "spec": ("rundlet.life.spec", "", "bundle,b=DIR rootless>rootless=true help,h"),
    "features": ("rundlet.life.features", "", "help,h"),
    "info": ("rundlet.confine.info", "", "help,h"),
    "explain": ("rundlet.confine.explain", "BUNDLE", "json steps assume=FACTS help,h"),
    "profile": (
        "rundlet.confine.profile.command", "ACTION [FILE]...",
        "json assume=FACTS profile=FILE runtime-label=LABEL output=FILE replace help,h",
    ),
    "host": ("rundlet.confine.facts", "", "json help,h"),
    "verify": (
        "rundlet.confine.verify.command", "[ID]...", "all,a pid=N config,c=FILE format,f=table|json|sarif|junit json>format=json help,h",
    ),
    "record": ("rundlet.confine.record", "ID", "json help,h"),
    "watch": (
        "rundlet.confine.watch.command", "", "interval=TIME listen=ADDR:PORT allow-host=NAME... pid=N config,c=FILE once json help,h",
    ),
    "denials": ("rundlet.confine.denials.command", "[ID]", "follow,f since=TIME pid=N config,c=FILE json help,h"),
    "lab": (
        "rundlet.lab.command", "[COMMAND...]",
        "kernel=FILE suite=NAME timeout=SECONDS env,e=NAME=VALUE... memory=SIZE append=WORDS systemd help,h",
    ),
    "matrix": (
        "rundlet.confine.matrix.command", "[BUNDLE] [--] [COMMAND...]",
        "config,c=FILE runtime=PATH... lab suite=NAME expect=FILE html=FILE json help,h",
    ),
    "completion": ("rundlet.cliref", "SHELL", "help,h"),
    "man": ("rundlet.cliref", "", "help,h"),
}


class Options:
    """What the command line asked for. Every option of every verb is here, with its default resolved.

    Texts are as typed (paths relative to the caller's folder); None where not giving one is different from every text.
    """

    verb: str = ""
    id: str = ""  # the container's, where the verb takes one
    help: bool = False
    version: bool = False
    # global
    root: str | None = None
    log: str | None = None
    log_format: str = "text"
    log_level: str = "warning"
    debug: bool = False
    cgroup_manager: str = "cgroupfs"
    rootless: str = "auto"
    criu: str | None = None
    # create, run
    bundle: str = "."
    config: str | None = None
    console_socket: str | None = None
    pidfd_socket: str | None = None
    pid_file: str | None = None
    preserve_fds: int = 0
    no_pivot: bool = False
    no_new_keyring: bool = False
    no_subreaper: bool = False
    apparmor_file: str | None = None
    apparmor_on_delete: str | None = None
    apparmor_replace: bool = False
    detach: bool = False
    keep: bool = False
    # kill, delete, list
    all: bool = False
    force: bool = False
    regex: bool = False
    quiet: bool = False
    format: str = "table"
    # exec
    process: str | None = None
    tty: bool = False
    cwd: str | None = None
    user: str | None = None
    process_label: str | None = None
    apparmor: str | None = None
    no_new_privs: bool = False
    ignore_paused: bool = False
    # update: texts, since not giving one differs from every number
    resources: str | None = None
    blkio_weight: str | None = None
    cpu_period: str | None = None
    cpu_quota: str | None = None
    cpu_burst: str | None = None
    cpu_share: str | None = None
    cpu_rt_period: str | None = None
    cpu_rt_runtime: str | None = None
    cpu_idle: str | None = None
    cpuset_cpus: str | None = None
    cpuset_mems: str | None = None
    memory_reservation: str | None = None
    memory_swap: str | None = None
    kernel_memory: str | None = None
    kernel_memory_tcp: str | None = None
    pids_limit: str | None = None
    l3_cache_schema: str | None = None
    mem_bw_schema: str | None = None
    # events, watch
    interval: str = ""  # each has a default of its own
    stats: bool = False
    # denials
    follow: bool = False
    since: str | None = None
    # explain, host, record, denials
    json: bool = False
    steps: bool = False
    assume: str | None = None
    # verify
    pid: int = 0
    # watch
    listen: str | None = None
    once: bool = False
    # profile
    profile: str | None = None
    runtime_label: str | None = None
    output: str | None = None
    replace: bool = False
    # lab
    kernel: str | None = None
    suite: str | None = None
    timeout: str | None = None
    memory: str | None = None  # update too
    append: str | None = None
    systemd: bool = False
    # matrix
    lab: bool = False
    expect: str | None = None
    html: str | None = None
    # not of the command line: how the executor is started that becomes the process, where that is not for the command itself to do
    spawn: "Callable[[dict[str, int], int], Executor] | None" = None
    # what is to be done about a program in the foreground, by its pid, that has ended with this status, not 0; the container is still there
    failed: "Callable[[int, int], object] | None" = None
    answer: "object" = None  # what came of it, where that is not printed

    def __init__(self) -> None:
        self.args: list[str] = []  # the words after the ID: the signal, the command, the bundle
        self.env: list[str] = []
        self.additional_gids: list[str] = []
        self.cap: list[str] = []
        self.cgroup: list[str] = []
        self.runtime: list[str] = []
        self.command: list[str] = []  # the words behind "--", where the table has "[--]"
        self.allow_host: list[str] = []


def parse(argv: list[str], options: Options | None = None) -> Options:
    """Read the words after the program's name into `options`. The ID's characters are not judged here.

    Raises Usage: unknown verb or option, missing or malformed value, too few or too many words. What came before it is then
    in the options nevertheless: the caller wants the log.
    """
    options = options or Options()
    at = _scan(argv, 0, GLOBAL, options, True)[0]
    if at == len(argv):
        if not (options.help or options.version):
            raise Usage("no command given; see rundlet --help")
        return options
    verb = argv[at]
    if verb not in VERBS:
        raise Usage(f"unknown command {verb}; see rundlet --help")
    options.verb = verb
    _, takes, row = VERBS[verb]
    apart = "[--]" in takes
    at, words = _scan(argv, at + 1, row, options, takes[-4:] == "...]" and not apart)
    if apart:
        options.command = argv[at:]
    else:
        words += argv[at:]
    if not options.help:
        _count(verb, takes, words)
        if takes[:2] == "ID":
            options.id = words.pop(0)
    options.args = words
    return options


def spellings(row: str) -> dict[str, tuple[str, str]]:
    """Of a row of the table: each spelling of an option → (its long name, what it takes). `a>b=c` takes `>b=c`."""
    known = {}
    for word in row.split():
        names, _, takes = word.partition("=")
        names, implies, other = names.partition(">")
        if implies:
            takes = f">{other}={takes}"
        every = names.split(",")
        for name in every:
            known[name] = every[0], takes
    return known


def _scan(argv: list[str], at: int, row: str, options: Options, stop: bool) -> tuple[int, list[str]]:
    """Take options and words from argv[at:]; (where the next unread word is, the words). `stop`: leave all from the first word on."""
    known = spellings(row)
    words = []
    end = len(argv)
    while at < end:
        word = argv[at]
        if word[:1] != "-" or len(word) == 1 or "0" <= word[1] <= "9":
            if stop:
                break
            words.append(word)
            at += 1
            continue
        at += 1
        if word == "--":
            return at, words
        name, given, value = word[2 if word[1] == "-" else 1 :].partition("=")
        if name not in known and word[1] != "-" and name[:1] in known:
            at = _letters(argv, at, word, known, options)
            continue
        if name not in known:
            raise Usage(_unknown(word.partition("=")[0], name, options.verb))
        name, takes = known[name]
        if takes and takes[0] != ">" and not given:
            if at == end:
                raise Usage(f"option {word} requires an argument")
            value = argv[at]
            at += 1
        _set(options, name, takes, value if given or takes else "true")
    return at, words


def _letters(argv: list[str], at: int, word: str, known: dict[str, tuple[str, str]], options: Options) -> int:
    """`-dt`, `-b/dir`: letters in one word; where the next unread word is."""
    for i in range(1, len(word)):
        letter = word[i]
        if letter not in known:
            raise Usage(_unknown(f"-{letter} in {word}", letter, options.verb))
        name, takes = known[letter]
        if not takes or takes[0] == ">":
            _set(options, name, takes, "true")
            continue
        if i + 1 == len(word) and at == len(argv):
            raise Usage(f"option -{letter} requires an argument")
        _set(options, name, takes, word[i + 1 :] or argv[at])
        return at if word[i + 1 :] else at + 1
    return at


def _set(options: Options, name: str, takes: str, value: str) -> None:
    """Write one option down, its value checked against what it takes."""
    attribute = name.replace("-", "_")
    if not takes or takes[0] == ">":
        # Go's strconv.ParseBool
        if value not in ("1", "t", "T", "true", "TRUE", "True", "0", "f", "F", "false", "FALSE", "False", ""):
            raise Usage(f"option --{name} is true or false, not {value!r}")
        on = value[:1] in ("1", "t", "T") or not value
        if not takes:
            setattr(options, attribute, on)
        elif on:
            name, _, value = takes[1:].partition("=")
            setattr(options, name.replace("-", "_"), value)
    elif takes[-3:] == "...":
        getattr(options, attribute).append(value)
    elif takes == "N":
        if not (value.isascii() and value.isdigit() and len(value) < 10):
            raise Usage(f"option --{name} takes a whole number, not {value!r}")
        setattr(options, attribute, int(value))
    elif "|" in takes and value not in takes.split("|"):
        raise Usage(f"option --{name} takes {takes.replace('|', ' or ')}, not {value!r}")
    else:
        setattr(options, attribute, value)


def _count(verb: str, takes: str, words: list[str]) -> None:
    """Refuse too few words, or too many."""
    wanted = takes.split()
    for i, want in enumerate(wanted):
        if want[0] != "[" and i >= len(words):
            raise Usage(f"{verb} requires an argument: {want}; see rundlet {verb} --help")
    if takes[-4:-1] != "..." and takes[-3:] != "..." and len(words) > len(wanted):
        raise Usage(f"{verb} takes no argument {words[len(wanted)]!r}; see rundlet {verb} --help")


def _unknown(word: str, name: str, verb: str) -> str:
    if not verb:
        return f"unknown option {word}; see rundlet --help"
    if name in spellings(GLOBAL):
        return f"unknown option {word} for {verb}: it goes before the word {verb}; see rundlet --help"
    return f"unknown option {word} for {verb}; see rundlet {verb} --help"
