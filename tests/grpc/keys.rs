//! The key and its rotation over the wire.

use latchkey::api::pb;
use latchkey::api::pb::operations_service_client::OperationsServiceClient;
use tonic::Code;
use tonic::transport::Channel;
use tonic_types::StatusExt as _;

use super::support::*;

fn operations(bed: &Bed) -> OperationsServiceClient<Channel> {
    OperationsServiceClient::new(bed.channel.clone())
}

#[tokio::test]
async fn what_is_known_of_the_key_is_told_without_a_call() {
    let bed = Bed::start().await;
    let key = operations(&bed).get_key(pb::GetKeyRequest::default()).await;
    let key = key.expect("answered").into_inner();
    assert_eq!(
        (key.integration.as_str(), key.user_id.as_str()),
        ("main", "9")
    );
    assert_eq!((key.rotation, key.can_be_replaced), (None, false));
    let unknown = pb::GetKeyRequest {
        integration: "other".to_owned(),
    };
    let unknown = operations(&bed).get_key(unknown).await;
    assert_eq!(unknown.expect_err("unknown").code(), Code::NotFound);
}

#[tokio::test]
async fn a_rotation_needs_a_reason_and_somebody_who_can_carry_it_out() {
    let bed = Bed::start().await;
    let bare = pb::RotateKeyRequest::default();
    let bare = operations(&bed).rotate_key(bare).await;
    let bare = bare.expect_err("no reason");
    assert_eq!(bare.code(), Code::InvalidArgument);
    let asked = pb::RotateKeyRequest {
        reason: "quarterly".to_owned(),
        ..pb::RotateKeyRequest::default()
    };
    let refused = operations(&bed).rotate_key(asked).await;
    let refused = refused.expect_err("nobody rotates here");
    assert_eq!(refused.code(), Code::FailedPrecondition);
    let details = refused.get_error_details();
    let info = details.error_info().expect("a reason");
    assert_eq!(info.reason, "ROTATION_UNAVAILABLE");
}
