"""The shape of the document that `rundlet explain --json` prints; docs/explain.md describes it."""

from typing import Any, Literal, NotRequired, TypedDict

from rundlet.spec.types import Capabilities

# "from" cannot be the name of an attribute, hence the functional form
Label = TypedDict(
    "Label",
    {
        "from": str | None,  # the runtime's
        "to": str | None,  # the container's
        "action": Literal["keep", "exec", "stack", "refuse"],
        "reason": str,
        "row": int | None,  # of the table in docs/apparmor.md
    },
)


class NoNewPrivileges(TypedDict):
    """Of no_new_privs: whether the configuration asked for it, the runtime has it, and so the container."""

    asked: bool
    inherited: bool
    holds: bool


class Ids(TypedDict):
    """Whom the process runs as."""

    uid: int
    gid: int
    additionalGids: list[int]


class Root(TypedDict):
    """The root filesystem."""

    path: str
    readonly: bool


class Mount(TypedDict):
    """A mount as it was asked for."""

    destination: str
    type: str | None
    source: str | None
    options: list[str]


class Process(TypedDict):
    """What is executed."""

    args: list[str]
    cwd: str
    terminal: bool


class Step(TypedDict):
    """A step of the plan: what it does, and the calls that do it."""

    what: str
    calls: list[str]


class Stage(TypedDict):
    """A stage of the plan."""

    stage: str
    steps: list[Step]


class Profiles(TypedDict):
    """A file of AppArmor profiles that is loaded first."""

    file: str
    names: list[str]


class Document(TypedDict):
    """The whole document."""

    version: Literal[1]
    refused: str | None
    label: Label
    noNewPrivileges: NoNewPrivileges
    user: Ids
    capabilities: Capabilities
    seccomp: dict[str, Any] | None
    namespaces: dict[str, str]
    root: Root
    mounts: list[Mount]
    maskedPaths: list[str]
    readonlyPaths: list[str]
    cgroup: list[str]
    hooks: dict[str, list[str]]
    process: Process
    warnings: list[str]
    profiles: Profiles | None
    steps: NotRequired[list[Stage]]
