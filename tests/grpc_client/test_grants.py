"""The life of a grant, asked for and followed by a client in another language."""

import uuid
from datetime import timedelta

import grpc
import pytest
from harness import eventually, instant, now

from .protocol import time_of


@pytest.fixture(scope="module")
def deployments(bench):
    """Ids of the deployments of the world."""
    return [each["id"] for each in bench.cloud.organization()["deployments"]]


def pair(role, deployment):
    return f"deployment/{role}/{deployment}"


def test_access_is_verified_when_the_answer_comes_and_gone_at_its_end(cloud, client, deployments):
    ada = cloud.person()
    grant = client.grant(ada.email, "deployment-viewer", deployments[0], seconds=2, justification="INC-1")
    assert client.state_word(grant) == "ACTIVE"
    assert grant.certainty == client.pb.CERTAINTY_VERIFIED
    assert (grant.user_id, grant.beneficiary, grant.integration) == (ada.user_id, ada.email, "elastic")
    assert [each.holding for each in grant.assignments] == [client.pb.HOLDING_OWNED]
    assert cloud.held(ada) == {pair("deployment-viewer", deployments[0])}
    activated, expires = time_of(grant.activated_at), time_of(grant.expires_at)
    assert expires - activated == timedelta(seconds=2)

    ended = client.wait_for(grant, "ENDED")
    assert client.reason_word(ended) == "EXPIRED"
    assert cloud.held(ada) == set()
    assert len(cloud.adds(ada)) == 1
    [removal] = cloud.removes(ada)
    late = instant(removal["at"]) - expires
    assert timedelta(0) <= late < timedelta(seconds=2), f"removed {late} after the end"
    assert time_of(ended.ended_at) >= instant(removal["at"])


def test_accepted_is_answered_while_the_cloud_is_silent(cloud, client, deployments):
    bea = cloud.person()
    cloud.faults(
        {"match": {"kind": "role_assignments.add", "user": bea.user_id}, "action": {"type": "delay", "ms": 1500}}
    )
    try:
        grant = client.grant(bea, "deployment-viewer", deployments[0], seconds=60, wait="ACCEPTED")
        assert client.state_word(grant) == "ACTIVATING"
        assert cloud.held(bea) == set()
        active = client.wait_for(grant, "ACTIVE")
        assert cloud.held(bea)
    finally:
        cloud.faults()
    client.revoke(active)


def test_a_caller_that_gave_up_has_not_lost_its_grant(cloud, client, deployments):
    carl = cloud.person()
    cloud.faults(
        {"match": {"kind": "role_assignments.add", "user": carl.user_id}, "action": {"type": "delay", "ms": 1200}}
    )
    request_id = f"given-up-{uuid.uuid4()}"
    spec = client.pb.spec(carl, "deployment-viewer", deployments[0])
    try:
        client.create(spec, request_id, timeout=0.6)
    except grpc.RpcError as error:
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    cloud.faults()
    again = client.create(spec, request_id)
    assert again.replayed and client.state_word(again.grant) == "ACTIVE"
    assert len(cloud.adds(carl)) == 1
    client.revoke(again.grant)


def test_the_same_request_gives_the_same_grant_and_one_effect(cloud, client, deployments):
    dora = cloud.person()
    spec = client.pb.spec(dora, "deployment-viewer", deployments[0])
    first = client.create(spec, "dora-1")
    again = client.create(spec, "dora-1")
    assert (first.replayed, again.replayed) == (False, True)
    assert first.grant.id == again.grant.id
    assert len(cloud.adds(dora)) == 1

    other = client.pb.spec(dora, "deployment-admin", deployments[0])
    refusal = client.refused(client.create, other, "dora-1")
    assert refusal.code == "ALREADY_EXISTS" and refusal.domain == "latchkey.dev" and refusal.reason
    assert cloud.held(dora) == {pair("deployment-viewer", deployments[0])}

    client.revoke(first.grant)
    client.wait_for(first.grant, "ENDED")
    late = client.create(spec, "dora-1")
    assert late.replayed and client.state_word(late.grant) == "ENDED"
    assert len(cloud.adds(dora)) == 1, "a repeat revived an ended grant"


