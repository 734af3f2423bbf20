"""A database role that may work with the ledger and change neither its tables nor what was audited."""

import json
import pathlib
import subprocess
import uuid

from harness import Connector, eventually, run

from .cluster import ROLE

PASSWORD = "a-password-of-the-application"
# As docs/replicas.md tells it: rows of tables, and of the audit only new ones.
RIGHTS = """
CREATE ROLE {role} LOGIN PASSWORD '{password}';
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role};
REVOKE UPDATE, DELETE ON events, audit_blocks FROM {role};
"""
FORBIDDEN = [
    "UPDATE events SET body = body",
    "DELETE FROM events",
    "TRUNCATE events",
    "UPDATE audit_blocks SET number = number",
    "DELETE FROM audit_blocks",
    "ALTER TABLE grants ADD COLUMN x TEXT",
    "DROP TABLE members",
    "CREATE TABLE x (y INT)",
    "CREATE ROLE z",
    "COPY grants TO PROGRAM 'cat'",
]


def test_the_role_of_the_connector_is_enough_for_it_and_for_nothing_else(
    latchkey_bin, tmp_path, protocol, postgres, simulator
):
    tag = uuid.uuid4().hex[:12]
    database, role = f"db_{tag}", f"app_{tag}"
    postgres.ask("postgres", f"CREATE DATABASE {database}")
    password = tmp_path / "password"
    password.write_text(PASSWORD)
    password.chmod(0o600)

    seal = tmp_path / "seal"
    seal.write_text(json.loads(run(latchkey_bin, "audit", "keygen", "--output", "json").stdout)["signing_key"])
    seal.chmod(0o400)

    def connector(user, **more):
        folder = tmp_path / user
        folder.mkdir()
        return Connector(
            latchkey_bin,
            simulator,
            folder,
            ledger={"kind": "postgres", "url": f"postgres://{user}@{postgres.server}/{database}", **more},
            audit={"signing_key": {"file": {"path": str(seal)}}},
            sweeps={"audit_seal": "* * * * * *"},
        )

    assert run(latchkey_bin, "migrate", "--config", connector("latchkey").config_file).returncode == 0
    postgres.ask(database, RIGHTS.format(role=role, password=PASSWORD))

    subject = connector(role, migrate=False, password_file=str(password)).start()
    try:
        eventually(subject.is_ready, seconds=30)
        client = protocol.client(subject.grpc)
        person = simulator.person()
        grant = client.grant(person, ROLE, simulator.deployment("staging"), seconds=300)
        assert simulator.held(person)
        client.revoke(grant)
        client.wait_for(grant, "ENDED")
        assert not simulator.held(person)
        client.close()
        sealed = "SELECT count(*) FROM audit_blocks"
        eventually(lambda: int(postgres.ask(database, sealed)[0][0]) > 0)
    finally:
        subject.kill()

    psql = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin/psql"))[-1]
    url = f"postgres://{role}:{PASSWORD}@{postgres.server}/{database}"
    for text in FORBIDDEN:
        done = subprocess.run([psql, url, "-Atc", text], capture_output=True, text=True, timeout=30, check=False)
        denied = ("permission denied", "must be owner", "must be superuser")
        assert done.returncode != 0 and any(word in done.stderr for word in denied), (text, done.stderr)
