"""A start from one file: takes modules from the bundle that `python -m rundlet.install` has written, without a search for each.

    bundle   magic number of the bytecode (4) | size of the head (4) | head | marshal: the code of each module …
    head     marshal: (this module's own code, index)
    index    name → (source, its size, its time in ns, whether it is a package, where its code is, of what size, modules to load before it);
             where is -1 for modules of the standard library in files of their own, whose sources are those files

Each piece is read when it is wanted: memory that is touched for the first time costs more than a system call.

Trusted is what was trusted before: the bundle lies where the interpreter keeps its own bytecode, beside the sources, it is read by the very
version of Python that wrote it, and a module is taken from it only as long as its source has the size and time that it had.
"""

import posix
import sys
from _frozen_importlib import BuiltinImporter, ModuleSpec
from _frozen_importlib_external import ExtensionFileLoader
from marshal import loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import TypeAlias

    Entry: TypeAlias = tuple[str, int, int, bool, int, int, tuple[str, ...]]


Module = type(sys)


class Bundle:
    """A finder and loader as importlib wants them. What a module imports at its top is loaded on the way, without asking importlib."""

    def __init__(self, fd: int, start: int, index: "dict[str, Entry]") -> None:
        self.fd = fd
        self.start = start  # of the modules' codes
        self.index = index

    def find_spec(self, name: str, path: object = None, target: object = None) -> "ModuleSpec | None":
        """The module as importlib's search asks for it; None when it is not in the bundle, or no longer what it was."""
        entry = self.index.get(name)
        if entry is None or entry[4] < 0:
            return None
        modules = sys.modules
        for needed in entry[6]:
            if needed not in modules:
                self.load(needed)
        if not _unchanged(entry):
            return None
        spec = ModuleSpec(name, self, origin=entry[0], is_package=entry[3])  # type: ignore[arg-type]  # it need not be one of theirs
        spec.has_location = True
        if entry[3]:
            spec.submodule_search_locations = [entry[0].rpartition("/")[0]]
        return spec

    def create_module(self, spec: ModuleSpec) -> None:
        """A plain one."""

    def exec_module(self, module: "ModuleType") -> None:
        """Fills a module."""
        entry = self.index[module.__name__]
        exec(loads(posix.pread(self.fd, entry[5], self.start + entry[4])), module.__dict__)  # noqa: S102, S302  # as importlib does with .pyc

    def load(self, name: str) -> None:
        """Makes a module whose own needs are loaded; leaves it to importlib when its source has changed."""
        modules = sys.modules
        if name not in self.index:
            spec = ModuleSpec(name, BuiltinImporter, origin="built-in")  # type: ignore[arg-type]  # the class itself is the loader
            modules[name] = _made(spec, BuiltinImporter)
            return
        entry = self.index[name]
        if not _unchanged(entry):
            return
        source, _, _, package, at, length, _ = entry
        if at < 0:
            loader = ExtensionFileLoader(name, source)
            modules[name] = _made(ModuleSpec(name, loader, origin=source), loader)
            return
        modules[name] = module = Module(name)
        parent, _, own = name.rpartition(".")
        module.__file__ = source
        if package:
            module.__package__ = name
            module.__path__ = [source.rpartition("/")[0]]
        else:
            module.__package__ = parent
        try:
            exec(loads(posix.pread(self.fd, length, self.start + at)), module.__dict__)  # noqa: S102, S302  # as above
        except BaseException:
            del modules[name]
            raise
        if parent in modules:  # a package that imports its own modules comes behind them
            setattr(modules[parent], own, module)


def _made(spec: ModuleSpec, loader: "type[BuiltinImporter] | ExtensionFileLoader") -> "ModuleType":
    """A module written in C."""
    module = loader.create_module(spec)
    assert module is not None
    module.__spec__ = spec
    loader.exec_module(module)
    return module


def _unchanged(entry: "Entry") -> bool:
    try:
        now = posix.stat(entry[0])
    except OSError:
        return False
    return now.st_size == entry[1] and now.st_mtime_ns == entry[2]
