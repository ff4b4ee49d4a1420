//! Which Services become tool services, and how they are reached.

use std::collections::BTreeMap;

use drawbridge_config::Namespace;
use drawbridge_transport::SpiffeId;
use url::Url;

use super::{
    Found, LABEL,
    service::{Metadata, Service, TargetPort},
};
use crate::config::ServiceSettings;

/// The name of the port that is called, where a Service has several.
const PORT: &str = "grpc";

/// How Services are reached.
#[derive(Clone, Debug)]
pub(in crate::discovery) struct Addressing<'a> {
    /// The id of the edge, in whose trust domain they are. `None`: by plaintext.
    pub(in crate::discovery) edge: Option<&'a SpiffeId>,
    /// The host of a Service.
    pub(in crate::discovery) host: fn(&Service) -> String,
}

/// The Services that are offered as tool services, and those that are refused.
#[derive(Debug, Default, PartialEq)]
pub(in crate::discovery) struct Selection {
    /// With the Service, `namespace/name`.
    pub(in crate::discovery) services: BTreeMap<Namespace, (String, ServiceSettings)>,
    /// By the Service, `namespace/name`: why it is not offered.
    pub(in crate::discovery) refused: BTreeMap<String, String>,
}

/// Selects the Services to offer. Of several with one label, the oldest is offered: who adds one
/// later takes nothing over. A namespace that is configured, or the name of a virtual server, is
/// never discovered (`is_taken`).
pub(in crate::discovery) fn select(
    found: &Found,
    addressing: &Addressing<'_>,
    is_taken: impl Fn(&str) -> bool,
) -> Selection {
    let mut all: Vec<_> = found.services().collect();
    all.sort_by_key(|service| {
        let Metadata { creation_timestamp, .. } = &service.metadata;
        (creation_timestamp.clone(), service.id())
    });
    let mut selection = Selection::default();
    for service in all {
        let id = service.id();
        match selected(service, addressing, &selection, &is_taken) {
            Ok((namespace, settings)) => {
                drop(selection.services.insert(namespace, (id, settings)));
            }
            Err(problem) => drop(selection.refused.insert(id, problem)),
        }
    }
    selection
}

/// How a Service is offered, or why it is refused. `older` is the selection of older Services.
fn selected(
    service: &Service,
    addressing: &Addressing<'_>,
    older: &Selection,
    is_taken: impl Fn(&str) -> bool,
) -> Result<(Namespace, ServiceSettings), String> {
    let namespace = namespace(service)?;
    if is_taken(namespace.as_str()) {
        return Err(format!("the edge's configuration has the name {namespace}"));
    }
    if let Some((owner, _)) = older.services.get(&namespace) {
        return Err(format!("{owner} has the label {LABEL}={namespace} too, and is older"));
    }
    Ok((namespace, settings(service, addressing)?))
}

fn namespace(service: &Service) -> Result<Namespace, String> {
    let label = service.label().ok_or_else(|| format!("it does not have the label {LABEL}"))?;
    label.parse().map_err(|error| format!("its label {LABEL}={label}: {error}"))
}

fn settings(service: &Service, addressing: &Addressing<'_>) -> Result<ServiceSettings, String> {
    let Addressing { edge, host } = addressing;
    // It would lead to any host.
    if service.spec.kind == "ExternalName" {
        return Err("a Service of the type ExternalName is not followed".to_owned());
    }
    let Metadata { name, namespace, .. } = &service.metadata;
    let scheme = if edge.is_some() { "https" } else { "http" };
    let url = format!("{scheme}://{}:{}", host(service), port(service)?);
    let url = url.parse::<Url>().map_err(|error| format!("cannot use {url}: {error}"))?;
    let account = service.annotation("service-account").unwrap_or(name);
    let spiffe_id = edge
        .map(|edge| edge.in_trust_domain(&format!("ns/{namespace}/sa/{account}")))
        .transpose()
        .map_err(|error| format!("its service account {account:?}: {error}"))?;
    Ok(ServiceSettings { urls: vec![url], spiffe_id, ..ServiceSettings::default() })
}

