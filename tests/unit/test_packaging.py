"""The wheel, the command, the start-up bundle and the C compiler's part: what is installed works in every layout and an empty environment."""

import ast
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

from rundlet import home, install

ROOT = Path(__file__).parents[2]
MACHINE = os.uname().machine


SELDOM = (ROOT / "src/rundlet/seldom.txt").read_text().split()
COMPILER = ROOT / "src/rundlet/executor/compile.py"


def compiled(output: Path, cc: str | None = None) -> Path:
    environment = os.environ | ({"CC": cc} if cc else {})
    subprocess.run([sys.executable, "-B", COMPILER, output], env=environment, check=True)
    return output


def pip(*words: str | Path) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, ROOT)
    [file] = folder.iterdir()
    return file


# the wheel


def test_the_wheel_is_for_every_python_on_one_architecture(wheel: Path) -> None:
    assert wheel.name.endswith(f"-py3-none-linux_{MACHINE}.whl")


def test_the_wheel_holds_programs_and_no_sources_of_them(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        modes = {entry.filename: entry.external_attr >> 16 & 0o7777 for entry in archive.infolist()}
    assert modes["rundlet/executor/executor"] == 0o755
    [scripts] = {name.rpartition("/")[0] for name in modes if ".data/scripts/" in name}
    assert modes[f"{scripts}/rundlet"] == 0o755
    assert f"{scripts}/rundlet-python" in modes
    assert {f"rundlet/apparmor/{path.name}" for path in (ROOT / "packaging/apparmor").iterdir()} <= set(modes)
    data = scripts.removesuffix("scripts") + "data/share"
    assert {f"{data}/man/man8/rundlet.8", f"{data}/bash-completion/completions/rundlet"} <= set(modes)
    assert not [name for name in modes if name.endswith((".c", ".o", ".so", ".pyc"))]
    sources = {str(path.relative_to(ROOT / "src")) for path in (ROOT / "src").rglob("*.py")}
    assert sources - set(modes) == {"rundlet/executor/compile.py"}


def elf(path: Path) -> str:
    return subprocess.run(["readelf", "-hldW", path], capture_output=True, text=True, check=True).stdout


def test_the_executor_is_static_and_small(tmp_path: Path) -> None:
    program = compiled(tmp_path / "program")
    text = elf(program)
    assert "INTERP" not in text
    assert "There is no dynamic section" in text
    assert "RWE" not in text
    assert program.stat().st_size < 8192
    assert program.stat().st_mode & 0o777 == 0o755


@pytest.mark.skipif(not shutil.which("aarch64-linux-gnu-gcc"), reason="there is no aarch64-linux-gnu-gcc")
def test_a_cross_compiler_is_asked_what_it_compiles_for(tmp_path: Path) -> None:
    program = compiled(tmp_path / "program", cc="aarch64-linux-gnu-gcc")
    assert "AArch64" in elf(program)
    code = f"import sys; sys.path.insert(0, {str(COMPILER.parent)!r}); import compile; print(compile.architecture())"
    environment = os.environ | {"CC": "aarch64-linux-gnu-gcc -O1"}
    assert subprocess.run([sys.executable, "-Bc", code], env=environment, capture_output=True, check=True).stdout == b"aarch64\n"


def test_no_compiler_is_said(tmp_path: Path) -> None:
    code = f"import sys; sys.path.insert(0, {str(COMPILER.parent)!r}); import compile; compile.architecture()"
    done = subprocess.run([sys.executable, "-Bc", code], env={"CC": "/no/cc"}, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("a C compiler is needed to build rundlet (set CC, or install gcc): ")


# the service of watch


@pytest.mark.parametrize("path", ["/usr/bin/rundlet", "/opt/a folder/100%/rundlet"])
def test_the_service_is_one_that_systemd_takes(tmp_path: Path, path: str) -> None:
    """And a small one: systemd-analyze(1) "security" counts what it leaves open, from 0 to 10."""
    if not shutil.which("systemd-analyze"):
        pytest.skip("there is no systemd-analyze")
    command = Path(f"{tmp_path}{path}")
    command.parent.mkdir(parents=True)
    command.write_text("#!/bin/sh\n")
    command.chmod(0o755)
    unit = tmp_path / "rundlet-watch.service"
    unit.write_bytes(install.unit(str(command)))
    checked = call("/usr/bin/systemd-analyze", "verify", "--man=no", unit)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
    exposure = call("/usr/bin/systemd-analyze", "security", "--offline=yes", "--no-pager", "--threshold=40", unit)
    assert exposure.returncode == 0, exposure.stdout


def test_the_service_is_in_the_wheel(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read("rundlet/systemd/rundlet-watch.service").decode()
    assert text == (ROOT / "packaging/systemd/rundlet-watch.service").read_text()
    assert "\nExecStart=/usr/bin/rundlet watch\n" in text


def test_the_service_is_installed_for_the_command(place: Path) -> None:
    assert f"\nExecStart={place / 'bin/rundlet'} watch\n" in (place / "units/rundlet-watch.service").read_text()
    done = call(sys.executable, "-m", "rundlet.install", "--systemd", env={"PYTHONPATH": str(ROOT / "src")})
    assert (done.returncode, done.stderr) == (1, "python -m rundlet.install: --systemd takes a folder\n")
    with pytest.raises(SystemExit, match="quotes or backslashes"):
        install.unit("/opt/it's/rundlet")


# the command as pip installs it, beside a script that tells how it was started


# In the C locale Python itself adds LC_CTYPE to the environment (PEP 538), whatever its options; the shell sets PWD.
@pytest.fixture
def bin_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "a folder" / "bin"
    folder.mkdir(parents=True)
    shutil.copy(ROOT / "bin/rundlet", folder / "rundlet")
    (folder / "rundlet-python").write_text(
        f"#!{sys.executable}\nimport sys, os\nf = sys.flags\n"
        "print(f.isolated, f.no_site, f.dont_write_bytecode, f.utf8_mode, sys.argv, sorted({*os.environ} - {'LC_CTYPE', 'PWD'}))\n"
    )
    return folder


def call(*argv: str | Path, cwd: Path | str = "/", env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, capture_output=True, text=True, cwd=cwd, env={} if env is None else env, check=False)


def test_python_is_started_bare(bin_folder: Path) -> None:
    done = call(bin_folder / "rundlet", "one", "--two", "")
    assert (done.returncode, done.stderr) == (0, "")
    script = str(bin_folder / "rundlet-python")
    assert done.stdout == f"1 1 1 1 {[script, 'one', '--two', '']} []\n"


def test_the_environment_arrives(bin_folder: Path) -> None:
    assert call(bin_folder / "rundlet", env={"A": "1", "B": ""}).stdout.endswith("['A', 'B']\n")


@pytest.mark.parametrize("how", ["absolute link", "relative link", "link of a link", "relative name"])
def test_it_finds_itself(bin_folder: Path, tmp_path: Path, how: str) -> None:
    link = tmp_path / "other-name"
    if how == "absolute link":
        link.symlink_to(bin_folder / "rundlet")
    elif how == "relative link":
        link.symlink_to("a folder/bin/rundlet")
    elif how == "link of a link":
        (tmp_path / "first").symlink_to(bin_folder / "rundlet")
        link.symlink_to("first")
    else:
        link = Path("a folder/bin/rundlet")
    assert str(bin_folder / "rundlet-python") in call(link, cwd=tmp_path).stdout


def test_a_shell_script_around_a_long_path(bin_folder: Path) -> None:
    """Some installers write this where the interpreter's path is too long for a first line."""
    first = f"#!/bin/sh\n'''exec' {sys.executable} \"$0\" \"$@\"\n' '''\n"
    (bin_folder / "rundlet-python").write_text(first + "import sys\nprint(sys.argv[1:])\n")
    assert call(bin_folder / "rundlet", "one", "-two").stdout == "['one', '-two']\n"


@pytest.mark.parametrize(
    ("script", "why"),
    [
        (None, "the installation is incomplete, cannot read "),
        ("import sys\n", "the first line names no interpreter: "),
        ("", "the first line names no interpreter: "),
        ("#!" + "x" * 5000 + "\n", "cannot execute the interpreter " + "x" * 5000),
        ("#!/no/python\n", "cannot execute the interpreter /no/python"),
    ],
)
def test_what_is_wrong_is_said(bin_folder: Path, script: str | None, why: str) -> None:
    file = bin_folder / "rundlet-python"
    file.unlink()
    if script is not None:
        file.write_text(script)
    done = call(bin_folder / "rundlet", "state", "x")
    assert (done.returncode, done.stdout) == (127, "")
    assert done.stderr == f"rundlet: {why}{file if why.endswith(' ') else ''}\n"


# installations


@pytest.mark.parametrize("layout", ["venv", "--prefix", "--target"])
def test_installed(wheel: Path, tmp_path: Path, layout: str) -> None:
    place = tmp_path / "place"
    if layout == "venv":
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", place], check=True)
        pip("--python", place / "bin/python", "install", "--no-deps", "--no-index", wheel)
    else:
        pip("install", "--no-deps", "--no-index", "--ignore-installed", layout, place, wheel)
    [command] = place.rglob("bin/rundlet")
    link = tmp_path / "rundlet"
    link.symlink_to(command)
    for program in (command, link):
        done = call(program, "--version")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("rundlet version ")
    [executor] = place.rglob("rundlet/executor/executor")
    assert os.access(executor, os.X_OK)
    if layout != "--target":  # the fast path: found without site, compiled beforehand, nothing else of site-packages touched
        code = f"import sys; sys.argv = ['', '--version']; __file__ = {str(command) + '-python'!r}\n"
        code += (ROOT / "bin/rundlet-python").read_text()
        traced = call(sys.executable, "-ISBvXutf8", "-c", code).stderr
        assert "import 'rundlet.cli'" in traced
        assert "import 'site'" not in traced
        assert f"code object from '{executor.parents[1]}/cli.py'" not in traced  # not compiled anew
    assert not list(place.rglob("*.egg-link"))


# the sources as a release has them


def test_the_sources_of_a_release_are_all_that_the_pages_and_doors_speak_of(tmp_path: Path) -> None:
    words: list[str | Path] = [sys.executable, "-m", "hatchling", "build", "--target", "sdist", "--directory", tmp_path]
    subprocess.run(words, cwd=ROOT, check=True, capture_output=True)
    [file] = tmp_path.iterdir()
    with tarfile.open(file) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
        pages = [name for name in names if name.endswith(".md")]
        texts = {name: archive.extractfile(f"{file.name.removesuffix('.tar.gz')}/{name}") for name in pages}
        linked = [
            (name, os.path.normpath(os.path.join(os.path.dirname(name), target)))
            for name, text in texts.items() if text
            for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text.read().decode())
        ]
    assert {"README.md", "CHANGELOG.md", "docs/api.md"} <= set(pages)
    assert [(page, target) for page, target in linked if not any(name == target or name.startswith(target + "/") for name in names)] == []
    doors = re.findall(r"(?:demo|bench)/\w+\.py", (ROOT / "Makefile").read_text())
    assert {*doors, "Makefile", "LICENSE", "pyproject.toml", "hatch_build.py", "src/rundlet/executor/executor.c"} <= names


# the command and the bundle that `python -m rundlet.install` writes


@pytest.fixture(scope="module")
def place(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with rundlet in it, and the command written for it."""
    folder = tmp_path_factory.mktemp("installed") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    pip("--python", folder / "bin/python", "install", "--no-deps", "--no-index", wheel)
    words: list[str | Path] = [folder / "bin/python", "-I", "-m", "rundlet.install", folder / "bin/rundlet", "--systemd", folder / "units"]
    subprocess.run(words, check=True)
    return folder


def test_pip_takes_all_of_it_away(wheel: Path, tmp_path: Path) -> None:
    place = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place], check=True)
    before = {path for path in place.rglob("*") if "__pycache__" not in path.parts}
    pip("--python", place / "bin/python", "install", "--no-deps", "--no-index", wheel)
    for _ in range(2):  # what is in the list already is not added again
        for command in ("bin/rundlet", "bin/another"):
            subprocess.run([place / "bin/python", "-I", "-m", "rundlet.install", place / command], check=True)
    assert call(place / "bin/another", "--version").returncode == 0
    [record] = place.glob("lib/*/site-packages/rundlet-*.dist-info/RECORD")
    assert len(set(lines := record.read_text().splitlines())) == len(lines)
    pip("--python", place / "bin/python", "uninstall", "--yes", "rundlet")
    left = {path for path in place.rglob("*") if path.is_file() or path.is_symlink()} - before
    # before 23.2 pip asks where a link leads, and removes none that leads out of the environment, as the home's to the interpreter does
    assert {path.name for path in left} <= ({"python"} if tuple(map(int, version("pip").split(".")[:2])) < (23, 2) else set())


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["--help"], 0, install.USAGE),
        (["--nonsense"], 1, install.USAGE),
        (["one", "two"], 1, install.USAGE),
        (["/no/such/folder/rundlet"], 1, "python -m rundlet.install: /no/such/folder: no such file or directory\n"),
        (["--systemd", "/no/such/folder"], 1, "python -m rundlet.install: /no/such/folder: no such file or directory\n"),
    ],
)
def test_words_that_it_does_not_know_write_nothing(place: Path, tmp_path: Path, words: list[str], status: int, said: str) -> None:
    done = call(place / "bin/python", "-I", "-m", "rundlet.install", *words, cwd=tmp_path)
    assert (done.returncode, done.stdout + done.stderr) == (status, said)
    assert list(tmp_path.iterdir()) == []


def loaded(place: Path) -> set[str]:
    """The modules of rundlet that a start of the command compiled or read from .pyc files of their own."""
    done = call(place / "bin/python", "-ISBvXutf8", place / "bin/rundlet", "--version")
    assert (done.returncode, done.stdout.partition(" version ")[0]) == (0, "rundlet"), done.stderr
    return {name for name, file in sources(place).items() if f"code object from '{file}'" in done.stderr or f"matches {file}" in done.stderr}


def sources(place: Path) -> dict[str, Path]:
    [package] = place.glob("lib/*/site-packages/rundlet")
    return {str(file.relative_to(package)): file for file in package.rglob("*.py") if "__pycache__" not in file.parts}


def interpreter(place: Path) -> Path:
    """What the command's first line names."""
    first, _, options = (place / "bin/rundlet").read_text().splitlines()[0].partition(" ")
    assert options == "-ISBXutf8"
    return Path(first.removeprefix("#!"))


def test_the_command_names_its_interpreter(place: Path) -> None:
    assert interpreter(place).readlink() == place / "bin/python"
    assert os.access(place / "bin/rundlet", os.X_OK)
    assert call(place / "bin/rundlet", "--version").stdout.startswith("rundlet version ")


def test_a_start_reads_the_bundle_alone(place: Path) -> None:
    assert loaded(place) == set()


def test_what_is_left_out_of_a_start_is_there_when_it_is_called(place: Path) -> None:
    assert "rundlet.options:_unknown" in SELDOM
    done = call(place / "bin/python", "-ISBvXutf8", place / "bin/rundlet", "run", "--nonsense")
    assert done.returncode == 1
    assert "rundlet: unknown option --nonsense for run; see rundlet run --help\n" in done.stderr
    assert "code object from '" + str(sources(place)["options.py"]) not in done.stderr


@pytest.mark.parametrize("name", SELDOM)
def test_what_is_left_out_of_a_start_is_a_function(name: str) -> None:
    """bench/seldom.py prints the list."""
    module, _, function = name.partition(":")
    file = ROOT / "src" / (module.replace(".", "/") + ".py")
    file = file if file.exists() else file.with_suffix("") / "__init__.py"
    found = [node.name for node in ast.parse(file.read_text()).body if isinstance(node, ast.FunctionDef)]
    assert found.count(function) == 1


def test_a_changed_source_is_not_taken_from_the_bundle(place: Path) -> None:
    file = sources(place)["errors.py"]
    before = file.stat()
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    try:
        assert loaded(place) == {"errors.py"}
    finally:
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_library_of_the_interpreter_that_is_elsewhere_now_is_found(place: Path, tmp_path: Path) -> None:
    """As after an update of Python: the rest of the bundle is as good as before."""
    [bundle] = (file for file in place.glob("lib/*/site-packages/rundlet/__pycache__/startup.*") if file.suffix != ".pyc")
    text = bundle.read_bytes()
    try:
        bundle.write_bytes(text.replace(b"/_json.", b"/_gone."))
        assert bundle.read_bytes() != text
        done = call(place / "bin/python", "-ISBvXutf8", place / "bin/rundlet", "--root", tmp_path, "state", "none")
        assert done.stderr.endswith("\nrundlet: container none does not exist\n")
        assert not [path for path in sources(place).values() if f"code object from '{path}" in done.stderr]
    finally:
        bundle.write_bytes(text)


@pytest.mark.parametrize("bytes_", [None, b"", b"another"])
def test_without_the_bundle_it_is_only_slower(place: Path, bytes_: bytes | None) -> None:
    [bundle] = (file for file in place.glob("lib/*/site-packages/rundlet/__pycache__/startup.*") if file.suffix != ".pyc")
    text = bundle.read_bytes()
    try:
        bundle.unlink()
        if bytes_ is not None:
            bundle.write_bytes(bytes_)
        assert {"cli.py", "errors.py", "options.py"} <= loaded(place)
    finally:
        bundle.write_bytes(text)


def test_tracebacks_name_file_and_line(place: Path) -> None:
    """What the bundle holds is the source's code, without columns."""
    code = (place / "bin/rundlet").read_text().replace("from rundlet.cli import run\nrun()", "from rundlet.jsontext import loads\nloads(7, '')")
    done = call(place / "bin/python", "-ISBXutf8", "-c", code)
    file = sources(place)["jsontext.py"]
    line = next(n for n, text in enumerate(file.read_text().splitlines(), 1) if "text.decode()" in text)
    assert f'  File "{file}", line {line}, in loads\n' in done.stderr


def test_classes_made_of_annotations_work(place: Path) -> None:
    """The bundle holds no annotations but those of classes."""
    code = (place / "bin/rundlet").read_text().replace("from rundlet.cli import run\nrun()", "from rundlet.seccomp.bpf import Case\nprint(Case((), 7))")
    assert call(place / "bin/python", "-ISBXutf8", "-c", code).stdout == "Case(conditions=(), verdict=7)\n"


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_closed_descriptors_are_opened(place: Path, tmp_path: Path, closed: str) -> None:
    """Else the next file that is opened would be taken for stdin, stdout or stderr."""
    code = (place / "bin/rundlet").read_text().replace("\nrun()", "\nfrom rundlet import cli\ncli.main = look\nrun()")
    file = tmp_path / "seen"
    look = (
        "def look(argv, options):\n    import io, posix\n    seen = [posix.readlink(f'/proc/self/fd/{n}') for n in range(3)]\n"
        f"    io.open({str(file)!r}, 'w').write('\\n'.join(seen))\n    return 0\n"
    )
    script = tmp_path / "script"
    script.write_text(look + code)
    command = f'exec "$0" -ISBXutf8 "$1" {closed}'
    subprocess.run(["sh", "-c", command, place / "bin/python", script], check=True, stdin=subprocess.PIPE, capture_output=True)
    for number, where in enumerate(file.read_text().splitlines()):
        assert where.startswith("/dev/null" if f"{number}<&-" in closed or f"{number}>&-" in closed else "pipe:")


# the interpreter's home


KNOWN = """
import sys
for name, value in sorted(vars(sys).items()):
    if type(value) in (str, list, tuple) and name not in ("__doc__", "argv", "orig_argv", "path_hooks"):
        print(name, value)
print(sys.flags)
"""


def test_after_a_start_from_the_home_the_interpreter_is_the_plain_one(place: Path) -> None:
    plain, ours = (call(python, "-ISBXutf8", "-c", KNOWN) for python in (place / "bin/python", interpreter(place)))
    assert (ours.stdout.splitlines(), ours.stderr) == (plain.stdout.splitlines(), "")


CODECS = """
import sys
assert "codecs" not in sys.modules and type(sys.modules["encodings"].PLAIN) is dict
text, half = sys.stdin.read(), []
assert text == "a\\u20ac\\udcff\\U0001f600\\n", ascii(text)
import codecs, encodings, io, pkgutil
raw = text.encode("utf-8", "surrogateescape")
here = codecs.lookup("utf-8")
import encodings.utf_8
real = encodings.utf_8.getregentry()
assert isinstance(here, tuple) and len(here) == 4 and here.name == real.name
for errors in ("surrogateescape", "replace", "ignore"):
    one, other = (codec.incrementaldecoder(errors) for codec in (here, real))
    for end in range(len(raw)):
        assert one.decode(raw[end : end + 1]) == other.decode(raw[end : end + 1]) and one.getstate() == other.getstate()
        if end % 3 == 2:
            one.setstate(one.getstate())
    assert one.decode(b"\\xe2", True) == other.decode(b"\\xe2", True)
    one.decode(b"\\xe2")
    one.reset()
    assert one.getstate() == (b"", 0)
    one, other = (codec.incrementalencoder(errors) for codec in (here, real))
    assert one.encode(text) == other.encode(text) and one.getstate() == other.getstate() == 0
    one.setstate(0)
    one.reset()
    for at in (0, 1):
        assert here[at]((text, raw)[at], errors) == real[at]((text, raw)[at], errors)
    assert here.streamreader(io.BytesIO(raw), errors).read() == real.streamreader(io.BytesIO(raw), errors).read() == here.decode(raw, errors)[0]
    for codec in (here, real):
        half.append(io.BytesIO())
        codec.streamwriter(half[-1], errors).write(text)
    assert half[-1].getvalue() == half[-2].getvalue() == codecs.encode(text, "utf-8", errors)
for bad in (lambda: here.decode(b"\\xe2"), lambda: here.encode("\\udcff"), lambda: here.incrementaldecoder().decode(b"\\xff")):
    try:
        bad()
    except UnicodeError:
        pass
    else:
        raise AssertionError
try:
    codecs.lookup("no such codec")
except LookupError as fault:
    assert "unknown encoding: no such codec" in str(fault), fault
else:
    raise AssertionError
names = {module.name for module in pkgutil.iter_modules(encodings.__path__)} - {"aliases", "mbcs", "oem", "cp65001"}
assert len(names) > 100
for name in names:
    assert codecs.lookup(name) is codecs.lookup(name.upper())
assert set(encodings.aliases.aliases.values()) - names <= {"mbcs", "oem"}
assert encodings.normalize_encoding("a b-c") == "a_b_c"
import locale, json, subprocess, email.message
print(subprocess.run([sys.executable, "-c", "import encodings; print(encodings.search_function.__module__)"], capture_output=True, text=True).stdout)
"""


def test_a_start_from_the_home_knows_every_codec(place: Path) -> None:
    argv: list[str | Path] = [interpreter(place), "-ISBXutf8", "-c", "import sys\nsys.stdin.reconfigure(errors='surrogateescape')\n" + CODECS]
    done = subprocess.run(argv, input=b"a\xe2\x82\xac\xff\xf0\x9f\x98\x80\n", capture_output=True, env={}, check=False)
    assert done.stderr.decode().splitlines() == []
    assert (done.returncode, done.stdout.decode()) == (0, "encodings\n\n")


def test_a_python_of_another_version_starts_from_its_own_home(place: Path) -> None:
    """There is nothing of its name in ours."""
    [library] = interpreter(place).parents[1].glob("std/lib*/python3.*")
    other = library.with_name("python2.0")
    library.rename(other)
    try:
        done = call(place / "bin/rundlet", "--help")
    finally:
        other.rename(library)
    assert (done.returncode, done.stderr) == (0, "")
    assert call(place / "bin/rundlet", "--help").stdout == done.stdout


def test_where_there_can_be_no_home_the_interpreter_is_the_plain_one(tmp_path: Path) -> None:
    assert home.make(tmp_path / ("x" * 200) / ("y" * 60)) == sys.executable
    (tmp_path / "file").touch()
    assert home.make(tmp_path / "file/home") == sys.executable
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_a_home_that_is_as_it_should_be_is_left_alone(place: Path) -> None:
    folder = interpreter(place).parents[1]
    before = {file: file.lstat().st_ino for file in folder.rglob("*")}
    subprocess.run([place / "bin/python", "-I", "-m", "rundlet.install", place / "bin/rundlet"], check=True)
    assert before == {file: file.lstat().st_ino for file in folder.rglob("*")}


def test_the_version_of_python_that_is_asked_for() -> None:
    assert sysconfig.get_python_version() >= "3.11"
