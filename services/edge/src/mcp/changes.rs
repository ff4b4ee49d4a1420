//! Tells clients that what they may see has changed.

use rmcp::{
    RoleServer,
    model::SubscriptionFilter,
    service::{Peer, ServiceError, SubscriptionSendError, SubscriptionSink},
};

use crate::catalog::Catalogs;

/// Tells one session, for as long as it lives (older revisions).
pub(super) fn tell_session(peer: Peer<RoleServer>, catalogs: &Catalogs) {
    let mut changed = catalogs.subscribe();
    tokio::spawn(async move {
        let mut told = *changed.borrow_and_update();
        while changed.changed().await.is_ok() && !peer.is_transport_closed() {
            let now = *changed.borrow_and_update();
            let telling = async {
                if now.tools != told.tools {
                    peer.notify_tool_list_changed().await?;
                }
                if now.resources != told.resources {
                    peer.notify_resource_list_changed().await?;
                }
                if now.prompts != told.prompts {
                    peer.notify_prompt_list_changed().await?;
                }
                Ok::<_, ServiceError>(())
            };
            if telling.await.is_err() {
                return;
            }
            told = now;
        }
    });
}

/// Tells one subscriber what it asked to be told, until it goes (2026-07-28).
pub(super) async fn tell_subscriber(
    wants: &SubscriptionFilter,
    sink: &SubscriptionSink,
    catalogs: &Catalogs,
) {
    let mut changed = catalogs.subscribe();
    let wanted = |kind: Option<bool>| kind.unwrap_or(false);
    let mut told = *changed.borrow_and_update();
    while changed.changed().await.is_ok() {
        let now = *changed.borrow_and_update();
        let telling = async {
            if wanted(wants.tools_list_changed) && now.tools != told.tools {
                sink.notify_tool_list_changed().await?;
            }
            if wanted(wants.resources_list_changed) && now.resources != told.resources {
                sink.notify_resource_list_changed().await?;
            }
            if wanted(wants.prompts_list_changed) && now.prompts != told.prompts {
                sink.notify_prompt_list_changed().await?;
            }
            Ok::<_, SubscriptionSendError>(())
        };
        if telling.await.is_err() {
            return;
        }
        told = now;
    }
}