def test_early_revocation_takes_access_away_and_says_who_and_why(cloud, client, deployments):
    emil = cloud.person()
    grant = client.grant(emil, "deployment-editor", deployments[1], seconds=3600)
    client.revoke(grant, reason="done early", requester="emil")
    ended = client.wait_for(grant, "ENDED")
    assert client.reason_word(ended) == "REVOKED"
    assert (ended.end_cause.by, ended.end_cause.comment) == ("emil", "done early")
    assert cloud.held(emil) == set()
    again = client.revoke(grant, reason="another word")
    assert again.grant.end_cause.comment == "done early"
    assert len(cloud.removes(emil)) == 1


def test_a_revocation_that_overtakes_its_grant_closes_the_request_id(cloud, client, deployments):
    fay = cloud.person()
    request_id = f"overtaken-{uuid.uuid4()}"
    answer = client.access.RevokeGrant(client.pb.RevokeGrantRequest(grant_request_id=request_id), timeout=10)
    assert answer.tombstoned and not answer.HasField("grant")
    spec = client.pb.spec(fay, "deployment-viewer", deployments[0])
    refusal = client.refused(client.create, spec, request_id)
    assert refusal.code == "FAILED_PRECONDITION"
    assert cloud.held(fay) == set() and cloud.adds(fay) == []


def test_an_extension_moves_the_end_and_touches_nothing_upstream(cloud, client, deployments):
    gil = cloud.person()
    grant = client.grant(gil, "deployment-viewer", deployments[0], seconds=3)
    before = time_of(grant.expires_at)
    longer = client.extend(grant, 2, "gil-more")
    assert time_of(longer.expires_at) - before == timedelta(seconds=2)
    assert time_of(client.extend(grant, 2, "gil-more").expires_at) == time_of(longer.expires_at)

    ended = client.wait_for(grant, "ENDED")
    assert client.reason_word(ended) == "EXPIRED"
    assert len(cloud.adds(gil)) == 1
    [removal] = cloud.removes(gil)
    assert instant(removal["at"]) >= time_of(longer.expires_at), "removed at the old end"
    refusal = client.refused(client.extend, grant, 60)
    assert refusal.code == "FAILED_PRECONDITION"


def test_an_extension_never_passes_the_hard_end(cloud, client, deployments):
    hal = cloud.person()
    hard = now() + timedelta(seconds=120)
    grant = client.grant(hal, "deployment-viewer", deployments[0], seconds=60, not_after=hard)
    longer = client.extend(grant, 3600)
    assert time_of(longer.expires_at) <= hard
    client.revoke(grant)


def test_a_watch_shows_every_grant_and_misses_nothing_after_a_break(cloud, client, deployments):
    pb = client.pb
    ida = cloud.person()
    mine = pb.GrantFilter(beneficiary=pb.principal(ida))
    first = client.grant(ida, "deployment-viewer", deployments[0], seconds=3600)

    stream = client.access.WatchGrants(pb.WatchGrantsRequest(filter=mine), timeout=30)
    shown = next(stream)
    assert (shown.kind, shown.grant.id) == (pb.WATCH_KIND_SNAPSHOT, first.id)
    synced = next(stream)
    assert synced.kind == pb.WATCH_KIND_SYNCED and synced.resume_token
    second = client.grant(ida, "deployment-editor", deployments[0], seconds=3600)
    token = synced.resume_token
    versions = []
    for message in stream:
        if message.kind != pb.WATCH_KIND_CHANGED or message.grant.id != second.id:
            continue
        versions.append(message.grant.version)
        token = message.resume_token
        if message.grant.state == pb.GRANT_STATE_ACTIVE:
            break
    assert versions == sorted(set(versions))
    stream.cancel()

    # While nobody watches, both end.
    for grant in (first, second):
        client.revoke(grant)
        client.wait_for(grant, "ENDED")
    resumed = client.access.WatchGrants(pb.WatchGrantsRequest(filter=mine, resume_token=token), timeout=30)
    ended = set()
    for message in resumed:
        assert message.kind != pb.WATCH_KIND_SNAPSHOT, "a resumed stream began again"
        if message.grant.state == pb.GRANT_STATE_ENDED:
            ended.add(message.grant.id)
        if ended == {first.id, second.id}:
            break
    resumed.cancel()


