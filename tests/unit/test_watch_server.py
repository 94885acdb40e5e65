"""The server of watch, over sockets: what it answers, and what it does not put up with."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from rundlet.confine.watch import server
from rundlet.confine.watch.address import Address
from rundlet.confine.watch.metrics import Metrics
from rundlet.confine.watch.server import Server
from rundlet.confine.watch.table import Look, Table
from tests.bundles import PATIENCE

HOST = "127.0.0.1"
HOLDS = Look("running", "holds", (("limit", "holds"),))


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def ask(self, text: str) -> tuple[int, dict[str, str], bytes]:
        """Sends these bytes; the status, the headers in lower case and the body of the answer."""
        self.writer.write(text.encode("latin-1"))
        return await self.answer("HEAD " in text)

    async def answer(self, no_body: bool = False) -> tuple[int, dict[str, str], bytes]:
        """The next answer."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *rest = head.rstrip().split("\r\n")
        headers = {key.lower(): value for key, _, value in (line.partition(": ") for line in rest)}
        body = b"" if no_body or "content-length" not in headers else await self.reader.readexactly(int(headers["content-length"]))
        return int(first.split()[1]), headers, body

    async def get(self, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
        """A request as a browser makes it."""
        lines = "".join(f"{key}: {value}\r\n" for key, value in {"Host": HOST, **headers}.items())
        return await self.ask(f"{method} {path} HTTP/1.1\r\n{lines}\r\n")

    async def ended(self) -> bool:
        """Whether nothing more comes."""
        try:
            return await self.reader.read() == b""
        except ConnectionError:
            return True


def serve(test: Callable[[Server, Callable[[], Awaitable[Client]]], Awaitable[None]]) -> None:
    """Runs a test with a server and a way to connect to it; nothing may be open in the end."""

    async def everything() -> None:
        table = Table()
        made = Server(table, Metrics(table), frozenset({"localhost"}), 30)
        at = await made.listen(Address(HOST, 0))
        clients: list[Client] = []

        async def connect() -> Client:
            clients.append(Client(*await asyncio.open_connection(at.host, at.port, limit=1 << 20)))
            return clients[-1]

        try:
            async with asyncio.timeout(PATIENCE):
                await test(made, connect)
        finally:
            await made.close()
            for client in clients:
                client.writer.close()
        assert (made.streams, made._open, table._readers) == (0, set(), set())
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(everything())


def test_pages_and_metrics_on_one_connection() -> None:
    async def test(made: Server, connect: Any) -> None:
        client = await connect()
        made.table.put("web", HOLDS, 0)
        for path, (text, kind) in made.assets.items():
            status, headers, body = await client.get(path + "?x=1")
            assert (status, headers["content-type"], body) == (200, kind, text)
        status, headers, body = await client.get("/metrics", Accept="text/plain")
        assert status == 200 and b'rundlet_container_verified{container="web",result="holds"} 1.0' in body
        status, headers, body = await client.get("/", "HEAD")
        assert (status, headers["content-length"]) == (200, str(len(made.assets["/"][0])))
        assert (await client.get("/etc/passwd"))[0] == 404
        assert (await client.get("/../watch.css"))[0] == 404
        assert (await client.get("/"))[0] == 200

    serve(test)


def test_every_answer_says_what_may_be_done_with_it() -> None:
    async def test(made: Server, connect: Any) -> None:
        for path in ("/", "/metrics", "/events", "/nothing"):
            headers = (await (await connect()).get(path))[1]
            assert headers["content-security-policy"].startswith("default-src 'none';")
            assert "unsafe" not in headers["content-security-policy"]
            assert (headers["x-content-type-options"], headers["cache-control"], headers["referrer-policy"]) == ("nosniff", "no-store", "no-referrer")
            assert "access-control-allow-origin" not in headers
            assert "server" not in headers

    serve(test)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"])
@pytest.mark.parametrize("body", ["", "Content-Length: 3\r\n"])
def test_it_is_only_for_reading(method: str, body: str) -> None:
    async def test(made: Server, connect: Any) -> None:
        client = await connect()
        status, headers, _ = await client.ask(f"{method} / HTTP/1.1\r\nHost: {HOST}\r\n{body}\r\n")
        assert (status, headers["allow"]) == (405, "GET, HEAD")
        assert await client.ended()

    serve(test)


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", 421),  # DNS rebinding
        ("GET / HTTP/1.1\r\nHost: evil.example:9617\r\n\r\n", 421),
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.0\r\n\r\n", 421),
        (f"GET / HTTP/1.1\r\nHost: {HOST}\r\nHost: evil.example\r\n\r\n", 400),
        (f"GET / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 5\r\n\r\nhello", 413),
        (f"GET / HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 413),
        (f"GET / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 0\r\nContent-Length: 9\r\n\r\n", 400),
        (f"GET / HTTP/1.1\r\nHost: {HOST}\r\nX: {'x' * 20000}\r\n\r\n", 431),
        (f"GET /{'x' * 20000} HTTP/1.1\r\n", 431),
        (f"GET / HTTP/1.1\r\nHost: {HOST}\r\n folded: x\r\n\x00\r\n\r\n", 400),
        ("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),  # TLS
        ("nonsense\r\n\r\n", 400),
    ],
)  # fmt: skip
def test_what_is_not_answered(text: str, status: int) -> None:
    async def test(made: Server, connect: Any) -> None:
        client = await connect()
        found, _, body = await client.ask(text)
        assert (found, b"<html" in body) == (status, False)
        assert (await (await connect()).get("/"))[0] == 200

    serve(test)


def test_one_that_is_slow_to_ask_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "TIME", 0.2)

    async def test(made: Server, connect: Any) -> None:
        client = await connect()
        assert (await client.ask("GET / HTTP/1.1\r\n"))[0] == 408
        assert await client.ended()
        silent = await connect()
        assert (await silent.answer())[0] == 408
        assert await silent.ended()

    serve(test)


