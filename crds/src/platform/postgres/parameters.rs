//! Which settings of postgresql.conf a platform may carry: the refused ones in groups, each with a sentence that says what to
//! write instead. The API server checks them by the rules made here, the operator by [`refusal`].

use std::collections::BTreeMap;

/// Names of settings that are refused for one reason.
struct Refused {
    names: &'static [&'static str],
    sentence: &'static str,
}

const REFUSED: [Refused; 5] = [
    Refused {
        names: &[
            "archive_cleanup_command",
            "archive_command",
            "archive_library",
            "archive_mode",
            "archive_timeout",
            "cluster_name",
            "hot_standby",
            "hot_standby_feedback",
            "max_replication_slots",
            "max_slot_wal_keep_size",
            "max_wal_senders",
            "primary_conninfo",
            "primary_slot_name",
            "promote_trigger_file",
            "recovery_end_command",
            "recovery_min_apply_delay",
            "recovery_target",
            "recovery_target_action",
            "recovery_target_inclusive",
            "recovery_target_lsn",
            "recovery_target_name",
            "recovery_target_time",
            "recovery_target_timeline",
            "recovery_target_xid",
            "restore_command",
            "sync_replication_slots",
            "synchronized_standby_slots",
            "wal_keep_segments",
            "wal_level",
            "wal_log_hints",
            "wal_receiver_create_temp_slot",
            "wal_receiver_status_interval",
            "wal_receiver_timeout",
            "wal_retrieve_retry_interval",
            "wal_sender_timeout",
        ],
        sentence: "replication, recovery and archiving are Patroni's: leave these parameters out, and choose with postgres.managed.instances, synchronous and failover",
    },
    Refused {
        names: &["synchronous_commit", "synchronous_standby_names"],
        sentence: "when a write counts as done is chosen with postgres.managed.synchronous: write synchronous: Quorum, QuorumStrict or Async instead",
    },
    Refused {
        names: &[
            "authentication_timeout",
            "config_file",
            "data_directory",
            "external_pid_file",
            "hba_file",
            "ident_file",
            "krb_caseins_users",
            "krb_server_keyfile",
            "listen_addresses",
            "password_encryption",
            "port",
            "ssl",
            "ssl_ca_file",
            "ssl_cert_file",
            "ssl_ciphers",
            "ssl_crl_dir",
            "ssl_crl_file",
            "ssl_dh_params_file",
            "ssl_ecdh_curve",
            "ssl_key_file",
            "ssl_max_protocol_version",
            "ssl_min_protocol_version",
            "ssl_passphrase_command",
            "ssl_passphrase_command_supports_reload",
            "ssl_prefer_server_ciphers",
            "unix_socket_directories",
            "unix_socket_group",
            "unix_socket_permissions",
        ],
        sentence: "addresses, files, passwords and TLS of an instance belong to the operator: leave these parameters out",
    },
    Refused {
        names: &[
            "allow_in_place_tablespaces",
            "allow_system_table_mods",
            "data_sync_retry",
            "dynamic_library_path",
            "exit_on_error",
            "fsync",
            "full_page_writes",
            "ignore_checksum_failure",
            "ignore_invalid_pages",
            "ignore_system_indexes",
            "jit_provider",
            "local_preload_libraries",
            "remove_temp_files_after_crash",
            "restart_after_crash",
            "row_security",
            "session_preload_libraries",
            "zero_damaged_pages",
        ],
        sentence: "these parameters would put data at risk or load foreign code: leave them out, their safe values are set already",
    },
    Refused {
        names: &[
            "event_source",
            "log_destination",
            "log_directory",
            "log_file_mode",
            "log_filename",
            "log_rotation_age",
            "log_rotation_size",
            "log_truncate_on_rotation",
            "logging_collector",
            "syslog_facility",
            "syslog_ident",
            "syslog_sequence_numbers",
            "syslog_split_messages",
        ],
        sentence: "logs go to standard error, where the cluster collects them: leave these parameters out; what is logged is chosen with log_min_duration_statement, log_statement and their like",
    },
];

