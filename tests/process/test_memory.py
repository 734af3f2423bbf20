"""What a large organization costs the connector in memory."""

import pathlib
import re

MEMBERS = 50_000
# The list is over 30 MB of JSON; what is kept of it is one member.
ALLOWED_MIB = 16


def resident_mib(pid):
    """Memory that the process holds now, and the most it ever held, in MiB."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    found = {name: int(kib) / 1024 for name, kib in re.findall(r"^(VmRSS|VmHWM):\s+(\d+) kB", status, re.M)}
    return found["VmRSS"], found["VmHWM"]


def test_reading_fifty_thousand_members_takes_a_bounded_amount_of_memory(make_bench):
    small = make_bench()
    large = make_bench(simulate=["--members", str(MEMBERS), "--deployments", "50"])
    peaks = {}
    for name, bench in (("small", small), ("large", large)):
        person = bench.cloud.organization()["members"][4]["user_id"]
        deployment = bench.cloud.deployment("staging")
        for _ in range(1):
            grant = bench.client.grant(person, "deployment-admin", deployment, seconds=1, timeout=60)
            bench.client.wait_for(grant, "ENDED", seconds=60)
        peaks[name] = resident_mib(bench.connector.process.pid)[1]
    reads = large.cloud.control("GET", "calls")["by_kind"]["members.list"]
    assert reads >= 2, "a grant is read back after it began and after it ended"
    assert peaks["large"] - peaks["small"] <= ALLOWED_MIB, peaks
