"""A small HTTP server for a few readers: the page, its stream and the metrics. Read-only, and bounded in every direction.

    one connection     one task; at most CONNECTIONS, of which STREAMS may be pages that stay
    a request          GET or HEAD without a body, its head at most HEAD bytes and there within TIME seconds
    an answer          taken by the reader within TIME seconds, or the connection is cut
    its Host           an address, or a name of ours: address.host_allowed()

HTTP itself is h11's, which parses strictly and refuses what is ambiguous (RFC 9112, section 6.3).
"""

import asyncio
from http import HTTPStatus

import h11

from rundlet.confine.watch import address, page
from rundlet.confine.watch.metrics import Metrics
from rundlet.confine.watch.table import Table

CONNECTIONS = 64
STREAMS = 16
HEAD = 8192  # bytes, and one PIECE more
TIME = 10.0  # seconds
BEAT = 15.0  # seconds after which a stream says that it is still there
GATHER = 0.1  # seconds in which changes are gathered into one piece of a stream
PIECE = 4096

SECURITY = (
    ("Content-Security-Policy", page.POLICY),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("X-Frame-Options", "DENY"),
    ("Cache-Control", "no-store"),
)
PLAIN = "text/plain; charset=utf-8"


class Answer(Exception):
    """An answer other than what was asked for; `close`: nothing more on this connection, since what follows cannot be understood."""

    def __init__(self, status: int, text: str, close: bool = False, *headers: tuple[str, str]) -> None:
        super().__init__(text)
        self.status, self.text, self.close, self.headers = status, text, close, headers


