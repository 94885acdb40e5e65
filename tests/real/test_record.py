"""rundlet record: what was asked, decided and observed at the start of a container, as its documentation says it."""

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.bundles import Box, proc_status

DOCS = Path(__file__).parents[2] / "docs/record.md"
FILTER = base64.b64decode("BgAAAAAA/38=")  # one instruction, which allows everything
SETS = {"bounding": "CapBnd", "effective": "CapEff", "permitted": "CapPrm", "inheritable": "CapInh", "ambient": "CapAmb"}


def record(box: Box) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(box.call_apart("record", "--json", box.id).out)
    return found


def digest(text: bytes) -> str:
    return hashlib.blake2b(text, digest_size=32).hexdigest()


def documented() -> dict[str, str]:
    """The keys of the documentation's table, each with what is said of it."""
    rows = re.findall(r"^\| (`.*?) \| (.*) \|$", DOCS.read_text(), re.MULTILINE)
    return {key: text for keys, text in rows for key in re.findall(r"`(\w+)`", keys)}


def test_every_key_is_documented(box: Box) -> None:
    box.linux["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW"}
    box.started()
    found, rows = record(box), documented()
    assert found.keys() == rows.keys()
    assert f"`{found['schema']}`" in rows["schema"]
    for key in ("asked", "decided", "hashes", "observed"):
        assert [inner for inner in found[key] if f"`{inner}`" not in rows[key]] == [], key
    assert {inner for inner in found["host"] if f"`{inner}`" in rows["host"]} == found["host"].keys()
    host = json.loads(box.call_apart("host", "--json").out)
    assert found["host"]["apparmor"].items() <= host["apparmor"].items()
    assert (found["host"]["kernel"], found["host"]["lsm"]) == (host["kernel"], host["lsm"])


@pytest.mark.parametrize("way", ["start", "run"])
def test_what_was_asked_decided_and_observed(box: Box, way: str) -> None:
    box.process["user"] = {"uid": 1000, "gid": 1000}
    box.config["annotations"] = {"run.oci.seccomp_bpf_data": base64.b64encode(FILTER).decode()}
    if way == "run":
        box.save()
        assert box.call_apart("run", "--detach", "--bundle", str(box.bundle), box.id).status == 0
        pid = box.pid
    else:
        pid = box.created()
        early = record(box)
        assert (early["observed"], early["profiles"], early["decided"]["noNewPrivileges"]) == (None, None, True)
        assert "nothing: it has not been started" in box.call_apart("record", box.id).out
        assert box.call_apart("start", box.id).status == 0
        found = record(box)
        assert {**early, "observed": found["observed"], "profiles": found["profiles"]} == found
    found, status = record(box), proc_status(pid)
    assert (found["schema"], found["id"]) == ("rundlet.record/1", box.id)
    asked = found["asked"]
    assert (asked["user"]["uid"], asked["noNewPrivileges"], asked["seccomp"], asked["apparmorProfile"]) == (1000, True, True, None)
    assert asked["namespaces"] == {space["type"]: "new" for space in box.linux["namespaces"]}
    assert (found["decided"]["action"], found["decided"]["seccomp"], bool(found["decided"]["reason"])) == ("keep", 1, True)
    seen = found["observed"]
    assert (seen["noNewPrivileges"], seen["seccomp"], seen["seccompFilters"]) == (True, 2, int(status["Seccomp_filters"]))
    assert seen["capabilities"] == {kind: status[key] for kind, key in SETS.items()}
    assert found["hashes"]["seccomp"] == digest(FILTER)
    assert found["hashes"]["config"] == digest((box.root / box.id / "config.json").read_bytes())
    assert re.fullmatch("[0-9a-f]{64}", found["hashes"]["plan"])
    shown = box.call_apart("record", box.id).out
    for words in (box.id, "user 1000, group 1000", f"seccomp mode 2, {status['Seccomp_filters']} filter(s)", found["decided"]["reason"], *found["hashes"].values()):
        assert words in shown
    assert all(line.isprintable() for line in shown.splitlines())


def test_nothing_that_is_done_later_changes_it(box: Box) -> None:
    box.linux["resources"] = {"pids": {"limit": 64}}
    box.started()
    before = (box.root / box.id / "record.json").read_bytes()
    box.exec("true")
    box.ok("update", "--pids-limit", "32", box.id)
    box.ok("pause", box.id)
    box.ok("resume", box.id)
    box.ended()
    assert (box.root / box.id / "record.json").read_bytes() == before
    assert record(box)["observed"]["seccomp"] == 0


def test_the_plan_is_told_apart(box: Box) -> None:
    """Two containers that differ in a limit alone do not have the same plan; the same one again has."""
    plans = []
    for limit in (64, 64, 32):
        box.linux["resources"] = {"pids": {"limit": limit}}
        box.process["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": limit, "hard": limit}]
        box.started()
        plans.append(record(box)["hashes"]["plan"])
        box.ended()
        box.ok("delete", box.id)
    assert plans[0] == plans[1] != plans[2]


def test_a_record_that_is_not_there_or_damaged(box: Box) -> None:
    box.started()
    file = box.root / box.id / "record.json"
    text = file.read_bytes()
    file.write_bytes(text[:-40])
    done = box.call("record", box.id)
    assert (done.status, done.out, done.err.startswith("rundlet: record.json:")) == (1, "", True), done
    file.unlink()
    done = box.call("record", "--json", box.id)
    assert (done.status, done.out) == (1, "")
    assert done.err == f"rundlet: container {box.id} has no record: it was not completed, or was made by an earlier version\n"
    assert box.call("record", "nobody").status == 1
