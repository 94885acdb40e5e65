"""The part of the demo that runs on the kernel with AppArmor: python inside.py BUNDLE."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
RUNDLET = str(HERE.parent / ".venv/bin/rundlet")
CONFINED = ["aa-exec", "-p", "demo-runtime", "--"]
STACKED = "demo-container//&demo-runtime (enforce)"
faults: list[str] = []


def main(there: str) -> int:
    """Shows the transition, the label from both sides, the two denials, and what other runtimes do; 0 when all is as it should be."""
    subprocess.run(["apparmor_parser", "-r", str(HERE / "profiles")], check=True)
    print("   Two profiles are loaded: demo-container, which the bundle asks for, and demo-runtime, which now confines rundlet itself.")
    print("   The bundle sets noNewPrivileges. A confined process under no_new_privs may not change to another profile;")
    print("   it may only add one to its own, and be held to both: that is stacking. rundlet knows before it runs anything:\n")
    plan = run([*CONFINED, RUNDLET, "explain", there]).stdout
    show("rundlet explain", "\n".join(plan.splitlines()[:4]))
    expect("the plan stacks", "demo-container//&demo-runtime" in plan)

    run([*CONFINED, RUNDLET, "run", "--detach", "--bundle", there, "demo"])
    pid = run([RUNDLET, "state", "demo"]).stdout.partition('"pid": ')[2].partition(",")[0]
    outside = Path(f"/proc/{pid}/attr/apparmor/current").read_text().strip()
    inside = execute("cat", "/proc/self/attr/apparmor/current").stdout.strip()
    print("   It runs. Its label, read from outside and by a second process from inside:\n")
    show(f"/proc/{pid}/attr/apparmor/current", outside)
    show("rundlet exec demo cat /proc/self/attr/apparmor/current", inside)
    expect("the label from outside", outside == STACKED)
    expect("the label from inside", inside == STACKED)

    print("   Both profiles hold. demo-container forbids reading /etc/keys, demo-runtime forbids writing /srv/of-the-host:\n")
    for words in (["cat", "/etc/keys"], ["sh", "-c", "echo x > /srv/of-the-host"]):
        done = execute(*words)
        show("rundlet exec demo " + " ".join(words), (done.stdout + done.stderr).strip())
        expect(f"{words} is denied", done.returncode != 0 and "ermission denied" in done.stderr)
    done = execute("cat", "/srv/of-the-host")
    expect("what neither forbids is allowed", done.returncode == 0)
    run([*CONFINED, RUNDLET, "delete", "--force", "demo"])

    for other in ("crun", "runc"):
        if shutil.which(other):
            compare(other, there)
    for fault in faults:
        print(f"   not as it should be: {fault}", file=sys.stderr)
    print("   Everything was as it should be." if not faults else "")
    return 1 if faults else 0


def compare(other: str, there: str) -> None:
    """The same bundle under another runtime, confined the same way; its program says its label and ends."""
    bundle = Path("/tmp/compared")
    bundle.mkdir(exist_ok=True)
    config = json.loads(Path(there, "config.json").read_text())
    config["process"]["args"] = ["cat", "/proc/self/attr/apparmor/current"]
    config["root"]["path"] = f"{there}/rootfs"
    (bundle / "config.json").write_text(json.dumps(config))
    version = run([other, "--version"]).stdout.split("\n", 1)[0]
    print(f"   The same bundle, asked for its label, under {version}, confined the same way:\n")
    done = run([*CONFINED, other, "run", "--bundle", str(bundle), f"demo-{other}"])
    show(f"{other} run", ((done.stdout + done.stderr).strip() + f"\nexit status {done.returncode}").strip())
    if done.stdout.strip() == STACKED:
        print(f"   {other} of this version stacks as well.\n")
    run([other, "delete", "--force", f"demo-{other}"])


def execute(*words: str) -> subprocess.CompletedProcess[str]:
    """A command in the running container, by way of the confined runtime."""
    return run([*CONFINED, RUNDLET, "exec", "demo", *words])


def run(words: list[str]) -> subprocess.CompletedProcess[str]:
    """Runs a command, keeping what it prints; what a detached container inherits must not be a pipe that we wait for."""
    detached = "--detach" in words
    if not detached:
        return subprocess.run(words, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    with open("/tmp/said", "w+") as said:
        status = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=said, stderr=said, check=False).returncode
        said.seek(0)
        text = said.read()
    if status and words[4] == RUNDLET:
        faults.append(f"{' '.join(words)}: {text.strip()}")
    return subprocess.CompletedProcess(words, status, text, "")


def show(command: str, text: str) -> None:
    """A command and what it printed."""
    print(f"      $ {command}")
    for line in text.splitlines():
        print(f"      {line}")
    print(flush=True)


def expect(what: str, holds: bool) -> None:
    """Remembers what is not as it should be."""
    if not holds:
        faults.append(what)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