def test_a_plan_names_the_calls_that_a_grant_then_makes_and_does_nothing(cloud, client, deployments):
    jan = cloud.person()
    spec = client.pb.spec(jan.email, "viewer", deployments[0], deployments[1])
    before = cloud.changes()
    plan = client.plan(spec)
    assert cloud.changes() == before and cloud.held(jan) == set()
    assert plan.user_id == jan.user_id and plan.is_complete and not plan.would_invite
    [call], [inverse] = plan.calls, plan.inverse_calls
    assert (call.method, inverse.method) == ("POST", "DELETE")
    for deployment in deployments[:2]:
        assert deployment in call.body and deployment in inverse.body

    grant = client.create(spec).grant
    [sent] = cloud.adds(jan)
    assert sent["path"].endswith(call.path)
    client.revoke(grant)
    client.wait_for(grant, "ENDED")
    [sent] = cloud.removes(jan)
    assert sent["path"].endswith(inverse.path)


def test_a_plan_for_standing_access_has_no_calls(cloud, client, deployments):
    held = {"deployment": [{"role_id": "deployment-viewer", "deployment_ids": [deployments[0]]}]}
    kim = cloud.person(held)
    plan = client.plan(client.pb.spec(kim, "deployment-viewer", deployments[0]))
    assert list(plan.calls) == [] and list(plan.inverse_calls) == []
    assert [each.is_standing for each in plan.assignments] == [True]


def test_every_role_is_explained(cloud, client, deployments):
    pb = client.pb
    held = {"deployment": [{"role_id": "deployment-viewer", "deployment_ids": [deployments[2]]}]}
    leo = cloud.person(held)
    grant = client.grant(leo, "deployment-editor", deployments[0], seconds=3600)
    answer = client.explain(leo.email)
    assert (answer.user_id, answer.email, answer.is_complete) == (leo.user_id, leo.email, True)
    found = {each.assignment.role: each for each in answer.access}
    assert found["deployment-viewer"].kind == pb.ACCESS_KIND_STANDING
    granted = found["deployment-editor"]
    assert granted.kind == pb.ACCESS_KIND_GRANTED and granted.is_present
    assert list(granted.grant_ids) == [grant.id]
    assert time_of(granted.until) == time_of(grant.expires_at)

    client.revoke(grant)
    client.wait_for(grant, "ENDED")
    still = [each for each in client.explain(leo).access if each.is_present]
    assert [each.assignment.role for each in still] == ["deployment-viewer"]


def test_several_targets_travel_in_one_call_each_way(cloud, client, deployments):
    mia = cloud.person()
    grant = client.grant(mia, "deployment-viewer", *deployments, deployments[0], seconds=3600)
    assert len(grant.assignments) == len(deployments)
    assert cloud.held(mia) == {pair("deployment-viewer", each) for each in deployments}
    client.revoke(grant)
    client.wait_for(grant, "ENDED")
    assert cloud.held(mia) == set()
    assert (len(cloud.adds(mia)), len(cloud.removes(mia))) == (1, 1)


@pytest.mark.parametrize(
    "kind,name,asked,canonical",
    [
        ("elasticsearch", "catalogue-search", "developer", "elasticsearch-developer"),
        ("observability", "platform-metrics", "observability-editor", "observability-editor"),
        ("security", "corporate-siem", "t1_analyst", "security-t1-analyst"),
    ],
)
def test_project_roles_are_granted_by_their_long_and_short_names(cloud, client, kind, name, asked, canonical):
    nia = cloud.person()
    project = cloud.project(name)
    grant = client.grant(nia, asked, client.pb.project(kind, project), seconds=3600)
    assert grant.role == canonical
    assert cloud.held(nia) == {f"{kind}/{canonical}/{project}"}
    client.revoke(grant)
    client.wait_for(grant, "ENDED")
    assert cloud.held(nia) == set()


