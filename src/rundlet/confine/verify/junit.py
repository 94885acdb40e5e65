"""Reports as JUnit XML, as CI shows it: a suite for each container, a case for each fact."""

from typing import TYPE_CHECKING
from xml.sax.saxutils import escape, quoteattr

from rundlet.confine.verify.facts import FACTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rundlet.confine.verify.model import Report


def suites(reports: "Sequence[Report]") -> str:
    """The document. A fact that differs is a failure, one that could not be told an error, one that was not asked for is not there."""
    head = '<?xml version="1.0" encoding="UTF-8"?>\n<testsuites name="rundlet verify">\n'
    return head + "".join(map(_suite, reports)) + "</testsuites>\n"


def _suite(report: "Report") -> str:
    facts = [fact for fact in FACTS if fact in report.checked or fact in report.facts]
    failed = {one.fact for one in report.differences}
    open_ = {one.fact for one in report.unknown} - failed
    head = f'name={_quoted(report.name)} tests="{len(facts)}" failures="{len(failed)}" errors="{len(open_)}" skipped="0"'
    return f"  <testsuite {head}>\n" + "".join(_case(report, fact) for fact in facts) + "  </testsuite>\n"


def _case(report: "Report", fact: str) -> str:
    head = f"<testcase classname={_quoted(report.name)} name={_quoted(f'{fact}: {FACTS[fact][0]}')}"
    different = [one for one in report.differences if one.fact == fact]
    unknown = [one for one in report.unknown if one.fact == fact]
    if different:
        lines = [f"{one.subject}: asked: {one.asked}; holds: {one.holds}; {one.why}" for one in different]
        lines += [f"{one.subject}: cannot tell: {one.why}" for one in unknown]
        kind = "failure"
    elif unknown:
        lines, kind = [f"{one.subject}: {one.why}" for one in unknown], "error"
    else:
        return f"    {head}/>\n"
    return f"    {head}><{kind} message={_quoted(lines[0])} type={_quoted(fact)}>{_escaped(chr(10).join(lines))}</{kind}></testcase>\n"


def _clean(text: str) -> str:
    """XML 1.0 has no control characters, not even escaped; names of processes may have."""
    return "".join(c if c in "\n\t" or (c >= " " and c not in "\ufffe\uffff" and not "\ud800" <= c <= "\udfff") else "\ufffd" for c in text)


def _quoted(text: str) -> str:
    return quoteattr(_clean(text))


def _escaped(text: str) -> str:
    return escape(_clean(text))
