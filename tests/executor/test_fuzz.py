"""The executor's logic under AddressSanitizer and UndefinedBehaviorSanitizer, fed with programs at the edge (harness.c says how).

Each check of executor.c is also taken out of a copy, one at a time: the same inputs must find every hole, or they prove nothing.
"""

import os
import subprocess
from pathlib import Path

import pytest

from tests.executor.builds import SOURCE, fuzzing, hosted, sanitizing
from tests.executor.corpus import inputs
from tests.executor.model import PUT, VALUE, Address, Kept, Op, pack

RUNS = 200_000  # of coverage-guided search: as many on a slow machine, where they take longer than 10 seconds
SANITIZERS = {"ASAN_OPTIONS": "detect_leaks=0:abort_on_error=0:exitcode=1", "UBSAN_OPTIONS": "print_stacktrace=1"}

FOUND = ("AddressSanitizer", "runtime error", "the executor ")  # a sanitizer's word, or the harness's

CLAIM = "if (n <= 0 || (u64)n > size)\n\t\t\treturn 0;\n\t\t"
# name: (what stands in executor.c, what stands there instead)
HOLES = {
    "a number half behind the data": ("inside(value, 8, head.data)", "inside(value, 4, head.data)"),
    "an address one behind the data": ("return value < head.data;", "return value <= head.data;"),
    "an address anywhere": ("return value < head.data;", "return 1;"),
    "an address behind the returned buffers": ("return value < head.out;", "return value <= head.out;"),
    "an address behind the other buffers": ("return value < head.scratch;", "return value <= head.scratch;"),
    "a slot too high": ("if (value >= SLOTS)", "if (value > SLOTS)"),
    "an argument of no kind": ("\t}\n\treturn 0;\n}\n\n/* Writes", "\t}\n\t*is = value;\n\treturn 1;\n}\n\n/* Writes"),
    "a result into a slot that is none": ("op->into != NONE && op->into >= SLOTS", "0"),
    "a check that begins outside": ("!inside(a, n, extent()) || ", ""),
    "a check against what is outside": (" || !inside(b, n, extent())", ""),
    "a put outside the data": (" || !inside(at, arg[2], extent())", ""),
    "a put of more than a slot": ("arg[2] > 8 || ", ""),
    "a link outside the data": ("!inside(link->at, 8, head.data) || ", ""),
    "a link to nothing": (" || !resolve(link->arg, &value)", " || (resolve(link->arg, &value), 0)"),
    "a sum that overflows": ("at <= whole && size <= whole - at", "at + size <= whole"),
    "a program larger than the room": (" || ops + links + extent() > ROOM", ""),
    "a program one byte larger than the room": ("ops + links + extent() > ROOM", "ops + links + extent() > ROOM + 1"),
    "buffers that do not count": ("return (u64)head.data + head.out + head.scratch;", "return (u64)head.data + (u32)(head.out + head.scratch);"),
    "more slots than there are": ("head.slots > SLOTS || ", ""),
    "a read that claims too much": (CLAIM + "to += n;", CLAIM.replace(" || (u64)n > size", "") + "to += n;"),
    "a send that claims too much": (CLAIM + "from += n;", CLAIM.replace(" || (u64)n > size", "") + "from += n;"),
    "an unknown word that is called": ("if (op->nr < CHECK)", "if (op->nr < CHECK || op->nr > VALUE)"),
}


@pytest.fixture(scope="module")
def compiler() -> str:
    if not sanitizing():
        pytest.skip("neither gcc nor clang with its sanitizers is here")
    return sanitizing()[0]


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "inputs"
    path.write_bytes(b"".join(len(one).to_bytes(4, "little") + one for one in inputs(1, 6000)))
    return path


def run(binary: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([binary, *words], capture_output=True, text=True, errors="replace", env=os.environ | SANITIZERS)


def test_no_program_makes_the_executor_leave_its_bounds(compiler: str, batch: Path, tmp_path: Path) -> None:
    for name in sanitizing():
        done = run(hosted(name, tmp_path / name), batch)
        assert done.returncode == 0, done.stderr
        assert done.stdout == "6000 inputs\n"


@pytest.mark.parametrize("hole", HOLES)
def test_each_missing_check_is_found(compiler: str, batch: Path, tmp_path: Path, hole: str) -> None:
    text, (sound, broken) = SOURCE.read_text(), HOLES[hole]
    assert text.count(sound) == 1, "executor.c has changed: this hole must be cut anew"
    source = tmp_path / "executor.c"
    source.write_text(text.replace(sound, broken))
    done = run(hosted(compiler, tmp_path / "hosted", source), batch)
    assert done.returncode != 0
    assert any(word in done.stderr for word in FOUND), done.stderr


@pytest.fixture
def seeds(tmp_path: Path) -> Path:
    folder = tmp_path / "seeds"
    folder.mkdir()
    for i, one in enumerate(inputs(2, 400)):
        (folder / str(i)).write_bytes(one)
    return folder


@pytest.fixture
def fuzzer() -> None:
    if not fuzzing():
        pytest.skip("no clang with libFuzzer here")


def search(binary: Path, seeds: Path, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    words = ["-seed=1", f"-runs={RUNS}", "-max_len=2048", "-use_value_profile=1", f"-artifact_prefix={tmp_path}/", "-print_final_stats=1"]
    return run(binary, *words, seeds)


@pytest.mark.usefixtures("fuzzer")
def test_a_guided_search_finds_nothing(seeds: Path, tmp_path: Path) -> None:
    done = search(hosted("clang", tmp_path / "fuzz", fuzzer=True), seeds, tmp_path)
    assert done.returncode == 0, done.stderr[-4000:]
    executed = next(int(line.split()[-1]) for line in done.stderr.splitlines() if line.startswith("stat::number_of_executed_units"))
    assert executed >= RUNS


@pytest.mark.usefixtures("fuzzer")
def test_a_guided_search_finds_a_hole_that_no_seed_falls_into(tmp_path: Path) -> None:
    seeds = tmp_path / "seed"
    seeds.mkdir()
    (seeds / "sound").write_bytes(bytes(16) + pack([Op(VALUE, (7,), into=1), Op(PUT, (Kept(1), Address(8), 8))], bytes(16), 16))
    source = tmp_path / "executor.c"
    sound, broken = HOLES["a put outside the data"]
    source.write_text(SOURCE.read_text().replace(sound, broken))
    done = search(hosted("clang", tmp_path / "fuzz", source, fuzzer=True), seeds, tmp_path)
    assert done.returncode != 0
    assert any(word in done.stderr for word in FOUND), done.stderr[-4000:]
    assert "INITED" in done.stderr, "the seed itself failed"
