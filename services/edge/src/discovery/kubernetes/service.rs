//! What the edge reads of Kubernetes' API: the few fields of a Service that it needs.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::LABEL;

/// A Service with the label (`v1.Service`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(in crate::discovery) struct Service {
    pub(super) metadata: Metadata,
    pub(super) spec: Spec,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Metadata {
    pub(super) name: String,
    pub(super) namespace: String,
    /// RFC 3339, in UTC and whole seconds.
    pub(super) creation_timestamp: String,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) annotations: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Spec {
    #[serde(rename = "type")]
    pub(super) kind: String,
    #[serde(rename = "clusterIP")]
    pub(super) cluster_ip: String,
    pub(super) ports: Vec<Port>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Port {
    pub(super) name: String,
    pub(super) port: u16,
    pub(super) target_port: Option<TargetPort>,
}

/// A port of the pods: its number, or its name in their specification.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub(super) enum TargetPort {
    Number(u16),
    Name(String),
}

impl Service {
    /// The value of the label.
    pub(super) fn label(&self) -> Option<&str> {
        self.metadata.labels.get(LABEL).map(String::as_str)
    }

    pub(super) fn annotation(&self, name: &str) -> Option<&str> {
        let key = format!("drawbridge.dev/{name}");
        self.metadata.annotations.get(&key).map(String::as_str)
    }

    /// Its name in the cluster's DNS, for pods of the cluster.
    pub(in crate::discovery) fn host(&self) -> String {
        format!("{}.{}.svc", self.metadata.name, self.metadata.namespace)
    }

    /// `namespace/name`, for logs.
    pub(super) fn id(&self) -> String {
        format!("{}/{}", self.metadata.namespace, self.metadata.name)
    }
}

/// A page of Services (`v1.ServiceList`).
#[derive(Debug, Deserialize)]
pub(super) struct ServiceList {
    pub(super) metadata: ListMetadata,
    pub(super) items: Option<Vec<Service>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ListMetadata {
    pub(super) resource_version: String,
    /// Where the next page begins. Absent or empty: this is the last page.
    #[serde(rename = "continue")]
    pub(super) next: Option<String>,
}

/// A message of a watch (`v1.WatchEvent`).
#[derive(Debug, Deserialize)]
pub(super) struct WatchEvent {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) object: Box<RawValue>,
}

/// The version of an object, which a later watch may begin after.
#[derive(Debug, Deserialize)]
pub(super) struct Versioned {
    pub(super) metadata: VersionMetadata,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct VersionMetadata {
    pub(super) resource_version: String,
}

/// An error (`v1.Status`).
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Status {
    pub(super) code: u16,
    pub(super) message: String,
}
