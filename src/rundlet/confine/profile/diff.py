"""rundlet profile diff: what one profile permits that another does not."""

from dataclasses import asdict
from typing import Any

from rundlet.confine.profile.compare import Difference, compare
from rundlet.confine.profile.source import Source, find, loaded
from rundlet.errors import Usage
from rundlet.options import Options

SAYS = {"a": "A permits more", "b": "B permits more", "same": "both permit the same", "": "which permits more is not certain"}


def main(options: Options, words: list[str]) -> tuple[dict[str, Any], list[Any], bool | None]:
    """The action: same is true, different false, and None where it cannot be told."""
    if len(words) != 2:
        raise Usage("profile diff takes two: rundlet profile diff A B, each a file or the name of a loaded profile")
    there = loaded()
    a, b = (find(word, there) for word in words)
    if a.flat and b.flat:
        found = texts(a, b)
        document = {"a": words[0], "b": words[1], "by": "text", "profiles": [asdict(one) for one in found]}
        return document, [line for one in found for line in shown(one)], all(one.more == "same" for one in found)
    return contents(a, b, words)


def texts(a: Source, b: Source) -> list[Difference]:
    """Of two files: profiles of the same name, or the only one of each, whatever their names."""
    assert a.flat and b.flat
    left, right = a.blocks(), b.blocks()
    if len(left) == len(right) == 1 and left.keys() != right.keys():
        pairs = [(next(iter(left)), next(iter(right)))]
    else:
        pairs = [(name, name) for name in dict.fromkeys([*left, *right])]
    found = []
    for mine, theirs in pairs:
        name = mine if mine == theirs else f"{mine} and {theirs}"
        one, other = left.get(mine), right.get(theirs)
        found.append(compare(name, (one, a.flat) if one else None, (other, b.flat) if other else None))
    return found


def shown(one: Difference) -> list[str]:
    """A difference as lines: < is in A alone, > in B alone."""
    lines = [f"{one.name}: {SAYS[one.more]}" + (f": {one.why}" if one.why else "")]
    if one.flags_a != one.flags_b:
        lines += [f"  < flags=({', '.join(one.flags_a)})", f"  > flags=({', '.join(one.flags_b)})"]
    return [*lines, *(f"  < {text}," for text in one.only_a), *(f"  > {text}," for text in one.only_b)]


def contents(a: Source, b: Source, words: list[str]) -> tuple[dict[str, Any], list[Any], bool | None]:
    """Where one of them is known by the kernel alone, which has no rules to show, but a hash of what was compiled, and the mode."""
    pairs: list[dict[str, Any]] = []
    left, right = _facts(a), _facts(b)
    names = [name for name in left if name in right] or ([next(iter(left))] if len(left) == len(right) == 1 else [])
    for name in names:
        other = name if name in right else next(iter(right))
        hashes, theirs = left[name]["hashes"], right[other]["hashes"]
        common = sorted(hashes.keys() & theirs.keys())
        same = all(hashes[kind] == theirs[kind] for kind in common) if common and name == other else None
        modes = left[name]["mode"], right[other]["mode"]
        pairs.append({
            "name": name, "other": other, "same": same, "modes": list(modes),
            "hash": {kind: [hashes[kind], theirs[kind]] for kind in common},
        })
    lines = []
    for pair in pairs:
        both = pair["name"] if pair["name"] == pair["other"] else f"{pair['name']} and {pair['other']}"
        text = {True: "the same content", False: "another content", None: _why_not(pair)}[pair["same"]]
        lines.append(f"{both}: {text}")
        lines += [f"  {kind} {one} and {other}" for kind, (one, other) in pair["hash"].items()]
        if None not in pair["modes"]:
            lines.append(f"  mode {pair['modes'][0]} and {pair['modes'][1]}")
    missing = sorted(set(left) ^ set(right)) if pairs and not (len(left) == len(right) == 1) else []
    for name in missing:
        lines.append(f"{name}: only in {words[0] if name in left else words[1]}")
    if not pairs:
        lines.append("they have no profile in common")
    verdict: bool | None = bool(pairs) and all(pair["same"] is True and len(set(pair["modes"]) - {None}) < 2 for pair in pairs)
    if verdict is False and any(pair["same"] is None for pair in pairs):
        verdict = None
    return {"a": words[0], "b": words[1], "by": "hash", "profiles": pairs}, lines, verdict


def _why_not(pair: dict[str, Any]) -> str:
    if pair["name"] != pair["other"]:
        return "the name is part of the content that the kernel hashes, so two names cannot be compared by it"
    return "the kernel keeps no hash to compare"


def _facts(source: Source) -> dict[str, dict[str, Any]]:
    if source.loaded:
        return {source.loaded.name: {"hashes": source.loaded.hashes, "mode": source.loaded.mode}}
    modes = {name: next((flag for flag in block.flags if flag in ("complain", "unconfined", "kill", "prompt")), "enforce")
             for name, block in source.blocks().items()}
    return {one.name: {"hashes": one.hashes, "mode": modes.get(one.name)} for one in source.compiled}
