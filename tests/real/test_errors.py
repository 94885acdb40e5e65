"""What is refused: one line that says where and why, exit status 1, and nothing made."""

import json
import os
import re
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests import bundles
from tests.bundles import Box

BAD: list[tuple[str, Any, str]] = [
    ("/ociVersion", "2.0.0", "/ociVersion: version 2.0.0 of the runtime-spec is not supported"),
    ("/ociVersion", 5, "/ociVersion: must be a string, not 5"),
    ("/process/args", [], "/process/args: must name at least the program to run"),
    ("/process/args", None, "/process/args: is required"),
    ("/process/cwd", "relative", '/process/cwd: must be an absolute path, not "relative"'),
    ("/process/user/uid", "root", '/process/user/uid: must be an integer from 0 to 4294967295, not "root"'),
    ("/process/user/uid", -1, "/process/user/uid: must be an integer"),
    ("/process/terminal", "yes", "/process/terminal: must be true or false"),
    ("/process/rlimits", [{"type": "RLIMIT_X", "soft": 1, "hard": 1}], "/process/rlimits/0/type: must be one of"),
    ("/process/rlimits", [{"type": "RLIMIT_CORE", "soft": 2, "hard": 1}], "/process/rlimits/0/soft: must not be above hard"),
    ("/process/oomScoreAdj", 5000, "/process/oomScoreAdj: must be an integer from -1000 to 1000"),
    ("/process/apparmorProfile", "nothere", "nothere"),
    ("/process/selinuxLabel", "system_u:x", "/process/selinuxLabel"),
    ("/root", None, "/root: is required"),
    ("/root/path", "/no/such/root", "/root/path: /no/such/root: no such file or directory"),
    ("/mounts", {}, "/mounts: must be a list"),
    ("/mounts/0/options", ["idmap"], "/mounts/0/options"),
    ("/mounts/0/type", "nosuchfs", "mount nosuchfs on /proc"),
    ("/linux/namespaces/0/type", "nothing", "/linux/namespaces/0/type: must be one of"),
    ("/linux/namespaces/0/path", "/no/such/ns", "/linux/namespaces/0/path: /no/such/ns: no such file or directory"),
    ("/linux/uidMappings", [{"containerID": 0, "hostID": 0, "size": 1}], "/linux/uidMappings: needs a user namespace"),
    ("/linux/devices", [{"type": "c", "path": "/dev/x"}], "/linux/devices/0/major: is required for type c"),
    ("/linux/sysctl", {"kernel.hostname": "x"}, "/linux/sysctl/kernel.hostname: conflicts with /hostname"),
    ("/linux/seccomp", {"defaultAction": "NOTHING"}, "/linux/seccomp/defaultAction: must be one of"),
    (
        "/linux/seccomp",
        {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X"]},
        "/linux/seccomp/architectures/0: must be one of",
    ),
    ("/linux/cgroupsPath", "../../up", "/linux/cgroupsPath"),
    ("/linux/rootfsPropagation", "some", "/linux/rootfsPropagation: must be one of"),
    ("/linux/maskedPaths", ["relative"], "/linux/maskedPaths/0: must be an absolute path"),
    ("/linux/resources/memory", {"limit": "1m"}, "/linux/resources/memory/limit: must be an integer"),
    ("/hooks", {"createRuntime": [{"path": "relative"}]}, "/hooks/createRuntime/0/path: must be an absolute path"),
]


def put(config: Any, path: str, value: Any) -> None:
    *names, last = path.strip("/").split("/")
    for name in names:
        config = config[int(name)] if isinstance(config, list) else config.setdefault(name, {})
    key: Any = int(last) if isinstance(config, list) else last
    if value is None:
        del config[key]
    else:
        config[key] = value


@pytest.mark.parametrize(("path", "value", "words"), BAD, ids=[f"{path}-{number}" for number, (path, _, _) in enumerate(BAD)])
def test_a_bad_configuration(box: Box, path: str, value: Any, words: str) -> None:
    put(box.config, path, value)
    log = box.folder / "log.json"
    box.save()
    cgroups = {mount: sorted(os.listdir(mount)) for mount in set(bundles.CGROUPS["mounts"].values())}
    done = box.call("--log", str(log), "--log-format", "json", "create", "--bundle", str(box.bundle), box.id)
    assert done.status == 1
    assert done.err.startswith("rundlet: ")
    assert done.err.count("\n") == 1
    assert words in done.err
    assert done.out == ""
    told = json.loads(log.read_text())
    assert told.keys() == {"level", "msg", "time"}
    assert told["level"] == "error"
    assert f"rundlet: {told['msg']}\n" == done.err
    assert not box.root.exists() or not os.listdir(box.root)
    assert bundles.reap() == []
    for mount, before in cgroups.items():
        assert [name for name in os.listdir(mount) if name not in before and box.id in name] == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "config.json: line 1 column 1"),
        ("{", "config.json: line 1 column 2"),
        ("[]", "config.json: must be an object, not"),
        ('{"a": 1,}', "config.json: line 1 column"),
        ("{" * 100000, "config.json"),
        ("[" * 100000, "config.json"),
        ('{"a": NaN}', "config.json"),
        ('"\\ud800"', "config.json"),
        ("\0", "config.json"),
    ],
)
def test_a_text_that_is_no_configuration(box: Box, text: str, words: str) -> None:
    (box.bundle / "config.json").write_text(text)
    done = box.call("create", "--bundle", str(box.bundle), box.id)
    assert done.status == 1
    assert words in done.err
    assert done.err.count("\n") == 1
    assert "internal error" not in done.err
    assert box.left() == []


