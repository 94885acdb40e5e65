"""The rooms: imports point one way, and a container's start imports what is written down and no more.

The lists are tests/golden/imports/VERB.txt; RUNDLET_WRITE_GOLDEN=1 writes them anew, to be read before they are kept.
"""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import rundlet
from rundlet.options import VERBS

PACKAGE = Path(rundlet.__file__).parent
GOLDEN = Path(__file__).parents[1] / "golden" / "imports"
START_PATH = ("create", "start", "run", "exec", "state", "kill", "delete", "list")

# room → the rooms (or modules) it may import at run time, besides itself
LEAVES = {"errors", "kernel"}
MAY: dict[str, set[str]] = {
    "": {"api"},  # by name, when one is asked for
    "errors": set(),
    "kernel": set(),
    "helptexts": set(),
    "log": set(),
    "options": {"errors"},
    "jsontext": {"errors"},
    "__main__": {"cli"},
    "install": {"home", "shipped"},
    "shipped": {"plan.label"},
    "home": set(),
    "codec": set(),
    "startup": set(),
    "cli": {"options", "log", "errors", "cliref", "", "life.kernellog", "confine.denials"},  # the last two once a command has failed
    "worker": {"cli", "options", "log", "errors", "jsontext", "executor", "life"},
    "cliref": {"options", "helptexts", "errors", ""},
    "keep": set(),
    "host": {"plan.label", "cgroup.layout", "jsontext", *LEAVES},  # a label is text, and read in one place
    "spec": {"jsontext", *LEAVES},
    "plan": {"spec.validate", *LEAVES},  # maps written in an option of a mount are checked as those of the configuration
    "executor": {"plan.step", "plan.value", *LEAVES},
    "cgroup": {"plan.step", "plan.value", "executor", "jsontext", *LEAVES},
    "seccomp": {"plan", "executor", "keep", "jsontext", *LEAVES},
    "life": {"spec", "plan", "executor", "cgroup", "seccomp", "keep", "host", "log", "jsontext", "", *LEAVES},
    "confine": {"life", "spec", "plan", "executor", "cgroup", "seccomp", "host", "log", "options", "jsontext", "", *LEAVES},
    "api": {"confine", "life", "spec", "executor", "cgroup", "host", "log", "options", "jsontext", "plan", "", *LEAVES},
    "aio": {"api"},
    "lab": {"log", "options", "errors"},
}
# besides, for types alone
MAY_FOR_TYPES = {
    "plan": {"spec.types"},
    "host": {"plan"},
    "cgroup": {"plan", "spec.types"},
    "seccomp": {"spec.types"},
    "life": {"options"},
    "install": {"startup"},
    "options": {"executor"},
    "": {"aio"},
}
PURE = ("plan",)
IMPURE_MODULES = {
    "asyncio", "ctypes", "fcntl", "io", "mmap", "multiprocessing", "os", "pathlib", "posix", "resource", "select", "selectors", "shutil",
    "signal", "socket", "_socket", "subprocess", "_posixsubprocess", "tempfile", "threading", "time",
}  # fmt: skip
DEAR = {
    "argparse", "asyncio", "collections", "contextlib", "ctypes", "dataclasses", "enum", "functools", "__future__", "json", "logging", "os",
    "pathlib", "re", "socket", "struct", "subprocess", "types", "typing", "site",
}  # fmt: skip
OFF_THE_PATH = ("api", "aio", "confine", "lab", "cliref", "helptexts")

FILES = sorted(PACKAGE.rglob("*.py"))


def name_of(file: Path) -> str:
    """Below the package: "life.create", "life" for its __init__, "" for the package itself."""
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {name_of(file) for file in FILES}