/// Parameters with a lower bound, as Patroni has it: it would silently run with its own default instead.
const LEAST: [(&str, i64); 4] = [
    ("max_connections", 25),
    ("max_locks_per_transaction", 32),
    ("max_worker_processes", 2),
    ("max_prepared_transactions", 0),
];

const LEAST_SENTENCE: &str = "write whole numbers: max_connections of at least 25, max_locks_per_transaction of at least 32, max_worker_processes of at least 2, max_prepared_transactions of at least 0";
const NAME_SENTENCE: &str = "a parameter is written in lower case, as in the documentation of PostgreSQL: work_mem, or auto_explain.log_min_duration";
const VALUE_SENTENCE: &str =
    "the value of a parameter is one line of printable ASCII: write 64MB, on, 0.9 or their like";
const LIBRARIES_SENTENCE: &str = "shared_preload_libraries must start with pg_stat_statements, which monitoring needs, and may add auto_explain and pg_prewarm: write pg_stat_statements,auto_explain";
/// Libraries of the image that may be preloaded, besides the one that always is.
const LIBRARIES: [&str; 2] = ["auto_explain", "pg_prewarm"];

/// Rules over `self.parameters`, as pairs of a CEL expression and a sentence.
pub(super) fn rules() -> Vec<(String, &'static str)> {
    let mut rules: Vec<(String, &'static str)> = REFUSED
        .iter()
        .map(|refused| {
            let names: Vec<_> = refused.names.iter().map(|name| format!("'{name}'")).collect();
            (
                format!("self.parameters.all(n, !(n in [{}]))", names.join(", ")),
                refused.sentence,
            )
        })
        .collect();
    let least: Vec<_> = LEAST
        .iter()
        .map(|(name, least)| {
            format!(
                "(!('{name}' in self.parameters) || (self.parameters['{name}'].matches('^[0-9]{{1,6}}$') && int(self.parameters['{name}']) >= {least}))"
            )
        })
        .collect();
    rules.push((least.join(" && "), LEAST_SENTENCE));
    rules.push((
        "self.parameters.all(n, n.matches('^[a-z][a-z0-9_]*([.][a-z][a-z0-9_]*)?$'))".to_owned(),
        NAME_SENTENCE,
    ));
    rules.push((
        "self.parameters.all(n, self.parameters[n].matches('^[ -~]*$'))".to_owned(),
        VALUE_SENTENCE,
    ));
    rules.push((
        format!(
            "!('shared_preload_libraries' in self.parameters) || self.parameters['shared_preload_libraries'].matches('^pg_stat_statements(, ?({}))*$')",
            LIBRARIES.join("|")
        ),
        LIBRARIES_SENTENCE,
    ));
    rules
}

/// Why a set of parameters is refused, if it is: the same rules for objects that were stored under an older definition.
pub fn refusal(parameters: &BTreeMap<String, String>) -> Option<&'static str> {
    for (name, value) in parameters {
        if let Some(refused) = REFUSED
            .iter()
            .find(|refused| refused.names.contains(&name.as_str()))
        {
            return Some(refused.sentence);
        }
        if !is_name(name) {
            return Some(NAME_SENTENCE);
        }
        if !value.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
            return Some(VALUE_SENTENCE);
        }
        let least = LEAST.iter().find(|(bounded, _)| bounded == name);
        if least.is_some_and(|(_, least)| !at_least(value, *least)) {
            return Some(LEAST_SENTENCE);
        }
        if name == "shared_preload_libraries" && !libraries_are_known(value) {
            return Some(LIBRARIES_SENTENCE);
        }
    }
    None
}

fn at_least(value: &str, least: i64) -> bool {
    let digits = (1..=6).contains(&value.len()) && value.bytes().all(|byte| byte.is_ascii_digit());
    digits && value.parse::<i64>().is_ok_and(|number| number >= least)
}

fn is_name(name: &str) -> bool {
    let word = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_lowercase())
            && part
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    let mut parts = name.split('.');
    parts.next().is_some_and(word) && parts.next().is_none_or(word) && parts.next().is_none()
}

fn libraries_are_known(value: &str) -> bool {
    let mut names = value
        .split(',')
        .map(|name| name.strip_prefix(' ').unwrap_or(name));
    names.next() == Some("pg_stat_statements") && names.all(|name| LIBRARIES.contains(&name))
}
