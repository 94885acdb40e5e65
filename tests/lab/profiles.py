"""Inside the lab: what becomes of the policy by containers that bring profiles along, by `rundlet profile`, and by stacking.

    python3 -m tests.lab.profiles WORDS…      the words that run rundlet

One line of JSON for each thing tried, of what was seen and without judgement; test_profile_lab.py says what should have been seen.
"""

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from rundlet.confine import denials
from rundlet.shipped import version
from tests.lab import peers, shipped
from tests.lab.cases import Attempt
from tests.lab.guest import AREA, Lab, Tell, config, until

SECURITY = Path("/sys/kernel/security/apparmor")
WORK = AREA / "profiles"
PR_SET_CHILD_SUBREAPER = 36
PREFIX = "org.rundlet.apparmor."
FLAGS = "flags=(attach_disconnected,mediate_deleted)"
ALL = "file, capability, network, ptrace, unix,"
RUNTIME = "file, capability, signal, ptrace, unix, network, mount, umount, pivot_root, change_profile,"


def text(name: str, *more: str) -> str:
    """A profile that permits what a container does, and more."""
    return f"profile {name} {FLAGS} {{\n  {ALL}\n  signal,\n" + "".join(f"  {line}\n" for line in more) + "}\n"


def loaded(name: str) -> str | None:
    """The hash of a loaded profile, with its mode; None where there is none."""
    for folder in (SECURITY / "policy/profiles").iterdir():
        if (folder / "name").read_text().rstrip("\n") == name:
            [kind] = [kind for kind in ("sha1", "sha256") if (folder / kind).exists()]
            return f"{(folder / 'mode').read_text().strip()} {(folder / kind).read_text().strip()}"
    return None


def policy(profiles: str, *options: str) -> None:
    """Has the parser load profiles, or with -R remove them."""
    subprocess.run(["apparmor_parser", *(options or ["-r"])], input=profiles, text=True, check=True)


class Tried:
    """The command, tried on bundles of their own."""

    def __init__(self, words: list[str]) -> None:
        self.words = [*words, "--root", str(AREA / "state")]
        self._tell = Tell()

    def tell(self, name: str, **found: Any) -> None:
        """A line of JSON."""
        self._tell(name, found)

    def call(self, *words: str, label: str = "", cwd: Path = WORK) -> dict[str, Any]:
        """A command, under a label where one is given."""
        become = f"changeprofile {label}" if label else ""

        def change() -> None:
            if become:
                Path("/proc/self/attr/apparmor/current").write_text(become)

        # what a container left behind holds its output open, so that goes to files
        with open(WORK / "out", "wb") as out, open(WORK / "err", "wb") as err:
            done = subprocess.run([*self.words, *words], stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=cwd, preexec_fn=change)
        return {"status": done.returncode, "out": (WORK / "out").read_text(), "err": (WORK / "err").read_text()}

    def bundle(self, name: str, profile: str | None, files: dict[str, str], nnp: bool = False, **more: Any) -> Path:
        """A bundle with these files in it; more are annotations without their prefix, `hooks`, and `args`."""
        folder = WORK / name
        folder.mkdir()
        made = config(Attempt(name, "run", profile=profile, nnp=nnp))
        made["annotations"] = {PREFIX + key.replace("_", "-"): value for key, value in more.items() if key not in ("hooks", "args")}
        made |= {"hooks": more["hooks"]} if "hooks" in more else {}
        made["process"]["args"] = more.get("args", made["process"]["args"])
        (folder / "config.json").write_text(json.dumps(made))
        for file, profiles in files.items():
            (folder / file).write_text(profiles)
        return folder

    def run(self, name: str, profile: str | None, files: dict[str, str], *options: str, label: str = "", **more: Any) -> dict[str, Any]:
        """`run` of a bundle; what was said, and what is left."""
        folder = self.bundle(name, profile, files, **more)
        found = self.call("run", *options, "--bundle", str(folder), name, label=label)
        return found | {"left": (AREA / "state" / name).exists()}


