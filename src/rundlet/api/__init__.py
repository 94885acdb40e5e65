"""The library: `import rundlet` gives these names, and reads this package when one of them is asked for first."""

from rundlet.api.asked import Bundle, Making, Spawning
from rundlet.api.base import containers
from rundlet.api.configure import config
from rundlet.api.decide import Facts, Plan, explain, facts, plan
from rundlet.api.happening import Event
from rundlet.api.results import Completed, ProgramFailed, State
from rundlet.api.streams import DEVNULL, PIPE, STDOUT
from rundlet.api.sync import Container, Events, Process, Stream, Terminal, create, denials, exec, run, verify
from rundlet.confine.denials import Denial, Unreadable
from rundlet.confine.document import Document
from rundlet.confine.explain import Explanation
from rundlet.confine.verify import Difference, Report, Unknown
from rundlet.errors import BadSpec, Fault, Refused, StepFailed, Usage, WrongState
from rundlet.spec.types import Config

__all__ = [
    "DEVNULL", "PIPE", "STDOUT", "BadSpec", "Bundle", "Completed", "Config", "Container", "Denial", "Difference", "Document", "Event",
    "Events", "Explanation", "Facts", "Fault", "Making", "Plan", "Process", "ProgramFailed", "Refused", "Report", "Spawning", "State",
    "StepFailed", "Stream", "Terminal", "Unknown", "Unreadable", "Usage", "WrongState", "config", "containers", "create", "denials",
    "exec", "explain", "facts", "plan", "run", "verify",
]
