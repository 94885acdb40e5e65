"""What pip cannot do: writes the start-up bundle, a home for the interpreter (home.py) and a command that needs no shell, so that a start
takes half the time.

    python -m rundlet.install [COMMAND]      as who owns the installation, after it: /usr/bin/rundlet, .venv/bin/rundlet
    python -m rundlet.install [COMMAND] --systemd DIR       and the service of `rundlet watch` into DIR, such as /etc/systemd/system
    python -m rundlet.install --apparmor …   the AppArmor profile of the command, which shipped.py describes

`make build` does it, and so should a distribution's package, once the files are where they will be. Everything works without, only slower;
after a change of the sources or of Python the bundle, or what of it has changed, is passed over until it is written anew.

What pip has installed it also takes away: the files beside the package and the command are added to pip's list of them, RECORD. A service
and a profile stay: they are the host's.

The bundle holds the bytecode of all modules on a container's way (startup.py has its layout), stripped of what nothing reads there:
docstrings, annotations, and the columns of tracebacks. Files and lines stay.
"""

import ast
import csv
import io
import marshal
import os
import subprocess
import sys
import sysconfig
from hashlib import blake2b
from importlib.metadata import Distribution, PackageNotFoundError
from importlib.util import MAGIC_NUMBER, find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from rundlet import home, shipped

if TYPE_CHECKING:
    from types import CodeType
    from typing import Any

    from rundlet.startup import Entry, Late, Source, Where

PACKAGE = Path(__file__).parent
LEFT_OUT = (  # not on a container's way
    "__pycache__", "api", "aio.py", "confine", "lab", "install.py", "shipped.py", "home.py", "codec.py", "helptexts.py", "cliref.py",
    "compile.py", "__main__.py",
)  # fmt: skip
UNIT = "rundlet-watch.service"
USAGE = """\
usage: python -m rundlet.install [COMMAND] [--systemd DIR]
       python -m rundlet.install --apparmor DIR [--enforce] [COMMAND]
"""
SELDOM = PACKAGE / "seldom.txt"  # functions that no plain start calls, "module:name"
VERBS = tuple(f"rundlet.life.{verb}" for verb in ("create", "start", "run", "exec", "state", "kill", "delete"))
KEEPING = ("rundlet.life.create", "rundlet.life.run")  # where a plan may have been kept, which is made by
PLANNING = ("rundlet.plan.", "rundlet.spec", "rundlet.seccomp.", "rundlet.executor.program", "rundlet.life.planning")
HEAD = 12 << 10  # bytes of room for the head
PIECE = 96 << 10
IN_FILES = ("_json",)  # of the standard library, written in C, and built in or not as whoever built Python decided

COMMAND = """\
#!{python} -ISBXutf8
# Written by `python -m rundlet.install`. The options: no PYTHON* variables and no folder of the user's (I), no site (S), nothing is
# written (B), and texts are UTF-8 in every locale. This is compiled at each start, so the rest stands in startup.py.
import sys
from _frozen_importlib_external import MAGIC_NUMBER
from marshal import loads
from posix import open, read
sys.path.append({folder!r})  # at the end: nothing there can stand in for the standard library
try:
    fd = open({bundle!r}, {flags})
    if read(fd, 4) == MAGIC_NUMBER:
        exec(loads(read(fd, {head})))
except OSError:
    pass  # without the bundle it takes longer
from rundlet.{module} import run
run()
"""


class Strip(ast.NodeTransformer):
    """Takes out annotations and what stands under TYPE_CHECKING. A class may be made of its annotations: there they stay."""

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        node.body = [part if isinstance(part, ast.AnnAssign) else self.visit(part) for part in node.body]
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:  # ast's name
        node.returns = None
        return self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        if node.value is None:
            return ast.copy_location(ast.Pass(), node)
        return ast.copy_location(ast.Assign([node.target], node.value), node)

    def visit_If(self, node: ast.If) -> ast.AST:
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return ast.copy_location(ast.Pass(), node)
        return self.generic_visit(node)


