"""The page: its files, and the rows as it shows them. It shows ids, labels and limits; no environment, and no arguments of processes."""

import json
from collections.abc import Iterable
from importlib.resources import files
from typing import Any

from rundlet.confine.watch import lines
from rundlet.confine.watch.table import Row, Table

ASSETS = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/watch.css": ("watch.css", "text/css; charset=utf-8"),
    "/watch.js": ("watch.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
# everything is this page's own, and nothing may be sent anywhere else; no other page may show it in a frame
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

# the columns of the page → the facts of verify in them: as many as fit
COLUMNS = {
    "AppArmor": ("apparmor.label", "apparmor.mode", "apparmor.policy"),
    "no_new_privs": ("no-new-privs",),
    "seccomp": ("seccomp",),
    "capabilities": ("capabilities",),
    "user": ("user", "groups", "id-map"),
    "namespaces": ("namespace",),
    "files": ("root", "propagation", "mount", "masked-path", "read-only-path"),
    "limits": ("cgroup", "limit", "rlimit", "oom-score"),
    "devices": ("devices",),
    "process": ("process", "program", "working-directory", "descriptor", "hidden", "parent-death"),
}
BEAT = b"event: beat\ndata: {}\n\n"  # says to a page, and to whatever is in between, that the stream is still there


def load() -> dict[str, tuple[bytes, str]]:
    """The files by path: (content, content type)."""
    folder = files(__package__) / "static"
    return {path: ((folder / name).read_bytes(), kind) for path, (name, kind) in ASSETS.items()}


def shown(row: Row) -> dict[str, Any]:
    """A row as the page gets it."""
    look = row.look
    return {
        "id": row.id,
        "status": look.status,
        "verdict": look.verdict,
        "label": look.label,
        "time": round(row.time, 3),
        "checks": columns(look.checks),
        "drifts": [lines.cut(str(drift)) for drift in look.drifts[: lines.MOST]],
        "why": [lines.cut(why) for why in look.why[: lines.MOST]],
        "more": max(0, len(look.drifts) - lines.MOST) + max(0, len(look.why) - lines.MOST),
        "denials": dict(row.denials),
    }


def columns(checks: Iterable[tuple[str, str]]) -> dict[str, str]:
    """What came of each column: the worst of its facts, "" where none was looked at."""
    states = dict(checks)
    found = {}
    for name, facts in COLUMNS.items():
        here = {states.get(fact, "") for fact in facts}
        found[name] = next((state for state in ("differs", "unknown", "holds") if state in here), "")
    return found


class Difference:
    """What one page has not been told yet."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.sent: dict[str, int] = {}

    def hello(self, **more: Any) -> bytes:
        """What comes first: the ids that there are, so that a page which was cut off forgets the others."""
        return _event("hello", {"ids": sorted(self.table.rows), "columns": list(COLUMNS), **more})

    def take(self) -> bytes:
        """The events that bring the page up to date, one for each row that changed and one for those that are gone; b"" for none."""
        rows = self.table.rows
        gone = [id for id in self.sent if id not in rows]
        news = sorted((row for row in rows.values() if self.sent.get(row.id) != row.revision), key=lambda row: row.id)
        for id in gone:
            del self.sent[id]
        self.sent |= {row.id: row.revision for row in news}
        parts = [_event("gone", gone)] if gone else []
        return b"".join(parts + [_event("row", shown(row)) for row in news])


def _event(name: str, data: Any) -> bytes:
    """A server-sent event; JSON has no newlines: html.spec.whatwg.org, "Server-sent events"."""
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()
