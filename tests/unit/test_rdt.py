"""Groups of resctrl: which one, what is written, what must match; and the writes, into a folder that looks like one."""

from pathlib import Path
from typing import Any

import pytest

from rundlet.errors import Fault, Refused
from rundlet.life import rdt as acts
from rundlet.plan import rdt

MOUNTINFO = (
    "24 29 0:22 / /sys rw,nosuid shared:7 - sysfs sysfs rw\n"
    "99 24 0:50 / /sys/fs/resctrl rw,relatime shared:9 - resctrl resctrl rw\n"
)
HELD = "    L3:0=0ff;1=f0\n    MB:0=100;1=50\n"


def asked(**more: Any) -> Any:
    return {"closID": None, "schemata": [], "l3CacheSchema": None, "memBwSchema": None, "enableMonitoring": False, **more}


def test_where_it_is_mounted() -> None:
    assert rdt.mount(MOUNTINFO) == "/sys/fs/resctrl"
    with pytest.raises(Refused, match="no resctrl filesystem is mounted"):
        rdt.mount(MOUNTINFO.splitlines()[0])


@pytest.mark.parametrize(("clos", "folder"), [(None, "box"), ("group", "group"), ("/", "")])
def test_the_folder(clos: str | None, folder: str) -> None:
    assert rdt.group(asked(closID=clos), "box") == folder


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({}, ""),
        ({"l3CacheSchema": "L3:0=f\nMB:0=10\nL3:1=f", "memBwSchema": "MB:0=20"}, "L3:0=f\nL3:1=f\nMB:0=20\n"),
        ({"schemata": ["L2:0=3", "", "MB:1=5"], "memBwSchema": "MB:0=20"}, "MB:0=20\nL2:0=3\nMB:1=5\n"),
    ],
)
def test_what_is_written(more: dict[str, Any], text: str) -> None:
    assert rdt.schemata(asked(**more)) == text


@pytest.mark.parametrize(
    ("more", "there", "make"),
    [
        ({}, None, True),
        ({}, HELD, False),
        ({"closID": "a", "l3CacheSchema": "L3:0=f"}, None, True),
        ({"closID": "a"}, HELD, False),
        ({"closID": "a", "l3CacheSchema": "L3:1=F0;0=FF"}, HELD, False),
        ({"closID": "a", "memBwSchema": "MB:1=50"}, HELD, False),
        ({"closID": "a", "schemata": ["MB:1=10"]}, HELD, False),
        ({"closID": "a", "l3CacheSchema": "L3:0=0f"}, HELD, None),
        ({"closID": "a", "l3CacheSchema": "L3:2=ff"}, HELD, None),
        ({"closID": "a", "memBwSchema": "MB:0=50"}, HELD, None),
        ({"closID": "a"}, None, None),
    ],
)
def test_whether_it_is_made(more: dict[str, Any], there: str | None, make: bool | None) -> None:
    if make is None:
        with pytest.raises(Refused):
            rdt.check(asked(**more), there)
    else:
        assert rdt.check(asked(**more), there) is make


def test_made_and_removed(tmp_path: Path) -> None:
    (tmp_path / "schemata").write_text(HELD)
    (tmp_path / "mon_groups").mkdir()
    group = acts.at(str(tmp_path), asked(enableMonitoring=True, closID="/"), "box")
    assert group == {"group": str(tmp_path), "monitor": f"{tmp_path}/mon_groups/box", "made": [f"{tmp_path}/mon_groups/box"]}
    acts.make(group, asked(enableMonitoring=True, closID="/"))
    assert (tmp_path / "mon_groups/box").is_dir()
    acts.remove(group)
    assert not (tmp_path / "mon_groups/box").exists()
    assert (tmp_path / "schemata").exists()


def test_a_group_that_another_has_made_meanwhile_stays(tmp_path: Path) -> None:
    (tmp_path / "mon_groups").mkdir()
    group = acts.at(str(tmp_path), asked(), "box")
    (tmp_path / "box").mkdir()
    with pytest.raises(Fault, match="file exists"):
        acts.make(group, asked())
    acts.remove(group)
    assert (tmp_path / "box").is_dir()


