"""Plans and explanations as text: one line a fact, wide enough to be read, narrow enough for a terminal."""

import textwrap
from typing import TYPE_CHECKING, Any

from rundlet import kernel
from rundlet.plan.step import Call, Data, Out, Part, Ptr, Scratch, Slot

if TYPE_CHECKING:
    from rundlet.confine.document import Document
    from rundlet.plan.stages import Plan

PRCTL = {value: name for name, value in vars(kernel).items() if name.startswith("PR_") and not name.startswith("PR_CAP_AMBIENT_")}
WIDTH = 118
INDENT = 16


def section(shown: "Document", plan: "Plan | None") -> str:
    """The explanation, a heading at the left of each matter; with `plan` its steps and their calls behind it."""
    lines: list[str] = []
    if shown["refused"]:
        lines += _entry("refused", shown["refused"])
    if shown["profiles"]:
        lines += _entry("profiles", f"{', '.join(shown['profiles']['names'])} of {shown['profiles']['file']}, loaded first")
    label = shown["label"]
    if label["action"] != "refuse":
        lines += _entry("label", f"{label['from'] or 'none'} → {label['to'] or 'none'}")
        lines += _entry("", f"because {label['reason']}" + (f" (row {label['row']})" if label["row"] else ""))
    nnp = shown["noNewPrivileges"]
    source = " and ".join(word for word, holds in (("asked for", nnp["asked"]), ("inherited", nnp["inherited"])) if holds)
    lines += _entry("no_new_privs", f"set: {source}" if nnp["holds"] else "not set: what is executed may gain privilege")
    user = shown["user"]
    groups = f", groups {', '.join(map(str, user['additionalGids']))}" if user["additionalGids"] else ""
    lines += _entry("user", f"{user['uid']}, group {user['gid']}{groups}")
    for kind, names in shown["capabilities"].items():
        words = ", ".join(name.removeprefix("CAP_").lower() for name in names)  # type: ignore[attr-defined]
        lines += _entry("capabilities" if kind == "bounding" else "", f"{kind}: {words or 'none'}")
    lines += _entry("seccomp", _seccomp(shown["seccomp"]))
    spaces = shown["namespaces"]
    lines += _entry("namespaces", "; ".join(f"{kind}: {path}" for kind, path in spaces.items()) or "none of its own")
    missing = [kind for kind in ("pid", "mount", "network", "ipc", "uts", "user", "cgroup", "time") if kind not in spaces]
    lines += _entry("", f"the host's: {', '.join(missing)}" if missing else "")
    lines += _entry("root", shown["root"]["path"] + (" (read-only)" if shown["root"]["readonly"] else " (writable)"))
    for i, mount in enumerate(shown["mounts"]):
        given = (f"{mount['destination']}:", mount["type"] or "bind", mount["source"], ",".join(mount["options"]))
        lines += _entry("mounts" if i == 0 else "", " ".join(word for word in given if word))
    lines += _entry("masked", " ".join(shown["maskedPaths"]) or "nothing")
    lines += _entry("read-only", " ".join(shown["readonlyPaths"]) or "nothing")
    for i, limit in enumerate(shown["cgroup"] or ["no limits"]):
        lines += _entry("cgroup" if i == 0 else "", limit)
    for i, (kind, paths) in enumerate(shown["hooks"].items()):
        lines += _entry("hooks" if i == 0 else "", f"{kind}: {', '.join(paths)}")
    lines += _entry("executes", f"{' '.join(shown['process']['args'])} in {shown['process']['cwd']}")
    for warning in shown["warnings"]:
        lines += _entry("warning", warning)
    if plan:
        lines += ["", *plan_lines(plan)]
    return "\n".join(lines) + "\n"


def plan_lines(plan: "Plan") -> list[str]:
    """A plan as lines: stages, their steps numbered, the calls of each below it."""
    lines = []
    number = 0
    for stage in plan.stages:
        if not stage.steps:
            continue
        lines.append(f"── {stage.name} " + "─" * (60 - len(stage.name)))
        for step in stage.steps:
            number += 1
            lines.append(f"{number:3}  {step.what}")
            lines += [f"         {call_text(call)}" for call in step.calls]
    return lines


def call_text(call: Call) -> str:
    """A call as one would write it: openat2(root, "proc", …) → at; fine: ENOENT → end."""
    text = f"{call.label}: " if call.label else ""
    text += f"{call.name}({', '.join(_named(call.name, i, arg) for i, arg in enumerate(call.args))})"
    if call.into:
        text += f" → {call.into}"
    if call.fine:
        text += f"; fine: {', '.join(call.fine)}" + (f" → go to {call.on_fine}" if call.on_fine else "")
    if call.on_zero:
        text += f"; zero → go to {call.on_zero}"
    if call.on_more:
        text += f"; more → go to {call.on_more}"
    return text


def _named(call: str, index: int, arg: Any) -> str:
    """An argument as the call's manual page would name it."""
    if isinstance(arg, int):
        if arg == kernel.AT_FDCWD:
            return "AT_FDCWD"
        if index == 0 and call == "prctl":
            return PRCTL.get(arg, str(arg))
        if call in ("mkdirat", "mknodat", "umask") and index == {"mkdirat": 2, "mknodat": 2, "umask": 0}[call]:
            return f"{arg:04o}"
    return _argument(arg)


def _argument(arg: Any) -> str:
    if isinstance(arg, Slot):
        return f"<{arg.name}>"
    if isinstance(arg, str):
        return '"' + arg.replace("\n", "\\n") + '"'
    if isinstance(arg, bytes) and arg.isascii() and arg.decode("ascii").isprintable():
        return f'"{arg.decode("ascii")}"'
    if isinstance(arg, bytes):
        words = [f"{int.from_bytes(arg[i : i + 8], 'little'):#x}" for i in range(0, min(len(arg), 32), 8)]
        return "{" + " ".join(words) + (" …}" if len(arg) > 32 else "}")
    if isinstance(arg, Data):
        return "{" + " ".join(_part(part) for part in arg.parts) + "}"
    if isinstance(arg, (Out, Scratch)):
        return f"&{arg.name}"
    if isinstance(arg, Part):
        return f"&{arg.of.name}+{arg.offset}"
    return str(arg) if arg < 4096 else f"{arg:#x}"


def _part(part: Any) -> str:
    if isinstance(part, Ptr):
        return "&" + _argument(part.to)
    return _argument(part)


def _entry(name: str, text: str) -> list[str]:
    if not text:
        return []
    wrapped = textwrap.wrap(text, WIDTH - INDENT, break_long_words=False, break_on_hyphens=False) or [""]
    return [f"{name:{INDENT}}{wrapped[0]}", *(" " * INDENT + line for line in wrapped[1:])]


def _seccomp(described: dict[str, Any] | None) -> str:
    if not described:
        return "none: every system call is allowed"
    return "; ".join(f"{key}: {value}" for key, value in described.items() if value not in (None, [], {}))
