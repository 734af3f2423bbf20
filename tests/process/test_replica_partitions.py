"""A replica that is stopped or cut off changes nothing any more, and another one goes on: counted on its own line to the cloud."""

import random
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from harness import eventually, merged, never

from .cluster import EAGER, gone
from .lines import DOWN, UP

# Shorter than the default, so that there is time for more trials; renewed ten times in its life all the same.
CLAIM = 3.0
QUICK = {"ledger": {"claim": "3s"}, "upstream": {"mutation_budget": "1500ms"}, "limits": EAGER}
# What this test needs to notice a change of hands.
LOOK = 0.5
# What a pool of connections asks one that was given back: Sync, without anything before it.
SIGN_OF_LIFE = b"S\x00\x00\x00\x04"


def began(pair, replica, since):
    """The changing requests that a replica sent after this moment."""
    return [words for at, words in pair.ways[replica].changes if at > since]


def loaded(pair, owner, chance):
    """Members whose access ends around the moment at which the owner is lost."""
    people = [pair.cloud.person() for _ in range(chance.randint(4, 10))]
    for number, person in enumerate(people):
        pair.grant(owner, person, seconds=1 + number % 3, wait="ACCEPTED")
    eventually(lambda: all(pair.cloud.adds(person) for person in people))
    return people


def lost(pair, owner, chance, how):
    """Loses the owner in the middle of its work. Answers who took over, when, and whose access ended meanwhile."""
    people = loaded(pair, owner, chance)
    time.sleep(chance.uniform(0, 1.5))
    (other,) = pair.others(owner)
    lost_at = time.monotonic()
    how()
    eventually(lambda: pair.is_owner(other), seconds=3 * CLAIM)
    taken_at = time.monotonic()
    took = taken_at - lost_at
    assert took <= 1.5 * CLAIM + LOOK, f"take-over took {took:.1f} s"
    return other, taken_at, people, took


@pytest.mark.parametrize("seed", range(3))
def test_an_owner_cut_off_from_the_database_in_one_direction_sends_nothing_once_another_works(cluster, seed):
    pair = cluster(2, lines=True, **QUICK)
    chance = random.Random(seed)
    took = []
    for trial in range(3):
        owner = pair.owner()
        ways = ([UP], [DOWN], [UP, DOWN])[(seed + trial) % 3]
        other, taken_at, people, time_ = lost(pair, owner, chance, lambda: pair.lines[owner].cut(*ways))
        took.append(time_)
        # The cloud is within reach all the time.
        assert pair.cloud.get("/api/v1/organizations")
        eventually(lambda: gone(pair.cloud, people), seconds=15)
        assert not began(pair, owner, taken_at), "sent while another works"
        # What it sent towards the database arrives now, late, and what it was told.
        pair.lines[owner].heal()
        never(lambda: began(pair, owner, taken_at), seconds=1)
        assert pair.is_owner(other)
        eventually(owner.is_ready, seconds=15)
        assert all(len(pair.cloud.removes(person)) <= 2 for person in people)
    print(f"seed {seed}: take-over after {max(took):.2f} s at most, nothing sent after it")


@pytest.mark.parametrize("seed", range(2))
def test_an_owner_that_was_stopped_in_the_middle_of_its_work_sends_nothing_when_it_wakes(cluster, seed):
    pair = cluster(2, lines=True, **QUICK)
    chance = random.Random(100 + seed)
    took = []
    for _ in range(3):
        owner = pair.owner()
        other, _, people, time_ = lost(pair, owner, chance, lambda: pair.pause(owner))
        took.append(time_)
        eventually(lambda: gone(pair.cloud, people), seconds=15)
        woken_at = time.monotonic()
        pair.resume(owner)
        never(lambda: began(pair, owner, woken_at), seconds=1.5)
        assert pair.is_owner(other)
        eventually(owner.is_ready, seconds=15)
    print(f"seed {seed}: take-over after {max(took):.2f} s at most, nothing sent by whoever woke")


