"""Whoever may scrape learns how the connector does, and nothing about people."""

import requests


def test_metrics_and_health_name_nobody_and_nothing_that_was_asked_for(make_bench):
    bench = make_bench()
    client, cloud = bench.client, bench.cloud
    person, deployment = cloud.person(), cloud.deployment("staging")
    words = {"justification": "a-reason-of-its-own", "requester": "somebody-by-name"}
    grant = client.grant(person.email, "viewer", deployment, request_id="an-id-of-its-own", seconds=300, **words)
    client.refused(client.grant, person.email, "organization-admin", client.pb.organization(), request_id="a-refused-id")
    client.revoke(grant, reason="an-end-of-its-own")
    client.wait_for(grant, "ENDED")
    names = [person.user_id, person.email, deployment, grant.id, cloud.organization_id, cloud.api_key]
    names += [*words.values(), "an-id-of-its-own", "a-refused-id", "an-end-of-its-own"]
    for page in ("metrics", "healthz", "readyz"):
        said = requests.get(f"{bench.connector.http}/{page}", timeout=10).text
        assert said and [name for name in names if name in said] == [], page
    assert bench.connector.metric("latchkey_upstream_requests_total") > 0, "there was something to tell"
