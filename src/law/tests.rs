//! The shipped default, loading, and what happens with a law that errs.

use super::super::cases::Cases;
use super::*;
use crate::domain::law::{Access, Matter};

fn files(texts: &[(&str, &str)]) -> (tempfile::TempDir, Source) {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, text) in texts {
        std::fs::write(folder.path().join(name), text).expect("written");
    }
    let source = Source::Directory(folder.path().to_owned());
    (folder, source)
}

fn problems(text: &str) -> String {
    let (_folder, source) = files(&[("a.cedar", text)]);
    check(&source).expect_err(text).to_string()
}

fn case(text: &str) -> Question {
    let cases: Cases = serde_yaml::from_str(&format!("cases: [{text}]")).expect("a case");
    cases.cases[0].question().expect("a question")
}

const ASK: &str = "{name: x, action: create, access: [deployment-viewer on deployment/a]}";

fn said(law: &CedarLaw, question: &Question) -> (bool, Vec<String>) {
    match law.decide(question) {
        Verdict::Allowed { policies } => (true, policies),
        Verdict::Refused(refusal) => (false, refusal.policies),
    }
}

#[test]
fn the_shipped_law_fits_its_schema_without_a_warning() {
    let checked = check(&Source::Shipped).expect("valid");
    assert_eq!(checked.warnings, Vec::<String>::new());
    assert_eq!(checked.policies.len(), 13);
}

#[test]
fn what_is_wrong_with_policies_is_said_with_file_and_policy() {
    let permit = "@id(\"a\") permit (principal, action, resource)";
    for (text, said) in [
        ("permit (principal, action, resource);", "no @id"),
        (
            "@id(\"Not a name\") permit (principal, action, resource);",
            "is not a name",
        ),
        (
            "@id(\"no-permit\") permit (principal, action, resource);",
            "is not a name",
        ),
        (
            "@id(\"a\") permit (principal, action, resource)",
            "a.cedar: ",
        ),
        (
            "@id(\"a\") permit (principal == ?principal, action, resource);",
            "template",
        ),
        (&format!("{permit};{permit};"), "in "),
        (
            &format!("{permit} when {{ context.duratoin > 5 }};"),
            "policy a: ",
        ),
        (
            &format!("{permit} when {{ context.now > \"noon\" }};"),
            "policy a: ",
        ),
        (
            "@id(\"a\") permit (principal, action == Latchkey::Action::\"craete\", resource);",
            "policy a: ",
        ),
        (
            "@id(\"a\") @code(\"x\") permit (principal, action, resource);",
            "@code",
        ),
    ] {
        let problems = problems(text);
        assert!(problems.contains(said), "{said:?} is not in {problems}");
        assert!(problems.contains("a.cedar"), "{problems}");
    }
    let empty = tempfile::tempdir().expect("a folder");
    assert!(check(&Source::Directory(empty.path().to_owned())).is_err());
}

