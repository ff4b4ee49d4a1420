use std::time::Duration;

use drawbridge_proto::invoices::v1::{
    ExtractRequest, ExtractResponse, extract_response::Event,
    invoice_service_server::InvoiceService as _,
};
use drawbridge_sdk::{CallContext, RequestId};
use futures::StreamExt as _;
use tonic::{Code, Request, Status};

use super::{
    CII, UBL,
    callers::{api, person, request_by},
};

async fn extract(request: Request<ExtractRequest>) -> Vec<Result<ExtractResponse, Status>> {
    api().await.extract(request).await.unwrap().into_inner().collect().await
}

fn extract_request(document: &str, media_type: &str) -> Request<ExtractRequest> {
    let document = Some(document.into());
    request_by(
        &person("alice", Some("acme")),
        ExtractRequest { document, media_type: Some(media_type.to_owned()), uri: None },
    )
}

#[tokio::test]
async fn progress_grows_and_the_result_comes_last() {
    for (document, number) in [(UBL, "DB-2026-0042"), (CII, "CN-7")] {
        let mut events = extract(extract_request(document, "text/xml")).await;
        let Some(Ok(ExtractResponse { event: Some(Event::Result(result)) })) = events.pop() else {
            panic!("no result")
        };
        assert_eq!(result.invoice.unwrap().number, number);
        let steps: Vec<_> = events
            .into_iter()
            .map(|event| match event.unwrap().event {
                Some(Event::Progress(progress)) => {
                    (progress.progress, progress.total, progress.message)
                }
                other => panic!("{other:?}"),
            })
            .collect();
        let messages = ["reading the document", "extracting the invoice", "checking the rules"];
        let expected = [1.0, 2.0, 3.0].into_iter().zip(messages);
        assert_eq!(
            steps,
            expected.map(|(step, text)| (step, Some(3.0), text.to_owned())).collect::<Vec<_>>()
        );
    }
}

#[tokio::test]
async fn a_rejected_document_ends_the_stream_with_the_reason() {
    for (document, media_type, why) in [
        ("<a/>", "application/xml", "`document`: is XML, but not an invoice"),
        ("%PDF-1.7", "application/pdf", "`document`: "),
        (UBL, "image/png", "`media_type`: "),
        (UBL, "", "`media_type`: "),
    ] {
        let status =
            extract(extract_request(document, media_type)).await.pop().unwrap().unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        assert!(status.message().starts_with(why), "{status:?}");
    }
}

#[tokio::test]
async fn a_call_past_its_deadline_fails_with_deadline_exceeded() {
    let mut request = extract_request(UBL, "application/xml");
    request.extensions_mut().insert(CallContext::new(RequestId::generate(), Duration::ZERO));
    let status = match api().await.extract(request).await {
        Ok(responses) => {
            responses.into_inner().filter_map(async |event| event.err()).boxed().next().await
        }
        Err(status) => Some(status),
    };
    assert_eq!(status.unwrap().code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn a_dropped_call_stops_its_job_and_releases_its_permit() {
    let api = api().await;
    for _ in 0..100 {
        drop(api.extract(extract_request(UBL, "application/xml")).await.unwrap());
    }
    let events: Vec<_> = api
        .extract(extract_request(UBL, "application/xml"))
        .await
        .unwrap()
        .into_inner()
        .collect()
        .await;
    assert_eq!(events.len(), 4);
}

#[tokio::test]
async fn a_document_is_given_as_bytes_or_by_a_stored_invoices_uri() {
    let alice = person("alice", Some("acme"));
    let whole = ExtractRequest {
        document: Some(UBL.into()),
        media_type: Some("text/xml".to_owned()),
        uri: None,
    };
    let from =
        |uri: &str| ExtractRequest { uri: Some(uri.to_owned()), ..ExtractRequest::default() };
    for (request, code) in [
        (
            ExtractRequest { uri: Some("invoice://x".to_owned()), ..whole.clone() },
            Code::InvalidArgument,
        ),
        (ExtractRequest { media_type: None, ..whole.clone() }, Code::InvalidArgument),
        (ExtractRequest::default(), Code::InvalidArgument),
        (from("https://example.com/invoice.xml"), Code::InvalidArgument),
        (from("file:///etc/passwd"), Code::InvalidArgument),
        (from("invoice://0190c0a0-0000-7000-8000-000000000000"), Code::NotFound),
    ] {
        let status =
            api().await.extract(request_by(&alice, request)).await.err().expect("it is refused");
        assert_eq!(status.code(), code, "{status:?}");
    }
    let error = api().await.extract(Request::new(whole)).await.err().expect("it is refused");
    assert_eq!(error.code(), Code::Unauthenticated, "{error:?}");
}
