"""rundlet matrix: what a container may do under each setting, and which layer denies the rest.

Exits with 0 when all is as expected or nothing was, 1 when a cell differs, 2 when it cannot be told or the command failed.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from rundlet import __version__, host, log
from rundlet.confine.matrix import bundle, engine, html, policy, report, settings
from rundlet.confine.matrix.build import Builder
from rundlet.confine.matrix.config import Config, read
from rundlet.confine.matrix.probes import Command
from rundlet.confine.matrix.progress import Bar
from rundlet.confine.matrix.run import Runner, Runtime, workspace
from rundlet.errors import Fault, Refused, Usage
from rundlet.options import Options

UNTOLD = 2
WIDTH = 160  # of tables that go to no terminal


def main(options: Options) -> int:
    """The verb."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _stop)
    try:
        if len(options.args) > 1:
            raise Usage(f"matrix takes one bundle; a command goes behind --: rundlet matrix {options.args[0]} -- {options.args[1]}")
        if options.suite and not options.lab:
            raise Usage("matrix takes --suite with --lab: here it is this machine's own kernel")
        wanted = report.expected(options.expect) if options.expect else {}
        if options.html:
            see_writable(options.html)
        found = in_lab(options) if options.lab else here(options)
        if options.html:
            Path(options.html).write_text(html.page(found), encoding="utf-8")
    except Fault as fault:
        log.error(str(fault))
        return UNTOLD
    except OSError as failure:
        log.error(f"{failure.filename or 'the matrix'}: {(failure.strerror or str(failure)).lower()}")
        return UNTOLD
    if options.json:
        sys.stdout.write(json.dumps(found, indent=1) + "\n")
    else:
        report.show(found, Console(width=None if sys.stdout.isatty() else WIDTH))
    return judged(found, wanted, bool(options.expect))


def see_writable(path: str) -> None:
    """Raises Refused where the page could not be written to this path: before all else, since what comes before it takes minutes."""
    folder = os.path.dirname(path) or "."
    if os.path.isdir(path):
        why = "it is a directory"
    elif not os.path.isdir(folder):
        why = f"{folder} is no directory"
    elif not os.access(path if os.path.exists(path) else folder, os.W_OK):
        why = "permission denied"
    else:
        return
    raise Refused(f"cannot write {path}: {why}", "give --html a file that can be written")


def _stop(number: int, frame: object) -> None:
    """Ends the command as an interrupt does: what was made is taken away on the way out."""
    sys.exit(128 + number)


def judged(found: report.Document, wanted: dict[report.Key, str], asked: bool) -> int:
    """Says what is not as expected; the exit status."""
    differs, untold = report.compare(found, wanted)
    for line in differs:
        sys.stderr.write(f"differs: {line}\n")
    for line in untold:
        sys.stderr.write(f"cannot tell: {line}\n")
    if asked and not (differs or untold):
        sys.stderr.write(f"as expected: {len(wanted)} cells\n")
    return 1 if differs else UNTOLD if untold else 0


def here(options: Options) -> report.Document:
    """Does it on this machine. Raises Fault, OSError."""
    asked = read(options.config)
    facts = host.facts()
    lacking = "no AppArmor" if facts["apparmor"]["state"] != "on" else "no root, which profiles are loaded by" if facts["uid"] else ""
    folder = Path(options.args[0]) if options.args else None
    area = workspace()
    try:
        with contextlib.ExitStack() as stack:
            given = bundle.read(folder.absolute()) if folder else None
            profile = asked.profile or (given or {}).get("process", {}).get("apparmorProfile") or policy.CONTAINER
            if not lacking:
                stack.enter_context(policy.loaded(asked.policy, profile))
            known = settings.Host(
                lacking, tuple(facts["caps"]["bounding"]), engine.profile(asked.seccomp), facts["uid"], profile,
            )
            config, notes = settings.base(given if given is not None else bundle.make(area, known))
            return _built(options, asked, area, config, notes, known, facts)
    finally:
        shutil.rmtree(area, ignore_errors=True)


def _built(
    options: Options, asked: Config, area: Path, config: dict[str, Any], notes: list[str], known: settings.Host, facts: Any,
) -> report.Document:
    probes = list(asked.probes)
    if options.command:
        probes.append(Command("workload", tuple(options.command)))
    runtimes = [Runtime("rundlet", tuple(ourselves()), f"rundlet version {__version__}")]
    for path in [*asked.runtimes, *options.runtime]:
        runtimes.append(peer(path, {runtime.name for runtime in runtimes}))
    with Bar() as bar:
        made = Builder(Runner(area, asked.timeout, known.apparmor), config, known, probes, bar.say).build(runtimes, asked.settings)
    machine = {
        "kernel": facts["kernel"], "arch": facts["arch"], "apparmor": facts["apparmor"]["state"], "label": facts["apparmor"]["label"],
        "cgroup": facts["cgroup"]["layout"], "uid": facts["uid"],
    }
    return report.document(machine, runtimes, asked.settings, probes, made, notes, asked.design)


def ourselves() -> list[str]:
    """The words that run this very command, from any folder."""
    words = [sys.executable, *sys.orig_argv[1 : len(sys.orig_argv) - len(sys.argv) + 1]]
    return [os.path.abspath(word) if "/" in word and os.path.exists(word) else word for word in words]


def peer(path: str, taken: set[str]) -> Runtime:
    """Another runtime with the command line of OCI's. Raises Refused when it does not run."""
    found = shutil.which(path)
    if not found:
        raise Refused(f"no runtime {path}", "name a program that is there")
    found = os.path.abspath(found)
    try:
        done = subprocess.run([found, "--version"], capture_output=True, text=True, check=False, timeout=60, cwd="/")
    except (OSError, subprocess.TimeoutExpired) as failure:
        raise Refused(f"{found} --version: {failure}", "name a runtime") from None
    if done.returncode:
        raise Refused(f"{found} --version ends with status {done.returncode}", "name a runtime")
    name = os.path.basename(found)
    return Runtime(found if name in taken else name, (found,), done.stdout.partition("\n")[0].strip())


def in_lab(options: Options) -> report.Document:
    """Does it under the lab's kernel: the same command there, its document taken from its output. Raises Fault."""
    ours = ourselves()
    words = [*ours, "matrix", "--json"]
    words += [os.path.abspath(options.args[0])] if options.args else []
    words += ["--config", os.path.abspath(options.config)] if options.config else []
    for path in options.runtime:
        words += ["--runtime", path]
    words += ["--", *options.command] if options.command else []
    suite = ["--suite", options.suite] if options.suite else []
    done = subprocess.run([*ours, "lab", *suite, "--", *words], stdout=subprocess.PIPE, check=False)
    try:
        found: report.Document = json.loads(done.stdout)
    except ValueError:
        raise Fault(f"the lab ended with status {done.returncode} and no matrix; what it said stands above") from None
    return found
