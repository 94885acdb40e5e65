"""The seccomp profile of an engine, made a container's: containers/common and moby keep one with conditions, resolved at each start.

The form is that of containers/common pkg/seccomp/types.go; a file in the form of config.json's linux.seccomp is taken as it is.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rundlet.errors import Refused

PLACES = ("/etc/containers/seccomp.json", "/usr/share/containers/seccomp.json")
MACHINES = {"x86_64": ("amd64", "SCMP_ARCH_X86_64"), "aarch64": ("arm64", "SCMP_ARCH_AARCH64")}


def profile(path: str | None) -> Mapping[str, Any] | None:
    """The profile in a file, or an engine's that is installed; None where there is none. Raises Refused when it cannot be read."""
    for place in [path] if path else PLACES:
        try:
            found = json.loads(Path(place).read_bytes())
        except FileNotFoundError:
            if path:
                raise Refused(f"no seccomp profile {path}", "name one that is there") from None
            continue
        except (OSError, ValueError) as failure:
            raise Refused(f"cannot read the seccomp profile {place}: {failure}", "name another one in --config") from None
        if not isinstance(found, dict) or "defaultAction" not in found:
            raise Refused(f"{place} is no seccomp profile: it has no defaultAction", "name another one in --config")
        return found
    return None


def resolved(profile: Mapping[str, Any], capabilities: set[str]) -> dict[str, Any]:
    """linux.seccomp for a container with these capabilities on this machine."""
    if "archMap" not in profile:
        return dict(profile)
    arch, native = MACHINES[os.uname().machine]
    rules = []
    for rule in profile.get("syscalls", []):
        needs, bars = rule.get("includes") or {}, rule.get("excludes") or {}
        if not capabilities.issuperset(needs.get("caps") or ()) or capabilities.intersection(bars.get("caps") or ()):
            continue
        if arch not in (needs.get("arches") or [arch]) or arch in (bars.get("arches") or ()):
            continue
        rules.append({key: rule[key] for key in ("names", "action", "errnoRet", "args") if rule.get(key) is not None})
    others = [name for one in profile["archMap"] if one["architecture"] == native for name in one.get("subArchitectures") or ()]
    made = {"defaultAction": profile["defaultAction"], "architectures": [native, *others], "syscalls": rules}
    return made | ({"defaultErrnoRet": profile["defaultErrnoRet"]} if "defaultErrnoRet" in profile else {})
