"""Keys, approvals and emergency tokens as another implementation makes them: by the pages of docs/, not by our code."""

import base64
import hashlib
import json
import time
import uuid

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


def b64(data):
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


class Signer:
    """An Ed25519 key in two files of `folder`: NAME.key signs, NAME.pem is given away."""

    def __init__(self, folder, name):
        self.name = name
        self.key = Ed25519PrivateKey.generate()
        self.key_file, self.public_file = folder / f"{name}.key", folder / f"{name}.pem"
        self.key_file.write_bytes(
            self.key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        self.public_file.write_bytes(
            self.key.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        )

    def sign(self, kind, claims):
        """A JSON Web Signature in its compact form."""
        head = b64(json.dumps({"alg": "EdDSA", "typ": kind}).encode())
        body = b64(json.dumps(claims).encode())
        return f"{head}.{body}.{b64(self.key.sign(f'{head}.{body}'.encode()))}"

    def approval(self, request, age=0, lasts=3600, **changes):
        """An approval of a request, signed `age` seconds ago."""
        at = int(time.time()) - age
        claims = {
            "iss": self.name,
            "jti": str(uuid.uuid4()),
            "iat": at,
            "exp": at + lasts,
            "req": digest(request),
            "decision": "approve",
        }
        return self.sign("latchkey-approval+jwt", {**claims, **changes})

    def token(self, age=0, lasts=3600, **changes):
        """An emergency token, sealed `age` seconds ago."""
        at = int(time.time()) - age
        claims = {"iss": self.name, "jti": str(uuid.uuid4()), "iat": at, "nbf": at, "exp": at + lasts}
        return self.sign("latchkey-break-glass+jwt", {**claims, **changes})


def canonical(request):
    """The text of a request that approvers sign (RFC 8785, for what our requests hold)."""
    return json.dumps(request, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(request):
    return hashlib.sha256(canonical(request).encode()).hexdigest()


def creation(request_id, person, deployment, role="deployment-viewer", seconds=60, requester="", reason=""):
    """The canonical form of a request for a new grant."""
    return {
        "application_roles": None,
        "beneficiary": getattr(person, "user_id", person),
        "duration_s": seconds,
        "integration": "elastic",
        "invite": False,
        "justification": reason,
        "kind": "create",
        "not_after": None,
        "request_id": request_id,
        "requester": requester,
        "role": role,
        "starts_at": None,
        "targets": [f"deployment/{deployment}"],
    }


def prolonging(request_id, grant_id, seconds, requester="", reason=""):
    """The canonical form of a request for a later end."""
    return {
        "duration_s": seconds,
        "grant_id": grant_id,
        "kind": "extend",
        "reason": reason,
        "request_id": request_id,
        "requester": requester,
    }
