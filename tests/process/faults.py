"""Faults of the operating system, put under the connector by a small library (`shim/shim.c`).

The library is loaded with LD_PRELOAD (Linux) and steered through a file that both sides map, so a test changes the
weather while the process runs and the connector is the unchanged product.
"""

import errno
import mmap
import pathlib
import struct
import subprocess

SOURCE = pathlib.Path(__file__).parent / "shim" / "shim.c"

# `struct control` of shim.c: name, format, offset.
FIELDS = {
    "points": ("q", 0),
    "die_at": ("q", 8),
    "wall_ns": ("q", 16),
    "stalled": ("i", 24),
    "sync_errno": ("i", 28),
    "sync_times": ("i", 32),
    "sync_ms": ("i", 36),
    "full": ("i", 40),
    "deaf_below": ("i", 44),
    "connections": ("i", 48),
    "unresolved": ("i", 52),
    "tracing": ("i", 56),
}
DIED_AT, DIED_AT_SIZE = 60, 64
DIE_PLACE = 124


def compiled(folder):
    """Compiles the library; a C compiler is part of what the tests need."""
    library = pathlib.Path(folder) / "shim.so"
    command = ["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", "-o", library, SOURCE, "-ldl"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return library


class Shim:
    """The weather of one process, and of those that follow it with the same `env`."""

    def __init__(self, library, folder):
        self.path = pathlib.Path(folder) / "weather"
        self.path.write_bytes(bytes(4096))
        self.env = {"LD_PRELOAD": str(library), "LATCHKEY_SHIM": str(self.path)}
        with open(self.path, "r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 4096)

    def __getattr__(self, name):
        kind, at = FIELDS[name]
        return struct.unpack_from(kind, self._memory, at)[0]

    def set(self, **values):
        for name, value in values.items():
            kind, at = FIELDS[name]
            struct.pack_into(kind, self._memory, at, value)

    @property
    def died_at(self):
        """The name of the point at which the process was killed; empty when it was not."""
        return self._memory[DIED_AT : DIED_AT + DIED_AT_SIZE].split(b"\0")[0].decode()

    def die_at_place(self, name):
        """It dies at the next point of this name."""
        place = name.encode()
        self._memory[DIE_PLACE : DIE_PLACE + len(place) + 1] = place + b"\0"

    @property
    def trace(self):
        """Every point that was passed while tracing, in order."""
        path = self.path.with_name(self.path.name + ".trace")
        return path.read_text().splitlines() if path.exists() else []

    # --- the weather ---

    def move_wall_clock(self, seconds):
        """The wall clock stands this far from the true one, from now on."""
        self.set(wall_ns=round(seconds * 1e9))

    def fail_syncs(self, times=-1):
        """fsync of the ledger's files fails with EIO, so often or for ever."""
        self.set(sync_errno=errno.EIO, sync_times=times)

    def fill_disk(self, all_of_it=True):
        """No write to the ledger's files succeeds; or none while the ledger's reserve exists."""
        self.set(full=1 if all_of_it else 2)

    def free_disk(self):
        self.set(full=0)

    def cut_connections(self):
        """Every connection made so far neither carries nor brings anything any more, and nobody is told."""
        self.set(deaf_below=self.connections + 1)
