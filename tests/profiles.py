"""The profiles of engines, resolved for one container as the engines do it before a runtime sees them."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

ARCHES = {"x86_64": ("amd64", "SCMP_ARCH_X86_64"), "aarch64": ("arm64", "SCMP_ARCH_AARCH64")}


# what Podman and CRI-O give to containers, of the package containers-common; and Docker's, which the Makefile takes out of a package of sources
CONTAINERS, DOCKER = Path("/usr/share/containers/seccomp.json"), Path(sys.prefix, "docker-seccomp.json")
ENGINES = pytest.mark.parametrize(
    "profile",
    [pytest.param(path, id=name, marks=pytest.mark.skipif(not path.exists(), reason=f"there is no {path}"))
     for name, path in (("containers", CONTAINERS), ("docker", DOCKER))],
)


def resolved(path: Path, capabilities: "set[str] | None" = None) -> dict[str, Any]:
    """linux.seccomp of a container with these capabilities on this machine: containers/common and moby, profiles/seccomp."""
    profile = json.loads(path.read_bytes())
    caps = capabilities or set()
    arch, word = ARCHES[os.uname().machine]
    rules = []
    for asked in profile["syscalls"]:
        includes, excludes = asked.get("includes") or {}, asked.get("excludes") or {}
        if not caps.issuperset(includes.get("caps") or ()) or arch not in includes.get("arches", [arch]):
            continue
        if caps.intersection(excludes.get("caps") or ()) or arch in excludes.get("arches", []):
            continue
        rules.append({key: asked[key] for key in ("names", "action", "errnoRet", "args") if asked.get(key) is not None})
    mapped = next(one for one in profile["archMap"] if one["architecture"] == word)
    made = {"defaultAction": profile["defaultAction"], "architectures": [word, *mapped["subArchitectures"]], "syscalls": rules}
    return made | ({"defaultErrnoRet": profile["defaultErrnoRet"]} if "defaultErrnoRet" in profile else {})
