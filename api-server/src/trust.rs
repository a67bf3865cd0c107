//! Whose certificates of PostgreSQL and Redis are believed: those of public authorities, or of one that the configuration names.

use std::path::Path;

use redis::{Client, ConnectionInfo, TlsCertificates};
use sqlx::postgres::{PgConnectOptions, PgSslMode};

/// PostgreSQL with an authority of its own. Then names are checked although the URL does not ask for it: an authority that nothing is
/// checked against would be a promise that is not kept.
pub fn postgres(options: PgConnectOptions, authority: Option<&Path>) -> PgConnectOptions {
    let Some(path) = authority else { return options };
    let options = options.ssl_root_cert(path);
    match options.get_ssl_mode() {
        PgSslMode::VerifyCa | PgSslMode::VerifyFull => options,
        _ => options.ssl_mode(PgSslMode::VerifyFull),
    }
}

/// Redis, with the content of the authority's file. Then the URL must be a `rediss://` one.
pub fn redis(info: ConnectionInfo, authority: Option<Vec<u8>>) -> redis::RedisResult<Client> {
    match authority {
        None => Client::open(info),
        Some(certificate) => {
            let certificates = TlsCertificates {
                client_tls: None,
                root_cert: Some(certificate),
            };
            Client::build_with_tls(info, certificates)
        }
    }
}

/// What a handshake that failed means, for people; nothing if it failed for another reason.
pub fn explain(error: &anyhow::Error) -> Option<&'static str> {
    let text = format!("{error:#}");
    if text.contains("UnknownIssuer") {
        Some(
            "its certificate is signed by an authority that is not trusted here: name the authority in caSecretRef",
        )
    } else if text.contains("certificate not valid for name") || text.contains("NotValidForName") {
        Some("its certificate is for another host than the URL names")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_is_always_used() {
        let mode = |url: &str| {
            let options: PgConnectOptions = url.parse().unwrap();
            format!("{:?}", postgres(options, Some(Path::new("/ca"))).get_ssl_mode())
        };
        assert_eq!(mode("postgres://db/a"), "VerifyFull");
        assert_eq!(mode("postgres://db/a?sslmode=disable"), "VerifyFull");
        assert_eq!(mode("postgres://db/a?sslmode=verify-ca"), "VerifyCa");
    }

    #[test]
    fn an_authority_without_tls_is_refused() {
        let info = |url: &str| redis::IntoConnectionInfo::into_connection_info(url).unwrap();
        let refused = redis(info("redis://cache:6379"), Some(Vec::new())).unwrap_err();
        assert!(refused.to_string().contains("rediss://"), "{refused}");
    }
}
