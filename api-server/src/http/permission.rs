//! Who may call what. Every route names its permission in its description (`security(("bearer" = ["write"]))`, or `security(())` for
//! everybody), and that description is what is enforced: a route without one is not served, and the process does not start with it.

use std::collections::HashMap;

use axum::http::Method;
use utoipa::openapi::path::Operation;
use utoipa::openapi::{HttpMethod, OpenApi};

use crate::domain::principal::{Permission, Principal};

/// Addresses outside of the description, which are for everybody.
const SERVICE: [&str; 7] = [
    "/health",
    "/ready",
    "/openapi.json",
    "/ws",
    "/docs",
    "/docs/",
    "/docs/{*rest}",
];

/// A route that does not say who may call it.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "{method} {path} names no permission: give it `security((\"bearer\" = [\"read\"]))` or `security(())`"
)]
pub struct Undeclared {
    /// Its method.
    pub method: String,
    /// Its template.
    pub path: String,
}

/// What a route asks of its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Nothing.
    Public,
    /// A person with this permission.
    Needs(Permission),
}

impl Access {
    /// Whether a caller may pass.
    pub fn admits(self, caller: &Principal) -> bool {
        match self {
            Self::Public => true,
            Self::Needs(permission) => caller.may(permission),
        }
    }
}

/// Permissions of all routes.
#[derive(Debug)]
pub struct Permissions(HashMap<String, HashMap<Method, Access>>);

impl Permissions {
    /// Reads them from the description.
    pub fn of(document: &OpenApi) -> Result<Self, Undeclared> {
        let mut routes: HashMap<String, HashMap<Method, Access>> = HashMap::new();
        for path in SERVICE {
            let methods = HashMap::from([(Method::GET, Access::Public)]);
            routes.insert(path.to_owned(), methods);
        }
        for (path, item) in &document.paths.paths {
            for (method, operation) in operations(item) {
                let access = access(operation).ok_or_else(|| Undeclared {
                    method: method.to_string(),
                    path: path.clone(),
                })?;
                routes.entry(path.clone()).or_default().insert(method, access);
            }
        }
        Ok(Self(routes))
    }

    /// What a request needs; nothing for a method that the route does not have, which is answered as such.
    pub fn find(&self, path: &str, method: &Method) -> Option<Access> {
        let methods = self.0.get(path)?;
        // HEAD is GET without the body.
        let wanted = if method == Method::HEAD {
            &Method::GET
        } else {
            method
        };
        Some(methods.get(wanted).copied().unwrap_or(Access::Public))
    }

    /// All of them, for tests and tables.
    pub fn all(&self) -> impl Iterator<Item = (&str, &Method, Access)> {
        self.0
            .iter()
            .flat_map(|(path, methods)| methods.iter().map(move |(m, access)| (path.as_str(), m, *access)))
    }
}

fn access(operation: &Operation) -> Option<Access> {
    // The requirement's fields are private; its JSON is its contract.
    let requirements = serde_json::to_value(operation.security.as_ref()?).ok()?;
    let [requirement] = requirements.as_array()?.as_slice() else {
        return None;
    };
    let requirement = requirement.as_object()?;
    if requirement.is_empty() {
        return Some(Access::Public);
    }
    let [permission] = requirement.get("bearer")?.as_array()?.as_slice() else {
        return None;
    };
    permission.as_str()?.parse().ok().map(Access::Needs)
}

fn operations(item: &utoipa::openapi::PathItem) -> impl Iterator<Item = (Method, &Operation)> {
    let of = |method: HttpMethod| match method {
        HttpMethod::Get => (Method::GET, &item.get),
        HttpMethod::Put => (Method::PUT, &item.put),
        HttpMethod::Post => (Method::POST, &item.post),
        HttpMethod::Delete => (Method::DELETE, &item.delete),
        HttpMethod::Options => (Method::OPTIONS, &item.options),
        HttpMethod::Head => (Method::HEAD, &item.head),
        HttpMethod::Patch => (Method::PATCH, &item.patch),
        HttpMethod::Trace => (Method::TRACE, &item.trace),
    };
    [
        HttpMethod::Get,
        HttpMethod::Put,
        HttpMethod::Post,
        HttpMethod::Delete,
        HttpMethod::Options,
        HttpMethod::Head,
        HttpMethod::Patch,
        HttpMethod::Trace,
    ]
    .into_iter()
    .map(of)
    .filter_map(|(method, operation)| operation.as_ref().map(|operation| (method, operation)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::openapi;

    #[test]
    fn every_route_names_its_permission() {
        let permissions = Permissions::of(&openapi::parts().1).unwrap();
        let me = permissions.find("/api/v1/auth/me", &Method::HEAD);
        assert_eq!(me, Some(Access::Needs(Permission::Read)));
        assert_eq!(
            permissions.find("/api/v1/auth/login", &Method::POST),
            Some(Access::Public)
        );
        assert_eq!(permissions.find("/api/v1/unknown", &Method::GET), None);
    }

    #[test]
    fn a_route_without_a_permission_is_refused() {
        for security in [
            serde_json::json!(null),
            serde_json::json!([{"bearer": []}]),
            serde_json::json!([{"bearer": ["rule"]}]),
            serde_json::json!([{}, {"bearer": ["read"]}]),
        ] {
            let mut operation = serde_json::json!({"responses": {}});
            if !security.is_null() {
                operation["security"] = security.clone();
            }
            let document = serde_json::json!({
                "openapi": "3.1.0", "info": {"title": "t", "version": "1"}, "paths": {"/things": {"get": operation}}
            });
            let document: OpenApi = serde_json::from_value(document).unwrap();
            let refused = Permissions::of(&document).unwrap_err();
            assert_eq!(
                (refused.method.as_str(), refused.path.as_str()),
                ("GET", "/things"),
                "{security}"
            );
        }
    }
}
