"""The matrix as a page for people: one file, nothing loaded from elsewhere, every text of the document escaped."""

from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Any

from rundlet.confine.matrix.report import WORDS, Document, collapsed, differences, runs_as, says

HERE = Path(__file__).parent
SIGNS = {"apparmor": "AA", "seccomp": "SC", "capability": "CA", "nnp": "NP", "mount": "MO", "devices": "DE", "dac": "FI", "namespace": "NS"}
LAYERS = {
    "apparmor": "AppArmor", "seccomp": "seccomp", "capability": "a capability is missing", "nnp": "no_new_privs",
    "mount": "mounts: masked, read-only, nosuid …",
    "devices": "rules for devices", "dac": "files' owner and mode", "namespace": "the user namespace",
}
OTHERS = {"allowed": "✓", "unknown": "?", "refused": "✗", "absent": "–"}
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
MANY = 20  # lines that are folded away
Cell = Mapping[str, Any]


def page(found: Document) -> str:
    """The whole page."""
    machine = found["machine"]
    body = [
        "<h1>What a container may do, and which layer denies the rest</h1>",
        f"<p class=soft>Linux {escape(machine['kernel'])}, {escape(machine['arch'])} · AppArmor {escape(machine['apparmor'])} · "
        f"control groups {escape(str(machine['cgroup']))} · {found['containers']} containers run</p>",
        _controls(found),
        _legend(),
        _differ(found),
        *(_section(found, runtime) for runtime in found["runtimes"]),
        _rest(found),
    ]
    return "\n".join([
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
        '<link rel="icon" href="data:,">',
        f"<title>rundlet matrix</title>\n<style>\n{(HERE / 'page.css').read_text()}</style>\n</head>\n<body>\n<main>",
        *body,
        "</main>",
        _detail(),
        f"<script>\n{(HERE / 'page.js').read_text()}</script>\n</body>\n</html>\n",
    ])  # fmt: skip


def _controls(found: Document) -> str:
    runtimes = "".join(f"<option>{escape(one['name'])}</option>" for one in found["runtimes"])
    layers = "".join(f'<option value="{name}">denied by {name}</option>' for name in SIGNS)
    others = "".join(f'<option value="{name}">{word}</option>' for name, word in WORDS.items() if name != "denied")
    parts = [
        '<form role="search">',
        '<label>Filter <input id="text" type="search" placeholder="mount, nnp=config, EPERM …" autocomplete="off"></label>',
        f'<label>Runtime <select id="runtime"><option value="">every one</option>{runtimes}</select></label>',
        f'<label>Outcome <select id="layer"><option value="">every one</option>{others}',
        f'<option value="several">denied by several</option>{layers}',
        '<option value="nobody">denied, layer unknown</option></select></label>',
        '<output id="count" aria-live="polite"></output></form>',
        '<p class="soft keys"><kbd>/</kbd> filters, <kbd>Tab</kbd> reaches the table, arrows go from cell to cell, ',
        "<kbd>Enter</kbd> tells more, <kbd>Esc</kbd> goes back.</p>",
    ]
    return "".join(parts)


def _legend() -> str:
    signs = [("allowed", "✓", "allowed")] + [("denied", sign, f"denied: {LAYERS[name]}") for name, sign in SIGNS.items()]
    signs += [
        ("several", "CA+SC", "both together"), ("several", "CA/FI", "if either gave way it would be allowed"),
        ("unknown", "?", "unknown"), ("refused", "✗", "the runtime refused"), ("absent", "–", "not to be tried here"),
    ]
    items = (f'<li><span class="sign {kind}">{sign}</span> {escape(word)}</li>' for kind, sign, word in signs)
    return f'<ul class="legend">{"".join(items)}</ul>'


def _differ(found: Document) -> str:
    lines = differences(found)
    if not lines:
        return ""
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    what = "one cell or row" if len(lines) == 1 else f"{len(lines)} cells or rows"
    state = " open" if len(lines) < MANY else ""
    return f'<details class="differ"{state}><summary>The runtimes differ in {what}</summary><ul>{items}</ul></details>'


def _section(found: Document, runtime: Mapping[str, Any]) -> str:
    name = runtime["name"]
    cells = {(cell["setting"], cell["probe"]): cell for cell in found["cells"] if cell["runtime"] == name}
    heads = "".join(f'<th scope="col"><span>{escape(probe["name"])}</span></th>' for probe in found["probes"])
    rows = [_row(row, found["probes"], cells) for row in found["rows"] if row["runtime"] == name and row["status"] != "absent"]
    return (
        f'<section data-runtime="{escape(name)}"><h2>{escape(runtime["version"])}</h2><div class="scroll"><table>'
        f'<thead><tr><th scope="col">setting</th>{heads}</tr></thead><tbody>{"".join(rows)}</tbody></table></div></section>'
    )


