"""Inputs for the hosted executor: programs that are valid but for a few numbers at the edge of what is allowed.

Random bytes never get past the magic number; these know the layout and put the edge cases where a check must be.
"""

import random
from collections.abc import Iterator

from tests.executor.model import (
    CHECK,
    HEAD_SIZE,
    NEXT,
    NONE,
    PUT,
    REDIRECT,
    REPLY,
    ROOM,
    SLOTS,
    SMALL,
    VALUE,
    Address,
    Argument,
    Kept,
    Odd,
    Op,
    Other,
    Returned,
    Word,
    pack,
)  # fmt: skip

HUGE = (1 << 63, (1 << 64) - 1, (1 << 64) - 8, 1 << 32, (1 << 32) - 1, SMALL - 1, ROOM, ROOM - 1)
OWN = (CHECK, PUT, REPLY, NEXT, REDIRECT, VALUE)


def inputs(seed: int, count: int) -> Iterator[bytes]:
    """`count` inputs, the same for the same seed."""
    rng = random.Random(seed)
    for _ in range(count):
        behaviour = rng.choice([0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 64, rng.randrange(128)])
        results = bytes(rng.choice([0, 0, 1, 3, 100, 173, 255, rng.randrange(256)]) for _ in range(15))
        turns = b"".join(program(rng) for _ in range(rng.randint(1, 3)))
        if rng.random() < 0.1:
            turns = turns[: rng.randrange(len(turns))]
        yield bytes([behaviour]) + results + turns


def program(rng: random.Random) -> bytes:
    """One program, mostly well-formed."""
    size, out, other = (rng.choice([0, 8, 16, 64, 64, 64, 256]) for _ in range(3))
    sizes: dict[type, int] = {Word: size - 7, Address: size, Returned: out, Other: other, Kept: SLOTS}
    ops = [_op(rng, sizes) for _ in range(rng.choice([0, 1, 1, 2, 4, 8]))]
    data = rng.randbytes(size)
    links: list[tuple[int, Argument]] = []
    for _ in range(rng.choice([0, 0, 0, 1, 2])):
        arg = _argument(rng, sizes)
        links.append((_edge(rng, size - 7) & 0xFFFFFFFF, arg % SMALL if isinstance(arg, int) else arg))
    said = {}
    if rng.random() < 0.1:
        name = rng.choice(["magic", "ops", "links", "data", "out", "other", "slots", "slots"])
        said[name] = rng.choice([0, 1, size - 1 & 0xFFFFFFFF, size + 8, SLOTS, SLOTS + 1, ROOM - 8, ROOM, ROOM + 1, 0x7FFFFFFF, 0xFFFFFFFF])
    elif rng.random() < 0.01:
        other = ROOM - (len(pack(ops, data, 0, links)) - HEAD_SIZE) - out + rng.choice([0, 1])  # the room's last byte, or the one behind it
    return pack(ops, data, out, links, said, other, SLOTS if rng.random() < 0.01 else rng.choice([0, 8]))


def _edge(rng: random.Random, size: int) -> int:
    """A number below `size`, or close to it, or far off."""
    if size > 0 and rng.random() < 0.85:
        return rng.randrange(size)
    return rng.choice([size - 1, size, size + 1, size + 7, size + 8, *HUGE]) % (1 << 64)


def _op(rng: random.Random, sizes: dict[type, int]) -> Op:
    nr = rng.choice([*OWN, CHECK, PUT, rng.randrange(500), rng.choice([0, 1, 44]), 0xFF06, 0xFFFF])
    args: list[Argument]
    whole = sizes[Address] + sizes[Returned] + sizes[Other]
    if nr == CHECK:
        n = rng.choice([0, 1, 8, whole, *HUGE])
        args = [_place(rng, sizes), _place(rng, sizes), n, rng.choice([1, 5, 74, 4095, 0, 4096, (1 << 64) - 1])]
    elif nr == PUT:
        args = [_argument(rng, sizes), _place(rng, sizes), rng.choice([0, 1, 2, 4, 8, 8, 9, *HUGE])]
    else:
        args = [_argument(rng, sizes) for _ in range(6)]
    return Op(
        nr, tuple(args),
        into=rng.choice([NONE, NONE, 0, 1, SLOTS - 1, SLOTS, SLOTS + 1, NONE - 1, rng.randrange(256)]),
        fine=tuple(rng.choice([1, 2, 5, 17, 74, 255]) for _ in range(rng.randint(0, 4))),
        on_zero=_skip(rng), on_more=_skip(rng), on_fine=_skip(rng),
    )


def _place(rng: random.Random, sizes: dict[type, int]) -> Argument:
    """An address as a rule, and an argument of any kind now and then."""
    kind: type = rng.choice([Address, Returned, Other])
    made: Argument = kind(_edge(rng, sizes[kind]) % SMALL)
    return made if rng.random() < 0.9 else _argument(rng, sizes)


def _skip(rng: random.Random) -> int:
    return rng.choice([0, 0, 0, 0, 1, 2, 7, 0xFFFF])


def _argument(rng: random.Random, sizes: dict[type, int]) -> Argument:
    if rng.random() < 0.4:
        return rng.choice([0, 0, 0, rng.choice([1, 3, *HUGE])])
    if rng.random() < 0.05:
        return Odd(rng.choice([6, 7]), rng.choice([0, 1, SMALL - 1]))
    kind = rng.choice(list(sizes))
    made: Argument = kind(_edge(rng, sizes[kind]) % SMALL)
    return made