def test_no_bundle(box: Box) -> None:
    done = box.call("create", "--bundle", "/no/such/bundle", box.id)
    assert (done.status, done.err) == (
        1,
        "rundlet: cannot read /no/such/bundle/config.json: no such file or directory; is /no/such/bundle a bundle?\n",
    )


@pytest.mark.parametrize("words", [("list",), ("verify", "--all"), ("delete", "--regex", "x"), ("denials",), ("watch", "--once")])
def test_a_root_of_containers_that_is_none(box: Box, words: tuple[str, ...]) -> None:
    file = box.bundle / "file"
    file.touch()
    done = box.call_apart("--root", str(file), *words)
    assert done.status in (1, 2)
    assert done.err == f"rundlet: cannot read {file}: not a directory; name the folder of your containers by --root\n"


def test_no_configuration(box: Box) -> None:
    assert "config.json: no such file or directory" in box.call("create", "--bundle", str(box.bundle), box.id).err


def test_a_configuration_that_is_a_directory(box: Box) -> None:
    (box.bundle / "config.json").mkdir()
    done = box.call("create", "--bundle", str(box.bundle), box.id)
    assert done.status == 1
    assert "is a directory" in done.err


def test_a_current_directory_that_is_gone(box: Box) -> None:
    """The bundle is looked for in it; absolute paths do without it."""
    box.sh("echo here").save()
    gone = 'mkdir "$0" && cd "$0" && rmdir "$0" && exec "$@"'
    words = ["sh", "-c", gone, str(box.folder / "gone"), *box.runtime, "--root", str(box.root), "run"]
    done = subprocess.run([*words, box.id], capture_output=True, text=True, check=False)
    why = "no such file or directory; change to one that is there, or give absolute paths"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"rundlet: cannot tell the current directory: {why}\n")
    assert box.left() == []
    done = subprocess.run([*words, "--bundle", str(box.bundle), box.id], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "here\n", "")


def test_a_root_of_containers_that_cannot_be_made(box: Box) -> None:
    (box.folder / "file").write_text("")
    box.root = box.folder / "file/root"
    done = box.create()
    assert done.status == 1
    assert "not a directory" in done.err
    assert "--root" in done.err
    assert "internal error" not in done.err


def test_a_root_of_containers_in_a_folder_that_takes_none(box: Box) -> None:
    box.root = Path("/proc/no/root")
    assert box.create().err == "rundlet: cannot make /proc/no: no such file or directory; give --root a folder that can be written\n"


@pytest.mark.parametrize("full", ["nr_inodes=3", "size=4k"])
def test_a_disk_that_is_full(box: Box, full: str) -> None:
    box.config["annotations"] = {"long": "x" * 8192}
    box.root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", full, "full", box.root], check=True)
    try:
        done = box.create()
        assert (done.status, list(box.root.iterdir())) == (1, [])
    finally:
        subprocess.run(["umount", box.root], check=True)
    assert box.left() == []
    assert re.fullmatch("rundlet: cannot write (state|config).json in the container's folder: no space left on device\n", done.err)


def test_a_failed_create_keeps_the_mounts_of_the_image(box: Box) -> None:
    """What was bound is left alone, not emptied."""
    data = box.folder / "data"
    data.mkdir()
    (data / "file").write_text("kept")
    box.mount("/data", str(data), "bind")
    box.mount("/bad", "x", kind="nosuchfs")
    assert box.create().status == 1
    assert (data / "file").read_text() == "kept"
    assert box.left() == []


def test_warnings_stay_out_of_a_json_log(box: Box) -> None:
    box.process["capabilities"]["bounding"] = ["CAP_NOTHING"]
    log = box.folder / "log.json"
    box.process["args"] = ["nothere"]
    box.save()
    box.call("--log", str(log), "--log-format", "json", "create", "--bundle", str(box.bundle), box.id)
    assert json.loads(log.read_text())["msg"].startswith('exec: "nothere": executable file not found in $PATH')


