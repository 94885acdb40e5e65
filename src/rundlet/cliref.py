"""The command line described: help, man page and completions, all from the table in options.py and the texts in helptexts.py."""

import sys
from textwrap import fill

from rundlet import __version__, helptexts
from rundlet.errors import Usage
from rundlet.options import GLOBAL, VERBS, Options

WIDTH = 100
PLACES = (
    ("/run/rundlet", "The containers, a folder each: --root."),
    ("$XDG_RUNTIME_DIR/rundlet, /run/user/UID/rundlet, /tmp/rundlet-UID", "Those of users without privileges, in the first that is there."),
    ("/var/cache/rundlet, ~/.cache/rundlet", "What was found out once: compiled filters, plans, the lab's kernels."),
)
FILES = ("DIR", "FILE", "PATH", "FACTS")  # values whose completion is the name of a file


def main(options: Options) -> int:
    """The verbs `man` and `completion`."""
    if options.verb == "man":
        text = man()
    elif options.args[0] in SHELLS:
        text = SHELLS[options.args[0]]()
    else:
        raise Usage(f"no completion for {options.args[0]}: it is one of {', '.join(SHELLS)}")
    sys.stdout.write(text)
    return 0


def files() -> dict[str, str]:
    """What an installation puts below its prefix: place → text."""
    return {
        "share/man/man8/rundlet.8": man(),
        "share/bash-completion/completions/rundlet": bash(),
        "share/zsh/site-functions/_rundlet": zsh(),
        "share/fish/vendor_completions.d/rundlet.fish": fish(),
    }


def rows(verb: str) -> list[tuple[list[str], str, str]]:
    """The options of a verb, or the global ones for "": (spellings with dashes, the long one first; what it takes; its text)."""
    made = []
    for word in (VERBS[verb][2] if verb else GLOBAL).split():
        names, _, takes = word.partition("=")
        names, implies, _ = names.partition(">")
        long, *short = names.split(",")
        text = helptexts.OPTIONS.get(f"{verb} {long}") or helptexts.OPTIONS[long]
        made.append((["--" + long, *("-" + letter for letter in short)], "" if implies else takes, text))
    return made


def synopsis(verb: str) -> str:
    """The shape of a call."""
    if not verb:
        return "rundlet [GLOBAL OPTION...] COMMAND [OPTION...] [ARGUMENT...]"
    return " ".join(["rundlet", verb, "[OPTION...]", VERBS[verb][1]]).rstrip()


def help_text(verb: str) -> str:
    """What --help prints; for "" that of the whole."""
    lines = ["usage: " + synopsis(verb), ""]
    if verb:
        brief, more = helptexts.VERBS[verb]
        lines += [fill(f"{brief[0].upper()}{brief[1:]}. {more}".rstrip(), WIDTH), ""]
    else:
        lines += [fill(f"rundlet: {helptexts.SUMMARY}.", WIDTH), "", "commands:"]
        lines += [f"  {name:12}{helptexts.VERBS[name][0]}" for name in VERBS]
        lines += ["", "`rundlet COMMAND --help` tells the options of one.", ""]
    lines += ["options:" if verb else "global options, before the command:"]
    for names, takes, text in rows(verb):
        lines += _entry("  " + ", ".join(reversed(names)) + _value(takes), text)
    return "\n".join(lines) + "\n"


def _value(takes: str) -> str:
    return " " + takes.removesuffix("...") if takes else ""


def _entry(left: str, text: str) -> list[str]:
    indent = " " * 34
    wrapped = fill(text, WIDTH, initial_indent=indent, subsequent_indent=indent).split("\n")
    if len(left) < len(indent) - 1:
        return [left.ljust(len(indent)) + wrapped[0].lstrip(), *wrapped[1:]]
    return [left, *wrapped]


