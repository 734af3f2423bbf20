"""Fixtures of the process tests: faults under the connector, and tests that wait beside each other."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from harness import Bench

from . import faults
from .cluster import Cluster, Postgres

# Tests that mostly wait, at a time: few enough for two cores.
AT_ONCE = 5
BESIDE = pytest.StashKey()


@pytest.fixture(scope="session")
def shim_library(tmp_path_factory):
    """The compiled library."""
    return faults.compiled(tmp_path_factory.mktemp("shim"))


@pytest.fixture
def weather(shim_library, tmp_path):
    """Faults to start a connector under: `bench.start(env=weather.env)`."""
    return faults.Shim(shim_library, tmp_path)


@pytest.fixture(scope="module")
def postgres():
    """A database server for a module."""
    server = Postgres()
    yield server
    server.close()


@pytest.fixture
def cluster(latchkey_bin, tmp_path, protocol, postgres):
    """Makes replicas on a database of their own: `cluster(3, ledger={…})`."""
    made = []

    def make(replicas=2, **changes):
        made.append(Cluster(latchkey_bin, tmp_path, protocol, postgres, replicas, **changes))
        return made[-1]

    yield make
    for each in made:
        each.close()


def pytest_configure(config):
    config.addinivalue_line("markers", "beside: begun together with the other tests of its module, since it waits")


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    """The first test of a module that is marked `beside` begins all of them; each then waits for its own end.

    They may use `make_bench`, `weather`, `tmp_path` and parameters; each gets its own.
    """
    if pyfuncitem.get_closest_marker("beside") is None:
        return None
    begun = pyfuncitem.session.stash.setdefault(BESIDE, {})
    if pyfuncitem.nodeid not in begun:
        together = [
            item
            for item in pyfuncitem.session.items
            if item.path == pyfuncitem.path and item.get_closest_marker("beside") and item.nodeid not in begun
        ]
        given = {
            name: pyfuncitem._request.getfixturevalue(name)
            for name in ("latchkey_bin", "protocol", "shim_library", "tmp_path_factory")
        }
        names = threading.Lock()
        pool = ThreadPoolExecutor(AT_ONCE)
        for item in together:
            begun[item.nodeid] = pool.submit(_play, item, given, names)
        pool.shutdown(wait=False)
    begun[pyfuncitem.nodeid].result(timeout=300)
    return True


def _play(item, given, names):
    """One test with fixtures of its own."""
    with names:
        folder = given["tmp_path_factory"].mktemp(item.originalname[:40])
    made = []

    def make_bench(**options):
        made.append(Bench(given["latchkey_bin"], folder / f"bench-{len(made)}", given["protocol"], **options))
        return made[-1]

    known = {
        "make_bench": make_bench,
        "weather": faults.Shim(given["shim_library"], folder),
        "tmp_path": folder,
        **getattr(getattr(item, "callspec", None), "params", {}),
    }
    try:
        item.obj(**{name: known[name] for name in item._fixtureinfo.argnames})
    finally:
        for bench in made:
            bench.close()
