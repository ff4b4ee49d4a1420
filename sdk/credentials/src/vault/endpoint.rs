//! Endpoints that `vaultrs` lacks, and the headers of every call.

use http::{HeaderValue, Request, Response, Uri, uri::PathAndQuery};
use rustify::{
    Endpoint, MiddleWare,
    enums::{RequestMethod, RequestType, ResponseType},
    errors::ClientError,
};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

/// Any path of Vault's API.
#[derive(Clone)]
pub(crate) struct RawEndpoint<'a> {
    pub(crate) method: RequestMethod,
    pub(crate) path: &'a str,
    pub(crate) body: Option<&'a Value>,
}

impl Endpoint for RawEndpoint<'_> {
    type Response = Value;
    const REQUEST_BODY_TYPE: RequestType = RequestType::JSON;
    const RESPONSE_BODY_TYPE: ResponseType = ResponseType::JSON;

    fn path(&self) -> String {
        self.path.to_owned()
    }

    fn method(&self) -> RequestMethod {
        self.method.clone()
    }

    fn body(&self) -> Result<Option<Vec<u8>>, ClientError> {
        let body = self.body.map(serde_json::to_vec).transpose();
        body.map_err(|error| ClientError::DataParseError { source: error.into() })
    }
}

/// As `vaultrs`' own middleware, with a request id for Vault's audit device, and with a token that
/// no log shows.
pub(super) struct Headers<'a> {
    pub(super) token: Option<&'a SecretString>,
    pub(super) namespace: Option<&'a str>,
    pub(super) request_id: Option<&'a str>,
}

impl MiddleWare for Headers<'_> {
    fn request<E: Endpoint>(
        &self,
        _: &E,
        request: &mut Request<Vec<u8>>,
    ) -> Result<(), ClientError> {
        let failed = |source: http::Error| ClientError::GenericError { source: source.into() };
        let mut parts = request.uri().clone().into_parts();
        let path = parts.path_and_query.as_ref().map_or("/", PathAndQuery::as_str);
        let path: PathAndQuery =
            format!("/v1{path}").parse().map_err(|error| failed(http::Error::from(error)))?;
        parts.path_and_query = Some(path);
        *request.uri_mut() = Uri::from_parts(parts).map_err(|error| failed(error.into()))?;

        let token = self.token.map(ExposeSecret::expose_secret);
        let headers = [
            ("x-vault-request", Some("true")),
            ("x-vault-token", token),
            ("x-vault-namespace", self.namespace),
            ("x-request-id", self.request_id),
        ];
        for (name, value) in headers {
            let Some(value) = value else { continue };
            let mut value = HeaderValue::from_str(value).map_err(|error| failed(error.into()))?;
            value.set_sensitive(name == "x-vault-token");
            request.headers_mut().insert(name, value);
        }
        Ok(())
    }

    fn response<E: Endpoint>(&self, _: &E, _: &mut Response<Vec<u8>>) -> Result<(), ClientError> {
        Ok(())
    }
}
