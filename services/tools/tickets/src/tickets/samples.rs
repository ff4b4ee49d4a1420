use std::collections::HashSet;

use drawbridge_proto::tickets::v1::{
    GetRequest, SearchRequest, SearchResponse, Ticket, ticket_service_server::TicketService as _,
};
use drawbridge_sdk::{
    BlockingJobs, ServiceBuilder,
    credentials::{CredentialLimits, CredentialSource, Credentials},
};
use tonic::Code;

use super::harness::{request_from, request_of_bob};
use crate::{api::TicketApi, helpdesk::Helpdesk, sample};

/// The service as `drawbridge up` starts it.
fn service() -> (TicketApi, ServiceBuilder) {
    let builder = ServiceBuilder::new();
    let embedded = CredentialSource::Embedded(sample::serve(&builder).unwrap());
    let credentials = Credentials::new(embedded, CredentialLimits::default());
    let helpdesk = Helpdesk::new(credentials, None, BlockingJobs::new(4), &builder).unwrap();
    (TicketApi::new(helpdesk), builder)
}

async fn search(service: &TicketApi, tenant: &str, request: SearchRequest) -> SearchResponse {
    service.search(request_from("bob", Some(tenant), request)).await.unwrap().into_inner()
}

fn ids(tickets: &[Ticket]) -> Vec<&str> {
    tickets.iter().map(|ticket| ticket.ticket_id.as_str()).collect()
}

#[tokio::test]
async fn each_tenant_has_its_own_tickets_and_a_caller_without_tenant_is_rejected() {
    let (service, _builder) = service();
    let request = SearchRequest { page_size: Some(100), ..SearchRequest::default() };
    let acme = search(&service, "acme", request.clone()).await.tickets;
    let umbrella = search(&service, "umbrella", request.clone()).await.tickets;
    assert!(acme.len() >= 20 && umbrella.len() >= 10);
    let titles: HashSet<_> = acme.iter().map(|ticket| &ticket.title).collect();
    assert!(umbrella.iter().all(|ticket| !titles.contains(&ticket.title)));
    for (tenant, code) in
        [(Some("initech"), Code::FailedPrecondition), (None, Code::PermissionDenied)]
    {
        let error = service.search(request_from("bob", tenant, request.clone())).await.unwrap_err();
        assert_eq!(error.code(), code, "{tenant:?}: {error:?}");
    }
}

#[tokio::test]
async fn every_sample_ticket_can_be_read() {
    let (service, _builder) = service();
    for tenant in ["acme", "umbrella"] {
        let all = SearchRequest { page_size: Some(100), ..SearchRequest::default() };
        for ticket in search(&service, tenant, all).await.tickets {
            let request = GetRequest { ticket_id: ticket.ticket_id.clone() };
            let ticket_response =
                service.get(request_from("bob", Some(tenant), request)).await.unwrap().into_inner();
            let found = ticket_response.ticket.unwrap();
            assert!(!found.customer.unwrap().name.is_empty(), "{tenant} {}", ticket.ticket_id);
            assert!(
                ticket_response
                    .articles
                    .iter()
                    .all(|article| !article.text.is_empty() && !article.text.contains("</"))
            );
            assert!(
                ticket_response.articles.is_sorted_by_key(|article| article.created_at.clone()),
                "{}",
                ticket.ticket_id
            );
            assert_eq!(found.article_count as usize, ticket_response.articles.len());
            assert!(["1 low", "2 normal", "3 high"].contains(&&*found.priority));
        }
    }
}

#[tokio::test]
async fn every_filter_narrows_the_search() {
    let (service, _builder) = service();
    let filter = |change: fn(&mut SearchRequest)| {
        let mut request = SearchRequest { page_size: Some(100), ..SearchRequest::default() };
        change(&mut request);
        request
    };
    for (request, expected) in [
        (filter(|request| request.query = "vpn TUNNEL".to_owned()), &["101"][..]),
        (filter(|request| request.query = "nothing has this".to_owned()), &[]),
        (filter(|request| request.state = "pending".to_owned()), &["103", "107", "117"]),
        (
            filter(|request| {
                request.priority = "3 high".to_owned();
                request.assignee = "bruno.quill@acme.example".to_owned();
            }),
            &["118", "110"],
        ),
        (filter(|request| request.customer = "YUKI.BARNACLE".to_owned()), &["115", "111"]),
        (filter(|request| request.created_to = Some("2026-01-20".to_owned())), &["112", "120"]),
        (
            filter(|request| {
                request.updated_from = Some("2026-02-10".to_owned());
                request.updated_to = Some("2026-02-18".to_owned());
            }),
            &["108", "117", "104"],
        ),
    ] {
        let found = search(&service, "acme", request.clone()).await.tickets;
        let (mut found_ids, mut expected) = (ids(&found), expected.to_vec());
        found_ids.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found_ids, expected, "{request:?}");
    }
}

#[tokio::test]
async fn pages_contain_each_ticket_once_latest_change_first() {
    let (service, _builder) = service();
    let mut request = SearchRequest { page_size: Some(5), ..SearchRequest::default() };
    let mut all = Vec::new();
    loop {
        let page = service.search(request_of_bob(request.clone())).await.unwrap().into_inner();
        all.extend(page.tickets);
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert!(all.is_sorted_by(|one, other| one.updated_at >= other.updated_at));
    assert_eq!(ids(&all).into_iter().collect::<HashSet<_>>().len(), all.len());
    assert!(all.len() >= 20);
}