def man() -> str:
    """The man page, in man(7) macros."""
    lines = [f'.TH RUNDLET 8 "" "rundlet {__version__}" "System Administration"', ".SH NAME", _roff(f"rundlet - {helptexts.SUMMARY}")]
    lines += [".SH SYNOPSIS", _roff(synopsis("")), ".SH GLOBAL OPTIONS", *_roff_options("")]
    lines += [".SH COMMANDS"]
    for verb in VERBS:
        brief, more = helptexts.VERBS[verb]
        lines += [".SS " + _roff(synopsis(verb)), _roff(f"{brief[0].upper()}{brief[1:]}. {more}".rstrip()), *_roff_options(verb)]
    lines += [
        ".SH EXIT STATUS",
        _roff("0 for success, 1 for an error. run and exec in the foreground exit with the status of the program,"),
        _roff("or with 128 and the number of the signal that ended it. exec exits with 255 if the program could not be run."),
        _roff("create, run and start exit with 126 or 127 for a program that cannot be executed or is not there. verify, denials, watch,"),
        _roff("matrix and profile exit with 1 where something differs, was denied or is in the way, and with 2 where that cannot be told,"),
        _roff("which includes errors; lab as is said there."),
        ".SH FILES",
        *(line for path, text in PLACES for line in (".TP", f"\\fI{_roff(path)}\\fR", _roff(text))),
        ".SH SEE ALSO",
        _roff("The OCI runtime specification; apparmor(7), capabilities(7), cgroups(7), namespaces(7), seccomp(2)."),
    ]
    return "\n".join(lines) + "\n"


def _roff(text: str) -> str:
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return "\\&" + text if text[:1] in (".", "'") else text


def _roff_options(verb: str) -> list[str]:
    lines = []
    for names, takes, text in rows(verb):
        value = f" \\fI{_roff(takes.removesuffix('...'))}\\fR" if takes else ""
        lines += [".TP", ", ".join(f"\\fB{_roff(name)}\\fR" for name in reversed(names)) + value, _roff(text[0].upper() + text[1:] + ".")]
    return lines


def _words(verb: str) -> list[str]:
    return [name for names, _, _ in rows(verb) for name in names]


def _choices(takes: str) -> list[str]:
    return takes.split("|") if "|" in takes else []


def _completed(verb: str) -> str:
    """What the verb's first word is: ID, DIR, SHELL, or nothing that can be offered."""
    return {"ID": "ID", "BUNDLE": "DIR", "SHELL": "SHELL"}.get(VERBS[verb][1].partition(" ")[0].strip("[]."), "")


def bash() -> str:
    """Completion for bash, without need of the bash-completion package."""
    takes = {name: takes for verb in ("", *VERBS) for names, takes, _ in rows(verb) if takes for name in names}
    every = "|".join(takes)
    files = "|".join(name for name in takes if takes[name] in FILES)
    cases = "".join(f'        {verb}) words="{" ".join(_words(verb))}" first={_completed(verb) or "none"} ;;\n' for verb in VERBS)
    offered = [
        (verb or "*", name, " ".join(_choices(takes))) for verb in ("", *VERBS) for names, takes, _ in rows(verb) for name in names
        if _choices(takes)
    ]
    values = "".join(f'        {verb}:{name}) COMPREPLY=($(compgen -W "{words}" -- "$word")); return ;;\n' for verb, name, words in offered)
    return f"""\
# bash completion for rundlet
_rundlet() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} verb= root=() count=0 option words first i
    for ((i = 1; i < COMP_CWORD; i++)); do # bash makes three words of --root=/x
        case ${{COMP_WORDS[i]}} in
        {every})
            option=${{COMP_WORDS[i]}}
            [[ ${{COMP_WORDS[i+1]}} == = ]] && ((i++))
            ((i++))
            [[ $option == --root ]] && root=(--root "${{COMP_WORDS[i]}}")
            ;;
        -*) ;;
        *) [[ $verb ]] && ((count++)) || verb=${{COMP_WORDS[i]}} ;;
        esac
    done
    [[ $word == = ]] && word=
    [[ $before == = ]] && before=${{COMP_WORDS[COMP_CWORD-2]}}
    COMPREPLY=()
    case $verb:$before in
{values}    esac
    case $before in
        {files}) COMPREPLY=($(compgen -f -- "$word")); return ;;
        {every}) return ;;
    esac
    case $verb in
        "") words="{" ".join(_words(""))}" first=verb ;;
{cases}        *) return ;;
    esac
    case $word:$count:$first in
        -*) COMPREPLY=($(compgen -W "$words" -- "$word")) ;;
        *:0:verb) COMPREPLY=($(compgen -W "{" ".join(VERBS)}" -- "$word")) ;;
        *:0:ID) COMPREPLY=($(compgen -W "$(rundlet "${{root[@]}}" list --quiet 2>/dev/null)" -- "$word")) ;;
        *:0:DIR) COMPREPLY=($(compgen -d -- "$word")) ;;
        *:0:SHELL) COMPREPLY=($(compgen -W "{" ".join(SHELLS)}" -- "$word")) ;;
    esac
}}
complete -F _rundlet rundlet
"""


