//! The long texts of `--help`: forms of targets, examples, what a command waits for.
//!
//! Owns words only. Their rendering is pinned by snapshots.

pub(super) const ON_HELP: &str = "\
What the role is held on; repeat for several of one kind:

  deployment/NAME       a hosted deployment, by name, alias or id
  elasticsearch/NAME    a serverless project, by name, alias or id;
  observability/NAME      the type stands in front
  security/NAME
  deployment/all        every one of a kind, now and later (policy refuses
  elasticsearch/all …     this unless it is enabled)
  organization          the organization itself (default for its roles)
  NAME                  a deployment or project, when only one has that name";

pub(super) const GRANT_EXAMPLES: &str = "\
Waits until access is verified, then says when it ends. Ctrl-C stops the waiting, not the grant.

Examples:
  latchkey grant ada@example.com viewer --on deployment/prod-logs --for 45m --reason INC-123
  latchkey grant ada@example.com viewer --on prod-logs --on staging-logs --for 1h30m
  latchkey grant \"Ada Lovelace\" developer --on elasticsearch/search --for 2h --starts 14:00
  latchkey grant new@example.com viewer --on prod-logs --for 8h --invite --no-wait
  latchkey grant ada@example.com viewer --on security/soc --for 1h --as-roles t2_analyst,viewer";

pub(super) const BENCH_EXAMPLES: &str = "\
Every number is a ratio of two measurements of the same run, or a bound: a connector against what the machine allows
at best, and against the same connector without the idea that makes it fast. Pairs are interleaved; the median decides,
the worst pair is told. The upstream is simulated on loopback, and nothing leaves this machine. Needs Linux.

With everything quiet it takes some eight minutes, 4 GiB of disk and 1 GiB of memory.

Examples:
  latchkey bench
  latchkey bench --only accept,lateness
  latchkey bench --only memory,idle,restart --grants 100000
  latchkey bench --quick --enforce
  latchkey bench --output json > bench.json";

pub(super) const PLAN_EXAMPLES: &str = "\
Reads Elastic Cloud and changes nothing. Shows the exact calls and the calls that undo them.

Examples:
  latchkey plan ada@example.com viewer --on deployment/prod-logs --for 45m
  latchkey plan ada@example.com viewer --on prod-logs --for 45m --output json | jq '.calls[].path'";

pub(super) const LIST_EXAMPLES: &str = "\
Examples:
  latchkey list
  latchkey list --member ada@example.com --all
  latchkey list --state active --on deployment/prod-logs --output json | jq -r '.[].id'";

pub(super) const GET_EXAMPLES: &str = "\
Examples:
  latchkey get 0199f7a0-1b2c
  latchkey get 0199f7a0-1b2c --output yaml";

pub(super) const WATCH_EXAMPLES: &str = "\
Prints every grant as it stands, then one line for each change, and goes on after a broken connection
without missing one. Ctrl-C ends it. With --output json each line is one JSON object.

Examples:
  latchkey watch
  latchkey watch --member ada@example.com --output json | jq -r '[.kind, .grant.state, .grant.id] | @tsv'";

pub(super) const EXTEND_EXAMPLES: &str = "\
The new end counts from the present end. A grant whose end has come cannot be extended: ask for a new one.

Examples:
  latchkey extend 0199f7a0-1b2c --by 30m --reason \"INC-123 goes on\"";

pub(super) const REVOKE_EXAMPLES: &str = "\
Waits until access was seen gone. Ctrl-C stops the waiting, not the removal. Repeating it is harmless.

Examples:
  latchkey revoke 0199f7a0-1b2c
  latchkey revoke --request-id deploy-42 --reason \"asked for by mistake\"";

pub(super) const REVOKE_ALL_EXAMPLES: &str = "\
Ends grants whoever asked for them. Standing access is never touched.

Examples:
  latchkey revoke-all --member ada@example.com --reason off-boarding --yes
  latchkey revoke-all --on deployment/prod-logs --yes
  latchkey revoke-all --integration acme --reason \"key may have leaked\" --yes";

pub(super) const DRAIN_EXAMPLES: &str = "\
For uninstalling: exits 0 when nothing is left that the connector would have to remove. New grants are
refused until the connector restarts. What is gone is looked at once more before it counts as gone: some
seconds later, or ten minutes later where Elastic Cloud left a call without an answer.

Examples:
  latchkey drain --yes
  latchkey drain --integration acme --reason \"moving to another cluster\" --yes --timeout 10m";

pub(super) const DRIFT_EXAMPLES: &str = "\
Who, what, and since when: access that somebody else took away, that came back, or that is to be put back.

Examples:
  latchkey drift
  latchkey drift --output json | jq -r '.[] | select(.kind == \"reappeared\") | .user_id'
  latchkey drift --confirm --reason 'the identity provider was migrated, INC-7'";
pub(super) const HOLD_EXAMPLES: &str = "\
A connector is in hold when its ledger was restored or lost: the witness knows more than the ledger does.
Nothing is granted then, and only what is proven is removed, until somebody has looked and releases it.

