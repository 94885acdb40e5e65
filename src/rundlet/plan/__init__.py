"""What will be done, decided without doing anything. The room is a function as well, for the library: rundlet.plan(bundle)."""

import sys


class Room(type(sys)):  # type: ignore[misc]  # types.ModuleType, without the import
    """This package, which can be called."""

    def __call__(self, *args: object, **more: object) -> object:
        """The plan of a bundle: api/decide.py, plan()."""
        from importlib import import_module

        made: object = import_module("rundlet.api").plan(*args, **more)
        return made


sys.modules[__name__].__class__ = Room
