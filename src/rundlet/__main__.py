"""`python -m rundlet`. The installed command does the same, faster: see bin/rundlet."""

from rundlet.cli import run

run()
