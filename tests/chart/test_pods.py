"""Every pod of every set of values holds the restricted pod security standard, and a little more."""

import pytest

from .render import changed, configuration, connector, matrix, pods, rendered

# What a restricted pod may mount (Pod Security Standards, restricted, "Volume Types").
VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}


def every_pod():
    return [(f"{name}: {pod}", labels, spec) for name in matrix() for pod, labels, spec in pods(rendered(name))]




def containers(spec):
    return [*spec.get("initContainers", []), *spec["containers"]]


def breaches(spec):
    """What the restricted standard has against a pod."""
    found = []
    pod = spec.get("securityContext", {})
    if spec.get("hostNetwork") or spec.get("hostPID") or spec.get("hostIPC"):
        found.append("host namespaces")
    for volume in spec.get("volumes", []):
        if set(volume) - {"name"} - VOLUMES:
            found.append(f"volume {volume}")
    for container in containers(spec):
        own = container.get("securityContext", {})
        name = container["name"]
        if own.get("privileged"):
            found.append(f"{name}: privileged")
        if own.get("allowPrivilegeEscalation") is not False:
            found.append(f"{name}: escalation")
        if own.get("runAsNonRoot", pod.get("runAsNonRoot")) is not True:
            found.append(f"{name}: may be root")
        if own.get("runAsUser", pod.get("runAsUser")) == 0:
            found.append(f"{name}: is root")
        if own.get("seccompProfile", pod.get("seccompProfile", {})).get("type") not in {"RuntimeDefault", "Localhost"}:
            found.append(f"{name}: no seccomp profile")
        if own.get("capabilities", {}).get("drop") != ["ALL"]:
            found.append(f"{name}: keeps capabilities")
        if set(own.get("capabilities", {}).get("add", [])) - {"NET_BIND_SERVICE"}:
            found.append(f"{name}: adds capabilities")
        if any("hostPort" in port for port in container.get("ports", [])):
            found.append(f"{name}: port of the host")
    return found


def test_every_pod_is_restricted():
    assert {place: breaches(spec) for place, _, spec in every_pod() if breaches(spec)} == {}


@pytest.mark.parametrize(
    ("changes", "breach"),
    [
        ({"securityContext": {"allowPrivilegeEscalation": True}}, "escalation"),
        ({"securityContext": {"runAsUser": 0}}, "is root"),
        ({"securityContext": {"capabilities": {"add": ["NET_ADMIN"]}}}, "adds capabilities"),
        ({"podSecurityContext": {"seccompProfile": {"type": "Unconfined"}}}, "no seccomp profile"),
        ({"extraVolumes": [{"name": "host", "hostPath": {"path": "/"}}]}, "hostPath"),
    ],
)
def test_a_breach_would_be_noticed(changes, breach):
    found = [each for _, _, spec in pods(changed("smallest", **changes)) for each in breaches(spec)]
    assert any(breach in each for each in found), found


def test_a_cluster_that_chooses_users_itself_is_let():
    nothing = {"runAsUser": None, "runAsGroup": None, "fsGroup": None}
    for place, _, spec in pods(changed("smallest", podSecurityContext=nothing)):
        assert not [name for name in nothing if spec["securityContext"].get(name) is not None], place
        assert not breaches(spec), "it is as restricted as before"


def test_every_container_has_a_read_only_root_and_bounds():
    for place, _, spec in every_pod():
        for container in containers(spec):
            assert container["securityContext"]["readOnlyRootFilesystem"] is True, place
            assert container["resources"]["limits"]["memory"] and container["resources"]["requests"]["cpu"], place
            # A limit of processor time would make removals late; requests are what reserves it.
            assert "cpu" not in container["resources"]["limits"], place


def test_what_is_writable_is_a_volume_with_a_bound_or_a_claim():
    for place, _, spec in every_pod():
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        for container in containers(spec):
            for mount in container["volumeMounts"]:
                volume = volumes[mount["name"]]
                if not mount.get("readOnly"):
                    assert "persistentVolumeClaim" in volume or volume["emptyDir"]["sizeLimit"], (place, mount)
                else:
                    assert "persistentVolumeClaim" not in volume, (place, mount)
        mounted = {mount["name"] for container in containers(spec) for mount in container["volumeMounts"]}
        assert mounted == set(volumes), f"{place}: every volume is used"


def test_secrets_are_mounted_for_the_group_only():
    for place, _, spec in every_pod():
        for volume in spec["volumes"]:
            if "secret" in volume:
                assert volume["secret"]["defaultMode"] == 0o440, (place, volume)


def test_no_token_of_the_cluster_unless_something_reads_through_its_api():
    with_token = {place for place, _, spec in every_pod() if spec["automountServiceAccountToken"] is not False}
    assert with_token == {
        "kubernetes-secret: Deployment/latchkey",
        "kubernetes-secret: Pod/latchkey-test",
        "vault: Deployment/latchkey",
        "vault: Pod/latchkey-test",
        "everything: Deployment/latchkey-connector",
        "everything: CronJob/latchkey-connector-sweep",
        "everything: Pod/latchkey-connector-test",
    }


def test_jobs_never_take_calls_meant_for_the_connector():
    for name in matrix():
        objects = rendered(name)
        for service in (each for each in objects if each["kind"] == "Service"):
            chosen = [
                pod
                for pod, labels, _ in pods(objects)
                if service["spec"]["selector"].items() <= labels.items()
            ]
            assert len(chosen) == 1 and chosen[0].startswith("Deployment/"), (name, service["metadata"]["name"], chosen)


def test_nothing_secret_is_in_any_object():
    for name in matrix():
        assert not [each for each in rendered(name) if each["kind"] == "Secret"], name


def test_the_journal_is_a_directory_of_each_connector():
    spec, container = connector(rendered("everything"))
    [mount] = [mount for mount in container["volumeMounts"] if mount["name"] == "journal"]
    assert mount["mountPath"] == configuration(rendered("everything"))["ledger"]["journal"]
    [volume] = [volume for volume in spec["volumes"] if volume["name"] == "journal"]
    assert set(volume) == {"name", "emptyDir"}, "replicas share none"
    spec, _ = connector(rendered("ha"))
    assert all(volume["name"] != "journal" for volume in spec["volumes"]), "off by default"
