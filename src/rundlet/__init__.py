"""rundlet: an OCI container runtime, as a command and as a library.

    import rundlet
    done = rundlet.run(rundlet.config(["echo", "hello"], rootfs="/srv/alpine"), capture=True)

The library's names are those of `__all__`; docs/api.md describes them. They are read when one of them is first asked for, since the command
passes here at every start and wants none. `rundlet.aio` has for asyncio those that wait.
"""

__version__ = "0.1.0"
OCI_VERSION = "1.3.0"  # the newest runtime-spec whose every field is understood
__all__ = (
    "DEVNULL", "OCI_VERSION", "PIPE", "STDOUT", "BadSpec", "Bundle", "Completed", "Config", "Container", "Denial", "Difference",
    "Document", "Event", "Events", "Explanation", "Facts", "Fault", "Making", "Plan", "Process", "ProgramFailed", "Refused", "Report",
    "Spawning", "State", "StepFailed", "Stream", "Terminal", "Unknown", "Unreadable", "Usage", "WrongState", "aio", "config",
    "containers", "create", "denials", "exec", "explain", "facts", "plan", "run", "verify",
)

TYPE_CHECKING = False
if TYPE_CHECKING:  # plan too: a name that is here comes before the package, which can be called as well (plan/__init__.py)
    from rundlet import aio as aio
    from rundlet.api import DEVNULL as DEVNULL
    from rundlet.api import PIPE as PIPE
    from rundlet.api import STDOUT as STDOUT
    from rundlet.api import BadSpec as BadSpec
    from rundlet.api import Bundle as Bundle
    from rundlet.api import Completed as Completed
    from rundlet.api import Config as Config
    from rundlet.api import Container as Container
    from rundlet.api import Denial as Denial
    from rundlet.api import Difference as Difference
    from rundlet.api import Document as Document
    from rundlet.api import Event as Event
    from rundlet.api import Events as Events
    from rundlet.api import Explanation as Explanation
    from rundlet.api import Facts as Facts
    from rundlet.api import Fault as Fault
    from rundlet.api import Making as Making
    from rundlet.api import Plan as Plan
    from rundlet.api import Process as Process
    from rundlet.api import ProgramFailed as ProgramFailed
    from rundlet.api import Refused as Refused
    from rundlet.api import Report as Report
    from rundlet.api import Spawning as Spawning
    from rundlet.api import State as State
    from rundlet.api import StepFailed as StepFailed
    from rundlet.api import Stream as Stream
    from rundlet.api import Terminal as Terminal
    from rundlet.api import Unknown as Unknown
    from rundlet.api import Unreadable as Unreadable
    from rundlet.api import Usage as Usage
    from rundlet.api import WrongState as WrongState
    from rundlet.api import config as config
    from rundlet.api import containers as containers
    from rundlet.api import create as create
    from rundlet.api import denials as denials
    from rundlet.api import exec as exec
    from rundlet.api import explain as explain
    from rundlet.api import facts as facts
    from rundlet.api import plan as plan
    from rundlet.api import run as run
    from rundlet.api import verify as verify

if not TYPE_CHECKING:  # a type checker would take every name for one of ours

    def __getattr__(name: str) -> object:
        """The library's names: PEP 562."""
        if name not in __all__:
            raise AttributeError(f"module 'rundlet' has no attribute '{name}'")
        from importlib import import_module

        return import_module(f"rundlet.{name}") if name in ("aio", "plan") else getattr(import_module("rundlet.api"), name)


def commit() -> str:
    """The commit that this was built from, as hatch_build.py found it; the name of the release where that is not known."""
    try:
        with open(f"{__path__[0]}/COMMIT", encoding="ascii") as file:
            return file.read()
    except OSError:
        return f"v{__version__}"