def test_a_group_that_is_there_is_joined_and_left(tmp_path: Path) -> None:
    folder = tmp_path / "gold"
    folder.mkdir()
    (folder / "schemata").write_text(HELD)
    (folder / "tasks").write_text("")
    wanted = asked(closID="gold", l3CacheSchema="L3:0=ff", schemata=["MB:0=100"])
    group = acts.at(str(tmp_path), wanted, "box")
    assert group["made"] == []
    acts.make(group, wanted)
    assert (folder / "schemata").read_text().startswith("MB:0=100\n")  # what is asked for beyond what the group holds already
    acts.join(group, 4711)
    assert (folder / "tasks").read_text() == "4711"
    acts.remove(group)
    assert folder.is_dir()


def test_what_the_kernel_says_is_told(tmp_path: Path) -> None:
    (tmp_path / "info").mkdir()
    (tmp_path / "info/last_cmd_status").write_text("mask out of range\n")
    with pytest.raises(Fault, match=r'write "L3:0=0" to .*/box/schemata: no such file or directory \(mask out of range\)'):
        acts.write(str(tmp_path / "box"), "L3:0=0\n")
    with pytest.raises(Fault, match="cannot make"):
        acts.make({"group": "/nothere/a", "monitor": "", "made": ["/nothere/a"]}, asked())
    with pytest.raises(Fault, match="write 7 to /nothere/a/tasks"):
        acts.join({"group": "/nothere/a", "monitor": "", "made": []}, 7)


def put(at: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (at / name).parent.mkdir(parents=True, exist_ok=True)
        (at / name).write_text(text)


def test_what_is_told(tmp_path: Path) -> None:
    put(tmp_path, {
        "info/last_cmd_status": "ok\n", "info/L3/cbm_mask": "fffff\n", "info/L3/min_cbm_bits": "1\n", "info/L3/num_closids": "16\n",
        "info/MB/min_bandwidth": "10\n", "schemata": HELD, "box/schemata": "    L3:0=0f;1=f0\n    MB:0=20;1=50\n",
    })
    for node, llc in (("00", "4096\n"), ("01", "Unavailable\n")):
        put(tmp_path / "box/mon_data" / f"mon_L3_{node}", {"llc_occupancy": llc, "mbm_total_bytes": "9\n", "mbm_local_bytes": "8\n"})
    group: acts.Group = {"group": f"{tmp_path}/box", "monitor": "", "made": []}
    told = {
        "l3_cache_info": {"cbm_mask": "fffff", "min_cbm_bits": 1, "num_closids": 16}, "l3_cache_schema_root": "L3:0=0ff;1=f0",
        "l3_cache_schema": "L3:0=0f;1=f0", "mem_bw_info": {"min_bandwidth": 10}, "mem_bw_schema_root": "MB:0=100;1=50",
        "mem_bw_schema": "MB:0=20;1=50", "mbm_stats": [{"mbm_total_bytes": 9, "mbm_local_bytes": 8}] * 2,
        "cmt_stats": [{"llc_occupancy": 4096}, {"llc_occupancy": 0}],
    }
    assert acts.usage(group) == told
    put(tmp_path / "box/mon_groups/m/mon_data/mon_L3_00", {"llc_occupancy": "5\n"})
    monitored = acts.usage({**group, "monitor": f"{tmp_path}/box/mon_groups/m"})
    assert (monitored["cmt_stats"], "mbm_stats" in monitored) == ([{"llc_occupancy": 5}], False)
    root = acts.usage({"group": str(tmp_path), "monitor": "", "made": []})
    assert root["mem_bw_schema"] == root["mem_bw_schema_root"] == "MB:0=100;1=50"
    assert acts.usage({"group": "/nothere/box", "monitor": "", "made": []}) == {}
