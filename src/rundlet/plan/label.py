"""AppArmor labels as text: what the kernel prints and what it takes for a profile's name. No I/O.

    rt//&:ns:web//&:ns:web//hat (mixed)     three profiles, all of which must permit what the process does, and their mode

A label is one or more profiles joined by `//&`. A profile is named `P`, `P//hat` or, in a policy namespace, `:ns:P`. Kernel
sources cited are those of security/apparmor/.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

LONGEST = 4000  # the kernel cuts what exceeds a page without a word, and a name cut short may be another profile's
BLANKS = b" \t\n\v\f\r\xa0"  # isspace() of the kernel, to which text is Latin-1: lib/ctype.c
LEARNING = "//null-"  # policy.c: how the kernel names the profiles it invents for a complaining one


def parse(text: str) -> "tuple[str, str | None]":
    """Splits a label as the kernel prints it into the label and its mode, which is None for plain `unconfined`.

    The mode is behind the last " (": names may hold blanks and parentheses themselves. A trailing newline (procfs) or NUL
    is dropped. Source: aa_label_snxprint() in label.c.
    """
    text = text.rstrip("\0")
    text = text[:-1] if text[-1:] == "\n" else text
    label, found, mode = text.rpartition(" (")
    return (label, mode[:-1]) if found and mode[-1:] == ")" else (text, None)


def components(label: str) -> "tuple[str, ...]":
    """The profiles of a label without its mode, in the order printed, each by its canonical name; a hat (`P//hat`) is one.

    The kernel prints a policy namespace once for all profiles of it that follow, so `:ns:a//&b` is `:ns:a` and `:ns:b`.
    Source: aa_label_snxprint() and fqlookupn_profile() in label.c.
    """
    found, namespace = [], ""
    for part in label.split("//&"):
        if part[:1] == ":":
            namespace, name = split_namespace(part)
        else:
            name = part
        found.append(f":{namespace}:{name}" if namespace else name)
    return tuple(found)


def joined(profiles: "Iterable[str]") -> str:
    """A label of these profiles in the order in which the kernel prints it: by the depth of the policy namespace, its name, and the
    profile's name, all by bytes, with a namespace once for all profiles of it that follow.

    Source: profile_cmp() and aa_label_snxprint() in label.c.
    """
    parts = sorted({split_namespace(name) for name in profiles}, key=_order)
    found, before = [], ""
    for namespace, name in parts:
        found.append(f":{namespace}:{name}" if namespace != before else name)
        before = namespace
    return "//&".join(found)


def _order(part: "tuple[str, str]") -> "tuple[int, bytes, bytes]":
    namespace, name = part
    depth = namespace.count("//") + 1 if namespace else 0
    return depth, namespace.encode("utf-8", "surrogateescape"), name.encode("utf-8", "surrogateescape")


def split_namespace(name: str) -> "tuple[str, str]":
    """The policy namespace ("" for the reader's own) and the profile of `P`, `:ns:P` or `:ns://P`."""
    if name[:1] != ":":
        return "", name
    namespace, _, profile = name[1:].partition(":")
    return namespace, profile[2:] if profile[:2] == "//" else profile


def canonical(name: str) -> str:
    """A profile's name as labels print it: `:ns://P`, the form of the kernel's list of profiles, becomes `:ns:P`."""
    namespace, profile = split_namespace(name)
    return f":{namespace}:{profile}" if namespace else profile


def loading(name: str) -> str:
    """The command that loads a profile."""
    namespace = split_namespace(name)[0]
    return f"apparmor_parser -n {namespace} -r FILE" if namespace else "apparmor_parser -r FILE"


def pattern(label: str, before: str = "") -> str:
    """A label as a rule of policy names it, quoted where it has to be, with what is to stand `before` it.

    Source: apparmor.d(5); it is a pattern there, so what would be special in it is escaped.
    """
    text = before + "".join("\\" + c if c in '\\*?[]{}^"' else c for c in label)
    return text if all(c.isalnum() or c in "&:/._-+@%=~" for c in text) else f'"{text}"'


def name_fault(name: str, loaded: "Collection[str] | None" = None) -> str:
    """Why the kernel would take `name` for something else than the profile of that name; "" when it would not.

    Source: apparmor_setprocattr() in lsm.c, aa_change_profile() in domain.c, aa_lookupn_profile() in policy.c.
    """
    namespace, profile = split_namespace(name)
    if "\0" in name or "\n" in name:
        return "a profile name holds no NUL and no newline"
    if name[:1] == "&":
        return "a leading & would stack the profile instead of changing to it"
    if "//&" in name:
        return "it is a stack of profiles; name one of them"
    if LEARNING in name:
        return "it names a profile that the kernel invents while learning"
    raw, bare = (text.encode("utf-8", "surrogateescape") for text in (name, profile))
    if raw != raw.strip(BLANKS) or bare != bare.strip(BLANKS):
        return "the kernel drops the blanks around it" + (", and the byte a0 is one to it" if b"\xa0" in (raw[-1:], bare[-1:]) else "")
    if len(raw) > LONGEST:
        return f"it is longer than {LONGEST} bytes"
    if not profile or (name[:1] == ":" and not namespace):
        return "it names no profile, which means unconfined to the kernel"
    if profile == "unconfined" and canonical(name) in map(canonical, loaded or ()):
        return "a profile of that name is loaded, and the kernel would take that one"
    if profile != "unconfined" and "unconfined".startswith(profile) and canonical(name) not in map(canonical, loaded or ()):
        return "the kernel takes it for short for unconfined"
    return ""