def preloading(lab: Tried) -> None:
    """Containers that bring a profile along."""
    keep: dict[str, Any] = {"profile_file": "p"}
    gone: dict[str, Any] = {"profile_file": "p", "on_delete": "remove"}

    def seen(name: str, what: str, found: dict[str, Any], before: str | None = None) -> None:
        lab.tell(name, **found, loaded=loaded(what), before=before)

    seen("kept", "kept", lab.run("c1", "kept", {"p": text("kept")}, **keep))
    seen("removed", "gone", lab.run("c2", "gone", {"p": text("gone")}, **gone))
    seen("by options", "gone", lab.run("c3", "gone", {"q": text("gone")}, "--apparmor-file", "q", "--apparmor-on-delete", "remove"))
    policy(text("same"))
    before = loaded("same")
    seen("there with this content", "same", lab.run("c4", "same", {"p": text("same")}, **gone), before)
    policy(text("other"))
    before = loaded("other")
    seen("there with another content", "other", lab.run("c5", "other", {"p": text("other", "deny /x r,")}, **gone), before)
    seen("replaced", "other", lab.run("c6", "other", {"p": text("other", "deny /public r,")}, "--apparmor-replace", **gone), before)
    policy(text("other"))
    found = lab.run("c7", "news", {"p": text("news") + text("other", "deny /x r,")}, **gone)
    seen("one of two is there with another content", "news", found | {"other": loaded("other")}, before)
    seen("another name", "stranger", lab.run("c8", "wanted", {"p": text("stranger")}, **keep))
    seen("malformed", "wanted", lab.run("c9", "wanted", {"p": "profile wanted { nonsense }\n"}, **keep))
    seen("no profile asked", "gone", lab.run("c10", None, {"p": text("gone")}, **keep))
    bad: dict[str, Any] = {"hooks": {"createRuntime": [{"path": "/bin/false"}]}}
    seen("a hook fails", "fails", lab.run("c11", "fails", {"p": text("fails")}, **keep, **bad))
    found = lab.run("c12", "other", {"p": text("other", "deny /x r,")}, "--apparmor-replace", **keep, **bad)
    seen("a hook fails after a replacement", "other", found, before)
    seen("the program is not there", "absent", lab.run("c15", "absent", {"p": text("absent")}, args=["/no/program"], **keep))
    folder = lab.bundle("c16", "foreseen", {"p": text("foreseen")}, **keep)
    found = lab.call("explain", "--json", str(folder))
    lab.tell("explain", **found, loaded=loaded("foreseen"))
    odd = '"sp ace \\"(x)\\""'
    seen("an odd name", 'sp ace "(x)"', lab.run("c13", 'sp ace "(x)"', {"p": text(odd)}, **gone))
    kids = text("family", "profile kid { file, }", "^hat { file, }")
    found = lab.run("c14", "family", {"p": kids}, **gone)
    lab.tell("children", **found, loaded=loaded("family"), names=(SECURITY / "profiles").read_text().count("family//"))
    stays = ["sleep", "1000"]
    # a second container by the same profile, without a file
    folder = lab.bundle("first", "shared", {"p": text("shared")}, **gone)
    made = lab.call("create", "--bundle", str(folder), "first")
    lab.bundle("second", "shared", {}, args=stays)
    second = lab.call("run", "--detach", "--bundle", str(WORK / "second"), "second")
    state = json.loads(lab.call("state", "first")["out"])
    ended = lab.call("delete", "first")
    lab.tell("used by another container", created=made, second=second, state=state, deleted=ended, loaded=loaded("shared"))
    lab.call("delete", "--force", "second")
    # a process of nobody's container
    folder = lab.bundle("third", "lent", {"p": text("lent")}, **gone)
    made = lab.call("create", "--bundle", str(folder), "third")
    user = subprocess.Popen(["aa-exec", "-p", "lent", "--", "sleep", "1000"])
    assert until(lambda: "lent" in Path(f"/proc/{user.pid}/attr/apparmor/current").read_text())
    ended = lab.call("delete", "third")
    lab.tell("used by a process", created=made, pid=user.pid, deleted=ended, loaded=loaded("lent"))
    user.kill()
    user.wait()
    # somebody replaces it
    folder = lab.bundle("fourth", "moved", {"p": text("moved")}, **gone)
    made = lab.call("create", "--bundle", str(folder), "fourth")
    policy(text("moved", "deny /x r,"))
    ended = lab.call("delete", "fourth")
    lab.tell("replaced meanwhile", created=made, deleted=ended, loaded=loaded("moved"))
    # its process has ended, and nobody has asked for its status yet: we are its parent once it has lost its own
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    folder = lab.bundle("fifth", "undead", {"p": text("undead")}, args=["sleep", "1000"], **gone)
    steps = [lab.call("create", "--pid-file", str(folder / "pid"), "--bundle", str(folder), "fifth"), lab.call("start", "fifth")]
    pid = int((folder / "pid").read_text())
    steps.append(lab.call("kill", "fifth", "KILL"))
    assert until(lambda: state_of(pid) == "Z")
    steps.append(lab.call("delete", "fifth"))
    lab.tell("a zombie", steps=steps, state=state_of(pid), loaded=loaded("undead"))
    os.waitpid(pid, 0)
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
    # killed half way
    folder = lab.bundle("half", "halfway", {"p": text("halfway")}, hooks={"createRuntime": [{"path": "/bin/sleep", "args": ["sleep", "1000"]}]}, **keep)
    child = subprocess.Popen([*lab.words, "create", "--bundle", str(folder), "half"], stdin=subprocess.DEVNULL)
    assert until(lambda: loaded("halfway") is not None and sleeping() is not None)
    child.kill()
    child.wait()
    there = loaded("halfway")
    hook = sleeping()
    ended = lab.call("delete", "--force", "half")
    lab.tell("half-made", before=there, deleted=ended, loaded=loaded("halfway"))
    if hook:
        os.kill(hook, signal.SIGKILL)
    lab.tell("features", **json.loads(lab.call("features")["out"]))


