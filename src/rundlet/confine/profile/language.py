"""The text of AppArmor profiles taken apart, as far as one has to know where rules and blocks begin and end. No I/O.

Source: apparmor.d(5), and parser_lex.l of apparmor_parser(8) for where a comma or brace belongs to a pattern.
"""

import re
from dataclasses import dataclass, field

HEADER = re.compile(r'(profile|hat|if|else)(?![\w-])|[/"^]|@\{')
LINE = re.compile(r"#?include\s|@\{\w+\}\s*\+?=|\$\{?\w+\}?\s*=")  # statements that a line ends, and no comma
WORD = re.compile(r'"(?:\\.|[^"\\])*"|(?:\\.|[^\s"\\])+', re.DOTALL)


class Malformed(ValueError):
    """The text ends within a block or quotation, or has an end without a beginning."""


@dataclass(frozen=True)
class Statement:
    """A rule or other statement without its comma; `start` and `end` are where it stands in the text."""

    text: str
    start: int
    end: int


@dataclass
class Block:
    """A profile, hat or condition. `name` is the profile's full one, with its parent's; `end` is where its closing brace stands."""

    kind: str  # profile, hat, if, else; "" for the whole text
    name: str
    attachment: str = ""
    flags: tuple[str, ...] = ()
    start: int = 0
    end: int = 0
    statements: list[Statement] = field(default_factory=list)
    blocks: list["Block"] = field(default_factory=list)

    def profiles(self) -> list["Block"]:
        """This and all inner profiles and hats, outer ones first."""
        own = [self] if self.kind in ("profile", "hat") else []
        return own + [one for block in self.blocks for one in block.profiles()]

    def conditional(self) -> list[Statement]:
        """The rules that hold only under conditions."""
        return [one for block in self.blocks if block.kind in ("if", "else") for one in [*block.statements, *block.conditional()]]


def parse(text: str) -> Block:
    """The whole text as a block without a kind. Raises Malformed."""
    reader = _Reader(text)
    whole = Block("", "")
    reader.body(whole)
    whole.end = len(text)
    return whole


def unquoted(word: str) -> str:
    """A word without its quotation marks; escapes within stay, as they are the pattern's."""
    return word[1:-1] if len(word) > 1 and word[0] == word[-1] == '"' else word


def literal(word: str) -> str:
    """A name in a header as the kernel has it: without quotation marks and escapes."""
    return re.sub(r"\\(.)", r"\1", unquoted(word))


class _Reader:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def body(self, block: Block) -> None:
        """Fills a block up to its closing brace, or the end of the text."""
        while (statement := self.statement(block)) is not None:
            end, text = statement
            if end == "{":
                inner = _block(text, block)
                inner.start = self.began
                block.blocks.append(inner)
                self.body(inner)
            elif text:
                block.statements.append(Statement(text, self.began, self.at))

    def statement(self, block: Block) -> tuple[str, str] | None:
        """What ended the next statement, and its text without comments; None where the block ends."""
        text, parts, depth, closing = self.text, [], 0, ""
        self.began = -1
        while self.at < len(text):
            char = text[self.at]
            before = text[self.at - 1] if self.at else "\n"
            if self.began < 0 and not char.isspace() and char not in "}" and not self._comment(before):
                self.began = self.at
                if line := LINE.match(text, self.at):
                    return self._line(line.start())
            if char == "#" and self._comment(before):
                self.at = _end(text, "\n", self.at)
                continue
            if char == "\\":
                parts.append(text[self.at : self.at + 2])
                self.at += 2
                continue
            if char == '"':
                found = re.compile(r'"(?:\\.|[^"\\])*"', re.DOTALL).match(text, self.at)
                if not found:
                    raise Malformed("a quotation without an end")
                parts.append(found[0])
                self.at = found.end()
                continue
            if char == "{" and not depth and (before.isspace() or before == ")") and HEADER.match("".join(parts).strip()):
                self.at += 1
                return "{", "".join(parts).strip()
            if char in "{([":
                depth += 1
                closing = {"{": "}", "(": ")", "[": "]"}[char] + closing
            elif depth and char == closing[0]:
                depth -= 1
                closing = closing[1:]
            elif char == "}" and not depth:
                if not block.kind:
                    raise Malformed("a } without a {")
                if "".join(parts).strip():
                    raise Malformed(f"a rule without a comma: {' '.join(''.join(parts).split())}")
                block.end = self.at
                self.at += 1
                return None
            elif char == "," and not depth and (text[self.at + 1 : self.at + 2] or "\n") in " \t\r\n#}":
                self.at += 1
                return ",", "".join(parts).strip()
            parts.append(char)
            self.at += 1
        if block.kind or depth:
            raise Malformed("a { without a }")
        if "".join(parts).strip():
            raise Malformed(f"a rule without a comma: {' '.join(''.join(parts).split())}")
        return None

    def _comment(self, before: str) -> bool:
        text = self.text
        return text[self.at] == "#" and (before.isspace() or before in ",{}") and not re.compile(r"#include\s").match(text, self.at)

    def _line(self, start: int) -> tuple[str, str]:
        """A statement that ends with its line, or with the include's own end."""
        end = _end(self.text, "\n", start)
        line = self.text[start:end]
        if found := re.match(r'#?include\s+(if\s+exists\s+)?(<[^>]*>|"[^"]*"|\S+)', line):
            end = start + found.end()
        self.at = end
        return "\n", re.sub(r"\s#.*", "", self.text[start:end]).strip()


def _end(text: str, what: str, start: int) -> int:
    found = text.find(what, start)
    return len(text) if found < 0 else found


def _block(header: str, parent: Block) -> Block:
    kind, name, attachment = "profile", "", ""
    flags = re.search(r"(?:flags\s*=\s*)?\(([^)]*)\)", re.sub(r"xattrs\s*=\s*\([^)]*\)", "", header))
    words = WORD.findall(re.sub(r"(xattrs\s*=\s*|flags\s*=\s*)?\([^)]*\)", " ", header))
    if words[0] in ("if", "else"):
        return Block(words[0], parent.name)
    if words[0] in ("profile", "hat"):
        kind, words = words[0], words[1:]
    elif words[0][0] == "^":
        kind, words = "hat", [words[0][1:] or words[1]]
    name = literal(words[0]) if words else ""
    attachment = unquoted(words[1]) if len(words) > 1 else name if name[:1] in "/@" else ""
    outer = parent.name if parent.kind else ""
    named = tuple(re.split(r"[\s,]+", flags[1].strip())) if flags and flags[1].strip() else ()
    return Block(kind, f"{outer}//{name}" if outer else name, attachment, named)
