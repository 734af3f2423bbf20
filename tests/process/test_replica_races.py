"""One request to two replicas at once, and a database that refuses transactions for the sake of others."""

import os
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from threading import Barrier

import pytest

from .cluster import EAGER, ROLE

# As many as fit into some twenty seconds of a busy machine; `LATCHKEY_RACES=1000` where there is time.
RACES = int(os.environ.get("LATCHKEY_RACES", "500"))
# Of the transactions of the connector one in five is refused as the server refuses conflicts.
CONFLICTS = """
CREATE SEQUENCE met;
CREATE FUNCTION conflict() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF txid_current() % 5 = 0 THEN
        PERFORM nextval('met');
        RAISE EXCEPTION 'somebody else goes first' USING ERRCODE = '{code}';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER conflicts AFTER INSERT ON events {when} FOR EACH ROW EXECUTE FUNCTION conflict();
"""


def test_one_request_to_two_replicas_at_once_becomes_one_grant_every_time(cluster):
    pair = cluster(2, limits=EAGER)
    people = [pair.cloud.person() for _ in range(50)]
    starts_at = datetime.now(timezone.utc) + timedelta(hours=1)
    clients = [pair.clients[replica] for replica in pair.replicas]
    both = Barrier(2)
    tag = uuid.uuid4().hex[:8]

    def ask(side):
        answers = []
        for race in range(RACES):
            spec = pair.protocol.spec(
                people[race % 50], ROLE, pair.deployment, seconds=60, starts_at=starts_at
            )
            both.wait(30)
            answers.append(clients[side].create(spec, f"{tag}-{race}", wait="ACCEPTED").grant.id)
        return answers

    began = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(ask, range(2))
    print(f"{RACES} races in {time.monotonic() - began:.1f} s")
    assert one == other, "both are told of the same grant"
    assert len(set(one)) == RACES
    for table in ("grants", "requests"):
        assert pair.postgres.ask(pair.database, f"SELECT count(*) FROM {table}") == [[str(RACES)]]
    accepted = "SELECT count(*), count(DISTINCT grant_id) FROM events WHERE kind = 'grant_accepted'"
    assert pair.postgres.ask(pair.database, accepted) == [[str(RACES), str(RACES)]]


# As a statement fails, as a deadlock is broken, and as a commit fails.
@pytest.mark.parametrize("code, when", [("40001", ""), ("40P01", ""), ("40001", "DEFERRABLE INITIALLY DEFERRED")])
def test_conflicts_of_transactions_are_tried_again_and_no_caller_hears_of_them(cluster, code, when):
    pair = cluster(1, limits=EAGER)
    (replica,) = pair.replicas
    pair.postgres.ask(pair.database, CONFLICTS.format(code=code, when=when))
    people = [pair.cloud.person() for _ in range(25)]
    grants = [pair.grant(replica, person, 60, wait="ACCEPTED") for person in people]
    for person, grant in zip(people, grants, strict=True):
        pair.clients[replica].wait_for(grant, "ACTIVE")
        assert pair.cloud.held(person)
    for grant in grants:
        pair.clients[replica].revoke(grant)
    for person, grant in zip(people, grants, strict=True):
        pair.clients[replica].wait_for(grant, "ENDED")
        assert not pair.cloud.held(person)
    [[met]] = pair.postgres.ask(pair.database, "SELECT last_value FROM met")
    assert int(met) >= 5, "there were conflicts"
    assert replica.is_ready()