def test_one_that_does_not_read_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(made: Server, connect: Any) -> None:
        client = await connect()
        client.writer.write(f"GET /events HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        await client.reader.readuntil(b"\n\n")
        client.writer.transport.pause_reading()
        n = 0
        with monkeypatch.context() as short:  # for this reader alone: whoever reads has the whole time
            short.setattr(server, "TIME", 0.5)
            while made.streams:
                for _ in range(200):
                    made.table.put(f"c{n % 5000}", Look("running", "unknown", why=("x" * 1000,)), 0)
                    n += 1
                await asyncio.sleep(0.01)
        assert (await (await connect()).get("/"))[0] == 200

    serve(test)


def test_no_more_connections_than_it_can_hold() -> None:
    async def test(made: Server, connect: Any) -> None:
        held = [await connect() for _ in range(server.CONNECTIONS)]
        while len(made._open) < server.CONNECTIONS:
            await asyncio.sleep(0.01)
        assert await (await connect()).ended()
        held[0].writer.close()
        while len(made._open) == server.CONNECTIONS:
            await asyncio.sleep(0.01)
        assert (await (await connect()).get("/"))[0] == 200

    serve(test)


def test_no_more_streams_than_it_can_hold() -> None:
    async def test(made: Server, connect: Any) -> None:
        held = [await connect() for _ in range(server.STREAMS)]
        for client in held:
            assert (await client.get("/events"))[0] == 200
        status, headers, _ = await (await connect()).get("/events")
        assert (status, headers["retry-after"]) == (503, "10")
        assert (await (await connect()).get("/metrics"))[0] == 200
        held[0].writer.close()
        while made.streams == server.STREAMS:
            await asyncio.sleep(0.01)
        assert (await (await connect()).get("/events"))[0] == 200

    serve(test)


def test_a_stream_tells_what_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "BEAT", 0.2)

    async def test(made: Server, connect: Any) -> None:
        client = await connect()
        status, headers, _ = await client.get("/events")
        assert (status, headers["content-type"], headers["transfer-encoding"]) == (200, "text/event-stream", "chunked")

        async def event(wanted: str) -> Any:
            while True:
                name = (await client.reader.readuntil(b"\n")).decode().removeprefix("event: ").strip()
                if name == wanted:
                    return json.loads((await client.reader.readuntil(b"\n")).removeprefix(b"data: "))

        assert (await event("hello"))["ids"] == []
        await event("beat")
        made.table.put("web", HOLDS, 0)
        assert (await event("row"))["id"] == "web"
        made.table.drop("web")
        assert await event("gone") == ["web"]
        await event("beat")
        head = await (await connect()).get("/events", "HEAD")
        assert (head[0], head[1]["content-type"]) == (200, "text/event-stream")

    serve(test)


def test_the_port_is_given_and_a_taken_one_is_told() -> None:
    async def test(made: Server, connect: Any) -> None:
        port = made._server.sockets[0].getsockname()[1] if made._server else 0
        other = Server(made.table, made.metrics, frozenset(), 30)
        with pytest.raises(OSError, match="address already in use"):
            await other.listen(Address(HOST, port))
        await other.close()

    serve(test)
