"""Logins through single sign-on that overwrite granted roles: whoever asks for access afterwards is told."""


def test_whoever_asks_is_told_that_logins_overwrite_roles_here(make_bench):
    bench = make_bench(sweeps={"drift": "* * * * * *"})
    cloud, client, pb = bench.cloud, bench.client, bench.protocol
    staging, logs = cloud.deployment("staging"), cloud.deployment("production-search")
    ada, bob = cloud.person(), cloud.person()
    spec = pb.spec(ada, "viewer", staging, logs, seconds=600)
    first = client.create(spec)
    assert list(first.warnings) == []
    # What the identity provider maps for ada takes the place of everything that she held.
    mapped = {"deployment": [{"role_id": "deployment-editor", "all": False, "deployment_ids": [staging]}]}
    cloud.control("POST", "sso-login", {"user_id": ada.user_id, "role_assignments": mapped})
    client.wait_for(first.grant, "ENDED", seconds=60)

    asked = pb.spec(bob, "viewer", staging, seconds=600)
    told = client.create(asked, request_id="asked-once")
    assert len(told.warnings) == 1 and "overwrite roles here" in told.warnings[0], told.warnings
    assert list(told.warnings) == [each for each in client.plan(spec).warnings if "overwrite" in each]
    assert list(told.grant.warnings) == []
    again = client.create(asked, request_id="asked-once")
    assert again.replayed and list(again.warnings) == list(told.warnings)
    shown = bench.cli("grant", bob.email, "viewer", "--on", f"deployment/{logs}", "--for", "5m")
    assert shown.returncode == 0 and "warning: logins through single sign-on" in shown.stderr, shown.stderr