Examples:
  latchkey hold
  latchkey hold release --reason \"restored last night's backup, compared with the console\"";

pub(super) const KEY_EXAMPLES: &str = "\
The connector makes the new key, proves it, writes it to its secret store, takes it into use, and
deletes the old one some minutes later. What is interrupted on the way goes on or is undone by itself.

Examples:
  latchkey key show
  latchkey key rotate --reason \"quarterly\"
  latchkey key rotate --expires 30d --reason \"ada has left\" --no-wait";

pub(super) const EVENTS_EXAMPLES: &str = "\
Keep an export with each backup: `latchkey adopt` rebuilds a lost ledger from it.

Examples:
  latchkey events --config /etc/latchkey/config.yaml > events.jsonl
  latchkey events --config /etc/latchkey/config.yaml --after 1200 >> events.jsonl";

pub(super) const AUDIT_EXAMPLES: &str = "\
Verifying needs the export and the public key, no connector and no ledger.

Examples:
  latchkey audit keygen
  latchkey audit export --config /etc/latchkey/config.yaml > audit.jsonl
  latchkey audit verify audit.jsonl --key \"$PUBLIC_KEY\" --head \"$HEAD\"";

pub(super) const APPROVAL_EXAMPLES: &str = "\
An approval is a signature over one request, made on the approver's own machine; the request carries it along.

Examples:
  latchkey approval keygen --key ada.key > ada.pem
  latchkey approval digest --request request.yaml
  latchkey approval sign --key ada.key --approver ada --request request.yaml > ada.jws
  latchkey grant bob@example.com viewer --on prod --for 1h --request-id r-1 --approval ada.jws";

pub(super) const BREAK_GLASS_EXAMPLES: &str = "\
A token is sealed while all is well and kept offline. It opens one grant within its scope and time, without a control
plane; that alarms, cannot be extended, and owes a review.

Examples:
  latchkey break-glass keygen --key safe.key > safe.pem
  latchkey break-glass issue --key safe.key --name safe-2026 --integration main --member ada@example.com \\
      --role deployment-admin --on deployment/0f1e --max-duration 2h --not-after +90d --reason \"on-call\" > token
  latchkey break-glass inspect token
  latchkey grant ada@example.com admin --on deployment/0f1e --for 1h --break-glass-token token";

pub(super) const REVIEW_EXAMPLES: &str = "\
Every grant that an emergency token opened owes a look back, by somebody who neither used nor received it.

Examples:
  latchkey review list
  latchkey review close 0199f7a0-1b2c-7def-8123-456789abcdef --requester bob --note \"restored prod, see INC-7\"";

pub(super) const RECEIPT_EXAMPLES: &str = "\
A receipt is written in the transaction that ends its grant, and again when the second look is done.

Examples:
  latchkey receipt 0199f7a0-1b2c
  latchkey receipt 0199f7a0-1b2c --output json | jq .assurance";

pub(super) const RECEIPTS_EXAMPLES: &str = "\
Examples:
  latchkey receipts --member ada@example.com
  latchkey receipts --since 08:00 --output json | jq -r '.[] | [.grant_id, .assurance] | @tsv'
  latchkey receipts --open";

pub(super) const OVERDUE_EXAMPLES: &str = "\
Exits 8 when something is overdue, 0 when nothing is.

Examples:
  latchkey overdue
  latchkey overdue --grace 10m --output json";

pub(super) const FORGET_WARNING: &str =
    "this would stop trying to remove access that may still be there";

pub(super) const FORGET_EXAMPLES: &str = "\
For access that nobody can remove through the connector: what is given up may still be there, and the receipt says
so for ever. Only for what `latchkey overdue` lists. The first call proposes, for one hour; the same command by
somebody else confirms. What was given up is watched for: drift is reported while Elastic Cloud shows it.

Examples:
  latchkey forget --member 1014289666002276 --role deployment-admin --on deployment/0d7f2a \\
      --reason \"deployment is gone, case 4711 with Elastic\" --requester ada@example.com --yes
  latchkey forget --member 1014289666002276 --role deployment-admin --on deployment/0d7f2a \\
      --reason \"looked at case 4711\" --requester grace@example.com --yes";

pub(super) const ADOPT_EXAMPLES: &str = "\
For access that somebody gave for good while a grant gave the same: the two cannot be told apart, so the end of
the grant would remove it. Adopted access is never touched again, and receipts say who declared it.

With --from it rebuilds a lost ledger instead, while the connector is stopped, and talks to nobody. It shows what it
would write; --write does it.

Examples:
  latchkey adopt --member ada@example.com --role viewer --on deployment/prod-logs \\
      --reason \"joins the on-call team, OPS-12\" --requester grace@example.com
  latchkey adopt --config /etc/latchkey/config.yaml --from events.jsonl
  latchkey adopt --config /etc/latchkey/config.yaml --from events.jsonl --from /mnt/witness/witness --write";

pub(super) const SWEEP_EXAMPLES: &str = "\
Needs the ledger and the keys of the configuration, and no control plane. Removes what is due, never adds anything,
and exits 0 when nothing overdue is left, 8 otherwise. The connector must not run: it does all of this by itself.
--timeout bounds how long it tries (10 minutes by default).

