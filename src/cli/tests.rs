//! The command line as people type it: arguments, help texts, completions.

use super::args::{GrantArgs, State};
use super::*;

fn parsed(line: &str) -> Result<Cli, clap::Error> {
    let words = line.split(' ').filter(|word| !word.is_empty());
    parse(std::iter::once("latchkey").chain(words).map(OsString::from))
}

fn grant(line: &str) -> GrantArgs {
    let Command::Client(ClientCommand::Grant(args)) = parsed(line).expect(line).command else {
        panic!("not a grant: {line}");
    };
    args
}

#[test]
fn a_grant_is_read_with_all_its_options() {
    let args = grant(
        "grant ada@example.com viewer --on deployment/prod --on staging --for 1h30m --reason INC-1 --starts +10m \
         --until 16:00 --invite --no-wait --integration acme --as-roles a,b --request-id x",
    );
    assert_eq!(args.spec.member, "ada@example.com");
    assert_eq!(args.spec.targets, ["deployment/prod", "staging"]);
    assert_eq!(args.spec.duration.seconds(), 5_400);
    assert_eq!(args.spec.starts.as_deref(), Some("+10m"));
    assert_eq!(args.spec.as_roles.as_deref(), Some("a,b"));
    assert!(args.spec.invite && args.no_wait);
    assert_eq!(args.request_id.as_deref(), Some("x"));
}

#[test]
fn command_lines_that_make_sense_are_accepted() {
    for line in [
        "serve --config f.yaml",
        "simulate",
        "demo --once",
        "check-config -c f.yaml",
        "doctor -c f.yaml",
        "schema",
        "bench --rounds 1",
        "bench --only accept,idle --quick --enforce --directory /var/tmp",
        "bench serve --config f.yaml --per-grant --commit-alone --full-load",
        "bench bare-start --config f.yaml",
        "bench empty-server",
        "bench fill --ledger f.db --members 10 --each 2 --overdue 1",
        "plan ada viewer --on prod --for 45m",
        "list",
        "list --state active --state awaiting-member --member ada --on prod",
        "list --all --output json",
        "--output yaml --server http://localhost:1 --timeout 5s list",
        "get 0199f7a0",
        "watch --once",
        "extend 0199f7a0 --by 30m",
        "revoke 0199f7a0",
        "revoke --request-id x",
        "revoke-all --member ada --yes",
        "revoke-all --on prod --yes",
        "revoke-all --on prod --max-members 10 --yes",
        "revoke-all --integration acme --yes",
        "revoke-all --member ada --integration acme",
        "drain --yes",
        "hold",
        "hold --integration acme",
        "hold release --reason checked",
        "hold release --integration acme --reason checked --requester ada",
        "events -c f.yaml --after 7",
        "audit keygen",
        "approval keygen --key ada.key",
        "approval digest --request r.yaml",
        "approval sign --key ada.key --approver ada --request - --for 30m",
        "break-glass keygen --key safe.key",
        "break-glass issue --key k --name safe --integration main --member a@b.c --role viewer --on deployment/a \
         --max-duration 2h --not-after +90d --reason on-call",
        "break-glass inspect token",
        "review list --all",
        "review close 0199f7a0 --note looked --requester bob",
        "grant ada viewer --on prod --for 1h --request-id r --approval a.jws --approval b.jws",
        "grant ada viewer --on prod --for 1h --break-glass-token t",
        "extend 0199f7a0 --by 30m --request-id e --approval a.jws",
        "audit export -c f.yaml --from 3",
        "audit head -c f.yaml",
        "audit verify a.jsonl --key AA== --head 3:ab",
        "adopt -c f.yaml --from a.jsonl --from w --write",
        "why ada",
        "receipt 0199f7a0",
        "receipts --open --member ada --since 08:00",
        "overdue --grace 5m",
        "forget --member 1 --role r --on prod --reason gone --requester ada --yes",
        "adopt --member ada --role viewer --target prod --reason x --requester ada",
        "sweep -c f.yaml --dry-run",
        "sweep -c f.yaml --all --reason lost",
        "members example.com",
        "roles --kind security",
        "resources --kind deployment prod",
        "completions zsh",
        "man",
    ] {
        assert!(parsed(line).is_ok(), "{line}: {:?}", parsed(line).err());
    }
}