def zsh() -> str:
    """Completion for zsh."""
    def quote(text: str) -> str:
        return text.replace("'", "'\\''").replace("[", "\\[").replace("]", "\\]").replace(":", "\\:")

    def spec(verb: str) -> str:
        lines = []
        for names, takes, text in rows(verb):
            action = ""
            if takes:
                offered = f"({' '.join(_choices(takes))})" if _choices(takes) else "_files" if takes in FILES else " "
                action = f":{quote(takes.removesuffix('...').lower().replace('|', ' '))}:{offered}"
            for name in names:
                every = "*" if takes.endswith("...") else "(" + " ".join(names) + ")"
                lines.append(f"'{every}{name}{'=' if takes and name.startswith('--') else ''}[{quote(text)}]{action}'")
        return " \\\n        ".join(lines)

    def first(verb: str) -> str:
        offered = {"ID": "'1:container:_rundlet_ids'", "DIR": "'1:bundle:_directories'", "SHELL": f"'1:shell:({' '.join(SHELLS)})'"}
        return offered.get(_completed(verb), "")

    verbs = " ".join(f"'{verb}:{quote(helptexts.VERBS[verb][0])}'" for verb in VERBS)
    cases = "".join(f"    {verb}) _arguments -s {spec(verb)} {first(verb)} '*::word:_default' ;;\n" for verb in VERBS)
    return f"""\
#compdef rundlet
_rundlet_ids() {{
    local -a ids=(${{(f)"$(rundlet ${{opt_args[--root]:+--root ${{opt_args[--root]}}}} list --quiet 2>/dev/null)"}})
    compadd -a ids
}}
_rundlet() {{
    local curcontext=$curcontext state line
    typeset -A opt_args
    _arguments -C {spec("")} '1:command:->verb' '*::argument:->rest'
    case $state in
    verb) local -a verbs=({verbs}); _describe command verbs ;;
    rest) case $words[1] in
{cases}    esac ;;
    esac
}}
_rundlet "$@"
"""


def fish() -> str:
    """Completion for fish."""
    def quote(text: str) -> str:
        return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"

    lines = ["# fish completion for rundlet", "complete -c rundlet -f"]
    for verb in ("", *VERBS):
        seen = f"__fish_seen_subcommand_from {verb}" if verb else "__fish_use_subcommand"
        if verb:
            lines.append(f"complete -c rundlet -n __fish_use_subcommand -a {verb} -d {quote(helptexts.VERBS[verb][0])}")
            offered = {"ID": "(rundlet list --quiet 2>/dev/null)", "DIR": "(__fish_complete_directories)", "SHELL": " ".join(SHELLS)}
            if _completed(verb):
                lines.append(f"complete -c rundlet -n {quote(seen)} -a {quote(offered[_completed(verb)])}")
        for names, takes, text in rows(verb):
            word = f"complete -c rundlet -n {quote(seen)} -l {names[0][2:]}" + "".join(f" -s {name[1:]}" for name in names[1:])
            if _choices(takes):
                word += f" -x -a {quote(' '.join(_choices(takes)))}"
            elif takes in FILES:
                word += " -r -F"
            elif takes:
                word += " -x"
            lines.append(f"{word} -d {quote(text)}")
    return "\n".join(lines) + "\n"


SHELLS = {"bash": bash, "zsh": zsh, "fish": fish}