Examples:
  latchkey sweep --config /etc/latchkey/config.yaml --dry-run
  latchkey sweep --config /etc/latchkey/config.yaml
  latchkey sweep --config /etc/latchkey/config.yaml --all --reason \"cluster is lost\" --requester ada";

pub(super) const MIGRATE_EXAMPLES: &str = "\
Only adds to the schema: connectors of the release before work on meanwhile. Every step is applied once, however often
and from wherever this runs. With `ledger.migrate: false` the connector itself needs no right to change the schema.

Examples:
  latchkey migrate --config /etc/latchkey/migrate.yaml";

pub(super) const LEDGER_EXAMPLES: &str = "\
No connector may run on either. The copy is the same ledger: request ids, receipts and audit go along.

Examples:
  latchkey ledger copy --from sqlite.yaml --to postgres.yaml";

pub(super) const WHY_EXAMPLES: &str = "\
Reads Elastic Cloud afresh and names the reason for every role: standing access, a grant and when it
ends, or drift.

Examples:
  latchkey why ada@example.com
  latchkey why \"Ada Lovelace\" --output json";

pub(super) const MEMBERS_EXAMPLES: &str = "\
Examples:
  latchkey members
  latchkey members example.com --output json | jq -r '.[].email'";

pub(super) const ROLES_EXAMPLES: &str = "\
Examples:
  latchkey roles
  latchkey roles --kind security";

pub(super) const RESOURCES_EXAMPLES: &str = "\
The first column is what --on takes.

Examples:
  latchkey resources
  latchkey resources prod --kind deployment";

pub(super) const INTEGRATIONS_EXAMPLES: &str = "\
Asks nobody but the connector: health is that of its last calls to Elastic Cloud.

Examples:
  latchkey integrations
  latchkey integrations --output json | jq -r '.[] | select(.health != \"ok\") | .name'";

pub(super) const LIMITS_EXAMPLES: &str = "\
Examples:
  latchkey limits
  latchkey limits --output json | jq .max_duration_seconds";

pub(super) const INVITATIONS_EXAMPLES: &str = "\
Those of Latchkey and those that administrators sent. Tokens are never shown.

Examples:
  latchkey invitations";

pub(super) const PROJECT_ROLES_EXAMPLES: &str = "\
The names are what --as-roles takes, beside the predefined roles.

Examples:
  latchkey project-roles security/soc";

pub(super) const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  latchkey completions bash > ~/.local/share/bash-completion/completions/latchkey
  latchkey completions zsh > ~/.zfunc/_latchkey
  latchkey completions fish > ~/.config/fish/completions/latchkey.fish";

pub(super) const MAN_EXAMPLES: &str = "\
Examples:
  latchkey man | man -l -
  latchkey man ~/.local/share/man/man1";

pub(super) const SERVE_EXAMPLES: &str = "\
Examples:
  latchkey serve --config /etc/latchkey/config.yaml";

pub(super) const DEMO_EXAMPLES: &str = "\
Needs no account and no network beyond this machine.

Examples:
  latchkey demo
  latchkey demo --once";

pub(super) const CHECK_EXAMPLES: &str = "\
Exits 64 when something is wrong.

Examples:
  latchkey check-config --config /etc/latchkey/config.yaml";

pub(super) const DOCTOR_EXAMPLES: &str = "\
Examples:
  latchkey doctor --config /etc/latchkey/config.yaml";

pub(super) const POLICY_EXAMPLES: &str = "\
Works on files, without a connector. docs/law.md shows how policies and cases are written.

Examples:
  latchkey policy show > /etc/latchkey/law/latchkey.cedar
  latchkey policy check --law /etc/latchkey/law
  latchkey policy test cases.yaml --config /etc/latchkey/config.yaml
  latchkey policy explain cases.yaml --law /etc/latchkey/law";

pub(super) const SCHEMA_EXAMPLES: &str = "\
Examples:
  latchkey schema > latchkey.schema.json";

pub(super) const SIMULATE_EXAMPLES: &str = "\
Prints one line of JSON when it is ready. Serves until SIGINT or SIGTERM.

Examples:
  latchkey simulate
  latchkey simulate --listen 127.0.0.1:9700 --members 2000 --seed 7";

pub(super) const EXIT_CODES: &str = "\
Exit codes:
    0  done                                  5  conflict: request id reused, wrong state
    1  other failure                         6  connector or Elastic Cloud unavailable
    2  usage, or a name that is ambiguous    7  timed out waiting; the grant goes on
    3  refused: policy, permission, invalid  64  bad configuration
    4  not found                             8  access that should be gone is still there
                                            130  interrupted by Ctrl-C";

pub(super) const EXAMPLES: &str = "\
Examples:
  latchkey demo
  latchkey grant ada@example.com viewer --on deployment/prod-logs --for 45m --reason INC-123
  latchkey why ada@example.com
  latchkey revoke 0199f7a0-1b2c";
