"""rundlet record: what was written down of a container at its start. Its form is described in docs/record.md."""

import json
import sys
from typing import TYPE_CHECKING, Any

from rundlet import kernel
from rundlet.errors import WrongState
from rundlet.life import record, store
from rundlet.plan.label import joined

if TYPE_CHECKING:
    from rundlet.options import Options

WIDTH = 16


def main(options: "Options") -> int:
    """The verb."""
    container = store.find(options, lock=False)
    try:
        found = record.load(container.folder)
    finally:
        container.close()
    if found is None:
        raise WrongState(f"container {options.id} has no record: it was not completed, or was made by an earlier version")
    found = whole(found)
    sys.stdout.write(json.dumps(found, indent=2) + "\n" if options.json else text(found))
    return 0


def whole(found: dict[str, Any]) -> dict[str, Any]:
    """With every key there: before the start there is nothing observed."""
    return {**found, "observed": found.get("observed"), "profiles": found.get("profiles")}


def text(found: dict[str, Any]) -> str:
    """The record for people."""
    asked, decided, seen, host = found["asked"], found["decided"], found["observed"], found["host"]
    lines = [
        _line("container", f"{found['id']}, created {found['created']} by rundlet {found['rundlet']}"),
        _line("asked", f"profile {asked['apparmorProfile'] or 'none'}; {_switches(asked)}"),
        _line("", f"user {asked['user']['uid']}, group {asked['user']['gid']}; namespaces: {', '.join(asked['namespaces']) or 'none'}"),
        _line("decided", f"{decided['action']} {decided['profile']}".rstrip() + (f" (row {decided['row']})" if decided["row"] else "")),
        _line("", f"because {decided['reason']}"),
        _line("", f"label to be: {joined(decided['label']) or 'none'}"),
    ]
    if seen is None:
        lines.append(_line("observed", "nothing: it has not been started, or had ended at once"))
    else:
        label = seen["label"] + (f" ({seen['mode']})" if seen["mode"] else "") if seen["label"] is not None else "none"
        filters = f", {seen['seccompFilters']} filter(s)" if seen["seccompFilters"] is not None else ""
        lines += [
            _line("observed", f"at {seen['at']}: label {label}"),
            _line("", f"no_new_privs {_yes(seen['noNewPrivileges'])}; seccomp mode {seen['seccomp']}{filters}"),
            *(_line("", f"{kind}: {names(mask)}") for kind, mask in seen["capabilities"].items() if mask),
        ]
    for profile in found["profiles"] or ():
        hashed = next((f"{kind} {profile[kind]}" for kind in ("sha256", "sha1") if kind in profile), "no hash")
        lines.append(_line("profile", f"{profile['name']} ({profile['mode']}): {hashed}"))
    apparmor = host["apparmor"]
    lines += [
        _line("host", f"kernel {host['kernel']} ({host['arch']}); security modules: {', '.join(host['lsm'] or ['unknown'])}"),
        _line("", f"AppArmor {apparmor['state']}" + (f", the runtime's label {apparmor['label']}" if apparmor["label"] else "")),
        *(_line("hashes" if n == 0 else "", f"{kind}: {value or 'none'}") for n, (kind, value) in enumerate(found["hashes"].items())),
    ]
    return "".join(lines)


def names(mask: str) -> str:
    """Capabilities of a mask in hexadecimal, in words."""
    bits, known = int(mask, 16), kernel.CAPABILITIES
    found = [known[n].removeprefix("CAP_").lower() if n < len(known) else str(n) for n in range(64) if bits >> n & 1]
    return ", ".join(found) or "none"


def _switches(asked: dict[str, Any]) -> str:
    return f"no_new_privs {_yes(asked['noNewPrivileges'])}; seccomp {_yes(asked['seccomp'])}"


def _yes(value: object) -> str:
    return "yes" if value else "no"


def _line(head: str, words: str) -> str:
    return f"{head:{WIDTH}}{words}\n"