#[test]
fn a_law_that_errs_refuses_although_another_policy_permits() {
    let text = "@id(\"all\") permit (principal, action, resource);
        @id(\"overflows\") forbid (principal, action == Latchkey::Action::\"create\", resource)
        when { context.total * 9223372036854775807 > 0 };";
    let (_folder, source) = files(&[("a.cedar", text)]);
    let law = CedarLaw::open(source, "UTC", Rules::default()).expect("it fits the schema");
    assert_eq!(
        said(&law, &case(ASK)),
        (false, vec!["latchkey.undecided".to_owned()])
    );
    let revoke = case("{name: x, action: revoke}");
    assert_eq!(said(&law, &revoke), (true, vec!["all".to_owned()]));
}

#[test]
fn what_no_policy_permits_is_refused() {
    let text = "@id(\"reads\") permit (principal, action == Latchkey::Action::\"read\", resource);";
    let (_folder, source) = files(&[("a.cedar", text)]);
    let law = CedarLaw::open(source, "UTC", Rules::default()).expect("valid");
    assert_eq!(
        said(&law, &case(ASK)),
        (false, vec!["no-permit".to_owned()])
    );
}

#[test]
fn a_changed_law_comes_into_force_and_a_broken_one_does_not() {
    let permit = "@id(\"all\") permit (principal, action, resource);";
    let (folder, source) = files(&[("a.cedar", permit)]);
    let law = CedarLaw::open(source, "UTC", Rules::default()).expect("valid");
    assert!(matches!(law.reload(), Reload::Unchanged));
    assert!(said(&law, &case(ASK)).0);
    let path = folder.path().join("b.cedar");
    std::fs::write(&path, "forbid (principal").expect("written");
    assert!(matches!(law.reload(), Reload::Kept(Some(_))));
    assert!(matches!(law.reload(), Reload::Kept(None)), "said once");
    assert!(said(&law, &case(ASK)).0, "the old one stays");
    std::fs::write(&path, "@id(\"none\") forbid (principal, action, resource);").expect("written");
    assert!(matches!(law.reload(), Reload::Changed { .. }));
    assert_eq!(said(&law, &case(ASK)), (false, vec!["none".to_owned()]));
    std::fs::remove_file(&path).expect("removed");
    assert!(matches!(law.reload(), Reload::Changed { .. }));
    assert!(said(&law, &case(ASK)).0);
}

#[test]
fn local_time_is_that_of_the_zone() {
    let text = "@id(\"office\") permit (principal, action, resource)
        when { context.local.weekday <= 5 && context.local.hour >= 9 && context.local.hour < 17 };";
    let (_folder, source) = files(&[("a.cedar", text)]);
    let law = CedarLaw::open(source, "Europe/Berlin", Rules::default()).expect("valid");
    let at = |instant: &str| {
        let text = format!("{{name: x, action: read, at: {instant}}}");
        said(&law, &case(&text)).0
    };
    assert!(at("2026-01-05T08:00:00Z"), "nine in winter");
    assert!(!at("2026-01-05T07:59:59Z"));
    assert!(at("2026-07-06T07:00:00Z"), "nine in summer");
    assert!(!at("2026-07-06T15:00:00Z"), "five in summer");
    assert!(!at("2026-01-04T10:00:00Z"), "a Sunday");
}

#[test]
fn a_law_says_which_costly_facts_it_looks_at() {
    let law = CedarLaw::open(Source::Shipped, "UTC", Rules::default()).expect("valid");
    assert_eq!(law.wants(), Wants::default());
    let text = "@id(\"a\") permit (principal, action in [Latchkey::Action::\"create\"], resource)
        when { context.current.grants < 3 && !context.any_tags.contains(\"env=prod\") };";
    let (_folder, source) = files(&[("a.cedar", text)]);
    let law = CedarLaw::open(source, "UTC", Rules::default()).expect("valid");
    assert_eq!(
        law.wants(),
        Wants {
            current: true,
            tags: true
        }
    );
    let mut question = case(ASK);
    assert!(said(&law, &question).0);
    let Matter::Create(access) = &mut question.matter else {
        panic!("a new grant");
    };
    *access = Access {
        tags: vec![["env=prod".to_owned()].into()],
        ..access.clone()
    };
    assert!(!said(&law, &question).0);
}

#[test]
fn an_emergency_grant_needs_a_permit_of_its_own_and_approvals_can_be_counted() {
    let law = CedarLaw::open(Source::Shipped, "UTC", Rules::default()).expect("valid");
    let by = |role: &str| {
        case(&format!(
            "{{name: x, action: break_glass, roles: [{role}], access: [deployment-viewer on deployment/a]}}"
        ))
    };
    assert_eq!(
        said(&law, &by("break-glass")),
        (true, vec!["break-glass-may-open".to_owned()])
    );
    assert!(!said(&law, &by("control-plane")).0);
    let text = "@id(\"a\") permit (principal, action == Latchkey::Action::\"create\", resource)
        when { context.approver_count >= 2 };";
    let (_folder, source) = files(&[("a.cedar", text)]);
    let law = CedarLaw::open(source, "UTC", Rules::default()).expect("valid");
    assert!(
        !said(&law, &by("break-glass")).0,
        "only creating is permitted"
    );
    let with = |approvers: &str| {
        case(&format!(
            "{{name: x, action: create, access: [deployment-viewer on deployment/a], approvers: [{approvers}]}}"
        ))
    };
    assert!(!said(&law, &with("bob")).0);
    assert!(said(&law, &with("bob, cy")).0);
}

#[test]
fn whoever_receives_access_cannot_approve_it() {
    let law = CedarLaw::open(Source::Shipped, "UTC", Rules::default()).expect("valid");
    let by = |approver: &str| {
        case(&format!(
            "{{name: x, action: create, access: [deployment-viewer on deployment/a], beneficiary: ada@example.com, \
             beneficiary_id: '1', approvers: [{approver}]}}"
        ))
    };
    let refused = (false, vec!["approver-is-not-beneficiary".to_owned()]);
    assert_eq!(said(&law, &by("ada@example.com")), refused);
    assert_eq!(said(&law, &by("'1'")), refused);
    assert!(said(&law, &by("bob@example.com")).0);
}
