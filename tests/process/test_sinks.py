"""The audit on its way out: every event arrives, in order, whatever fails on the way, and nobody waits for it."""

import json
import queue
import threading
import time

import pytest
from harness import eventually

from .cluster import gone
from .openbao import certificates
from .receivers import Elasticsearch, Webhook


@pytest.fixture
def webhook():
    receiver = Webhook()
    yield receiver
    receiver.close()


@pytest.fixture
def elasticsearch():
    receiver = Elasticsearch()
    yield receiver
    receiver.close()


def secret(folder, name, text):
    path = folder / name
    path.write_text(text)
    path.chmod(0o400)
    return {"file": {"path": str(path)}}


def to_webhook(folder, receiver, **more):
    place = {"url": receiver.url + "/hook", "secret": secret(folder, "hook", Webhook.SECRET), **more}
    return {"name": "hook", "webhook": place}


def to_elasticsearch(folder, receiver, **more):
    place = {"url": receiver.url, "api_key": secret(folder, "key", Elasticsearch.KEY), **more}
    return {"name": "elastic", "elasticsearch": place}


def a_grant(bench):
    person = bench.cloud.person()
    grant = bench.client.grant(person, "viewer", bench.cloud.deployment("staging"), seconds=1)
    bench.client.wait_for(grant, "ENDED")


def written(bench):
    """Every event that the ledger has, by sequence."""
    rows = bench.connector.rows("SELECT sequence, body FROM events ORDER BY sequence")
    return {row["sequence"]: row["body"] for row in rows}


def covers(bench, receiver):
    """Waits until a receiver has what the ledger has now, and returns that."""
    events = written(bench)
    eventually(lambda: set(events) <= set(receiver.sequences), seconds=40)
    return events


def lag(bench, name):
    return bench.connector.metric("latchkey_audit_sink_lag", sink=name)


def deliveries(bench, name, outcome):
    return bench.connector.metric("latchkey_audit_sink_deliveries_total", sink=name, outcome=outcome)


def printed(bench):
    lines = []
    while True:
        try:
            lines.append(bench.connector.process.lines.get_nowait())
        except queue.Empty:
            return lines


def test_every_sink_gets_every_event_once_and_in_order_with_its_stored_bytes(
    make_bench, tmp_path, webhook, elasticsearch
):
    file = tmp_path / "audit.jsonl"
    sinks = [
        {"name": "out", "stdout": {}},
        {"name": "disk", "file": {"path": str(file)}},
        to_webhook(tmp_path, webhook, mode="structured"),
        to_elasticsearch(tmp_path, elasticsearch),
    ]
    bench = make_bench(audit={"sinks": sinks})
    a_grant(bench)
    covers(bench, webhook)
    events = covers(bench, elasticsearch)
    lines = [f'{{"sequence":{sequence},"event":{body}}}' for sequence, body in events.items()]
    eventually(lambda: len(file.read_text().splitlines()) >= len(lines))
    assert file.read_text().splitlines()[: len(lines)] == lines
    assert file.stat().st_mode & 0o777 == 0o600
    out = []
    eventually(lambda: out.extend(printed(bench)) or len(out) >= len(lines))
    assert out[: len(lines)] == lines
    sequences = sorted(events)
    assert webhook.sequences[: len(sequences)] == sequences
    assert elasticsearch.sequences[: len(sequences)] == sequences and elasticsearch.conflicts == 0
    first = webhook.events[0]
    assert (first["specversion"], first["data"]) == ("1.0", json.loads(events[1]))
    document = next(iter(elasticsearch.documents.values()))
    assert document["event"]["original"] == events[1]
    eventually(lambda: all(lag(bench, name) == 0 for name in ("out", "disk", "hook", "elastic")))
    found = bench.cli("doctor", "--config", bench.connector.config_file, "--output", "json")
    checks = {each["subject"]: each for each in json.loads(found.stdout)["findings"]}
    assert checks["audit sink hook"]["level"] == "ok"


def test_nothing_is_sent_twice_over_a_restart_in_order(make_bench, tmp_path, webhook):
    bench = make_bench(audit={"sinks": [to_webhook(tmp_path, webhook)]})
    covers(bench, webhook)
    eventually(lambda: lag(bench, "hook") == 0)
    assert bench.connector.stop() == 0
    bench.start()
    a_grant(bench)
    events = covers(bench, webhook)
    assert sorted(webhook.sequences)[: len(events)] == sorted(events)


def test_grants_and_revocations_do_not_wait_for_a_sink_that_is_down(make_bench, tmp_path, webhook):
    webhook.before = lambda _: 503
    bench = make_bench(audit={"sinks": [to_webhook(tmp_path, webhook)]})
    a_grant(bench)
    events = written(bench)
    eventually(lambda: lag(bench, "hook") >= len(events) and deliveries(bench, "hook", "failed") >= 2)
    assert webhook.sequences == [] and bench.connector.is_ready()
    assert "Sink of the audit did not take events" in bench.connector.log
    webhook.before = lambda _: None
    events = covers(bench, webhook)
    assert webhook.sequences[: len(events)] == sorted(events)
    eventually(lambda: lag(bench, "hook") == 0)
    assert deliveries(bench, "hook", "delivered") >= 1


