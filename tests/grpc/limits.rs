//! What the listener bounds: sizes, rates, watches; health, reflection, shutdown.

use std::num::NonZeroU32;

use latchkey::api::pb::access_service_client::AccessServiceClient;
use latchkey::api::{Options, Rate, pb};
use tokio_stream::StreamExt as _;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_types::StatusExt as _;

use super::support::*;

fn with(change: impl FnOnce(&mut Options)) -> Setup {
    let mut setup = Setup::default();
    change(&mut setup.options);
    setup
}

#[tokio::test]
async fn an_oversized_message_is_refused_and_the_next_call_works() {
    let bed = Bed::start().await;
    let big = create_with("r1", |spec| spec.justification = "x".repeat(300 * 1024));
    let status = bed.access().create_grant(big).await.expect_err("too large");
    assert!(
        matches!(status.code(), Code::OutOfRange | Code::ResourceExhausted),
        "{status:?}"
    );
    let fits = create_with("r1", |spec| spec.justification = "x".repeat(200 * 1024));
    let status = bed
        .access()
        .create_grant(fits)
        .await
        .expect_err("too long a text");
    assert_eq!(status.code(), Code::InvalidArgument);
    bed.grant("r1").await;
}

#[tokio::test]
async fn a_flood_of_calls_is_shed_and_revocations_and_health_still_answer() {
    let bed = Bed::with(with(|options| {
        options.calls = Rate {
            per_second: NonZeroU32::MIN,
            burst: NonZeroU32::new(3).expect("not zero"),
        };
    }))
    .await;
    let id = bed.grant("r1").await.id;
    let mut shed = None;
    for n in 0..10 {
        if let Err(status) = bed.access().create_grant(create(&format!("f{n}"))).await {
            shed = Some(status);
        }
    }
    let status = shed.expect("ten calls are more than three");
    assert_eq!(status.code(), Code::ResourceExhausted);
    let details = status.get_error_details();
    let delay = details.retry_info().and_then(|info| info.retry_delay);
    assert!(delay.is_some_and(|delay| !delay.is_zero()), "{details:?}");
    bed.access()
        .revoke_grant(revoke(&id))
        .await
        .expect("revoked");
    HealthClient::new(bed.channel.clone())
        .check(HealthCheckRequest {
            service: String::new(),
        })
        .await
        .expect("answered");
}

#[tokio::test]
async fn watches_are_bounded_and_a_closed_one_makes_room() {
    let bed = Bed::with(with(|options| options.max_watches = 1)).await;
    let watch = pb::WatchGrantsRequest::default;
    let mut other = AccessServiceClient::new(bed.reconnect().await);
    let first = bed.access().watch_grants(watch()).await.expect("watched");
    let status = other
        .watch_grants(watch())
        .await
        .expect_err("one is the limit");
    assert_eq!(status.code(), Code::ResourceExhausted);
    drop(first);
    // The server learns of the end with the next frame: ask until it did.
    while let Err(status) = other.watch_grants(watch()).await {
        assert_eq!(status.code(), Code::ResourceExhausted);
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn health_follows_readiness() {
    let bed = Bed::start().await;
    let mut stream = HealthClient::new(bed.channel.clone())
        .watch(HealthCheckRequest {
            service: "latchkey.v1.AccessService".to_owned(),
        })
        .await
        .expect("watched")
        .into_inner();
    let mut next = async || {
        stream
            .next()
            .await
            .expect("it goes on")
            .expect("a status")
            .status()
    };
    assert_eq!(next().await, ServingStatus::Serving);
    bed.ready.send_replace(false);
    assert_eq!(next().await, ServingStatus::NotServing);
    bed.ready.send_replace(true);
    assert_eq!(next().await, ServingStatus::Serving);
}

#[tokio::test]
async fn the_surface_describes_itself_only_when_enabled() {
    let ask = || {
        tokio_stream::once(ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::FileContainingSymbol(
                "latchkey.v1.AccessService".to_owned(),
            )),
        })
    };
    let closed = Bed::start().await;
    let status = ServerReflectionClient::new(closed.channel.clone())
        .server_reflection_info(ask())
        .await
        .expect_err("not enabled");
    assert_eq!(status.code(), Code::Unimplemented);
    let open = Bed::with(with(|options| options.reflection = true)).await;
    let mut answers = ServerReflectionClient::new(open.channel.clone())
        .server_reflection_info(ask())
        .await
        .expect("enabled")
        .into_inner();
    let answer = answers.next().await.expect("an answer").expect("described");
    assert!(
        format!("{answer:?}").contains("FileDescriptorResponse"),
        "{answer:?}"
    );
}

#[tokio::test]
async fn shutdown_ends_watches_and_then_the_server() {
    let mut bed = Bed::start().await;
    let mut stream = bed
        .access()
        .watch_grants(pb::WatchGrantsRequest::default())
        .await
        .expect("watched")
        .into_inner();
    let synced = stream.next().await.expect("it goes on").expect("an item");
    assert_eq!(synced.kind(), pb::WatchKind::Synced);
    bed.shutdown.cancel();
    let end = loop {
        match stream.next().await {
            Some(Ok(item)) => assert_eq!(item.kind(), pb::WatchKind::Alive),
            Some(Err(status)) => break status,
            None => panic!("the stream says why it ends"),
        }
    };
    assert_eq!(end.code(), Code::Unavailable);
    bed.serving
        .join_next()
        .await
        .expect("one server")
        .expect("it ended well");
}
