"""The label of what is mounted, on a host with SELinux; no machine of the tests is one."""

from typing import Any

import pytest

from rundlet.errors import BadSpec
from rundlet.plan.selinux import CONTEXTS, labelled

LABEL = "system_u:object_r:container_file_t:s0:c1,c2"


def options(kind: str, given: list[str], annotations: "dict[str, str] | None" = None) -> list[str]:
    mount: Any = {"destination": "/x", "type": kind, "source": "x", "options": given}
    config: Any = {"annotations": annotations or {}, "linux": {"mountLabel": LABEL}}
    return labelled(mount, config)["options"]


@pytest.mark.parametrize("kind", CONTEXTS)
def test_each_kind_of_context(kind: str) -> None:
    assert options("tmpfs", ["mode=700"], {"run.oci.mount_context_type": kind}) == ["mode=700", f"{kind}={LABEL}"]


def test_without_the_annotation_it_is_the_usual_one() -> None:
    assert options("tmpfs", []) == [f"context={LABEL}"]


@pytest.mark.parametrize(
    ("kind", "given"), [("bind", ["bind"]), ("bind", ["rbind"]), ("proc", []), ("sysfs", []), ("cgroup", []), ("tmpfs", ["remount"]), ("tmpfs", ["fscontext=a"])]
)
def test_what_has_a_label_of_its_own_keeps_it(kind: str, given: list[str]) -> None:
    assert options(kind, given, {"run.oci.mount_context_type": "defcontext"}) == given


def test_a_kind_that_there_is_not() -> None:
    with pytest.raises(BadSpec, match=r"^/annotations/run.oci.mount_context_type: must be one of context, .*, not \"label\""):
        options("tmpfs", [], {"run.oci.mount_context_type": "label"})