def test_a_database_that_answers_after_seconds_lets_claims_run_out_and_nothing_is_sent_without_one(cluster):
    pair = cluster(2, lines=True, **QUICK)
    owner = pair.owner()
    people = [pair.cloud.person() for _ in range(6)]
    for person in people:
        pair.grant(owner, person, seconds=5)
    slow_at = time.monotonic()
    for line in pair.lines.values():
        line.pause = 5.0
    eventually(lambda: pair.claim() is None, seconds=3 * CLAIM)
    without = time.monotonic()
    never(lambda: any(began(pair, replica, without) for replica in pair.replicas), seconds=5)
    assert any(pair.cloud.held(person) for person in people)
    for line in pair.lines.values():
        line.pause = 0.0
    eventually(lambda: gone(pair.cloud, people), seconds=30)
    print(f"slow for {time.monotonic() - slow_at:.1f} s")
    assert all(len(pair.cloud.removes(person)) == 1 for person in people), "each was removed once"
    for replica in pair.replicas:
        eventually(replica.is_ready, seconds=30)


def test_a_claim_that_changes_hands_again_and_again_removes_everything_and_no_more_than_twice(cluster):
    at_a_time = 2
    pair = cluster(2, lines=True, **merged(QUICK, {"upstream": {"urgent_concurrency": at_a_time}}))
    chance = random.Random(7)
    people = [pair.cloud.person() for _ in range(24)]
    grants = [pair.grant(pair.replicas[n % 2], person, 3600, wait="ACCEPTED") for n, person in enumerate(people)]
    eventually(lambda: all(pair.cloud.held(person) for person in people), seconds=60)
    # Four seconds of work.
    pair.cloud.faults(("role_assignments.remove", {"type": "delay", "ms": 300}))
    for grant in grants:
        pair.clients[pair.replicas[1]].revoke(grant)

    def taken_since(epoch):
        found = pair.claim()
        return found if found and found[1] > epoch else None

    hands, epoch = 0, 0
    while not gone(pair.cloud, people):
        assert hands < 30
        holder, epoch = eventually(lambda since=epoch: taken_since(since), seconds=15)
        time.sleep(chance.uniform(0.2, 1.5))
        # As if the other one had taken it: until its next look the one who had it believes that it still has. The other
        # one never hears of it, as of a claim whose answer was lost: it runs out, and one of them takes it anew.
        other = next(pair.name(replica) for replica in pair.replicas if pair.name(replica) != holder)
        moved = pair.postgres.ask(
            pair.database,
            f"UPDATE ownership SET holder = '{other}', epoch = epoch + 1, "
            f"deadline = clock_timestamp() + interval '1 second' WHERE epoch = {epoch} RETURNING epoch",
        )
        if moved:
            epoch = int(moved[0][0])
            hands += 1
    assert hands >= 3
    # What was under way at a change of hands is looked at again after `unknown_look_after`, each time anew.
    for grant in grants:
        pair.clients[pair.replicas[0]].wait_for(grant, "ENDED", seconds=60)
    twice = [person for person in people if len(pair.cloud.removes(person)) > 1]
    print(f"{hands} times another holder, {len(twice)} of {len(people)} removals sent more than once")
    calls = pair.cloud.calls(kind="role_assignments.remove")
    assert len(calls) <= len(people) + hands * at_a_time, "at most what was under way at each change of hands"
    assert not [call for call in pair.cloud.calls() if call.get("status") == 429]
    ended = pair.postgres.ask(pair.database, "SELECT state, count(*) FROM grants GROUP BY state")
    assert ended == [["ended", str(len(people))]]