def state_of(pid: int) -> str:
    """The letter of a process: proc_pid_stat(5)."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def sleeping() -> int | None:
    """The pid of a hook that sleeps."""
    for pid in Path("/proc").glob("[0-9]*"):
        try:
            if (pid / "cmdline").read_bytes() == b"sleep\0001000\0":
                return int(pid.name)
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended
    return None


def verbs(lab: Tried) -> None:
    """check, load and diff."""
    file = WORK / "checked"
    file.write_text("abi <abi/3.0>,\n" + text("checked", "signal (send, receive) peer=checked,"))
    lab.tell("check, not loaded", **lab.call("profile", "check", str(file), "--json"))
    lab.tell("load", **lab.call("profile", "load", str(file)), loaded=loaded("checked"))
    lab.tell("load again", **lab.call("profile", "load", "--json", str(file)), loaded=loaded("checked"))
    lab.tell("check", **lab.call("profile", "check", "--json", str(file)))
    lab.tell("check by name", **lab.call("profile", "check", "--json", "checked", cwd=AREA))
    lab.tell("check, no such name", **lab.call("profile", "check", "--json", "nowhere"))
    lab.tell("diff with what is loaded", **lab.call("profile", "diff", "--json", str(file), "checked", cwd=AREA))
    changed = WORK / "changed"
    changed.write_text("abi <abi/3.0>,\n" + text("checked", "deny /x r,"))
    lab.tell("check, another content", **lab.call("profile", "check", "--json", str(changed)))
    lab.tell("diff with another", **lab.call("profile", "diff", "--json", str(changed), "checked", cwd=AREA))
    lab.tell("load another", **lab.call("profile", "load", str(changed)), loaded=loaded("checked"))
    lab.tell("load another with --replace", **lab.call("profile", "load", "--replace", str(changed)), loaded=loaded("checked"))
    policy(text("twin", "deny /x r,"))
    lab.tell("diff of two loaded", **lab.call("profile", "diff", "--json", "checked", "twin", cwd=AREA))
    policy(f"profile rt {FLAGS} {{ {RUNTIME} }}\n" + "profile own " + FLAGS + " { file, signal (receive) peer=rt, signal (send) peer=own, }\n")
    own = WORK / "own"
    own.write_text("profile own " + FLAGS + " { file, signal (receive) peer=rt, signal (send) peer=own, }\n")
    lab.tell("check by a confined runtime", **lab.call("profile", "check", "--json", str(own), label="rt"))
    lab.tell("check for a confined runtime", **lab.call("profile", "check", "--json", "--runtime-label", "rt (enforce)", str(own)))


def deriving(lab: Tried) -> None:
    """A profile before and after, under both labels, towards every peer; and containers under them."""
    original = WORK / "app"
    original.write_text(f"""profile app {FLAGS} {{
  {ALL.replace("ptrace, ", "")}
  signal (send, receive) set=(term, exists) peer=app,
  signal (receive) peer=unconfined,
  signal (receive) peer=lrt,
  signal (send) set=(usr1) peer=stranger,
  deny signal (send) set=(usr2) peer=app,
  ptrace (read, readby) peer=app,
  ptrace (readby) peer=lrt,
}}
""")
    others = f"profile lrt {FLAGS} {{ {RUNTIME} }}\nprofile stranger {FLAGS} {{ {ALL} signal, }}\n"
    policy(others)
    policy(original.read_text())
    lab.tell("before", **peers.grid("app", "lrt"), run=lab.run("d1", "app", {}, nnp=True, label="lrt"))
    made = lab.call("profile", "derive", "--profile", str(original), "--runtime-label", "lrt", "--output", str(WORK / "app.new"))
    lab.tell("derive", **made, text=(WORK / "app.new").read_text())
    policy((WORK / "app.new").read_text())
    lab.tell("after", **peers.grid("app", "lrt"), run=lab.run("d2", "app", {}, nnp=True, label="lrt"))
    tracer, stack = WORK / "tracer", ("lrt", "tracer")
    tracer.write_text(f"profile tracer {FLAGS} {{ file, signal peer=tracer, ptrace (trace, read, tracedby, readby) peer=tracer, }}\n")
    policy(tracer.read_text())
    before = peers.towards(stack, stack, peers.kill, peers.look, peers.seize)
    made = lab.call("profile", "derive", "--profile", str(tracer), "--runtime-label", "lrt", "--output", str(WORK / "tracer.new"))
    policy((WORK / "tracer.new").read_text())
    lab.tell("derive for a tracer", **made, before=before, after=peers.towards(stack, stack, peers.kill, peers.look, peers.seize))


def denied(since: float, label: str) -> list[list[str | None]]:
    """What was denied to a label since a time, what that means, and the rule that would permit it."""
    return [[one.what, one.meaning, one.rule] for one in denials.read(since, None) if one.label == label and one.verdict == "denied"]


def userns(lab: Tried) -> None:
    """User namespaces under profiles of AppArmor 4, with the rule for them and without."""
    policy(f"abi <abi/4.0>,\nprofile makes {FLAGS} {{ {RUNTIME} userns, }}\nprofile lacks {FLAGS} {{ {RUNTIME} }}\n")
    for label in ("makes", "lacks"):
        folder = lab.bundle(f"userns-{label}", None, {}, args=["cat", "/proc/self/attr/apparmor/current"])
        asked = json.loads((folder / "config.json").read_text())
        asked["linux"]["namespaces"].append({"type": "user"})
        asked["linux"] |= {f"{kind}Mappings": [{"containerID": 0, "hostID": 100000, "size": 65536}] for kind in ("uid", "gid")}
        (folder / "config.json").write_text(json.dumps(asked))
        since = time.time() - 0.02  # a record's clock is coarse
        found = lab.call("run", "--bundle", str(folder), f"userns-{label}", label=label)
        if found["status"]:
            until(partial(denied, since, label))  # records go through a thread of the kernel's
        lab.tell(f"userns: {label}", **found, denials=denied(since, label))


def main(words: list[str]) -> None:
    """Everything."""
    if os.environ.get("PARSER"):  # another than the machine's takes its place
        subprocess.run(["mount", "--bind", os.environ["PARSER"], shutil.which("apparmor_parser") or ""], check=True)
    Lab(words).furnish()
    WORK.mkdir()
    lab = Tried(words)
    lab.tell("machine", kernel=os.uname().release, parser=version())
    for name, found in peers.facts().items():
        lab.tell(name, found=found)
    preloading(lab)
    verbs(lab)
    deriving(lab)
    if version() >= 4:
        userns(lab)
    shipped.cycles(lab, words)


if __name__ == "__main__":
    main(sys.argv[1:])
