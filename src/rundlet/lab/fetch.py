"""Debian's kernel package, fetched by apt with lists of its own: neither /etc/apt nor the machine's lists are touched.

The mirror is the one the machine's own sources name, so a machine behind a local mirror or a proxy works as well.
"""

from collections.abc import Sequence
from pathlib import Path
from subprocess import run

from rundlet.errors import Refused
from rundlet.lab.needs import program
from rundlet.lab.progress import Progress, wait_for

SUITES = {"bookworm": "bookworm", "backports": "bookworm-backports"}
META = "linux-image-amd64"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


def sources(targets: str, suite: str, keyring: Path | None) -> list[str]:
    """The sources.list lines for the Debian suite `suite`, given this machine's index targets.

    `targets` has one line "URI CODENAME ORIGIN" for each index (`apt-get indextargets`). Where the machine already has the suite, or its
    updates and security fixes, the entries are the machine's; else the suite is looked for on the machine's first Debian mirror.
    Raises Refused when the machine has no Debian mirror.
    """
    known = [tuple(line.split(" ", 2)) for line in targets.splitlines() if line.count(" ") == 2]
    debian = [(uri, codename) for uri, codename, origin in known if origin == "Debian"]
    wanted = {suite} if suite.endswith("-backports") else {suite, f"{suite}-updates", f"{suite}-security"}
    chosen = [(uri, codename) for uri, codename in debian if codename in wanted]
    if not any(codename == suite for _, codename in chosen):
        mirrors = [uri for uri, codename in debian if not codename.endswith("-security")]
        if not mirrors:
            raise Refused(
                "apt has no source of Debian packages here (or no lists yet)",
                "apt-get update, or give the lab a kernel of your own with --kernel",
            )
        chosen.append((mirrors[0], suite))
    options = f"arch=amd64 signed-by={keyring}" if keyring else "arch=amd64"
    return list(dict.fromkeys(f"deb [{options}] {uri} {codename} main" for uri, codename in chosen))


def dependency(record: str) -> str:
    """The concrete package that the meta package's control record (`apt-cache show`) depends on. Raises Refused if there is none."""
    for line in record.splitlines():
        if line.startswith("Depends:"):
            for word in line.removeprefix("Depends:").split(","):
                name = word.split()[0] if word.split() else ""
                if name.startswith("linux-image-"):
                    return name
    raise Refused(f"apt does not know the package {META}, or it depends on no kernel", "give the lab a kernel with --kernel")


def download_size(record: str) -> int:
    """The `Size:` in bytes of a control record, 0 if it has none."""
    for line in record.splitlines():
        if line.startswith("Size:"):
            return int(line.split()[1])
    return 0


class Apt:
    """apt with lists, cache and sources below `state`, for one of Debian's suites."""

    def __init__(self, state: Path, suite: str, progress: Progress) -> None:
        self.progress = progress
        self.log = state / "log"
        self.suite = suite
        listing = run(
            [program("apt-get"), "indextargets", "--format", "$(REPO_URI) $(CODENAME) $(ORIGIN)", "Created-By: Packages"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        lines = sources(listing.stdout, self.suite, KEYRING if KEYRING.exists() else None)
        for folder in (state / "lists" / "partial", state / "cache"):
            folder.mkdir(parents=True, exist_ok=True)
        (state / "sources.list").write_text("".join(f"{line}\n" for line in lines))
        settings = {
            "Dir::Etc::sourcelist": state / "sources.list",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::State::lists": state / "lists",
            "Dir::Cache": state / "cache",
            "Acquire::Languages": "none",
            "APT::Architecture": "amd64",
            "APT::Sandbox::User": "root",  # the target folder is root's alone; what is fetched is checked by hash
        }
        self.options = [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]

    def _run(self, words: Sequence[str], folder: Path, text: str, total: int = 0) -> None:
        """Run apt-get with `words` in `folder`, saying `text` and how many of `total` bytes have come. Raises Refused when it fails."""
        said = 0.0

        def tick(seconds: float) -> None:
            nonlocal said
            if total and (self.progress.terminal or seconds - said > 5):
                said = seconds
                have = sum(file.stat().st_size for file in folder.glob("*.deb"))
                self.progress.say(f"{text}: {have / 1e6:.0f} of {total / 1e6:.0f} MB")

        self.progress.say(text)
        with open(self.log, "wb") as log:
            status = wait_for([program("apt-get"), *self.options, "-q", *words], folder, log, tick)
        if status:
            lines = [line.strip() for line in self.log.read_text(errors="replace").splitlines()]
            errors = [line for line in lines if line.startswith(("E:", "W:"))] or lines[-1:]
            raise Refused(
                f"{text} failed: apt-get: {' / '.join(errors[:3]) or f'status {status}'}",
                "the lab fetches its kernel once, from a Debian mirror; without a network give it one with --kernel",
            )

    def _show(self, package: str) -> str:
        """The control record of apt's candidate for `package`, empty if there is none."""
        words = [program("apt-cache"), *self.options, "show", "--no-all-versions", package]
        return run(words, capture_output=True, text=True, check=False).stdout

    def fetch(self, folder: Path) -> Path:
        """Download the suite's current kernel package into `folder` and return its file. Raises Refused when that fails."""
        self.update(folder)
        package = dependency(self._show(META))
        self.download([package], folder)
        return next(folder.glob("*.deb"))

    def update(self, folder: Path) -> None:
        """Reads the suite's package lists. Raises Refused when that fails."""
        self._run(["update"], folder, f"reading the package lists of {self.suite}")

    def download(self, packages: Sequence[str], folder: Path) -> None:
        """Downloads apt's candidates for these packages into `folder`. Raises Refused when that fails."""
        size = sum(download_size(self._show(package)) for package in packages)
        self._run(["download", *packages], folder, f"downloading {', '.join(packages)} ({size / 1e6:.0f} MB)", size)
