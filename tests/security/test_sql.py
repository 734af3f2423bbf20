"""Text that means something to a database means nothing to the ledger, on the way in and on the way out."""

import uuid
from datetime import timedelta

import pytest
from harness import Connector, eventually, now
from process.cluster import Postgres

TEXTS = [
    "'; DROP TABLE grants; --",
    "' OR '1'='1",
    '"; DELETE FROM events; --',
    "x', 'y'); UPDATE members SET body = ''; --",
    "$1 $2 :name ?1 @x",
    "%s %d {} {0} ${x}",
    "\\'; SELECT pg_sleep(9); --",
    "$$; COPY grants TO '/tmp/x'; $$",
    "/* */ -- #",
    "E'\\x27' U&'\\0027' \\u0027",
    "LIKE '%_\\%' ESCAPE '\\'",
]
# Well formed as an address, and it has what closes a text.
ADDRESS = "o'hara.{}@example.com"


def request_id(tag, text):
    """An id of a request may have every printable character but a space."""
    return f"{tag}{text.replace(' ', '/**/')}"


@pytest.fixture(params=["sqlite", "postgres"])
def served(request, latchkey_bin, tmp_path, protocol, simulator):
    """A connector on each kind of ledger, and a client of it."""
    changes, server = {}, None
    if request.param == "postgres":
        server = Postgres()
        changes["ledger"] = {"kind": "postgres", "url": f"postgres://latchkey@{server.server}/postgres"}
    connector = Connector(latchkey_bin, simulator, tmp_path, **changes).start()
    client = None
    try:
        eventually(connector.is_ready, seconds=30)
        client = protocol.client(connector.grpc)
        yield client
    finally:
        if client is not None:
            client.close()
        connector.kill()
        if server is not None:
            server.close()


def test_it_is_stored_and_told_as_it_came_and_ends_as_it_should(served, simulator):
    client, tag = served, uuid.uuid4().hex[:8]
    person = simulator.person(email=ADDRESS.format(tag))
    deployment = simulator.deployment("staging")
    later = now() + timedelta(hours=1)
    grants = {
        text: client.grant(
            person.email,
            "viewer",
            deployment,
            request_id=request_id(tag, text),
            starts_at=later,
            justification=text,
            requester=text,
            wait="ACCEPTED",
        )
        for text in TEXTS
    }
    assert len({grant.id for grant in grants.values()}) == len(TEXTS)
    for text, grant in grants.items():
        # The same request again is found by its id, and nothing else is.
        spec = {"starts_at": later, "justification": text, "requester": text, "wait": "ACCEPTED"}
        again = client.grant(person.email, "viewer", deployment, request_id=request_id(tag, text), **spec)
        assert again.id == grant.id
        client.revoke(grant, reason=text, requester=text)
        ended = client.get(grant)
        assert client.state_word(ended) == "ENDED"
        assert (ended.justification, ended.requester) == (text, text)

    # A whole life: given at Elastic Cloud, ended by a selector, with such text all the way.
    text = TEXTS[0]
    live = client.grant(person.email, "viewer", deployment, seconds=300, justification=text)
    assert simulator.held(person)
    ask = client.pb.RevokeAccessRequest(
        request_id=request_id("end", text), member=client.pb.principal(person.email), reason=text
    )
    assert client.access.RevokeAccess(ask, timeout=10).revoked == 1
    ended = client.wait_for(live, "ENDED")
    assert ended.end_cause.comment == text and not simulator.held(person)
    listed = client.access.ListGrants(client.pb.ListGrantsRequest(page_size=100), timeout=10).grants
    assert {grant.id for grant in listed} == {live.id, *(grant.id for grant in grants.values())}
