"""The key in a Kubernetes Secret: read, and replaced by a patch that holds for one version only."""

import pytest

from .apiserver import ApiServer
from .test_rotation import cli, keys, meddled, wait_until_over, with_rotation
from .test_secrets import assert_hidden, works


@pytest.fixture
def cluster(make_bench, tmp_path):
    """A running pair whose key is in a Secret, and the API server."""
    bench = with_rotation(make_bench(start=False, log={"filter": "trace"}))
    server = ApiServer(tmp_path, bench.cloud.api_key)
    config = dict(bench.connector.config)
    [integration] = config["integrations"]
    config["integrations"] = [{**integration, "secret": server.source()}]
    bench.connector.configure(config)
    bench.connector.key_file.unlink()
    yield bench.start(), server
    server.close()


def test_a_rotation_patches_the_secret_for_the_version_that_was_read_and_leaves_the_rest(cluster):
    bench, server = cluster
    cloud, old = bench.cloud, bench.cloud.api_key
    works(bench)
    person = cloud.person()
    grant = bench.client.grant(person, "editor", cloud.deployment("staging"), seconds=2)
    cli(bench, "key", "rotate", "--reason", "quarterly")
    wait_until_over(bench)
    [new] = keys(cloud).values()
    assert server.key == new != old
    [patch] = server.patches
    assert patch["metadata"]["resourceVersion"] == "41" and set(patch["data"]) == {"api_key"}
    assert server.secret["metadata"]["labels"] == {"team": "platform"} and "other" in server.secret["data"]
    assert server.secret["metadata"]["annotations"]["latchkey/rotation"].startswith("latchkey-rotation-")
    bench.client.wait_for(grant, "ENDED")
    assert cloud.held(person) == set()
    works(bench)
    assert_hidden(bench, old, new)


def test_a_key_that_somebody_else_puts_into_the_secret_meanwhile_wins(cluster):
    bench, server = cluster
    theirs = meddled(bench, server.put)
    assert server.key == theirs and server.patches == []
    works(bench)
