"""What callers may give, in the types that they give it in, and what it is in the words of the commands."""

import json
import os
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias, TypedDict

from rundlet import jsontext
from rundlet.api.streams import Given
from rundlet.errors import BadSpec, Fault

Path: TypeAlias = str | os.PathLike[str]
Bundle: TypeAlias = Path | Mapping[str, object]
CgroupManager: TypeAlias = Literal["cgroupfs", "systemd", "disabled"]


class Making(TypedDict, total=False):
    """What may be said of a container to be made, besides its bundle."""

    id: str  # one that no other container of the root has; a new one is made up where none is given
    root: Path | None  # the folder of all containers; None: that of the command
    folder: Path  # what paths in a configuration that was given as a mapping are relative to; the working directory where none is given
    stdin: Given
    stdout: Given
    stderr: Given
    pass_fds: Sequence[int]  # become descriptor 3, 4 and so on
    cgroup_manager: CgroupManager
    no_pivot: bool
    no_new_keyring: bool
    apparmor_file: Path | None  # a profile to be loaded first; a relative path is below the bundle
    apparmor_replace: bool  # load it even over one of that name with another content
    apparmor_on_delete: Literal["keep", "remove"]  # what becomes of it when the container is deleted
    timeout: float | None  # seconds


class Spawning(TypedDict, total=False):
    """What may be said of a further process, besides its arguments. What is not said is as the container's own process has it."""

    process: Mapping[str, object] | None  # all of it, in the form of config.json's process, in the place of arguments
    env: Mapping[str, str]  # variables in addition
    cwd: str
    user: int | str | None  # UID, or "UID:GID"
    additional_gids: Sequence[int]
    capabilities: Sequence[str]  # in addition, such as CAP_NET_RAW
    apparmor: str | None
    selinux: str | None
    no_new_privs: bool
    terminal: bool
    ignore_paused: bool  # permitted in a paused container too
    cgroup: Sequence[str]  # below the container's
    stdin: Given
    stdout: Given
    stderr: Given
    pass_fds: Sequence[int]
    timeout: float | None  # seconds


class Read:
    """A bundle as it was given: the text of its configuration, its folder, its program's arguments, and whether it wants a terminal."""

    def __init__(self, bundle: Bundle, folder: Path | None = None) -> None:
        """Raises Fault when there is no configuration to be read, BadSpec when it is none."""
        if isinstance(bundle, Mapping):
            self.folder = os.path.abspath(os.fspath(folder or "."))
            try:
                self.text = json.dumps(bundle).encode("utf-8", "surrogateescape")
            except (TypeError, ValueError) as e:
                raise BadSpec("configuration", f"cannot be written as JSON: {e}") from None
        else:
            self.folder = os.path.abspath(os.fspath(bundle))
            path = self.folder + "/config.json"
            try:
                with open(path, "rb") as file:
                    self.text = file.read()
            except OSError as e:
                raise Fault(f"cannot read {path}: {(e.strerror or '').lower()}; is {self.folder} a bundle?") from None
        config: Any = jsontext.loads(self.text, "config.json")
        process = config.get("process") if isinstance(config, dict) else None
        self.terminal = isinstance(process, dict) and process.get("terminal") is True
        args = process.get("args") if isinstance(process, dict) else None
        self.args = tuple(map(str, args)) if isinstance(args, list) else ()


def new_id() -> str:
    """An id that nobody has."""
    return "rundlet-" + secrets.token_hex(8)


def as_root(root: Path | None) -> str | None:
    """The value of --root."""
    return None if root is None else os.path.abspath(os.fspath(root))


def spawn_options(args: Sequence[str], how: Spawning) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The options of exec, and the texts of those that are files. Raises TypeError for arguments that are a single string."""
    if isinstance(args, str):
        raise TypeError(f"the arguments are a list of strings, not {args!r}")
    user = how.get("user")
    options: dict[str, Any] = {
        "args": [os.fspath(word) for word in args],
        "env": [f"{name}={value}" for name, value in how.get("env", {}).items()],
        "cwd": how.get("cwd"),
        "user": None if user is None else str(user),
        "additional_gids": [str(gid) for gid in how.get("additional_gids", ())],
        "cap": list(how.get("capabilities", ())),
        "apparmor": how.get("apparmor"),
        "process_label": how.get("selinux"),
        "no_new_privs": how.get("no_new_privs", False),
        "tty": how.get("terminal", False),
        "ignore_paused": how.get("ignore_paused", False),
        "cgroup": list(how.get("cgroup", ())),
        "detach": True,
    }
    process = how.get("process")
    return options, {} if process is None else {"process": json.dumps(process).encode()}


def wants_terminal(how: Spawning) -> bool:
    """Whether a further process is to have a terminal."""
    return bool(how.get("terminal") or (how.get("process") or {}).get("terminal"))