def is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def imports(file: Path) -> tuple[set[str], set[str]]:
    """The full names of the modules a file imports: (at run time, for types alone), wherever in it the import stands."""
    found: tuple[set[str], set[str]] = set(), set()
    package = name_of(file) if file.name == "__init__.py" else name_of(file).rpartition(".")[0]

    def visit(node: ast.AST, for_types: bool) -> None:
        if is_for_types(node):
            assert isinstance(node, ast.If)
            for statement in node.body:
                visit(statement, True)
            for statement in node.orelse:
                visit(statement, for_types)
            return
        if isinstance(node, ast.Import):
            found[for_types].update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = ["rundlet", *package.split(".")][: len(package.split(".")) + 2 - node.level] if package else ["rundlet"]
                base = ".".join([*above, base]).rstrip(".")
            for alias in node.names:  # `from rundlet.plan import mounts` imports a module
                module = f"{base}.{alias.name}"
                found[for_types].add(module if module.removeprefix("rundlet.") in NAMES and module.startswith("rundlet.") else base)
        for child in ast.iter_child_nodes(node):
            visit(child, for_types)

    visit(ast.parse(file.read_text()), False)
    return found


def ours(modules: set[str]) -> set[str]:
    return {module.removeprefix("rundlet").removeprefix(".") for module in modules if module.partition(".")[0] == "rundlet"}


def within(module: str, allowed: set[str]) -> bool:
    parts = module.split(".")
    return any(".".join(parts[:n]) in allowed for n in range(1, len(parts) + 1))


@pytest.mark.parametrize("file", FILES, ids=[name_of(file) or "rundlet" for file in FILES])
def test_imports_point_one_way(file: Path) -> None:
    name = name_of(file)
    room = name.partition(".")[0]
    assert room in MAY, f"{name} is in no room"
    running, typing = (ours(modules) for modules in imports(file))
    allowed = MAY[room] | {room}
    assert not sorted(module for module in running if not within(module, allowed))
    allowed |= MAY_FOR_TYPES.get(room, set())
    assert not sorted(module for module in typing if not within(module, allowed))


@pytest.mark.parametrize("file", [file for file in FILES if name_of(file).partition(".")[0] in PURE], ids=name_of)
def test_plans_are_pure(file: Path) -> None:
    running, _ = imports(file)
    assert not {module.partition(".")[0] for module in running} & IMPURE_MODULES
    calls = [node.func for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)]
    named = {called.id for called in calls if isinstance(called, ast.Name)}
    assert not named & {"open", "print", "input", "exec", "eval", "__import__"}


LIST_MODULES = """
import sys
bare = set(sys.modules)
sys.path.append(sys.argv[1])
import rundlet.cli
__import__(sys.argv[2])
print("\\n".join(sorted(set(sys.modules) - bare)))
"""


def imported(verb: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-ISB", "-c", LIST_MODULES, PACKAGE.parent, VERBS[verb][0]], capture_output=True, text=True, env={}, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("verb", START_PATH)
def test_a_start_imports_what_is_written(verb: str) -> None:
    modules = imported(verb)
    assert not {module.partition(".")[0] for module in modules} & DEAR
    assert not {".".join(module.split(".")[:2]) for module in modules} & {f"rundlet.{room}" for room in OFF_THE_PATH}
    file = GOLDEN / f"{verb}.txt"
    if os.environ.get("RUNDLET_WRITE_GOLDEN"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join(modules) + "\n")
    assert file.exists(), f"{file.name} is not written yet: RUNDLET_WRITE_GOLDEN=1"
    assert modules == file.read_text().splitlines()


@pytest.mark.parametrize("verb", sorted(set(VERBS) - set(START_PATH)))
def test_every_other_verb_has_its_module(verb: str) -> None:
    """These may import any library, when it is installed: site is needed to find it."""
    done = subprocess.run(
        [sys.executable, "-IB", "-c", LIST_MODULES + "assert callable(sys.modules[sys.argv[2]].main)", PACKAGE.parent, VERBS[verb][0]],
        capture_output=True, text=True, env={}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_the_lists_are_of_verbs_that_exist() -> None:
    assert {file.stem for file in GOLDEN.glob("*.txt")} <= set(START_PATH) <= set(VERBS)