def _row(row: Mapping[str, Any], probes: Iterable[Mapping[str, Any]], cells: Mapping[tuple[str, str], Cell]) -> str:
    runs = "" if row["status"] == "refused" else runs_as(row["facts"])
    text = escape(f"{row['setting']} {runs}".lower())
    head = f'<th scope="row">{escape(row["setting"])}<small>{escape(runs)}</small></th>'
    whole = list(probes)
    if row["status"] == "refused":
        why = row["why"]
        data = attributes({"text": f"refused to start {why}".lower(), "layers": "refused", "is": WORDS["refused"], "why": why})
        said = f'<span class="sign refused">✗</span> refused to start, because {escape(why)}'
        body = f'<td class="why" colspan="{len(whole)}"{data}>{said}</td>'
    else:
        body = "".join(_cell(cells[row["setting"], probe["name"]], probe) for probe in whole)
    return f'<tr data-text="{text}"{attributes({"setting": row["setting"], "runs": runs, "command": row["command"]})}>{head}{body}</tr>'


def _cell(cell: Cell, probe: Mapping[str, Any]) -> str:
    sign, kind = sign_of(cell)
    said = says(cell)
    data = attributes({
        "text": f"{cell['probe']} {said} {cell.get('errno', '')} {cell.get('why', '')}".lower(), "layers": " ".join(kinds(cell)),
        "probe": cell["probe"],
        "is": said, "what": f"{probe['what']}. Harmless: {probe['harmless']}.", "errno": cell.get("errno"), "why": cell.get("why"),
        "log": "\n\n".join(cell.get("log", [])),
    })  # fmt: skip
    label = escape(f"{cell['probe']}: {said}")
    return (
        f'<td{data}><button type="button" tabindex="-1" class="{kind}" aria-label="{label}" title="{label}">'
        f'<span class="name">{escape(cell["probe"])} </span>{breakable(escape(sign))}</button></td>'
    )


def breakable(sign: str) -> str:
    """Signs of several layers may stand one below the other."""
    return sign.replace("+", "+<wbr>").replace("/", "/<wbr>")


def attributes(values: Mapping[str, Any]) -> str:
    """data-* attributes, escaped; those without a value are left out."""
    return "".join(f' data-{name}="{escape(str(value))}"' for name, value in values.items() if value)


def sign_of(cell: Cell) -> tuple[str, str]:
    """What stands in a cell, and its class: never a colour alone."""
    if cell["is"] != "denied":
        return OTHERS[cell["is"]], cell["is"]
    layers = cell["layers"]
    if not layers:
        return "?", "unknown"
    several = len(layers) > 1 or len(layers[0]) > 1
    return "/".join("+".join(SIGNS.get(layer, layer) for layer in together) for together in layers), "several" if several else "denied"


def kinds(cell: Cell) -> list[str]:
    """What the choice of outcomes goes by."""
    if cell["is"] != "denied":
        return [cell["is"]]
    layers = sorted({layer for together in cell["layers"] for layer in together})
    return [*layers, *(["several"] if len(layers) > 1 else []), *([] if layers else ["nobody"])]


def _rest(found: Document) -> str:
    lines = [*collapsed(found["rows"]), *(f"Changed for the probes: {note}." for note in found["notes"]), f"Tried: {found['design']}."]
    probes = "".join(
        f"<dt>{escape(probe['name'])}</dt><dd>{escape(probe['what'])} <span class=soft>— harmless: {escape(probe['harmless'])}</span></dd>"
        for probe in found["probes"]
    )
    said = "".join(f"<p>{escape(line)}</p>" for line in lines)
    return f'<h2>What was not tried</h2>{said}<h2>The probes</h2><dl class="probes">{probes}</dl>'


def _detail() -> str:
    rows = (
        ("is", "outcome"), ("setting", "setting"), ("runs", "runs as"), ("what", "tried"), ("errno", "seen"), ("why", "besides"),
        ("log", "kernel log"), ("command", "command"),
    )
    body = "".join(f'<dt>{word}</dt><dd id="detail-{name}"></dd>' for name, word in rows)
    return (
        '<dialog id="detail" aria-labelledby="detail-title"><h2 id="detail-title"></h2>'
        f'<dl>{body}</dl><form method="dialog"><button>Close</button></form></dialog>'
    )