#[test]
fn command_lines_that_make_no_sense_exit_with_2_and_say_why() {
    for (line, hint) in [
        ("", "Usage"),
        ("grnat ada viewer", "grant"),
        ("grant ada viewer --on prod", "--for"),
        ("grant ada viewer --on prod --for 45", "no unit"),
        ("grant ada viewer --on prod --for 0m", "zero"),
        ("grant ada viewer --on prod --for 400d", "out of range"),
        ("extend 0199 --by", "--by"),
        (
            "grant ada viewer --on prod --for 1h --approval a.jws",
            "--request-id",
        ),
        ("revoke", "GRANT"),
        ("revoke 0199f7a0 --request-id x", "cannot be used with"),
        ("revoke-all --yes", "--member"),
        ("revoke-all --member ada --on prod", "cannot be used with"),
        (
            "revoke-all --member ada --max-members 10",
            "cannot be used with",
        ),
        ("list --state gone", "awaiting-member"),
        ("list --all --state active", "cannot be used with"),
        ("list --output xml", "yaml"),
        ("list --timeout soon", "not a unit"),
        ("serve", "--config"),
        ("hold release", "--reason"),
        ("adopt -c f.yaml", "--member"),
        ("adopt --from a.jsonl --member ada", "cannot be used with"),
        ("sweep -c f.yaml --all", "--reason"),
        (
            "forget --member 1 --role r --on prod --requester ada",
            "--reason",
        ),
        ("completions cmd", "powershell"),
    ] {
        let error = parsed(line).expect_err(line);
        assert_eq!(error.exit_code(), 2, "{line}");
        assert!(error.to_string().contains(hint), "{line}: {error}");
    }
    assert_eq!(parsed("--help").expect_err("help").exit_code(), 0);
    assert_eq!(parsed("--version").expect_err("version").exit_code(), 0);
}

#[test]
fn states_are_written_with_hyphen_or_underscore() {
    for line in [
        "list --state awaiting-member",
        "list --state awaiting_member",
    ] {
        let Command::Client(ClientCommand::List(args)) = parsed(line).expect(line).command else {
            panic!("not a list");
        };
        assert_eq!(args.filter.states, [State::AwaitingMember]);
    }
}

#[test]
fn the_definition_is_consistent_and_every_command_has_its_group() {
    command().debug_assert();
    let mut grouped: Vec<&str> = GROUPS
        .iter()
        .flat_map(|(_, names)| names.iter().copied())
        .collect();
    let command = command();
    let mut defined: Vec<&str> = command
        .get_subcommands()
        .map(clap::Command::get_name)
        .collect();
    grouped.sort_unstable();
    defined.sort_unstable();
    assert_eq!(grouped, defined);
}

#[test]
fn help_texts_are_pinned() {
    let mut command = command().term_width(100);
    command.build();
    insta::assert_snapshot!("help", command.render_long_help());
    let names: Vec<String> = command
        .get_subcommands()
        .map(|one| one.get_name().to_owned())
        .collect();
    for name in names {
        let subcommand = command.find_subcommand_mut(&name).expect("listed above");
        let help = subcommand.clone().term_width(100).render_long_help();
        insta::assert_snapshot!(format!("help_{name}"), help);
    }
}

#[test]
fn no_help_text_breaks_out_of_a_hundred_columns() {
    let mut command = command().term_width(100);
    command.build();
    let mut helps = vec![command.render_long_help().to_string()];
    for one in command.get_subcommands() {
        helps.push(one.clone().term_width(100).render_long_help().to_string());
    }
    for line in helps.iter().flat_map(|help| help.lines()) {
        assert!(line.chars().count() <= 112, "{line}");
    }
}