def sources() -> dict[str, Path]:
    """The modules of the bundle by name."""
    files = [file for file in sorted(PACKAGE.rglob("*.py")) if not set(file.relative_to(PACKAGE).parts) & set(LEFT_OUT)]
    return {".".join(("rundlet", *file.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): file for file in files}


def in_c() -> dict[str, str]:
    """Modules of the standard library written in C that are not there from the start: name → file, "" for those built in."""
    bare = subprocess.run([sys.executable, "-ISc", "import sys; print(*sys.modules)"], capture_output=True, text=True, check=True)
    found = dict.fromkeys(set(sys.builtin_module_names) - set(bare.stdout.split()), "")
    return found | {name: spec.origin for name in IN_FILES if (spec := find_spec(name)) and spec.origin and spec.has_location}


def needs(name: str, trees: dict[str, ast.Module]) -> list[str]:
    """The modules that `name` imports at its top, in order, each behind the packages it is in."""
    found: dict[str, None] = {}
    for node in trees[name].body:
        wanted: list[str] = []
        if isinstance(node, ast.Import):
            wanted = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            wanted = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for one in wanted:
            parts = one.split(".")
            found.update(dict.fromkeys(".".join(parts[:n]) for n in range(1, len(parts) + 1)))
    parts = name.split(".")
    return [one for one in [*(".".join(parts[:n]) for n in range(1, len(parts))), *found] if one in trees and one != name]


def order(name: str, trees: dict[str, ast.Module], seen: list[str], done: list[str]) -> list[str]:
    """All modules to load before `name`, inner ones first, appended to `done`. A package that imports its own modules comes behind them."""
    seen.append(name)
    for one in needs(name, trees):
        if one not in seen:
            order(one, trees, seen, done)
            done.append(one)
    return done


class Pieces:
    """What stands behind the head, piece by piece."""

    def __init__(self) -> None:
        self.texts: list[bytes] = []
        self.size = 0

    def add(self, value: "Any") -> "Where":
        """Appends a piece; where it is."""
        text = marshal.dumps(value)
        self.texts.append(text)
        self.size += len(text)
        return self.size - len(text), len(text)


def compiled(body: list[ast.stmt], file: Path) -> "CodeType":
    """The code of statements of a file, without docstrings and assertions."""
    code: CodeType = compile(ast.Module(body, []), str(file), "exec", dont_inherit=True, optimize=2)
    return code


def source(file: Path) -> "Source":
    """A source as startup.py describes it."""
    now = file.stat()
    return str(file.relative_to(PACKAGE)), now.st_size, now.st_mtime_ns


def entry(name: str, file: Path | None, code: "Where | CodeType | None", late: "Late | None" = None) -> "Entry":
    """A module as startup.py describes it."""
    parent, _, own = name.rpartition(".")
    return name, parent, own, str(file or ""), str(file.parent) if file and file.name == "__init__.py" else "", code, late


def bundle() -> bytes:
    """The bundle's bytes."""
    files = sources()
    libraries = {name: Path(library) if library else None for name, library in in_c().items()}
    trees = {name: ast.Module([], []) for name in libraries}
    trees |= {name: ast.fix_missing_locations(Strip().visit(ast.parse(file.read_bytes(), str(file)))) for name, file in files.items()}
    pieces = Pieces()
    index = {name: (source(file), entry(name, file, pieces.add(compiled(trees[name].body, file)))) for name, file in files.items()}
    ready: dict[str, Entry] = {name: entry(name, library, None) for name, library in libraries.items()}
    seldom = {tuple(line.split(":")) for line in SELDOM.read_text().splitlines()}
    for name, file in files.items():
        body = trees[name].body
        left_out = [node for node in body if isinstance(node, ast.FunctionDef) and (name, node.name) in seldom]
        late = (tuple(node.name for node in left_out), pieces.add(compiled(list(left_out), file))) if left_out else None
        ready[name] = entry(name, file, compiled([node for node in body if node not in left_out], file), late)
    starts: dict[str, tuple[Where, ...]] = {}
    first = [*order("rundlet.cli", trees, [], []), "rundlet.cli", "rundlet.life"]  # the package that most verbs are in
    for name in ("rundlet.cli", *VERBS, "rundlet.life.planning"):  # the last one where nothing is kept
        names = first if name == "rundlet.cli" else [one for one in [*order(name, trees, [], []), name] if one not in first]
        made_by = [one for one in files if one.startswith(PLANNING)] if name in KEEPING else []
        known = [source(files[one]) for one in dict.fromkeys(names + made_by) if one in files]
        starts[name] = (pieces.add(tuple(known)), *(pieces.add(part) for part in parts([ready[one] for one in names])))
    where = pieces.add(index)
    digest = blake2b(b"".join(pieces.texts), digest_size=16).digest()
    call = ast.parse(f"begin(fd, {str(PACKAGE)!r}, {len(MAGIC_NUMBER) + HEAD}, {starts}, {where}, {digest!r})", "rundlet").body
    head = marshal.dumps(compiled([*trees["rundlet.startup"].body, *call], files["rundlet.startup"]))
    assert len(head) <= HEAD
    return b"".join([MAGIC_NUMBER, head.ljust(HEAD, b"\0"), *pieces.texts])


def parts(entries: "list[Entry]") -> "list[tuple[Entry, ...]]":
    """Entries by pieces of a size that is read and thrown away at no cost: what several modules have in common stands in it once."""
    found: list[tuple[Entry, ...]] = []
    part: tuple[Entry, ...] = ()
    for one in entries:
        if part and len(marshal.dumps((*part, one))) > PIECE:
            found.append(part)
            part = ()
        part = (*part, one)
    return [*found, part]


def put(path: Path, text: bytes, mode: int) -> None:
    """Writes a file whole or not at all."""
    path.parent.mkdir(exist_ok=True)
    new = path.with_name(f"{path.name}.{os.getpid()}")
    new.write_bytes(text)
    new.chmod(mode)
    new.replace(path)


def unit(path: str) -> bytes:
    """The service of `rundlet watch`, for the command at this path: systemd.service(5), "Command lines"."""
    here, source = PACKAGE / "systemd" / UNIT, PACKAGE.parents[1] / "packaging/systemd" / UNIT
    text = (here if here.exists() else source).read_text()
    if set(path) & set("\"'\\\t\n"):
        sys.exit(f"python -m rundlet.install: systemd runs no program whose path has quotes or backslashes in it: {path}")
    quoted = path.replace("%", "%%")
    if " " in path:
        quoted = f'"{quoted}"'
    return text.replace("ExecStart=/usr/bin/rundlet ", f"ExecStart={quoted} ").encode()


def command(module: str, python: str, bundle: Path) -> bytes:
    """A script that runs what `module` has under the name of run."""
    how = {"python": python, "folder": str(PACKAGE.parent), "bundle": str(bundle), "flags": os.O_CLOEXEC, "head": HEAD}
    return COMMAND.format(module=module, **how).encode()


def taken_away(files: list[Path]) -> None:
    """Has `pip uninstall` remove these as well: adds them to the RECORD of this very package, where there is one.

    packaging.python.org/en/latest/specifications/recording-installed-packages: a path relative to the folder, or an absolute one.
    """
    try:
        known = Distribution.from_name("rundlet")
    except PackageNotFoundError:
        return
    listed = [file for file in known.files or () if file.name == "RECORD"]
    folder = PACKAGE.parent
    if not listed or Path(os.path.abspath(str(known.locate_file("")))) != folder:  # nobody keeps one here, or another rundlet's is found
        return
    path = Path(str(known.locate_file(listed[0])))
    text = path.read_text(encoding="utf-8")
    rows = {os.path.abspath(folder / row[0]) for row in csv.reader(text.splitlines()) if row}
    more = io.StringIO()
    for file in files:
        if os.path.abspath(file) not in rows:
            inside = file.is_relative_to(sys.prefix)
            csv.writer(more, lineterminator="\n").writerow((os.path.relpath(file, folder) if inside else file, "", ""))
    if more.getvalue():
        put(path, (text + more.getvalue()).encode(), path.stat().st_mode & 0o777)


def main(argv: list[str]) -> None:
    """Does what the module's head says."""
    if {"-h", "--help"} & set(argv):
        sys.stdout.write(USAGE)
        return
    if "--apparmor" in argv:
        shipped.install(argv)
        return
    if "no_debug_ranges" not in sys._xoptions:
        again = [sys.executable, *(["-I"] if sys.flags.isolated else []), "-X", "no_debug_ranges", "-m", "rundlet.install", *argv]
        sys.exit(subprocess.run(again, check=False).returncode)
    folder = None
    if "--systemd" in argv:
        at = argv.index("--systemd")
        folder = Path(argv[at + 1]) if argv[at + 1 :] else sys.exit("python -m rundlet.install: --systemd takes a folder")
        argv = argv[:at] + argv[at + 2 :]
    if len(argv) > 1 or any(word.startswith("-") for word in argv):
        sys.exit(USAGE.rstrip())
    try:
        write(Path(os.path.abspath(argv[0])) if argv else None, folder)
    except OSError as e:
        sys.exit(f"python -m rundlet.install: {e.filename}: {(e.strerror or '').lower()}")


def write(target: Path | None, units: Path | None) -> None:
    """Writes the bundle, the home, and where they are asked for a command and a folder's unit. Raises OSError."""
    file = PACKAGE / "__pycache__" / f"startup.{sys.implementation.cache_tag}"
    put(file, bundle(), 0o644)
    house = file.with_name(f"home.{sys.implementation.cache_tag}")
    python = home.make(house)
    worker = file.with_stem("worker")
    put(worker, command("worker", python, file), 0o755)
    made = [file, worker, *(path for path in sorted(house.rglob("*")) if path.is_symlink() or not path.is_dir())]
    if target:
        put(target, command("cli", python, file), 0o755)
        made.append(target)
    taken_away(made)
    if units:
        put(units / UNIT, unit(str(target or Path(sysconfig.get_path("scripts"), "rundlet").absolute())), 0o644)


if __name__ == "__main__":
    main(sys.argv[1:])
