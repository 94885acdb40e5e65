"""A home for the interpreter that starts the command: a folder which it takes for that of a virtual environment, with nothing in it but
what CPython needs before the first line of a program.

    bin/python                          a link to the interpreter: the command's first line names it
    pyvenv.cfg                          home = std/bin, of which the interpreter looks for its standard library
    std/lib/python3.11/os.py            empty: by it the folder is known (Modules/getpath.py in CPython)
    std/lib/python3.11/lib-dynload      nothing in it but a file without a name that means anything: pip takes no empty folders away
    std/lib/python3.11/encodings.py     codec.py, which tells the interpreter where all else is

Another version of Python behind the link finds nothing of its own there, and goes where it would have gone.
"""

import ast
import os
import py_compile
import shutil
import subprocess
import sys
from pathlib import Path

FIRST_LINE = 254  # characters that Linux reads of it: BINPRM_BUF_SIZE in include/uapi/linux/binfmts.h
TELLING = (
    "path", "prefix", "exec_prefix", "base_prefix", "base_exec_prefix", "platlibdir", "executable", "_base_executable", "_stdlib_dir",
)  # fmt: skip
ASK = f"""
import sys
first = sys.modules["encodings"]
print([{{name: getattr(sys, name) for name in {TELLING} if hasattr(sys, name)}}, bool(getattr(first, "PLAIN", None))])
import codecs, encodings.idna, json, locale
assert locale.normalize("de_DE") != "de_DE" and "\\xe9".encode("latin-1") == b"\\xe9" and codecs.getreader("utf-8")
"""


def make(folder: Path) -> str:
    """Makes the home; the path of the interpreter to start: the one in there, or the plain one where that does not do what it should.

    One that is as it should be already is left alone: commands may be starting from it.
    """
    python = folder / "bin/python"
    if sys.implementation.name != "cpython" or len(f"#!{python} -ISBXutf8") > FIRST_LINE:
        return sys.executable
    try:
        plain, _ = _asked(sys.executable)
        real = Path(os.__file__).parent
        library = folder / "std" / real.relative_to(sys.base_prefix)
        text = _encodings(plain, f"{real}/encodings")
        if not (_is(library / "encodings.py", text) and _is(python, sys.executable)):
            shutil.rmtree(folder, ignore_errors=True)
            _fill(folder, library, text)
        if _asked(str(python)) == (plain, True):
            return str(python)
    except (OSError, ValueError, SyntaxError, subprocess.CalledProcessError):
        pass  # a Python that knows its home in another way: it starts as ever
    shutil.rmtree(folder, ignore_errors=True)
    return sys.executable


def _is(path: Path, text: str) -> bool:
    """Whether a file holds the text, or a link names it."""
    return path.exists() and (path.readlink() == Path(text) if path.is_symlink() else path.read_text() == text)


def _encodings(plain: "dict[str, object]", real: str) -> str:
    """The text of the module: codec.py, with what it has to tell."""
    text = Path(__file__).with_name("codec.py").read_text()
    for name, line, value in (("PLAIN", 'PLAIN: "dict[str, object]" = {}', plain), ("REAL", 'REAL = ""', real)):
        before, found, after = text.partition(f"\n{line}")
        if not found:
            raise ValueError(line)
        text = f"{before}\n{name} = {value!r}{after}"
    return text


def _fill(folder: Path, library: Path, text: str) -> None:
    (library / "lib-dynload").mkdir(parents=True)
    (library / "lib-dynload/empty").touch()
    (library / "os.py").touch()
    (library / "encodings.py").write_text(text)
    py_compile.compile(str(library / "encodings.py"), doraise=True)
    (folder / "pyvenv.cfg").write_text(f"home = {folder}/std/bin\n")
    (folder / "bin").mkdir()
    (folder / "bin/python").symlink_to(sys.executable)


def _asked(python: str) -> "tuple[dict[str, object], bool]":
    """What an interpreter knows of its home once it has started, and whether that is one of ours."""
    done = subprocess.run([python, "-ISBXutf8", "-c", ASK], capture_output=True, text=True, check=True, env={})
    known, ours = ast.literal_eval(done.stdout)
    return known, ours and not done.stderr
