"""A start from one file: takes modules from the bundle that `python -m rundlet.install` has written, without a search for each.

    bundle   magic number of the bytecode (4) | head (12 KiB) | pieces …        head and pieces are marshal's
    head     this module's own code, with a call of begin() at its end, which has starts and where the index is
    starts   name of a module that a start begins with → where the pieces are that have it and, in order, all modules it needs; the first
             of them has their sources, and of create and run those of what a plan that was kept (life/kept.py) was made by
    index    name of a module → the same of one that is imported later: source, module
    source   of a module in Python: its path within the package, size and time in ns
    module   name, its parent's, own name in it, its file, folder of a package or "", code, late
             in a start the code itself, in the index where it is; without code it is a module written in C, without a file built in
    late     names of functions, and where their code is: it is read when one of them is called
    where    offset behind the head, size

Each piece is read when it is wanted, and none is large: memory that is touched for the first time costs more than a system call. Within a
start modules find each other ready made, so that importlib has nothing to do.

Trusted is what was trusted before: the bundle lies where the interpreter keeps its own bytecode, beside the sources, it is read by the very
version of Python that wrote it, and a module is taken from it only as long as its source has the size and time that it had; a start, only
as long as that is so of all its modules.
"""

import gc
import posix
import sys
from _frozen_importlib import BuiltinImporter, ModuleSpec
from _frozen_importlib_external import ExtensionFileLoader
from marshal import loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType, ModuleType
    from typing import Any, TypeAlias

    Where: TypeAlias = tuple[int, int]
    Late: TypeAlias = tuple[tuple[str, ...], Where]
    Source: TypeAlias = tuple[str, int, int]
    Entry: TypeAlias = tuple[str, str, str, str, str, "Where | CodeType | None", "Late | None"]


class Bundle:
    """A finder and loader as importlib wants them."""

    def __init__(self, fd: int, package: str, base: int, starts: "dict[str, tuple[Where, ...]]", index: "Where", digest: bytes) -> None:
        self.fd = fd
        self.package = package  # the folder of the sources
        self.base = base  # where the first piece is
        self.starts = starts
        self.where = index
        self.digest = digest
        self.index: "dict[str, tuple[Source, Entry]]" = {}
        self.identity = b""  # a digest of the bundle, once it is known that nothing that life/kept.py keeps is of another source

    def read(self, where: "Where") -> "Any":
        """What a piece holds."""
        at, size = where
        return loads(posix.pread(self.fd, size, self.base + at))  # noqa: S302  # as importlib does with .pyc

    def start(self, start: str) -> None:
        """Makes the module `start` and all that it needs, unless a source has changed."""
        modules = sys.modules
        first, *pieces = self.starts[start]
        if self.changed(self.read(first)):
            return
        if start in ("rundlet.life.create", "rundlet.life.run"):
            self.identity = self.digest
        # the import statement asks each module's spec whether the module is being made: one for all will do
        spec = ModuleSpec(start, self)  # type: ignore[arg-type]  # it need not be one of theirs
        spec._initializing = False  # type: ignore[attr-defined]
        for piece in pieces:
            for name, parent, own, file, folder, code, late in self.read(piece):
                if name in modules:
                    continue
                if code is None:
                    try:
                        in_c(name, file)
                    except ImportError:  # the interpreter was brought up to date, and has it elsewhere: importlib will find it
                        modules.pop(name, None)
                    continue
                modules[name] = module = Module(name)
                space = module.__dict__
                space["__file__"] = file
                space["__spec__"] = spec
                space["__package__"] = name if folder else parent
                if folder:
                    space["__path__"] = [folder]
                if late:
                    for function in late[0]:
                        space[function] = Method(self.late, (space, function, late[1]))
                try:
                    exec(code, space)  # noqa: S102
                except BaseException:
                    del modules[name]
                    raise
                if parent in modules:  # a package that imports its own modules comes behind them
                    setattr(modules[parent], own, module)

    def changed(self, sources: "tuple[Source, ...]") -> bool:
        """Whether one of them is no longer that which the bundle was made of."""
        at = -1
        try:
            at = posix.open(self.package, posix.O_PATH | posix.O_CLOEXEC)  # from there to each source it is a short way
            for path, size, when in sources:
                now = posix.stat(path, dir_fd=at)
                if now.st_size != size or now.st_mtime_ns != when:
                    return True
        except OSError:
            return True
        finally:
            if at >= 0:
                posix.close(at)
        return False

    def late(self, which: "tuple[dict[str, Any], str, Where]", /, *args: object, **more: object) -> "Any":
        """Calls a function that has been left out of its module until now, with all others of that module."""
        space, name, where = which
        if type(space[name]) is Method:
            exec(self.read(where), space)  # noqa: S102
        return space[name](*args, **more)

    def find_spec(self, name: str, path: object = None, target: object = None) -> "ModuleSpec | None":
        """The module as importlib's search asks for it; None when it is not in the bundle, or no longer what it was."""
        if name[:7] != "rundlet":
            return None
        if name in self.starts:
            self.start(name)
            if name in sys.modules:
                module = sys.modules[name]
                # of a module that has come to be there meanwhile importlib takes the spec that it has
                module.__spec__ = spec = ModuleSpec(name, self, loader_state=module)  # type: ignore[arg-type]
                return spec
        self.index = self.index or self.read(self.where)
        source, entry = self.index.get(name, (None, None))
        if source is None or entry is None or self.changed((source,)):
            return None
        spec = ModuleSpec(name, self, origin=entry[3], is_package=bool(entry[4]))  # type: ignore[arg-type]
        spec.has_location = True
        if entry[4]:
            spec.submodule_search_locations = [entry[4]]
        return spec

    def create_module(self, spec: ModuleSpec) -> "ModuleType | None":
        """The one that a start has made, else a plain one."""
        made: "ModuleType | None" = spec.loader_state
        return made

    def exec_module(self, module: "ModuleType") -> None:
        """Fills a module, unless a start has."""
        spec = module.__spec__
        if spec and not spec.loader_state:
            exec(self.read(self.index[spec.name][1][5]), module.__dict__)  # type: ignore[arg-type]  # noqa: S102


Module = type(sys)
Method = type(Bundle.read.__get__(1))


def in_c(name: str, file: str) -> None:
    """Makes a module written in C."""
    loader = ExtensionFileLoader(name, file) if file else BuiltinImporter
    spec = ModuleSpec(name, loader, origin=file or "built-in")  # type: ignore[arg-type]  # the class itself is the loader
    module = loader.create_module(spec)
    assert module is not None
    module.__spec__ = spec
    spec._initializing = False  # type: ignore[attr-defined]
    sys.modules[name] = module
    loader.exec_module(module)


def begin(fd: int, package: str, base: int, starts: "dict[str, tuple[Where, ...]]", index: "Where", digest: bytes) -> None:
    """What the command does first: the arguments are those of a Bundle. Raises OSError where there cannot be one."""
    if fd < 3:  # with stdin, stdout or stderr closed the bundle would take its place
        posix.close(fd)
        raise OSError
    gc.disable()  # most commands end before there is anything to collect; the others enable it
    made = Bundle(fd, package, base, starts, index, digest)
    sys.meta_path.insert(0, made)
    made.start("rundlet.cli")