def test_stack_roles_go_with_the_assignment(cloud, client):
    oda = cloud.person()
    project = cloud.project("corporate-siem")
    names = client.pb.ApplicationRoles(names=["case-reader"])
    grant = client.grant(oda, "viewer", client.pb.project("security", project), application_roles=names)
    held = cloud.control("GET", f"members/{oda.user_id}/assignments")["role_assignments"]
    [entry] = held["project"]["security"]
    assert entry["application_roles"] == ["case-reader"]
    client.revoke(grant)
    client.wait_for(grant, "ENDED")
    assert cloud.held(oda) == set()


def test_a_grant_for_later_starts_then(cloud, client, deployments):
    pia = cloud.person()
    start = now() + timedelta(seconds=2)
    grant = client.grant(pia, "deployment-viewer", deployments[0], seconds=3600, starts_at=start)
    assert client.state_word(grant) == "SCHEDULED" and cloud.held(pia) == set()
    active = client.wait_for(grant, "ACTIVE")
    [added] = cloud.adds(pia)
    assert instant(added["at"]) >= start
    assert time_of(active.activated_at) >= start
    client.revoke(grant)


def test_a_scheduled_grant_can_be_withdrawn(cloud, client, deployments):
    quin = cloud.person()
    start = now() + timedelta(hours=1)
    grant = client.grant(quin, "deployment-viewer", deployments[0], starts_at=start)
    client.revoke(grant)
    ended = client.wait_for(grant, "ENDED")
    assert client.reason_word(ended) == "WITHDRAWN"
    assert cloud.adds(quin) == []


def test_grants_are_listed_in_pages_newest_first(cloud, client, deployments):
    pb = client.pb
    rosa = cloud.person()
    start = now() + timedelta(hours=1)
    made = [client.grant(rosa, "deployment-viewer", each, starts_at=start) for each in deployments[:3]]
    mine = pb.GrantFilter(beneficiary=pb.principal(rosa))
    token, seen = "", []
    for _ in range(5):
        page = client.access.ListGrants(pb.ListGrantsRequest(filter=mine, page_size=2, page_token=token), timeout=10)
        seen += [each.id for each in page.grants]
        token = page.next_page_token
        if not token:
            break
    assert seen == [grant.id for grant in reversed(made)]
    scheduled = pb.GrantFilter(beneficiary=pb.principal(rosa), states=[pb.GRANT_STATE_ACTIVE])
    assert not client.access.ListGrants(pb.ListGrantsRequest(filter=scheduled), timeout=10).grants
    for grant in made:
        client.revoke(grant)


def test_off_boarding_ends_everything_of_one_member_and_nothing_else(cloud, client, deployments):
    pb = client.pb
    held = {"deployment": [{"role_id": "deployment-viewer", "deployment_ids": [deployments[3]]}]}
    sam, tea = cloud.person(held), cloud.person()
    grants = [client.grant(sam, role, deployments[0], seconds=3600) for role in ("viewer", "editor")]
    other = client.grant(tea, "viewer", deployments[0], seconds=3600)
    ask = pb.RevokeAccessRequest(request_id=f"off-{uuid.uuid4()}", member=pb.principal(sam), reason="left")
    assert client.access.RevokeAccess(ask, timeout=10).revoked == 2
    for grant in grants:
        client.wait_for(grant, "ENDED")
    assert cloud.held(sam) == {pair("deployment-viewer", deployments[3])}
    assert cloud.held(tea) == {pair("deployment-viewer", deployments[0])}
    assert client.access.RevokeAccess(ask, timeout=10).replayed
    client.revoke(other)


def test_a_role_taken_away_by_somebody_else_is_not_fought_over(cloud, client, deployments):
    uwe = cloud.person()
    grant = client.grant(uwe, "deployment-viewer", deployments[0], seconds=3600)
    cloud.control("PUT", f"members/{uwe.user_id}/assignments", {})
    client.explain(uwe)
    ended = client.wait_for(grant, "ENDED", seconds=40)
    assert client.reason_word(ended) == "SUPERSEDED"
    assert len(cloud.adds(uwe)) == 1
    eventually(lambda: cloud.held(uwe) == set())
