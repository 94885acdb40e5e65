"""What the kernel denied, told from its log: AppArmor's and seccomp's records, whose they are, what they mean, and what would permit it.

    record.py    a line of a log → Record        decode.py    Record → Denial, with the help of
    rule.py      what would permit it            meaning.py   what it means          syscalls.py   seccomp's
"""

from rundlet.confine.denials.decode import decode as decode
from rundlet.confine.denials.denial import Denial as Denial
from rundlet.confine.denials.reading import Unreadable as Unreadable
from rundlet.confine.denials.reading import read as read
from rundlet.confine.denials.record import Record as Record
from rundlet.confine.denials.record import parse as parse
