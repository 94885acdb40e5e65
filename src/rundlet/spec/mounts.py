"""The file given to `mounts add` and `mounts remove`: a list of mounts in the form of config.json's."""

from rundlet.errors import BadSpec
from rundlet.jsontext import loads, show
from rundlet.spec import read
from rundlet.spec.table import MOUNT
from rundlet.spec.validate import check_mounts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rundlet.spec.types import Linux, Mount

FILE = (("mounts", (), "list", ("object", MOUNT)),)


def load_mounts(text: bytes, linux: "Linux") -> "tuple[list[Mount], list[str]]":
    """The mounts, and warnings. Paths are those of a config.json that had them: "/mounts/0/destination". `linux`: the container's.

    Raises BadSpec as spec.load does.
    """
    value = loads(text, "mounts file")
    if type(value) is not list:
        raise BadSpec("mounts file", f"must be a list of mounts, not {show(value)}")
    warnings: "list[str]" = []
    mounts: "list[Mount]" = read(text, {"mounts": value}, FILE, "mounts file")["mounts"]
    check_mounts(mounts, linux, warnings)
    return mounts, warnings
