"""People who are not members yet: the clock starts when they have joined, and an invitation nobody takes lapses."""

import uuid
from datetime import timedelta

import pytest
import requests
from grpc_client.protocol import time_of
from harness import eventually, instant, now


def stranger():
    return f"new-{uuid.uuid4().hex[:10]}@example.net"


def invitations(cloud, email):
    return [each for each in cloud.organization().get("invitations", []) if each["email"] == email]


@pytest.fixture(scope="module")
def deployment(bench):
    return bench.cloud.deployment("staging")


def test_an_invitation_accepted_late_starts_the_clock_then(cloud, client, deployment):
    email = stranger()
    grant = client.grant(email, "deployment-viewer", deployment, seconds=2, invite=True)
    waiting = client.wait_for(grant, "AWAITING_MEMBER")
    [invitation] = eventually(lambda: invitations(cloud, email))
    assert not invitation.get("role_assignments"), "an invitation carries no roles"
    assert waiting.HasField("lapses_at") and not waiting.HasField("expires_at")

    # Longer than the grant lasts: its clock stands still.
    accepted = time_of(waiting.created_at) + timedelta(seconds=3)
    eventually(lambda: now() > accepted)
    assert client.state(grant) == "AWAITING_MEMBER"
    joined = cloud.control("POST", f"invitations/{email}/accept", {})
    active = client.wait_for(grant, "ACTIVE", seconds=20)
    assert active.user_id == joined["user_id"] and active.invited
    assert time_of(active.activated_at) > accepted
    assert time_of(active.expires_at) - time_of(active.activated_at) == timedelta(seconds=2)
    assert cloud.held(joined["user_id"]) == {f"deployment/deployment-viewer/{deployment}"}
    ended = client.wait_for(grant, "ENDED")
    assert client.reason_word(ended) == "EXPIRED"
    assert cloud.held(joined["user_id"]) == set()
    assert cloud.member(email), "the membership outlives the grant"


def test_several_grants_share_one_invitation(cloud, client, deployment):
    email = stranger()
    roles = ("deployment-viewer", "deployment-editor")
    grants = [
        client.grant(email if role.endswith("viewer") else email.upper(), role, deployment, seconds=60, invite=True)
        for role in roles
    ]
    for grant in grants:
        client.wait_for(grant, "AWAITING_MEMBER")
    eventually(lambda: invitations(cloud, email))
    joined = cloud.control("POST", f"invitations/{email}/accept", {})
    for grant in grants:
        client.wait_for(grant, "ACTIVE", seconds=20)
    sent = [call for call in cloud.calls(kind="invitations.create") if call.get("status") == 201]
    assert len([call for call in sent if instant(call["at"]) >= time_of(grants[0].created_at)]) == 1
    assert len(cloud.held(joined["user_id"])) == 2
    for grant in grants:
        client.revoke(grant)
        client.wait_for(grant, "ENDED")
    assert cloud.held(joined["user_id"]) == set()


def test_an_invitation_that_nobody_accepts_lapses_and_is_cancelled(cloud, client, deployment):
    email = stranger()
    end = now() + timedelta(seconds=4)
    grant = client.grant(email, "deployment-viewer", deployment, seconds=60, invite=True, not_after=end)
    eventually(lambda: invitations(cloud, email))
    ended = client.wait_for(grant, "ENDED")
    assert client.reason_word(ended) == "LAPSED"
    assert time_of(ended.ended_at) >= end
    eventually(lambda: not invitations(cloud, email))
    assert cloud.member(email) is None


def test_a_withdrawn_grant_takes_its_invitation_with_it(cloud, client, deployment):
    email = stranger()
    grant = client.grant(email, "deployment-viewer", deployment, seconds=60, invite=True)
    eventually(lambda: invitations(cloud, email))
    client.revoke(grant)
    ended = client.wait_for(grant, "ENDED")
    assert client.reason_word(ended) == "WITHDRAWN"
    eventually(lambda: not invitations(cloud, email))


def test_an_invitation_of_somebody_else_is_adopted_and_never_cancelled(cloud, client, deployment):


    email = stranger()
    answer = requests.post(
        f"{cloud.base_url}/api/v1/organizations/{cloud.organization_id}/invitations",
        json={"emails": [email]},
        headers={"Authorization": f"ApiKey {cloud.api_key}"},
        timeout=10,
    )
    answer.raise_for_status()
    [theirs] = invitations(cloud, email)
    grant = client.grant(email, "deployment-viewer", deployment, seconds=60, invite=True)
    client.wait_for(grant, "AWAITING_MEMBER")
    client.revoke(grant)
    client.wait_for(grant, "ENDED")
    assert [each["token"] for each in invitations(cloud, email)] == [theirs["token"]]


def test_nobody_is_invited_unless_the_caller_says_so(cloud, client, deployment):
    email = stranger()
    refusal = client.refused(client.grant, email, "deployment-viewer", deployment)
    assert refusal.code == "NOT_FOUND" and "invite" in refusal.message
    plan = client.plan(client.pb.spec(email, "deployment-viewer", deployment, invite=True))
    assert plan.would_invite and not plan.user_id
    assert invitations(cloud, email) == []


def test_a_crash_while_waiting_loses_nobody(make_bench):
    bench = make_bench()
    cloud, deployment, email = bench.cloud, bench.cloud.deployment("staging"), stranger()
    cloud.faults({"match": {"kind": "invitations.create"}, "action": {"type": "drop_after_apply"}, "times": 1})
    grant = bench.client.grant(email, "deployment-viewer", deployment, seconds=2, invite=True, wait="ACCEPTED")
    eventually(lambda: invitations(cloud, email))
    bench.kill()
    cloud.faults()
    joined = cloud.control("POST", f"invitations/{email}/accept", {})
    bench.start()
    bench.client.wait_for(grant, "ACTIVE", seconds=30)
    bench.client.wait_for(grant, "ENDED")
    assert cloud.held(joined["user_id"]) == set()