/// The port of the annotation, or the one named `grpc`, or the only one; as it is at the addresses
/// that the Service's name resolves to.
fn port(service: &Service) -> Result<u16, String> {
    let ports = &service.spec.ports;
    let called =
        |name: &str| ports.iter().find(|port| port.name == name || port.port.to_string() == name);
    let port = match (service.annotation("port"), ports.as_slice()) {
        (Some(name), _) => called(name).ok_or_else(|| {
            format!("its annotation drawbridge.dev/port names none of its ports: {name:?}")
        })?,
        (None, [only]) => only,
        (None, _) => called(PORT).ok_or_else(|| {
            format!("name one of its ports {PORT}, or set the annotation drawbridge.dev/port")
        })?,
    };
    Ok(match &port.target_port {
        // The name of a headless Service resolves to its pods.
        Some(TargetPort::Number(target)) if service.spec.cluster_ip == "None" => *target,
        // The number behind a name is known to the pods alone.
        _ => port.port,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A Service of the namespace `tools`, created at this second.
    fn service(name: &str, label: &str, second: u8, more: &Value) -> Service {
        let mut service = json!({
            "metadata": {
                "name": name,
                "namespace": "tools",
                "creationTimestamp": format!("2026-11-30T10:00:{second:02}Z"),
                "labels": { LABEL: label },
                "annotations": more["annotations"],
            },
            "spec": { "type": "ClusterIP", "clusterIP": "None", "ports": [{ "port": 7450 }] },
        });
        if more["annotations"].is_null() {
            service["metadata"]["annotations"] = json!({});
        }
        for (field, value) in more["spec"].as_object().into_iter().flatten() {
            service["spec"][field] = value.clone();
        }
        serde_json::from_value(service).unwrap()
    }

    fn select_all(services: Vec<Service>, edge: Option<&str>) -> Selection {
        let mut found = Found::default();
        found.set(&"tools".parse().unwrap(), services);
        let edge = edge.map(|edge| edge.parse().unwrap());
        let addressing = Addressing { edge: edge.as_ref(), host: Service::host };
        select(&found, &addressing, |name| name == "configured")
    }

    /// Where a Service is reached, and who it must be, or why it is refused.
    fn reached(more: &Value, edge: Option<&str>) -> Result<(String, Option<String>), String> {
        let selection = select_all(vec![service("code-v2", "code", 0, more)], edge);
        if let Some((_, problem)) = selection.refused.into_iter().next() {
            return Err(problem);
        }
        let (_, (id, settings)) = selection.services.into_iter().next().unwrap();
        assert_eq!(id, "tools/code-v2");
        let id = settings.spiffe_id.map(|id| id.to_string());
        Ok((settings.urls[0].to_string(), id))
    }

    #[test]
    fn the_port_is_that_of_the_annotation_or_the_one_named_grpc_or_the_only_one() {
        let several = json!([
            { "name": "admin", "port": 7451 },
            { "name": "grpc", "port": 80, "targetPort": 7450 },
            { "name": "api", "port": 81, "targetPort": "api" },
        ]);
        let port = |more: Value| reached(&more, None).map(|(url, _)| url);
        let at = |port: u16| Ok(format!("http://code-v2.tools.svc:{port}/"));
        assert_eq!(port(json!({})), at(7450));
        let headless = json!({ "spec": { "ports": several } });
        assert_eq!(port(headless), at(7450), "the name resolves to the pods");
        let balanced = json!({ "spec": { "ports": several, "clusterIP": "10.96.0.7" } });
        assert_eq!(port(balanced).unwrap(), "http://code-v2.tools.svc/");
        for named in ["api", "81"] {
            let annotations = json!({ "drawbridge.dev/port": named });
            let more = json!({ "spec": { "ports": several }, "annotations": annotations });
            assert_eq!(port(more), at(81));
        }
        let unnamed = json!({ "spec": { "ports": [{ "port": 1 }, { "port": 2 }] } });
        assert!(port(unnamed).unwrap_err().starts_with("name one of its ports grpc"));
        let annotations = json!({ "drawbridge.dev/port": "none" });
        let missing = port(json!({ "annotations": annotations })).unwrap_err();
        assert_eq!(missing, "its annotation drawbridge.dev/port names none of its ports: \"none\"");
    }

    #[test]
    fn the_expected_spiffe_id_has_the_namespace_and_service_account_of_the_service() {
        let edge = Some("spiffe://acme.example/ns/mesh/sa/drawbridge-edge");
        let expected = |account: &str| {
            let id = format!("spiffe://acme.example/ns/tools/sa/{account}");
            Ok(("https://code-v2.tools.svc:7450/".to_owned(), Some(id)))
        };
        assert_eq!(reached(&json!({}), edge), expected("code-v2"));
        let account =
            |name: &str| json!({ "annotations": { "drawbridge.dev/service-account": name } });
        assert_eq!(reached(&account("searcher"), edge), expected("searcher"));
        // It cannot leave the Service's namespace.
        for outside in ["../../mesh/sa/auth", "a b", ""] {
            assert!(reached(&account(outside), edge).unwrap_err().contains("service account"));
        }
    }

    #[test]
    fn a_service_that_would_lead_elsewhere_or_has_an_invalid_label_is_refused() {
        let external = json!({ "spec": { "type": "ExternalName", "externalName": "db.internal" } });
        let refused = reached(&external, None).unwrap_err();
        assert_eq!(refused, "a Service of the type ExternalName is not followed");
        let selection = select_all(vec![service("code", "Code.v2", 0, &json!({}))], None);
        let refused = &selection.refused["tools/code"];
        assert!(refused.starts_with("its label drawbridge.dev/namespace=Code.v2: "), "{refused}");
    }

    #[test]
    fn the_oldest_of_several_services_is_offered_and_the_configuration_comes_first() {
        let none = json!({});
        let services = vec![
            service("a-newer", "code", 9, &none),
            service("z-older", "code", 3, &none),
            service("b-newest", "code", 10, &none),
            service("mine", "configured", 0, &none),
        ];
        let selection = select_all(services, None);
        let offered: Vec<_> = selection.services.values().map(|(id, _)| id.as_str()).collect();
        assert_eq!(offered, ["tools/z-older"]);
        let older = "tools/z-older has the label drawbridge.dev/namespace=code too, and is older";
        let configured = "the edge's configuration has the name configured";
        let refused =
            [("tools/a-newer", older), ("tools/b-newest", older), ("tools/mine", configured)];
        let refused = refused.map(|(id, problem)| (id.to_owned(), problem.to_owned()));
        assert_eq!(selection.refused, refused.into());
    }
}
