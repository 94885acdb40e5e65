"""Which layer denies: found by experiment alone, as a pure search.

The search asks for experiments ("would it be allowed with these layers taken away?") and gets answers: True, False, or None where the
experiment could not be made. It begins with each layer by itself. If one alone makes it allowed, that is the answer; if several do,
each of them is one ("dac or capability": either alone would have to give way). If none does, all are taken away at once, and then put
back one by one as long as it stays allowed: what remains is necessary together ("seccomp and capability"). If even that does not help,
the layer is unknown, whatever one might guess.
"""

from collections.abc import Generator, Sequence

Layers = frozenset[str]
Search = Generator[Layers, bool | None, tuple[tuple[str, ...], ...]]


def search(active: Sequence[str]) -> Search:
    """Yields sets of layers to take away; returns the answer: alternatives, each the layers that deny together; () is unknown."""
    alone = []
    for layer in active:
        if (yield frozenset([layer])):
            alone.append((layer,))
    if alone or len(active) < 2:
        return tuple(alone)
    needed = list(active)
    if not (yield frozenset(needed)):
        return ()
    for layer in active:
        rest = [other for other in needed if other != layer]
        if len(rest) > 1 and (yield frozenset(rest)):  # one alone does not do: that was tried
            needed = rest
    return (tuple(needed),)


def text(answer: Sequence[Sequence[str]]) -> str:
    """In words: "seccomp", "dac or capability", "seccomp and capability", "unknown"."""
    return " or ".join(" and ".join(layers) for layers in answer) or "unknown"
