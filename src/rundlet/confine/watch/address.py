"""Where watch listens, and which names a request may call it by. Pure."""

import ipaddress
from dataclasses import dataclass

from rundlet.errors import Usage

PORT = 9617
NOWHERE = "none"


@dataclass(frozen=True)
class Address:
    """An IP address and a port; port 0 is any that is free."""

    host: str
    port: int

    @property
    def loopback(self) -> bool:
        """Whether only this machine reaches it."""
        return ipaddress.ip_address(self.host).is_loopback

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse(text: str | None) -> Address | None:
    """What --listen says: ADDR:PORT, [ADDR]:PORT, localhost:PORT or PORT; None for "none". Not given, it is the loopback's.

    A name is refused: what it leads to may change, and with it who can read along. Raises Usage.
    """
    if text is None:
        return Address("127.0.0.1", PORT)
    if text == NOWHERE:
        return None
    host, colon, port = text.rpartition(":")
    if colon and host[:1] == "[" and host[-1:] == "]":
        host = host[1:-1]
    elif ":" in host:
        raise Usage(f'--listen: write an IPv6 address in brackets, as in [::1]:{PORT}, not "{text}"')
    if not (port.isascii() and port.isdigit() and int(port) < 65536):
        raise Usage(f'--listen: "{port}" is no port from 0 to 65535; it is ADDR:PORT, PORT for one of the loopback, or {NOWHERE}')
    if host in ("", "localhost"):
        host = "127.0.0.1"
    try:
        return Address(str(ipaddress.ip_address(host)), int(port))
    except ValueError:
        raise Usage(f'--listen: "{host}" is no IP address; give the address to listen on, such as 127.0.0.1 or 0.0.0.0') from None


def host_allowed(header: str, names: frozenset[str]) -> bool:
    """Whether a request with this Host may be answered.

    A page of somebody else's can make a browser ask under a name of theirs that leads here (DNS rebinding), and read the answer as its
    own. It cannot do that under an address, nor under a name that is not theirs: those in `names` (lower case).
    """
    host, colon, port = header.strip().rpartition(":")
    if not colon or not port.isdigit():
        host = header.strip()
    if host[:1] == "[" and host[-1:] == "]":
        host = host[1:-1]
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host.lower().rstrip(".") in names
    return True
