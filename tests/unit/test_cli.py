"""The command line: what engines write is understood, what is wrong is said, and errors arrive where engines read them."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rundlet import cli, cliref, helptexts, log
from rundlet.errors import Refused, Usage
from rundlet.options import GLOBAL, VERBS, Options, parse, spellings

SOURCE = Path(cli.__file__).parents[1]
RUN = f"import sys; sys.path.append({str(SOURCE)!r}); from rundlet.cli import run; run()"
EVERY = [("", GLOBAL), *((verb, row) for verb, (_, _, row) in VERBS.items())]


def given_by(argv: str) -> dict[str, object]:
    """What differs from the defaults."""
    options, bare = vars(parse(argv.split())), vars(Options())
    return {name: value for name, value in options.items() if value != bare.get(name, getattr(Options, name, None))}


@pytest.mark.parametrize(
    ("argv", "meant"),
    [
        # podman by conmon, containerd's go-runc, cri-o by conmon-rs, buildah
        (
            "--log-format=json --log /l create --bundle /b --pid-file /p --no-pivot --preserve-fds 2 --console-socket /s ID",
            {
                "verb": "create", "id": "ID", "log": "/l", "log_format": "json", "bundle": "/b", "pid_file": "/p", "no_pivot": True,
                "preserve_fds": 2, "console_socket": "/s",
            },
        ),
        (
            "--root /r/ns --log /l --log-format json --systemd-cgroup create --bundle /b --pid-file /b/init.pid --no-new-keyring ID",
            {
                "verb": "create", "id": "ID", "root": "/r/ns", "log": "/l", "log_format": "json", "cgroup_manager": "systemd",
                "bundle": "/b", "pid_file": "/b/init.pid", "no_new_keyring": True,
            },
        ),
        (
            "--root=/r --root=/r --systemd-cgroup --systemd-cgroup exec -d --console-socket=/s --tty --pid-file=/p ID sh -c true",
            {
                "verb": "exec", "id": "ID", "root": "/r", "cgroup_manager": "systemd", "detach": True, "console_socket": "/s", "tty": True,
                "pid_file": "/p", "args": ["sh", "-c", "true"],
            },
        ),
        ("exec --process /f --detach --pid-file /p ID", {"verb": "exec", "id": "ID", "process": "/f", "detach": True, "pid_file": "/p"}),
        ("--cgroup-manager disabled delete --force ID", {"verb": "delete", "id": "ID", "cgroup_manager": "disabled", "force": True}),
        ("kill --all ID 9", {"verb": "kill", "id": "ID", "all": True, "args": ["9"]}),
        ("kill ID", {"verb": "kill", "id": "ID"}),
        ("kill --regex a.* KILL", {"verb": "kill", "id": "a.*", "regex": True, "args": ["KILL"]}),
        ("delete -fr a.*", {"verb": "delete", "id": "a.*", "regex": True, "force": True}),
        (
            "--log=journald:ID --log-level=debug state ID",
            {"verb": "state", "id": "ID", "log": "journald:ID", "log_level": "debug"},
        ),
        ("kill ID SIGKILL --all", {"verb": "kill", "id": "ID", "all": True, "args": ["SIGKILL"]}),
        ("kill ID -9", {"verb": "kill", "id": "ID", "args": ["-9"]}),
        ("run -no-subreaper -keep ID", {"verb": "run", "id": "ID", "no_subreaper": True, "keep": True}),
        ("--criu /c --rootless=true state ID", {"verb": "state", "id": "ID", "criu": "/c", "rootless": "true"}),
        # Go's spellings, and getopt's
        ("create ID -b /b", {"verb": "create", "id": "ID", "bundle": "/b"}),
        ("create -b=/b ID", {"verb": "create", "id": "ID", "bundle": "/b"}),
        ("create -b/b ID", {"verb": "create", "id": "ID", "bundle": "/b"}),
        ("create -bundle /b ID", {"verb": "create", "id": "ID", "bundle": "/b"}),
        ("create -- --ID", {"verb": "create", "id": "--ID"}),
        ("create --bundle /a --bundle=/b ID", {"verb": "create", "id": "ID", "bundle": "/b"}),
        ("create --no-pivot=true --no-new-keyring=false ID", {"verb": "create", "id": "ID", "no_pivot": True}),
        ("--systemd-cgroup=false state ID", {"verb": "state", "id": "ID"}),
        ("exec -dt ID sh", {"verb": "exec", "id": "ID", "detach": True, "tty": True, "args": ["sh"]}),
        ("exec -e A=1 -eB=2 --env=C= ID sh", {"verb": "exec", "id": "ID", "env": ["A=1", "B=2", "C="], "args": ["sh"]}),
        ("exec -dg 1 -g2 ID sh", {"verb": "exec", "id": "ID", "detach": True, "additional_gids": ["1", "2"], "args": ["sh"]}),
        ("exec ID -- sh", {"verb": "exec", "id": "ID", "args": ["--", "sh"]}),
        ("exec ID --help", {"verb": "exec", "id": "ID", "args": ["--help"]}),
        ("list -qf json", {"verb": "list", "quiet": True, "format": "json"}),
        ("spec --rootless", {"verb": "spec", "rootless": "true"}),
        ("lab --kernel /k -- sh -c true", {"verb": "lab", "kernel": "/k", "args": ["sh", "-c", "true"]}),
        ("explain /b --json", {"verb": "explain", "json": True, "args": ["/b"]}),
        ("matrix /b --json -- sh -c --json", {"verb": "matrix", "json": True, "args": ["/b"], "command": ["sh", "-c", "--json"]}),
        ("matrix --runtime a --lab --runtime=b -- id", {"verb": "matrix", "lab": True, "runtime": ["a", "b"], "command": ["id"]}),
        ("matrix --json /b", {"verb": "matrix", "json": True, "args": ["/b"]}),
        ("create --help", {"verb": "create", "help": True}),
        ("--help", {"help": True}),
        ("-v", {"version": True}),
    ],
)
def test_understood(argv: str, meant: dict[str, object]) -> None:
    assert given_by(argv) == meant


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        ("", "no command given; see rundlet --help"),
        ("fly", "unknown command fly; see rundlet --help"),
        ("--fly state ID", "unknown option --fly; see rundlet --help"),
        ("create --foo=1 ID", "unknown option --foo for create; see rundlet create --help"),
        ("create --root /r ID", "unknown option --root for create: it goes before the word create; see rundlet --help"),
        ("create --pid-file", "option --pid-file requires an argument"),
        ("create -b", "option -b requires an argument"),
        ("exec -dp", "option -p requires an argument"),
        ("run -dx ID", "unknown option -x in -dx for run; see rundlet run --help"),
        ("create -= ID", "unknown option - for create; see rundlet create --help"),
        ("create --= ID", "unknown option -- for create; see rundlet create --help"),
        ("create", "create requires an argument: ID; see rundlet create --help"),
        ("state A B", "state takes no argument 'B'; see rundlet state --help"),
        ("kill A 9 B", "kill takes no argument 'B'; see rundlet kill --help"),
        ("--log-level=loud state A", "option --log-level takes warning or warn or error or info or debug or trace, not 'loud'"),
        ("list --format=xml", "option --format takes table or json, not 'xml'"),
        ("create --preserve-fds=-1 ID", "option --preserve-fds takes a whole number, not '-1'"),
        ("create --no-pivot=maybe ID", "option --no-pivot is true or false, not 'maybe'"),
    ],
)
def test_refused(argv: str, text: str) -> None:
    with pytest.raises(Usage, match=f"^{re.escape(text)}$"):
        parse(argv.split())


WORDS = st.sampled_from([*VERBS, *("--" + name for _, row in EVERY for name in spellings(row)), "-", "--", "-b=", "-dt", "=", "1", "json"])


@given(st.lists(WORDS | st.text(max_size=4), max_size=8))
def test_any_words_are_understood_or_refused(argv: list[str]) -> None:
    try:
        options = parse(argv)
    except Usage as fault:
        assert str(fault)
    else:
        assert options.verb in VERBS or options.help or options.version


def test_every_option_has_a_typed_place_and_every_place_an_option() -> None:
    bare = Options()
    named = set()
    for _, row in EVERY:
        for name, takes in spellings(row).values():
            if takes.startswith(">"):  # stands for another
                named.add(takes[1:].partition("=")[0])
                continue
            named.add(name.replace("-", "_"))
            value = getattr(bare, name.replace("-", "_"))
            if not takes:
                assert value is False
            elif takes.endswith("..."):
                assert value == []
            elif takes == "N":
                assert value == 0
            elif "|" in takes:
                assert value == takes.split("|")[0]  # the first is the default
            else:
                assert value is None or isinstance(value, str)
    places = {name for name in (*Options.__annotations__, *vars(bare)) if name not in ("verb", "id", "args", "command", "spawn", "failed", "answer")}
    assert places == {name.replace("-", "_") for name in named}


def test_texts_and_table_agree() -> None:
    assert list(helptexts.VERBS) == list(VERBS)
    used = set()
    for verb, row in EVERY:
        for name, _ in spellings(row).values():
            key = f"{verb} {name}" if f"{verb} {name}" in helptexts.OPTIONS else name
            assert key in helptexts.OPTIONS
            used.add(key)
    assert used == set(helptexts.OPTIONS)


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_help_man_and_completions_name_every_option(verb: str) -> None:
    help_text, man = cliref.help_text(verb), cliref.man()
    shells = {shell: make() for shell, make in cliref.SHELLS.items()}
    assert max(map(len, help_text.splitlines())) <= 100
    for names, takes, text in cliref.rows(verb):
        for name in names:
            assert re.search(rf"(^|[ ,]){re.escape(name)}($|[ ,])", help_text, re.M)
            assert re.search(rf"\\fB{re.escape(cliref._roff(name))}\\fR", man)
            assert re.search(rf'[" ]{re.escape(name)}[" ]', shells["bash"])
            assert f"{name}{'=' if takes and name.startswith('--') else ''}[" in shells["zsh"]
        assert f" -l {names[0][2:]} " in shells["fish"]
        assert " ".join(text.split()) in " ".join(help_text.split())


def test_the_man_page_is_well_formed(tmp_path: Path) -> None:
    page = cliref.man()
    requests = {line.split()[0] for line in page.splitlines() if line.startswith(".")}
    assert requests == {".TH", ".SH", ".SS", ".TP"}
    assert not re.search(r"(?<!\\)-", re.sub(r"(?m)^\.TH.*", "", page))  # a bare hyphen cannot be copied into a shell


def completed(*words: str) -> set[str]:
    script = cliref.bash() + 'COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _rundlet; printf "%s\\n" "${COMPREPLY[@]}"'
    done = subprocess.run(["bash", "-c", script, "bash", *words], capture_output=True, text=True, check=True)
    assert not done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["rundlet", ""], set(VERBS)),
        (["rundlet", "--root", "/x", "cre"], {"create"}),
        (["rundlet", "--root", "=", "/x", "cre"], {"create"}),
        (["rundlet", "--log-format", "="], {"text", "json"}),
        (["rundlet", "list", "--format", "j"], {"json"}),
        (["rundlet", "create", "--no-"], {"--no-pivot", "--no-new-keyring", "--no-subreaper"}),
        (["rundlet", "completion", ""], set(cliref.SHELLS)),
        (["rundlet", "fly", "-"], set()),
    ],
)
def test_bash_offers(words: list[str], offered: set[str]) -> None:
    assert completed(*words) == offered


# what follows runs the program


def rundlet(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-ISB", "-c", RUN, *argv], capture_output=True, text=True, env={}, check=False)


def test_version_as_engines_read_it() -> None:
    done = rundlet("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"rundlet version (\d+\.\d+\.\d+)\ncommit: (v\1|[0-9a-f]{40}(-dirty)?)\nspec: 1\.\d+\.\d+\n", done.stdout)


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_help_goes_to_stdout(verb: str) -> None:
    done = rundlet(*[verb][: len(verb)], "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: rundlet ")


def test_an_unknown_command_has_no_help() -> None:
    """podman takes `checkpoint --help` with status 0 for support of checkpoints."""
    assert rundlet("fly", "--help").returncode == 1


def test_error_is_one_line_and_one_object(tmp_path: Path) -> None:
    file = tmp_path / "log.json"
    done = rundlet("--log", str(file), "--log-format=json", "create", "--fly")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "rundlet: unknown option --fly for create; see rundlet create --help\n"
    entry = json.loads(file.read_text())  # the whole file is one object
    assert entry["level"] == "error"
    assert entry["msg"] == "unknown option --fly for create; see rundlet create --help"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", entry["time"])
    assert list(entry) == ["level", "msg", "time"]


def test_text_log(tmp_path: Path) -> None:
    file = tmp_path / "log"
    rundlet("--log", str(file), "create", 'a"b', "c")
    rundlet("--log", str(file), "fly")
    first, second = file.read_text().splitlines()
    assert re.fullmatch(r'time="[-0-9T:.]+Z" level=error msg="create takes no argument \'c\'; see rundlet create --help"', first)
    assert second.endswith('msg="unknown command fly; see rundlet --help"')


def test_a_log_that_cannot_be_written_does_not_hide_the_error(tmp_path: Path) -> None:
    done = rundlet("--log", str(tmp_path / "no" / "log"), "fly")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "rundlet: unknown command fly; see rundlet --help",
        f"rundlet: cannot write to the log {tmp_path}/no/log: no such file or directory",
    ]


@pytest.mark.parametrize("locale", ["C", "C.UTF-8", "POSIX"])
def test_words_that_are_no_text(tmp_path: Path, locale: str) -> None:
    file = tmp_path / "log.json"
    words = ["--log", str(file), "--log-format", "json"]
    argv: list[str | bytes] = [sys.executable, "-ISBXutf8", "-c", RUN, *words, b"\xffly\x1b[1m\n\xc3\xa9"]
    done = subprocess.run(argv, capture_output=True, env={"LC_ALL": locale}, check=False)
    assert done.returncode == 1
    assert done.stderr.count(b"\n") == 1
    assert b"\x1b" not in done.stderr
    assert "unknown command \udcffly\x1b[1m\né" in json.loads(file.read_text())["msg"]


def test_nobody_reads_the_output() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-c", RUN, "--help"], stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (cli.NO_READER, b"")


@pytest.mark.parametrize(("words", "status"), [(["--help"], 1), (["verify", "--all"], 2)])
def test_a_full_disk_is_an_error(tmp_path: Path, words: list[str], status: int) -> None:
    with open("/dev/full", "w") as full:
        argv = [sys.executable, "-c", RUN, "--root", str(tmp_path), *words]
        done = subprocess.run(argv, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == status
    assert "no space left on device" in done.stderr.lower()


# verbs that fail in every way: a module of the test's own stands in the table


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    (tmp_path / "failing.py").write_text("""\
from rundlet import log
from rundlet.errors import Refused

