"""The gRPC surface as another implementation sees it: generated from `proto/` by grpcio-tools.

It shares nothing with the connector but the proto files.
"""

import importlib
import importlib.resources
import pathlib
import sys
import uuid
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace

import grpc
from google.protobuf import duration_pb2, timestamp_pb2
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status
from grpc_tools import protoc
from harness import eventually

PACKAGE = "latchkey.v1"


class Protocol:
    """Every message and enum value of the surface as attributes, and clients of it."""

    def __init__(self, source, folder):
        source = pathlib.Path(source)
        files = sorted(source.rglob("*.proto"))
        known = importlib.resources.files("grpc_tools") / "_proto"
        arguments = ["protoc", f"-I{source}", f"-I{known}", f"--python_out={folder}", f"--grpc_python_out={folder}"]
        assert protoc.main([*arguments, *map(str, files)]) == 0, "protoc refuses the proto files"
        sys.path.insert(0, str(folder))
        self.services = SimpleNamespace()
        for file in files:
            name = ".".join(file.relative_to(source).with_suffix("").parts)
            self._take(importlib.import_module(f"{name}_pb2"), self)
            self._take(importlib.import_module(f"{name}_pb2_grpc"), self.services)

    @staticmethod
    def _take(module, into):
        for name, value in vars(module).items():
            if not name.startswith("_"):
                setattr(into, name, value)

    def client(self, address, credentials=None):
        return Client(self, address, credentials)

    # --- building messages ---

    def deployment(self, deployment_id):
        return self.Target(deployment=self.DeploymentTarget(deployment_id=deployment_id))

    def all_deployments(self):
        return self.Target(all_deployments=self.AllDeploymentsTarget())

    def project(self, kind, project_id):
        kind = getattr(self, f"PROJECT_TYPE_{kind.upper()}")
        return self.Target(project=self.ProjectTarget(project_type=kind, project_id=project_id))

    def organization(self):
        return self.Target(organization=self.OrganizationTarget())

    def principal(self, who):
        """A person, an address or a user id."""
        who = getattr(who, "user_id", who)
        return self.Principal(email=who) if "@" in who else self.Principal(user_id=who)

    def spec(self, who, role, *targets, seconds=60, starts_at=None, not_after=None, **more):
        """What is asked for; bare texts among the targets are deployment ids."""
        if seconds is not None:
            more["duration"] = duration_pb2.Duration(seconds=seconds)
        for name, value in (("starts_at", starts_at), ("not_after", not_after)):
            if value is not None:
                more[name] = stamp(value)
        return self.GrantSpec(
            beneficiary=self.principal(who),
            role=role,
            targets=[self.deployment(t) if isinstance(t, str) else t for t in targets],
            **more,
        )


def stamp(at):
    """A time for the wire."""
    made = timestamp_pb2.Timestamp()
    made.FromDatetime(at.astimezone(timezone.utc).replace(tzinfo=None))
    return made