class Conversation:
    """One connection."""

    def __init__(self, server: "Server", reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.server, self.reader, self.writer = server, reader, writer
        self.http = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD)
        self.only_head = False  # what the request asks for

    async def hold(self) -> None:
        """Answers one request after the other; returns when it is over, for whatever reason."""
        try:
            while await self._turn():
                self.http.start_next_cycle()
        except (ConnectionError, TimeoutError, h11.LocalProtocolError):
            pass  # the other side is gone, or too slow

    async def _turn(self) -> bool:
        """A request and its answer; whether another may follow."""
        try:
            try:
                request = await self._request()
                if request is None:
                    return False
                await self._answer(request)
            except h11.RemoteProtocolError as fault:
                raise Answer(fault.error_status_hint, "this is not HTTP as it should be", True) from None
            except TimeoutError:
                raise Answer(408, "the request took too long", True) from None
        except Answer as other:
            if self.http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
                return False  # in the middle of an answer
            close = (("Connection", "close"),) if other.close else ()
            await self._send(other.status, (*other.headers, *close), f"{other.text}\n".encode(), PLAIN)
        return self.http.our_state is h11.DONE and self.http.their_state is h11.DONE

    async def _request(self) -> h11.Request | None:
        """The next request, with nothing behind it; None when there is none any more."""
        request: h11.Request | None = None
        async with asyncio.timeout(TIME):
            while True:
                event = self.http.next_event()
                if event is h11.NEED_DATA:
                    self.http.receive_data(await self.reader.read(PIECE))
                elif isinstance(event, h11.Request):
                    request = event
                    self.only_head = request.method == b"HEAD"
                    if request.method not in (b"GET", b"HEAD"):
                        raise Answer(405, "this is only for reading", True, ("Allow", "GET, HEAD"))
                    if _header(request, b"transfer-encoding") or _header(request, b"content-length").strip("0"):
                        raise Answer(413, "a request has no body here", True)
                elif isinstance(event, h11.EndOfMessage):
                    return request
                else:
                    return None

    async def _answer(self, request: h11.Request) -> None:
        if not address.host_allowed(_header(request, b"host"), self.server.names):
            raise Answer(421, "nobody of this name is here; ask by the address, or see --allow-host")
        path = request.target.decode("latin-1").partition("?")[0]
        if path == "/events":
            await self._stream()
        elif path == "/metrics":
            text, kind = self.server.metrics.exposition(_header(request, b"accept"))
            await self._send(200, (), text, kind)
        elif path in self.server.assets:
            text, kind = self.server.assets[path]
            await self._send(200, (), text, kind)
        else:
            raise Answer(404, "there is no such page; there are / and /metrics")

    async def _send(self, status: int, headers: tuple[tuple[str, str], ...], body: bytes, kind: str) -> None:
        self._begin(status, (("Content-Type", kind), ("Content-Length", str(len(body))), *headers))
        if not self.only_head:
            self._out(self.http.send(h11.Data(data=body)))
        self._out(self.http.send(h11.EndOfMessage()))
        await self._drain()

    def _begin(self, status: int, headers: tuple[tuple[str, str], ...]) -> None:
        self._out(self.http.send(h11.Response(status_code=status, reason=HTTPStatus(status).phrase, headers=[*SECURITY, *headers])))

    def _out(self, data: bytes | None) -> None:
        self.writer.write(data or b"")

    async def _drain(self) -> None:
        async with asyncio.timeout(TIME):
            await self.writer.drain()

    # ── the stream of a page ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def _stream(self) -> None:
        server = self.server
        if server.streams >= STREAMS:
            raise Answer(503, "too many pages are open", False, ("Retry-After", "10"))
        if self.only_head:
            self._begin(200, (("Content-Type", "text/event-stream"), ("Content-Length", "0")))
            self._out(self.http.send(h11.EndOfMessage()))
            await self._drain()
            return
        server.streams += 1
        changed = server.table.subscribe()
        ended = asyncio.create_task(self.reader.read(1))  # a page says nothing more: this is its end, or somebody else
        ended.add_done_callback(lambda _: changed.set())
        try:
            self._begin(200, (("Content-Type", "text/event-stream"), ("Connection", "close")))
            difference = page.Difference(server.table)
            await self._piece(b"retry: 2000\n\n" + difference.hello(interval=server.interval) + difference.take())
            while not ended.done():
                try:
                    async with asyncio.timeout(BEAT):
                        await changed.wait()
                    await asyncio.sleep(GATHER)
                except TimeoutError:
                    pass
                changed.clear()
                await self._piece(difference.take() or page.BEAT)
        except asyncio.CancelledError:
            self._out(self.http.send(h11.EndOfMessage()))  # watch ends
            raise
        finally:
            ended.cancel()
            server.table.unsubscribe(changed)
            server.streams -= 1

    async def _piece(self, data: bytes) -> None:
        self._out(self.http.send(h11.Data(data=data)))
        await self._drain()


class Server:
    """Serves a table at one address; `names` are the names besides addresses that a request may call it by."""

    def __init__(self, table: Table, metrics: Metrics, names: frozenset[str], interval: float) -> None:
        self.table, self.metrics, self.names, self.interval = table, metrics, names, interval
        self.assets = page.load()
        self.streams = 0
        self._open: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def listen(self, at: address.Address) -> address.Address:
        """Begins; the address with the port that it got. Raises OSError where the address is not to be had."""
        self._server = await asyncio.start_server(self._connected, at.host, at.port, limit=HEAD, backlog=CONNECTIONS)
        return address.Address(at.host, self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Ends, and every conversation with it."""
        if self._server:
            self._server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._open) >= CONNECTIONS:
            writer.transport.abort()
            return
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            await Conversation(self, reader, writer).hold()
            writer.close()
            async with asyncio.timeout(TIME):
                await writer.wait_closed()
        except (ConnectionError, TimeoutError):
            pass
        finally:
            writer.transport.abort()
            self._open.discard(task)


def _header(request: h11.Request, name: bytes) -> str:
    """The value of a header, "" where it is missing; h11 gives names in lower case, and refuses two hosts or lengths that differ."""
    return next((value.decode("latin-1") for key, value in request.headers if key == name), "")
