"""What watch prints: a line for each thing that changed, for people or as JSON (schema rundlet.watch/1)."""

import json
import time
from typing import Any

from rundlet.confine.watch.table import Drift, Look
from rundlet.confine.watch.watcher import Change

SCHEMA = "rundlet.watch/1"
MOST = 20  # lines about one container at a time, for people
LONGEST = 240  # signs of one


def text(change: Change) -> str:
    """Lines for people. What comes from a container or its profile is shown with control characters escaped."""
    name = plain(change.id or ("note" if change.text else "(no container)"))
    at = time.strftime("%H:%M:%S", time.localtime(change.time))
    return "".join(f"{at} {name}: {line}\n" for line in _lines(change))


def _lines(change: Change) -> list[str]:
    look = change.look
    if change.kind == "gone":
        return ["gone"]
    if change.text:
        return [plain(change.text)]
    if change.denied:
        denied = change.denied
        times = f" ({denied.count} times)" if denied.count > 1 else ""
        return [plain(f"{denied.layer} {denied.verdict} {denied.what or denied.operation}" + times)]
    assert look is not None
    if change.kind == "status":
        return [look.status]
    label = f", under {plain(look.label[0])}{f' ({look.label[1]})' if look.label[1] else ''}" if look.label[0] else ""
    if look.verdict == "holds":
        again = " again" if change.before and change.before.verdict in ("differs", "unknown") else ""
        return [f"holds{again}: {len(look.checks)} checks{label}"]
    before = change.before if change.before and change.before.verdict in ("differs", "unknown") else Look("")
    lines = [f"differs: {drift}" for drift in look.drifts if drift not in before.drifts]
    lines += [f"cannot tell: {why}" for why in look.why if why not in before.why]
    settled = [drift for drift in before.drifts if drift not in look.drifts]
    lines += [f"no longer: {drift}" for drift in settled] or ["can be told again" for _ in before.why[:1] if not look.why]
    more = [f"and {len(lines) - MOST} more"] if len(lines) > MOST else []
    return [plain(cut(line)) for line in lines[:MOST]] + more


def document(change: Change) -> dict[str, Any]:
    """The same for programs; docs/watch.md describes it."""
    shown: dict[str, Any] = {"schema": SCHEMA, "time": round(change.time, 3), "event": change.kind, "container": change.id}
    if change.look:
        known = look_document(change.look)
        shown |= known if change.kind == "verdict" else {key: known[key] for key in ("status", "verdict", "label")}
    if change.before:
        shown["before"] = {"status": change.before.status, "verdict": change.before.verdict or None}
    if change.denied:
        denied = change.denied
        shown |= {"layer": denied.layer, "verdict": denied.verdict, "operation": denied.operation}
        shown |= {"what": denied.what, "count": denied.count}
    if change.text:
        shown["text"] = change.text
    return shown


def look_document(look: Look) -> dict[str, Any]:
    """A look, as a part of the document."""
    return {
        "status": look.status,
        "verdict": look.verdict or None,
        "label": {"profile": look.label[0], "mode": look.label[1] or None} if look.label[0] else None,
        "checks": dict(look.checks),
        "differences": [drift_document(drift) for drift in look.drifts],
        "unknown": list(look.why),
    }


def drift_document(drift: Drift) -> dict[str, str | None]:
    """A difference, as a part of the document."""
    return {"field": drift.field, "where": drift.where or None, "wanted": drift.wanted, "found": drift.found}


def json_line(document: dict[str, Any]) -> str:
    """A document as a line; ASCII, so that no terminal takes it for anything else."""
    return json.dumps(document) + "\n"


def cut(text: str) -> str:
    """Text that is no longer than a person reads."""
    return text if len(text) <= LONGEST else text[: LONGEST - 2] + " …"


def plain(text: str) -> str:
    """Text that a terminal shows and does not obey."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape", "surrogatepass").decode("ascii") for sign in text)