def main(options):
    log.warning("careful")
    log.debug("looking")
    how = options.args[0] if options.args else options.id
    if how == "refused":
        fault = Refused("no such thing", "make one")
        fault.cleanup.append("a folder remains")
        raise fault
    if how == "bug":
        raise ValueError("seven\\nlines")
    if how == "interrupted":
        raise KeyboardInterrupt
    if how == "pipe":
        raise BrokenPipeError
    return int(how)
""")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "failing", raising=False)
    monkeypatch.setitem(VERBS, "state", ("failing", "ID", "help,h"))
    monkeypatch.setitem(VERBS, "exec", ("failing", "ID [COMMAND...]", "help,h"))
    return tmp_path


@pytest.mark.parametrize(
    ("verb", "how", "status"),
    [
        ("state", "0", 0), ("state", "7", 7), ("state", "refused", Refused.status), ("state", "bug", 1),
        ("exec", "0", 0), ("exec", "7", 7), ("exec", "refused", 255), ("exec", "bug", 255),
        ("state", "interrupted", 130), ("state", "pipe", 141),
    ],
)  # fmt: skip
def test_statuses(failing: Path, verb: str, how: str, status: int) -> None:
    assert cli.main([verb, how]) == status


@pytest.mark.parametrize(
    ("verb", "status"), [("verify", 2), ("denials", 2), ("watch", 2), ("matrix", 2), ("profile", 2), ("lab", 125), ("exec", 255), ("explain", 1)],
)
def test_what_is_asked_for_wrongly_is_no_answer(verb: str, status: int) -> None:
    assert cli.main([verb, "--nonsense"]) == status


def test_faults_carry_what_remained(failing: Path, capfd: pytest.CaptureFixture[str]) -> None:
    cli.main(["state", "refused"])
    assert capfd.readouterr().err == "rundlet: no such thing; make one; while cleaning up: a folder remains\n"


def test_a_bug_is_one_line_with_its_place(failing: Path, capfd: pytest.CaptureFixture[str]) -> None:
    cli.main(["state", "bug"])
    assert re.fullmatch(r"rundlet: internal error: ValueError: seven\\nlines \(at .*failing\.py:13\)\n", capfd.readouterr().err)
    cli.main(["--debug", "state", "bug"])
    assert "Traceback" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("words", "logged", "told"),
    [
        (["--log-format=json", "--log=LOG"], ["error"], ["rundlet: no such thing"]),
        (["--log-format=json", "--log=LOG", "--debug"], ["debug", "warning", "debug", "error"], ["rundlet: no such thing"]),
        (["--log=LOG"], ["warning", "error"], ["rundlet: no such thing"]),
        (["--log=LOG", "--debug"], ["debug", "warning", "debug", "error"], ["rundlet: no such thing"]),
        (["--log=file:LOG"], ["warning", "error"], ["rundlet: no such thing"]),
        (["--log=LOG", "--log-level=error"], ["error"], ["rundlet: no such thing"]),
        (["--log=LOG", "--log-level=warn"], ["warning", "error"], ["rundlet: no such thing"]),
        (["--log=LOG", "--log-level=debug"], ["debug", "warning", "debug", "error"], ["rundlet: no such thing"]),
        (["--log=LOG", "--log-format=json", "--log-level=info"], ["error"], ["rundlet: no such thing"]),
        (["--log=LOG", "--log-level=error", "--debug"], ["debug", "warning", "debug", "error"], ["rundlet: no such thing"]),
        ([], [], ["rundlet: no such thing"]),
        (["--debug"], [], ["rundlet: level=debug state refused", "rundlet: warning: careful", "rundlet: level=debug looking", "rundlet: no such thing"]),
    ],
)
def test_where_lines_go(
    failing: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: list[str], logged: list[str], told: list[str]
) -> None:
    monkeypatch.setattr(log, "told", None)  # as in a process that is the command's own
    file = failing / "log"
    cli.main([*(word.replace("LOG", str(file)) for word in words), "state", "refused"])
    lines = file.read_text().splitlines() if file.exists() else []
    assert [re.sub(r'.*level"?[=:]"?(\w+).*', r"\1", line) for line in lines] == logged
    assert [line.partition(";")[0] for line in capfd.readouterr().err.splitlines()] == told


def test_a_log_of_a_kind_that_there_is_not(failing: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(failing)
    before = os.listdir()
    assert cli.main(["--log=invalid:/path", "state", "0"]) == 1
    told = "rundlet: option --log takes a file, or file:PATH, journald:ID or syslog:NAME, not 'invalid:/path'\n"
    assert capfd.readouterr().err == told
    assert cli.main(["--log=./a:b", "state", "refused"]) == 1
    assert (failing / "a:b").exists()
    assert sorted(os.listdir()) == sorted({*before, "a:b", "__pycache__"} & {*os.listdir()})


@pytest.mark.parametrize("how", ["journald", "syslog"])
@pytest.mark.parametrize("there", [True, False])
def test_the_systems_logs(
    failing: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], how: str, there: bool,
) -> None:
    path = str(failing / "socket")
    monkeypatch.setattr(log, {"journald": "JOURNAL", "syslog": "SYSLOG"}[how], path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        if there:
            made.bind(path)
        cli.main([f"--log={how}:name", "--log-format=json", "--log-level=error", "state", "refused"])
        told = capfd.readouterr().err.splitlines()
        text = "no such thing; make one; while cleaning up: a folder remains"
        assert told[0] == f"rundlet: {text}"
        if not there:
            assert told[1:] == [f"rundlet: cannot write to the log {how}:name: no such file or directory"]
        elif how == "journald":
            assert made.recv(4096).decode() == f"PRIORITY=3\nSYSLOG_IDENTIFIER=rundlet\nID=name\nMESSAGE={text}\n"
        else:
            assert made.recv(4096).decode() == f"<11>name[{os.getpid()}]: {text}"


def test_a_warning_reaches_a_terminal(failing: Path) -> None:
    code = f"import sys; sys.path[:0] = [{str(failing)!r}, {str(SOURCE)!r}]; from rundlet import log; log.warning('careful')"
    terminal, end = os.openpty()
    subprocess.run([sys.executable, "-c", code], stderr=end, check=True)
    os.close(end)
    assert os.read(terminal, 100) == b"rundlet: warning: careful\r\n"
    os.close(terminal)


def test_stamp() -> None:
    assert log.stamp(1_700_000_000_000_000_042) == "2023-11-14T22:13:20.000000042Z"