def test_a_receiver_that_is_not_there_gets_everything_when_it_comes(make_bench, tmp_path, elasticsearch):
    late = Elasticsearch()
    address = late.server.server_address
    late.close()
    place = {"url": f"http://127.0.0.1:{address[1]}", "api_key": secret(tmp_path, "key", Elasticsearch.KEY)}
    bench = make_bench(audit={"sinks": [{"name": "elastic", "elasticsearch": place}]})
    a_grant(bench)
    eventually(lambda: deliveries(bench, "elastic", "failed") >= 1)
    # It comes elsewhere, which an operator tells: the cursor goes by the name of the sink.
    bench.connector.stop()
    bench.connector.configure({**bench.connector.config, "audit": {"sinks": [to_elasticsearch(tmp_path, elasticsearch)]}})
    bench.start()
    events = covers(bench, elasticsearch)
    assert elasticsearch.sequences[: len(events)] == sorted(events)


def test_events_that_arrived_and_were_answered_with_a_failure_are_there_once(make_bench, tmp_path, elasticsearch):
    # Every second request is kept and answered as if it had not been.
    elasticsearch.after = lambda number: 500 if number % 2 else None
    bench = make_bench(audit={"sinks": [to_elasticsearch(tmp_path, elasticsearch, batch=4)]})
    a_grant(bench)
    events = covers(bench, elasticsearch)
    assert elasticsearch.sequences[: len(events)] == sorted(events)
    assert elasticsearch.conflicts > 0


def test_a_refusal_is_told_and_repeated_slowly(make_bench, tmp_path, webhook):
    webhook.before = lambda _: 401
    bench = make_bench(audit={"sinks": [to_webhook(tmp_path, webhook)]})
    eventually(lambda: deliveries(bench, "hook", "refused") >= 1)
    seen = webhook.requests
    a_grant(bench)
    assert webhook.requests == seen
    assert "http_401" in bench.connector.log and Webhook.SECRET not in bench.connector.log


@pytest.mark.parametrize("kept", [True, False], ids=["after it was kept", "before it was kept"])
def test_a_kill_between_delivery_and_cursor_repeats_and_skips_nothing(make_bench, tmp_path, webhook, kept):
    bench = make_bench(start=False, audit={"sinks": [to_webhook(tmp_path, webhook, batch=5)]})
    died = threading.Event()

    def die(number):
        if number == 3:
            bench.connector.process.kill()
            died.set()
            return None if kept else 500
        return None

    setattr(webhook, "after" if kept else "before", die)
    # It may be gone before it says that it is ready.
    bench.start(until_ready=False)
    deadline = time.monotonic() + 30
    while not died.is_set() and time.monotonic() < deadline:
        try:
            a_grant(bench)
        except Exception:  # the connector died under the call
            died.wait(10)
    assert died.is_set()
    bench.kill()
    setattr(webhook, "after" if kept else "before", lambda _: None)
    bench.start()
    a_grant(bench)
    events = covers(bench, webhook)
    found = webhook.sequences
    first = list(dict.fromkeys(found))
    assert first[: len(events)] == sorted(events), "in order, but for what came twice"
    if kept:
        assert len(found) > len(first), "what was not acknowledged came again"


def test_only_a_receiver_of_the_named_authority_gets_events_and_a_replaced_authority_needs_no_restart(
    make_bench, tmp_path
):
    folders = [tmp_path / "ours", tmp_path / "other"]
    for folder in folders:
        folder.mkdir()
    authority, *tls = certificates(folders[0])
    other, *_ = certificates(folders[1])
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(other.read_bytes())
    receiver = Webhook(tls)
    try:
        bench = make_bench(audit={"sinks": [to_webhook(tmp_path, receiver, ca_file=str(trusted))]})
        eventually(lambda: deliveries(bench, "hook", "failed") >= 2)
        assert receiver.requests == 0
        trusted.write_bytes(authority.read_bytes())
        covers(bench, receiver)
    finally:
        receiver.close()


def test_a_slow_receiver_gets_everything_and_a_stop_does_not_wait_for_it(make_bench, tmp_path, webhook):
    gate = threading.Event()
    webhook.before = lambda number: gate.wait(20) and None if number == 2 else None
    bench = make_bench(audit={"sinks": [to_webhook(tmp_path, webhook, timeout="60s")]})
    eventually(lambda: webhook.requests >= 1)
    a_grant(bench)
    eventually(lambda: webhook.requests >= 2)
    begun = time.monotonic()
    assert bench.connector.stop() == 0
    assert time.monotonic() - begun < 10
    gate.set()
    bench.start()
    events = covers(bench, webhook)
    assert set(webhook.sequences) >= set(events)


def test_one_replica_delivers_and_another_goes_on_where_it_was_killed(cluster, tmp_path, elasticsearch):
    sinks = [to_elasticsearch(tmp_path, elasticsearch, batch=10)]
    pair = cluster(2, audit={"sinks": sinks})
    owner = pair.owner()
    (other,) = pair.others(owner)

    def all_there():
        """Whether every event that is there now has arrived."""
        ledger = pair.postgres.ask(pair.database, "SELECT sequence FROM events ORDER BY sequence")
        sequences = [int(row[0]) for row in ledger]
        return elasticsearch.sequences[: len(sequences)] == sequences

    people = [pair.cloud.person() for _ in range(10)]
    grants = [pair.grant(other, person, seconds=3600) for person in people]
    eventually(all_there, seconds=20)
    assert elasticsearch.conflicts == 0, "one of them delivers"
    assert other.metric("latchkey_audit_sink_deliveries_total", sink="elastic", outcome="delivered") == 0
    before = elasticsearch.requests
    for grant in grants:
        pair.clients[other].revoke(grant.id)
    eventually(lambda: elasticsearch.requests > before)
    owner.kill()
    eventually(lambda: gone(pair.cloud, people), seconds=40)
    eventually(all_there, seconds=20)
    assert other.metric("latchkey_audit_sink_deliveries_total", sink="elastic", outcome="delivered") > 0
