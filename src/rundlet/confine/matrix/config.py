"""matrix.toml: what is varied, tried and compared. Every key may be left out; docs/matrix.md has an example."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rundlet.confine.matrix import settings as s
from rundlet.confine.matrix.probes import BY_NAME, PROBES, Command, Probe
from rundlet.errors import BadSpec, Refused, Usage

KEYS: dict[str, type] = {
    "probes": list, "settings": list, "runtimes": list, "policy": list, "profile": str, "seccomp": str, "timeout": int, "axes": dict,
    "probe": list,
}
PATIENCE = 60  # seconds


@dataclass
class Config:
    """What was asked for, defaults resolved."""

    probes: list[Probe | Command] = field(default_factory=lambda: list(PROBES))
    settings: list[s.Setting] = field(default_factory=s.default)
    runtimes: list[str] = field(default_factory=list)
    policy: list[str] = field(default_factory=list)
    profile: str | None = None
    seccomp: str | None = None
    timeout: int = PATIENCE
    design: str = s.DESIGN


def read(path: str | None) -> Config:
    """The file, or the defaults. Raises Refused, BadSpec naming the key."""
    if path is None:
        return Config()
    try:
        given = tomllib.loads(Path(path).read_text())
    except OSError as failure:
        raise Refused(f"cannot read {path}: {(failure.strerror or '').lower()}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as failure:
        raise BadSpec(path, str(failure).lower()) from None
    for key, value in given.items():
        if key not in KEYS:
            raise BadSpec(f"{path}: {key}", f"no such key; known are {', '.join(KEYS)}")
        if not isinstance(value, KEYS[key]) or isinstance(value, bool):
            raise BadSpec(f"{path}: {key}", f"must be of type {KEYS[key].__name__}")
        if isinstance(value, list) and key != "probe" and not all(isinstance(word, str) for word in value):
            raise BadSpec(f"{path}: {key}", "must be a list of texts")
    made = Config(
        runtimes=given.get("runtimes", []), policy=[str(Path(path).parent / file) for file in given.get("policy", [])],
        profile=given.get("profile"), timeout=given.get("timeout", PATIENCE),
        seccomp=str(Path(path).parent / given["seccomp"]) if "seccomp" in given else None,
    )
    made.probes = _probes(path, given)
    _settings(path, given, made)
    return made


def _probes(path: str, given: Mapping[str, Any]) -> list[Probe | Command]:
    for name in given.get("probes", []):
        if name not in BY_NAME:
            raise BadSpec(f"{path}: probes", f"no probe is called {name!r}; known are {', '.join(BY_NAME)}")
    found: list[Probe | Command] = [probe for probe in PROBES if "probes" not in given or probe.name in given["probes"]]
    for number, own in enumerate(given.get("probe", [])):
        where = f"{path}: probe[{number}]"
        if not isinstance(own, dict) or set(own) - {"name", "command", "expected"}:
            raise BadSpec(where, "a probe has a name, a command and a status that is expected")
        name, command, expected = own.get("name"), own.get("command"), own.get("expected", 0)
        if not isinstance(name, str) or not name or name in {probe.name for probe in found}:
            raise BadSpec(f"{where}.name", "must be a text, and no other probe's")
        if not isinstance(command, list) or not command or not all(isinstance(word, str) for word in command):
            raise BadSpec(f"{where}.command", "must be a list of texts")
        if not isinstance(expected, int) or isinstance(expected, bool):
            raise BadSpec(f"{where}.expected", "must be a number")
        found.append(Command(name, tuple(command), expected))
    return found


def _settings(path: str, given: Mapping[str, Any], made: Config) -> None:
    known = {row.name: row for row in s.default()}
    try:
        rows = [known[name] if name in known else _setting(name) for name in given.get("settings", [])]
        if "axes" in given:
            axes = {axis: [values] if isinstance(values, str) else values for axis, values in given["axes"].items()}
            rows += s.full(axes)
    except Usage as wrong:
        raise BadSpec(f"{path}: {'axes' if 'axes' in given else 'settings'}", str(wrong)) from None
    if rows:
        made.settings = s.distinct(rows)
        made.design = f"what {Path(path).name} names; other combinations are not tried"


def _setting(text: str) -> s.Setting:
    """One by its name: "nnp=config user=mapped"; the other axes are open."""
    change = {}
    for word in text.split():
        axis, equals, value = word.partition("=")
        if not equals:
            raise Usage(f"no setting is called {text!r}: it is bundle, open, strict, or AXIS=VALUE …")
        change[axis] = value
    return s.named(change)