def test_sessions_that_the_server_ends_all_the_time_delay_removals_and_lose_none(cluster):
    pair = cluster(2, **{**QUICK, "limits": EAGER})
    people = [pair.cloud.person() for _ in range(30)]
    grants = [pair.grant(pair.replicas[0], person, 3600, wait="ACCEPTED") for person in people]
    eventually(lambda: all(pair.cloud.held(person) for person in people), seconds=60)
    for grant in grants:
        pair.clients[pair.replicas[0]].revoke(grant)
    end_all = (
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
        f"WHERE datname = '{pair.database}' AND pid <> pg_backend_pid()"
    )
    ended = 0
    for _ in range(12):
        [[count]] = pair.postgres.ask("postgres", end_all)
        ended += int(count)
        time.sleep(0.3)
    assert ended > 24, "sessions were there to be ended, again and again"
    eventually(lambda: gone(pair.cloud, people), seconds=30)
    for grant in grants:
        pair.clients[pair.replicas[1]].wait_for(grant, "ENDED", seconds=60)
    for replica in pair.replicas:
        eventually(replica.is_ready, seconds=30)
    assert all(len(pair.cloud.removes(person)) <= 2 for person in people)


def test_connections_that_lead_nowhere_any_more_keep_nobody_from_the_database(cluster):
    readers = 3
    pair = cluster(2, lines=True, **merged(QUICK, {"ledger": {"max_connections": readers}}))
    owner = pair.owner()
    client, line = pair.clients[owner], pair.lines[owner]
    person = pair.cloud.person()
    grant = pair.grant(owner, person, seconds=3600)

    def look(timeout=1.0):
        request = client.pb.GetGrantRequest(grant_id=grant.id)
        try:
            return client.access.GetGrant(request, timeout=timeout).grant
        except grpc.RpcError:
            return None

    many = range(4 * readers)
    with ThreadPoolExecutor(len(many)) as pool:
        assert any(pool.map(lambda _: look(5), many)), "connections are there"
        # As behind a gateway that forgot them: what is asked is never answered, and nobody ends them.
        line.lose()
        for _ in range(2):
            list(pool.map(lambda _: look(), many))
    eventually(look, seconds=15)

    def revoked():
        try:
            client.revoke(grant)
        except grpc.RpcError:
            return False
        return True

    # The connection for writes was lost as well, which the first write finds out.
    eventually(revoked, seconds=30)
    eventually(lambda: gone(pair.cloud, [person]), seconds=15)
    eventually(owner.is_ready, seconds=15)


def test_a_connection_that_is_cut_off_right_after_its_answer_keeps_no_place(cluster):
    readers = 3
    pair = cluster(2, lines=True, **merged(QUICK, {"ledger": {"max_connections": readers}}))
    owner = pair.owner()
    client, line = pair.clients[owner], pair.lines[owner]
    grant = pair.grant(owner, pair.cloud.person(), seconds=3600)

    def look():
        try:
            return client.access.GetGrant(client.pb.GetGrantRequest(grant_id=grant.id), timeout=1).grant
        except grpc.RpcError:
            return None

    # What is given back, of the pool for reads and of the one for claims, is asked for a sign of life and gets no answer.
    line.swallowed = SIGN_OF_LIFE
    for _ in range(4 * readers):
        look()
    line.swallowed = None
    eventually(look, seconds=15)
    # It can still claim, once nobody else is there.
    (other,) = pair.others(owner)
    other.stop()
    eventually(lambda: pair.is_owner(owner), seconds=15)
    eventually(owner.is_ready, seconds=15)


def test_a_replica_that_went_deaf_listens_anew(cluster):
    pair = cluster(2, lines=True, **QUICK)
    owner = pair.owner()
    (other,) = pair.others(owner)
    listening = f"SELECT pid FROM pg_stat_activity WHERE datname = '{pair.database}' AND query LIKE 'LISTEN%'"
    before = {pid for [pid] in pair.postgres.ask("postgres", listening)}
    assert len(before) == len(pair.replicas)
    pair.lines[owner].lose()

    def anew():
        # Something that only the other one tells of.
        pair.grant(other, pair.cloud.person(), seconds=3600, wait="ACCEPTED")
        now = {pid for [pid] in pair.postgres.ask("postgres", listening)}
        return now - before

    eventually(anew, seconds=20, every=0.5)
