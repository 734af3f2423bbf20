"""A line between a replica and something it talks to: it can be cut in one direction, slowed, or led elsewhere."""

import socket
import threading
import time

UP, DOWN = "up", "down"
# How a request begins that changes something. Each is written at once, so a piece begins with it.
CHANGES = (b"POST ", b"PUT ", b"PATCH ", b"DELETE ")


class Line:
    """Forwards connections from a port of its own to `target`, written `host:port`.

    What is sent into a direction that is cut is kept and arrives once it is open again, as packets do that were held
    up on their way; nobody is told meanwhile. A piece upwards that is `swallowed` never arrives.
    """

    def __init__(self, target):
        self.target = target
        self.pause = 0.0
        self.swallowed = None
        self._open = {UP: threading.Event(), DOWN: threading.Event()}
        self._lost = []
        self._began = []
        self._sockets = set()
        self._lock = threading.Lock()
        self.heal()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def address(self):
        return "{}:{}".format(*self._listener.getsockname())

    def cut(self, *ways):
        """Nothing goes this way any more: up, towards the target, or down."""
        for way in ways:
            self._open[way].clear()

    def heal(self):
        for way in self._open.values():
            way.set()

    def lose(self):
        """Those that stand lead nowhere from now on, and nobody is told; new ones work."""
        self.cut(UP, DOWN)
        self._lost.append(self._open)
        self._open = {UP: threading.Event(), DOWN: threading.Event()}
        self.heal()

    def lead_to(self, target):
        """New connections go elsewhere, and those that stand end."""
        self.target = target
        self.hang_up()

    def hang_up(self):
        with self._lock:
            standing, self._sockets = self._sockets, set()
        for each in standing:
            _end(each)

    @property
    def changes(self):
        """When each changing request was sent into it, and its first words."""
        return list(self._began)

    def close(self):
        self._listener.close()
        self.heal()
        for lost in self._lost:
            for way in lost.values():
                way.set()
        self.hang_up()

    def _accept(self):
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            host, _, port = self.target.rpartition(":")
            try:
                far = socket.create_connection((host, int(port)), timeout=10)
            except OSError:
                _end(near)
                continue
            for each in (near, far):
                each.settimeout(None)
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._sockets |= {near, far}
            for source, sink, way in ((near, far, UP), (far, near, DOWN)):
                ends = (source, sink, way, self._open[way])
                threading.Thread(target=self._carry, args=ends, daemon=True).start()

    def _carry(self, source, sink, way, is_open):
        try:
            while piece := source.recv(65536):
                # A search is a read, although it is posted.
                if way == UP and piece.startswith(CHANGES) and b"/_search" not in piece[:200]:
                    self._began.append((time.monotonic(), piece.split(b" HTTP")[0].decode()))
                is_open.wait()
                if way == UP and piece == self.swallowed:
                    continue
                if self.pause:
                    time.sleep(self.pause)
                sink.sendall(piece)
        except OSError:
            pass
        is_open.wait()
        with self._lock:
            self._sockets -= {source, sink}
        _end(source)
        _end(sink)


def _end(one):
    try:
        one.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    one.close()
