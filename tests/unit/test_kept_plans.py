"""A plan that is kept, filled with the texts of another container, is what planning for that one gives: byte by byte."""

import copy
import json
from marshal import dumps, loads
from types import SimpleNamespace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from rundlet import spec
from rundlet.errors import Fault
from rundlet.executor.program import Program, prepare
from rundlet.executor.template import fill
from rundlet.life import kept
from rundlet.life.spec import template
from rundlet.plan import order
from rundlet.plan.apparmor import Transition
from rundlet.plan.bundle import Bundle, is_bind
from rundlet.plan.devicefilter import load_steps
from rundlet.plan.resources import writes
from rundlet.plan.stages import Choices
from rundlet.plan.write import Write

EXEC = Transition("exec", "web", ("web",), "", 4)
letters = st.characters(exclude_characters="\0", exclude_categories=["Cs"])
words = st.text(letters, min_size=1, max_size=12)
names = st.text(st.sampled_from("abcz09-"), min_size=1, max_size=9)
paths = st.lists(names, min_size=1, max_size=3).map(lambda parts: "/" + "/".join(parts))
variables = st.tuples(st.sampled_from(["A", "HOME", "TERM"]), st.text(letters, max_size=8)).map("=".join)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Any, Any]:
    """Two configurations as they are written, which differ in texts of the container alone, if in anything."""
    value: Any = copy.deepcopy(template())
    value["process"]["terminal"] = False
    value["process"]["noNewPrivileges"] = draw(st.booleans())
    value["root"]["readonly"] = draw(st.booleans())
    value["process"]["user"] = {"uid": draw(st.sampled_from([0, 1000])), "gid": 5, "additionalGids": draw(st.lists(st.integers(0, 9), max_size=2))}
    value["linux"]["namespaces"] = [{"type": kind} for kind in ("pid", "ipc", "uts", "mount", *draw(st.sampled_from([("cgroup",), ()])))]
    value["linux"]["resources"] = draw(st.sampled_from([{}, {"pids": {"limit": 7}}, {"devices": [{"allow": False, "access": "rwm"}]}]))
    if draw(st.booleans()):
        value["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}]}
    if draw(st.booleans()):
        value["mounts"].append({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"]})
    if draw(st.booleans()):
        value["linux"]["namespaces"].append({"type": "user"})
        value["linux"]["uidMappings"] = value["linux"]["gidMappings"] = [{"containerID": 0, "hostID": draw(st.integers(1, 9)), "size": 2000}]
        value["linux"]["devices"] = [{"path": "/dev/more", "type": "c", "major": 1, "minor": 7}]
    joined, hostname = draw(st.booleans()), draw(st.integers(0, 9))
    slash, homes, count = draw(st.booleans()), draw(st.booleans()), draw(st.integers(1, 3))
    binds = draw(st.lists(st.tuples(paths, st.sampled_from([["bind"], ["rbind", "ro"], ["rbind", "rprivate", "nosuid"]])), max_size=3))
    both = []
    for _ in range(2):
        one = copy.deepcopy(value)
        one["root"]["path"] = draw(words)
        one["process"]["args"] = [("/" if slash else "") + draw(names), *draw(st.lists(st.text(letters, max_size=9), max_size=3))]
        folders = draw(st.lists(paths, min_size=count, max_size=count, unique=True))
        env = [entry for entry in draw(st.lists(variables, max_size=4)) if entry[:5] != "HOME="]
        one["process"]["env"] = ["PATH=" + ":".join(folders), *env, *(["HOME=" + draw(paths)] if homes else [])]
        one["annotations"] = draw(st.dictionaries(names, st.text(max_size=5).filter(lambda text: text.isprintable()), max_size=3))
        one["linux"]["cgroupsPath"] = draw(paths)
        one["hostname"] = draw(st.text(st.sampled_from("abc"), min_size=hostname, max_size=hostname))
        one["mounts"] += [{"destination": at, "type": "bind", "source": draw(paths), "options": options} for at, options in binds]
        one["linux"]["namespaces"].append({"type": "network", **({"path": draw(paths)} if joined else {})})
        both.append(one)
    return both[0], both[1]


V1 = {"layout": "v1", "mounts": {"pids": "/cg/pids", "devices": "/cg/devices"}, "own": {}, "controllers": []}
V2 = {"layout": "v2", "mounts": {"unified": "/cg"}, "own": {}, "controllers": ["pids"]}


class Made:
    """A container as the two ways of making one see it, short of making it."""

    unit = None

    def __init__(self, raw: Any, layout: Any, name: str, starts: bool, known: kept.Known) -> None:
        self.config: Any = spec.load(json.dumps(raw).encode())[0]
        self.known = known
        self.starts = starts
        self.transition = EXEC
        self.stdio = ()
        self.options = SimpleNamespace(id=name, no_new_keyring=False, preserve_fds=0)
        self.facts = {
            "kernel": "6.1", "arch": "x86_64", "caps": {"bounding": [], "effective": []}, "apparmor": {"interface": "lsm"}, "cgroup": layout,
        }
        sources = {i: (str(mount["source"]), i % 2 == 0) for i, mount in enumerate(self.config["mounts"]) if is_bind(mount)}
        self.bundle = Bundle("/" + raw["root"]["path"], sources, {})
        path = self.config["linux"]["cgroupsPath"]
        mounts = layout["mounts"].items()
        self.dirs = [(mount + path, 2 if key == "unified" else 1, [key] if key != "unified" else ["pids"]) for key, mount in mounts]
        self.place = SimpleNamespace(dirs=[SimpleNamespace(path=path) for path, _, _ in self.dirs])

    def programs(self) -> dict[str, Program]:
        """Planned anew."""
        filter_ = bytes(16) if self.config["linux"]["seccomp"] else None
        plan = order.create(self.config, EXEC, "lsm", self.bundle, self.dirs, filter_, Choices(self.options.id))
        stages = {"devices": load_steps(bytes(16), self.dirs[-1][0], "6.1"), **{stage.name: stage.steps for stage in plan.stages}}
        slots: dict[str, int] = {}
        found = {}
        first = prepare(3, 4)
        for stage, steps in stages.items():
            asked = [step for step in steps if step.kind != "wait" or not self.starts]
            found[stage] = Program((*first, *asked), slots, {"control": 3, "start": 4})
            first = ()
        return found


def looked(raw: Any) -> kept.Known:
    """What look() makes of a text, without a folder."""
    value = json.loads(json.dumps(raw))
    late = kept.cut(value)
    assert late
    return kept.Known(-1, kept.digest((kept.FORMAT, b"", value)), late)


@given(pairs(), st.sampled_from([V1, V2]), st.tuples(names, names), st.booleans())
@settings(max_examples=150, deadline=None)
def test_programs_of_another_container_filled_with_texts_are_its_own(pair: Any, layout: Any, ids: tuple[str, str], starts: bool) -> None:
    first, second = (Made(raw, layout, name, starts, looked(raw)) for raw, name in zip(pair, ids, strict=True))
    assert first.known.name == second.known.name
    assert kept.situation("", first) == kept.situation("", second)  # type: ignore[arg-type]
    # the configuration: what was checked for the one, with the texts of the other
    first.known.learn(first.config)
    assert first.known.told
    config: Any = kept.fill(loads(first.known.told), second.known.late)
    if config["linux"]["seccomp"]:
        assert config["linux"]["seccomp"]["syscalls"] is None
        config["linux"]["seccomp"]["syscalls"] = second.config["linux"]["seccomp"]["syscalls"]
    assert config == second.config
    # the programs
    texts = kept.values(second)  # type: ignore[arg-type]
    anew = second.programs()
    for stage, program in first.programs().items():
        template = loads(dumps(program.template))
        assert fill(template, texts) == anew[stage].text
        assert template == anew[stage].template


@given(pairs(), st.sampled_from([V1, V2]))
@settings(max_examples=60, deadline=None)
def test_limits_come_back_as_they_were(pair: Any, layout: Any) -> None:
    resources = spec.load(json.dumps(pair[0]).encode())[0]["linux"]["resources"]
    limit: Any
    for limit in (*writes(resources, layout), Write("a", "b", "c", "d", ("ENOENT",), Write("e", "f", "g", "h"))):
        plain: Any = kept.fields(limit)
        assert kept.write(loads(dumps(plain))) == limit


junk = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.text(max_size=3) | st.sampled_from(["bind", "/a"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3), max_leaves=6,
)
PLACES = (
    ("root",), ("root", "path"), ("process",), ("process", "args"), ("process", "env"), ("hostname",), ("annotations",), ("mounts",), ("mounts", 1),
    ("mounts", 1, "options"), ("mounts", 1, "type"), ("mounts", 1, "source"), ("linux",), ("linux", "cgroupsPath"), ("linux", "namespaces"),
    ("linux", "namespaces", 0), ("linux", "namespaces", 0, "path"), ("process", "args", 0),
)


@given(pairs(), st.sampled_from(PLACES), junk)
@settings(max_examples=300, deadline=None)
def test_what_is_wrong_is_left_to_the_checks(pair: Any, place: Any, value: Any) -> None:
    """A text that the checks refuse, or would warn of, is not cut out of a configuration as if it were one of many."""
    raw = pair[0]
    *outer, last = place
    at = raw
    for name in outer:
        at = at[name]
    at[last] = value
    cut = json.loads(json.dumps(raw))
    late = kept.cut(cut)
    if late is None:
        return
    # put a sound one in each place where a text was taken: if the checks like that one, they like the one that was there
    sound = copy.deepcopy(raw)
    sound["root"]["path"], sound["process"]["args"] = "rootfs", ["sh"]
    sound["process"]["env"] = ["A=b"] if late.env else sound["process"].get("env")
    for index in late.sources:
        sound["mounts"][index]["source"] = "/host"
    for index in late.namespaces:
        sound["linux"]["namespaces"][index]["path"] = "/proc/1/ns/pid"
    assert kept.cut(copy.deepcopy(sound)) is not None
    assert verdict(raw) == verdict(sound)


def verdict(raw: Any) -> tuple[str, list[str]]:
    try:
        return "", spec.load(json.dumps(raw).encode())[1]
    except Fault as fault:
        return str(fault), []