def time_of(wire):
    """A time of the wire."""
    return datetime.fromtimestamp(wire.seconds, timezone.utc) + timedelta(microseconds=wire.nanos // 1000)


@dataclass
class Refusal:
    """How a call was refused, details unpacked."""

    code: str
    message: str
    reason: str = ""
    domain: str = ""
    fields: list = field(default_factory=list)
    retry_seconds: float | None = None
    metadata: dict = field(default_factory=dict)
    text: str = ""


def refusal_of(error):
    """What an RpcError says."""
    said = Refusal(error.code().name, error.details() or "")
    said.text = said.message
    try:
        status = rpc_status.from_call(error)
    except ValueError:
        status = None
    for detail in status.details if status else []:
        said.text += f" {detail}"
        for kind in (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.RetryInfo):
            if not detail.Is(kind.DESCRIPTOR):
                continue
            found = kind()
            detail.Unpack(found)
            said.text += f" {found}"
            if kind is error_details_pb2.ErrorInfo:
                said.reason, said.domain = found.reason, found.domain
                said.metadata = dict(found.metadata)
            elif kind is error_details_pb2.BadRequest:
                said.fields = [each.field for each in found.field_violations]
            else:
                said.retry_seconds = found.retry_delay.ToTimedelta().total_seconds()
    return said


class Client:
    """Short forms of the calls that the tests make."""

    def __init__(self, protocol, address, credentials=None):
        self.pb = protocol
        self.channel = grpc.secure_channel(address, credentials) if credentials else grpc.insecure_channel(address)
        services = protocol.services
        self.access = services.AccessServiceStub(self.channel)
        self.directory = services.DirectoryServiceStub(self.channel)
        self.connector = services.ConnectorServiceStub(self.channel)
        self.audit = services.AuditServiceStub(self.channel)
        self.operations = services.OperationsServiceStub(self.channel)
        self.health = health_pb2_grpc.HealthStub(self.channel)

    def close(self):
        self.channel.close()

    def create(self, spec, request_id=None, wait="ACTIVE", timeout=20, **vouchers):
        """CreateGrant; answers the whole response. `vouchers` are approvals and a token."""
        request = self.pb.CreateGrantRequest(
            request_id=request_id or f"test-{uuid.uuid4()}",
            spec=spec,
            wait=getattr(self.pb, f"GRANT_WAIT_{wait}"),
            **vouchers,
        )
        return self.access.CreateGrant(request, timeout=timeout)

    def grant(self, who, role, *targets, request_id=None, wait="ACTIVE", timeout=20, **spec):
        """CreateGrant; answers the grant."""
        made = self.pb.spec(who, role, *targets, **spec)
        return self.create(made, request_id, wait, timeout).grant

    def get(self, grant):
        grant_id = getattr(grant, "id", grant)
        return self.access.GetGrant(self.pb.GetGrantRequest(grant_id=grant_id), timeout=10).grant

    def state(self, grant):
        """The state of a grant as a word: ACTIVE."""
        return self.state_word(self.get(grant))

    def state_word(self, grant):
        return self.pb.GrantState.Name(grant.state).removeprefix("GRANT_STATE_")

    def reason_word(self, grant):
        return self.pb.EndReason.Name(grant.end_cause.reason).removeprefix("END_REASON_")

    def wait_for(self, grant, *states, seconds=20):
        """The grant, once it is in one of these states."""

        def look():
            found = self.get(grant)
            return found if self.state_word(found) in states else None

        try:
            return eventually(look, seconds)
        except AssertionError:
            raise AssertionError(f"not {states} after {seconds} s: {self.get(grant)}") from None

    def revoke(self, grant, reason="", requester=""):
        grant_id = getattr(grant, "id", grant)
        request = self.pb.RevokeGrantRequest(grant_id=grant_id, reason=reason, requester=requester)
        return self.access.RevokeGrant(request, timeout=10)

    def extend(self, grant, seconds, request_id=None, approvals=()):
        request = self.pb.ExtendGrantRequest(
            request_id=request_id or f"extend-{uuid.uuid4()}",
            grant_id=getattr(grant, "id", grant),
            duration=duration_pb2.Duration(seconds=seconds),
            approvals=approvals,
        )
        return self.access.ExtendGrant(request, timeout=10).grant

    def plan(self, spec, **vouchers):
        return self.access.PlanGrant(self.pb.PlanGrantRequest(spec=spec, **vouchers), timeout=10)

    def explain(self, who):
        request = self.pb.ExplainAccessRequest(member=self.pb.principal(who))
        return self.access.ExplainAccess(request, timeout=10)

    def refused(self, call, *args, **kwargs):
        """Makes a call that must be refused; answers how it was."""
        try:
            answer = call(*args, **kwargs)
        except grpc.RpcError as error:
            return refusal_of(error)
        raise AssertionError(f"it was not refused: {answer}")

    def serving(self, service=""):
        """The word of the health service: SERVING."""
        answer = self.health.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
        return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
