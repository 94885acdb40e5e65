"""Reports as SARIF 2.1.0 (OASIS Static Analysis Results Interchange Format), as code hosts and CI show it."""

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from rundlet import __version__
from rundlet.confine.verify.facts import FACTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rundlet.confine.verify.model import Report

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


def log(reports: "Sequence[Report]") -> dict[str, Any]:
    """One run: every fact a rule, every difference an error of kind "fail", what is unknown of kind "open", what holds of kind "pass"."""
    index = {fact: n for n, fact in enumerate(FACTS)}
    results: list[dict[str, Any]] = []
    for report in reports:
        for one in report.differences:
            text = f"{one.subject}: asked: {one.asked}; holds: {one.holds}. {_sentence(one.why)}"
            results.append(_result(one.fact, index, "fail", "error", text, report, one.subject))
        for unknown in report.unknown:
            text = f"{unknown.subject}: cannot tell: {unknown.why}"
            results.append(_result(unknown.fact, index, "open", "none", text, report, unknown.subject))
        for fact in report.checked:
            if fact not in report.facts:
                results.append(_result(fact, index, "pass", "none", FACTS[fact][0], report, "container"))
    rules = [
        {"id": fact, "shortDescription": {"text": what}, "fullDescription": {"text": f"{_sentence(what)} Else: {_sentence(why)}"}}
        for fact, (what, why) in FACTS.items()
    ]
    driver = {"name": "rundlet", "version": __version__, "semanticVersion": __version__, "rules": rules}
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [{"tool": {"driver": driver}, "results": results}]}


def _location(report: "Report", subject: str) -> dict[str, Any]:
    """Whose it is; and a place in a file, without which code hosts show nothing: the configuration, where what was asked for is written."""
    found: dict[str, Any] = {"logicalLocations": [{"name": subject, "fullyQualifiedName": f"{report.name}/{subject}", "kind": "resource"}]}
    if report.config:
        uri = f"file://{quote(report.config, errors='replace')}"
        found["physicalLocation"] = {"artifactLocation": {"uri": uri}, "region": {"startLine": 1}}
    return found


def _result(fact: str, index: dict[str, int], kind: str, level: str, text: str, report: "Report", subject: str) -> dict[str, Any]:
    return {
        "ruleId": fact, "ruleIndex": index[fact], "kind": kind, "level": level, "message": {"text": text},
        "locations": [_location(report, subject)],
        "partialFingerprints": {"rundlet/1": f"{report.name}/{fact}/{subject}"},
    }


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
