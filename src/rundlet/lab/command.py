"""rundlet lab: the words of the command line for the lab."""

from rundlet import lab
from rundlet.errors import Usage
from rundlet.lab.fetch import SUITES
from rundlet.options import Options

MEMORY = 2048  # MiB


def main(options: Options) -> int:
    """The verb: the status is the command's own; 124 after --timeout, 125 when the lab failed."""
    if not options.args:
        raise Usage("lab needs a command to run: rundlet lab -- COMMAND")
    if options.kernel and options.suite:
        raise Usage("lab takes either --kernel or --suite")
    suite = options.suite or "bookworm"
    if suite not in SUITES:
        raise Usage(f"unknown suite {suite}; known are {', '.join(SUITES)}")
    env = {}
    for word in options.env:
        name, equals, value = word.partition("=")
        if not name or not equals:
            raise Usage(f'--env: "{word}" is not NAME=VALUE')
        env[name] = value
    if options.memory and not options.memory.isdigit():
        raise Usage(f'--memory: "{options.memory}" is not a number of MiB')
    try:
        timeout = float(options.timeout or 0)
    except ValueError:
        raise Usage(f'--timeout: "{options.timeout}" is not a number of seconds') from None
    memory = int(options.memory) if options.memory else MEMORY
    return lab.main(options.kernel, suite, timeout, env, options.args, memory, options.append or "", options.systemd)
