//! Tables of what names resolve to.

use super::*;

fn person(id: &str, email: &str, name: &str) -> Candidate {
    member(&pb::Member {
        user_id: id.to_owned(),
        email: email.to_owned(),
        name: name.to_owned(),
        ..pb::Member::default()
    })
}

fn people() -> Vec<Candidate> {
    vec![
        person("101", "ada@example.com", "Ada Lovelace"),
        person("102", "grace@example.com", "Grace Hopper"),
        person("103", "grace@example.org", "Grace Hopper"),
        person("104", "odd@example.com", "101"),
        person("105", "", ""),
    ]
}

#[test]
fn members_are_found_by_id_address_or_name_and_ids_win() {
    for (written, id) in [
        ("ada@example.com", "101"),
        ("ADA@example.com", "101"),
        ("Ada Lovelace", "101"),
        ("ada lovelace", "101"),
        ("101", "101"),
        ("105", "105"),
        ("grace@example.org", "103"),
    ] {
        let found = pick("member", "latchkey members", written, &people()).expect(written);
        assert_eq!(people()[found].id, id, "{written}");
    }
}

#[test]
fn ambiguous_names_list_the_candidates() {
    let failure = pick("member", "latchkey members", "Grace Hopper", &people())
        .expect_err("two have that name");
    assert_eq!(failure.exit, Exit::Usage);
    assert_eq!(
        failure.what,
        "member \"Grace Hopper\" is ambiguous: grace@example.com (102), grace@example.org (103)"
    );
}

#[test]
fn unknown_names_suggest_similar_ones() {
    let failure = pick("member", "latchkey members", "grace", &people()).expect_err("nobody");
    assert_eq!(failure.exit, Exit::NotFound);
    assert_eq!(
        failure.advice,
        "did you mean grace@example.com (102), grace@example.org (103)? `latchkey members` shows all"
    );
    let failure = pick("member", "latchkey members", "zoe", &people()).expect_err("nobody");
    assert_eq!(failure.advice, "`latchkey members` shows what there is");
    assert!(pick("member", "latchkey members", "", &people()).is_err());
}

fn resource(kind: ResourceKind, id: &str, name: &str, alias: &str) -> Resource {
    Resource {
        kind,
        id: id.to_owned(),
        name: name.to_owned(),
        alias: alias.to_owned(),
        region: String::new(),
        tags: Vec::new(),
    }
}

fn resources() -> Vec<Resource> {
    vec![
        resource(ResourceKind::Deployment, "d1", "prod-logs", "logs"),
        resource(ResourceKind::Deployment, "d2", "staging", ""),
        resource(ResourceKind::Elasticsearch, "e1", "search", ""),
        resource(ResourceKind::Security, "s1", "staging", ""),
        resource(ResourceKind::Observability, "o1", "all", ""),
        resource(ResourceKind::Observability, "o2", "d1", ""),
    ]
}

fn resolve(written: &str) -> Result<Target, Failure> {
    WrittenTarget::parse(written)?.resolve(&resources())
}

#[test]
fn targets_are_resolved_where_unambiguous() {
    let one = |kind, id: &str| Target::One(kind, id.to_owned());
    let full_id = "0123456789abcdef0123456789abcdef";
    for (written, target) in [
        ("organization", Target::Organization),
        ("deployment/all", Target::All(ResourceKind::Deployment)),
        ("security/all", Target::All(ResourceKind::Security)),
        ("deployment/prod-logs", one(ResourceKind::Deployment, "d1")),
        ("deployment/logs", one(ResourceKind::Deployment, "d1")),
        ("deployment/d1", one(ResourceKind::Deployment, "d1")),
        ("prod-logs", one(ResourceKind::Deployment, "d1")),
        ("search", one(ResourceKind::Elasticsearch, "e1")),
        ("security/staging", one(ResourceKind::Security, "s1")),
        ("d1", one(ResourceKind::Deployment, "d1")),
        ("observability/d1", one(ResourceKind::Observability, "o2")),
        ("observability/o1", one(ResourceKind::Observability, "o1")),
        (
            &format!("deployment/{full_id}"),
            one(ResourceKind::Deployment, full_id),
        ),
    ] {
        assert_eq!(resolve(written), Ok(target), "{written}");
    }
}

#[test]
fn targets_that_are_not_clear_are_refused() {
    for (written, exit, hint) in [
        (
            "staging",
            Exit::Usage,
            "deployment/d2 (staging), security/s1 (staging)",
        ),
        (
            "elasticsearch/prod-logs",
            Exit::NotFound,
            "no elasticsearch is called",
        ),
        (
            "nothing",
            Exit::NotFound,
            "no deployment or project is called",
        ),
        ("all", Exit::Usage, "all of what"),
        ("", Exit::Usage, "empty"),
        ("deployment/", Exit::Usage, "no name after"),
        ("project/search", Exit::Usage, "not a kind"),
        ("Deployment/d1", Exit::Usage, "not a kind"),
    ] {
        let failure = resolve(written).expect_err(written);
        assert_eq!(failure.exit, exit, "{written}");
        assert!(failure.what.contains(hint), "{written}: {failure:?}");
    }
}

#[test]
fn roles_follow_the_kind_of_target() {
    let deployment = Target::All(ResourceKind::Deployment);
    let security = Target::One(ResourceKind::Security, "s1".to_owned());
    assert_eq!(
        role("viewer", std::slice::from_ref(&deployment)),
        Ok("deployment-viewer")
    );
    assert_eq!(
        role("deployment-viewer", std::slice::from_ref(&deployment)),
        Ok("deployment-viewer")
    );
    assert_eq!(
        role("t1_analyst", std::slice::from_ref(&security)),
        Ok("security-t1-analyst")
    );
    assert_eq!(role("billing-admin", &[]), Ok("billing-admin"));

    let failure = role("developer", std::slice::from_ref(&security)).expect_err("not there");
    assert_eq!(
        failure.what,
        "no role \"developer\" can be held on a security project"
    );
    assert!(failure.advice.contains("security-viewer"), "{failure:?}");
    assert_eq!(
        role("viewer", &[]).expect_err("no target").exit,
        Exit::Usage
    );
    assert_eq!(
        role("viewer", &[deployment, security])
            .expect_err("two kinds")
            .what,
        "one grant cannot span deployment and security project"
    );
}

#[test]
fn grants_are_named_by_id_or_its_beginning() {
    let full = "0199f7a0-1b2c-7000-8000-000000000001";
    assert_eq!(written_grant(full), Ok(WrittenGrant::Id(full.to_owned())));
    assert_eq!(
        written_grant("0199F7A0-1B2C"),
        Ok(WrittenGrant::Prefix("0199f7a0-1b2c".to_owned()))
    );
    for bad in [
        "019",
        "ada",
        "0199f7a01b2c",
        "0199f7a0-1b2c-7000-8000-0000000000012",
        "../../etc",
    ] {
        assert_eq!(written_grant(bad).expect_err(bad).exit, Exit::Usage);
    }
    let grant = |id: &str| pb::Grant {
        id: id.to_owned(),
        beneficiary: "ada".to_owned(),
        ..pb::Grant::default()
    };
    let two = [grant("0199f7a0-1"), grant("0199f7a0-2")];
    assert_eq!(by_prefix("0199", &two[..1]), Ok(&two[0]));
    assert_eq!(
        by_prefix("0199", &[]).expect_err("none").exit,
        Exit::NotFound
    );
    let failure = by_prefix("0199", &two).expect_err("two");
    assert!(
        failure.what.contains("0199f7a0-1 (ada), 0199f7a0-2 (ada)"),
        "{failure:?}"
    );
}