def test_a_text_log(box: Box) -> None:
    log = box.folder / "log"
    box.call("--log", str(log), "state", "nothere")
    assert log.read_text().startswith("time=")
    assert 'level=error msg="container nothere does not exist"' in log.read_text()


def test_the_level_of_a_log(box: Box) -> None:
    """The program's own output is none of its business."""
    box.process["capabilities"]["bounding"] = ["CAP_NOTHING"]
    told = {}
    for options in ("--log-level=error", "--log-level=warning", "--log-level=info", "--log-level=debug", "--debug"):
        log = box.folder / options
        box.sh("echo mine").save()
        done = box.call("--log", str(log), *options.split(), "run", "--bundle", str(box.bundle), box.id)
        assert (done.status, done.out) == (0, "mine\n")
        lines = log.read_text().splitlines() if log.exists() else []
        told[options] = {line.partition("level=")[2].partition(" ")[0] for line in lines}
    assert told == {
        "--log-level=error": set(), "--log-level=warning": {"warning"}, "--log-level=info": {"warning"},
        "--log-level=debug": {"warning", "debug"}, "--debug": {"warning", "debug"},
    }


@pytest.mark.parametrize("how", ["journald", "syslog"])
def test_a_log_of_the_system(box: Box, how: str) -> None:
    """In a mount namespace whose /run or /dev is the test's: what a create that fails sends there, and to stderr."""
    top, path = {"journald": ("/run", "/run/systemd/journal/socket"), "syslog": ("/dev", "/dev/log")}[how]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listens:
        listens.bind(str(box.folder / "log"))
        listens.settimeout(bundles.PATIENCE)
        script = f"""
            keep=$(mktemp -d -p {box.folder}) && touch $keep/null && mount --bind /dev/null $keep/null
            mount -t tmpfs tmpfs {top} && mkdir -p {os.path.dirname(path)} && touch {path} && mount --bind {box.folder}/log {path}
            [ -e /dev/null ] || {{ touch /dev/null && mount --bind $keep/null /dev/null; }}
            exec "$@"
        """
        box.runtime = ["unshare", "--mount", "sh", "-c", script, "sh", *box.runtime, f"--log={how}:the-container"]
        box.config["ociVersion"] = "2.0.0"
        done = box.create()
        why = "/ociVersion: version 2.0.0 of the runtime-spec is not supported"
        assert (done.status, done.err.startswith(f"rundlet: {why}"), done.err.count("\n")) == (1, True, 1), done
        text = listens.recv(4096).decode()
        if how == "journald":
            assert text.startswith(f"PRIORITY=3\nSYSLOG_IDENTIFIER=rundlet\nID=the-container\nMESSAGE={why}")
        else:
            assert re.match(rf"<11>the-container\[\d+\]: {re.escape(why)}", text)
    assert box.left() == []


def test_success_says_nothing(box: Box) -> None:
    """Engines read stdout and stderr together."""
    box.process["capabilities"]["bounding"] = ["CAP_NOTHING"]
    log = box.folder / "log"
    box.save()
    for words in (
        ["create", "--bundle", str(box.bundle), box.id],
        ["start", box.id],
        ["kill", box.id, "KILL"],
        ["delete", "--force", box.id],
    ):
        done = box.call("--log", str(log), "--log-format", "json", *words)
        assert (done.status, done.out, done.err) == (0, "", "")
    assert not log.exists() or log.read_text() == ""


@pytest.mark.parametrize("path", ["/dev/full", "/no/such/dir/log"])
def test_a_log_that_cannot_be_written(box: Box, path: str) -> None:
    done = box.call("--log", path, "state", "nothere")
    assert done.status == 1
    assert "does not exist" in done.err


def test_a_closed_stderr(box: Box) -> None:
    box.save()
    read, write = os.pipe()
    os.close(read)
    done = box.call("state", "nothere", stderr=write)
    os.close(write)
    assert done.status == 1


def test_debug_says_what_is_done_and_why(box: Box) -> None:
    box.runtime = [*box.runtime, "--debug"]
    done = box.sh("true").run()
    assert done.status == 0
    assert done.err.startswith(f"rundlet: level=debug run {box.id}\nrundlet: level=debug label: keep")
    log = box.folder / "log"
    box.runtime += ["--log", str(log)]
    assert box.run().err == ""
    assert f'level=debug msg="run {box.id}"' in log.read_text()


@pytest.mark.parametrize("name", ["..", "../a", "."])
def test_an_id_that_would_lead_elsewhere(box: Box, name: str) -> None:
    """It is said to be no id, before it is anything else, such as the path of a cgroup."""
    box.save()
    done = box.call("create", "--bundle", str(box.bundle), name)
    assert done.status == 1
    assert done.err.startswith(f'rundlet: "{name}" cannot be a container id: ')
