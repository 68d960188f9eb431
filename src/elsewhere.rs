//! Words of other tools, and what they are here: for whoever brings a policy of
//! Teleport's, a configuration of `tbot`, a role of Vault's or flags of `step`.
//! What other tools call join methods, the methods say themselves.

type Words = &'static [(&'static [&'static str], &'static str)];

/// Keys of files, and options but for their dashes.
static KEYS: Words = &[
    // The client: `tbot`, `step`, `vault`.
    (
        &["proxy_server", "auth_server", "auth_servers", "join_uri", "ca_url", "address"],
        "it is `authority` here, the https URL of the authority itself, with no proxy of its own in between",
    ),
    (&["onboarding"], "it is `join` here: {method: NAME, token: NAME}"),
    (&["join_method"], "in a file it is `join` here: {method: NAME, token: NAME}"),
    (&["credential_ttl", "certificate_ttl", "not_after"], "it is `ttl` here"),
    (&["destination_dir", "output_dir"], "it is `destination` here"),
    (&["kty", "curve", "crv"], "it is `key_type` here: ed25519, ecdsa-p256 or ecdsa-p384"),
    (
        &["signature_algorithm_suite"],
        "leave it out: it is `suite` in authority.yaml here, modern or compatible",
    ),
    (&["services"], "it is `outputs` here; what listens on a port or a socket, there is not"),
    (
        &["ca_pins", "fingerprint"],
        "it is `ca_pin` here, one that `machine-id authority export tls-ca-pin` prints",
    ),
    (&["ca_path", "root"], "it is `ca_file` here, a file of PEM"),
    (
        &["oneshot", "renewal_interval"],
        "leave it out: `machine-id once` is one shot; behind `--` a command keeps certificates new until it ends",
    ),
    (
        &["insecure", "insecure_skip_verify"],
        "there is no such thing: trust the authority with `ca_file` or `ca_pin`",
    ),
    (&["diag_addr", "debug", "fips", "log_format"], "leave it out: there is no such thing here"),
    // What resources of Teleport's have beside the fields that are taken.
    (&["sub_kind", "revision", "id"], "leave it out: `tctl get` writes it, and it says nothing here"),
    (
        &["expires"],
        "no resource ends by itself here: leave it out, and take the resource out of the policy in time",
    ),
    (
        &["suggested_labels", "suggested_agent_matcher_labels", "aws_iid_ttl"],
        "leave it out: it is for servers that join, and only jobs do here",
    ),
    (
        &[
            "kubernetes_labels",
            "kubernetes_resources",
            "db_labels",
            "db_service_labels",
            "db_roles",
            "db_permissions",
        ],
        "leave it out, if the server itself limits them so: a certificate says who it is for, and RBAC or grants \
         what these may do",
    ),
    (
        &[
            "node_labels_expression",
            "app_labels_expression",
            "kubernetes_labels_expression",
            "db_labels_expression",
        ],
        "there are no expressions here: write labels",
    ),
    (
        &[
            "rules",
            "impersonate",
            "request",
            "review_requests",
            "require_session_join",
            "join_sessions",
            "spiffe",
        ],
        "leave it out: a role here gives certificates, and nobody administers anything by one",
    ),
    (
        &[
            "client_idle_timeout",
            "disconnect_expired_cert",
            "enhanced_recording",
            "record_session",
            "ssh_file_copy",
            "create_host_user",
            "create_host_user_mode",
            "create_db_user",
            "create_db_user_mode",
            "create_desktop_user",
            "desktop_clipboard",
            "desktop_directory_sharing",
            "device_trust_mode",
            "idp",
            "lock",
            "max_sessions",
            "max_connections",
            "max_kubernetes_connections",
            "request_access",
            "cert_format",
            "ssh_port_forwarding",
            "host_groups",
            "host_sudoers",
        ],
        "leave it out, if you can do without: a proxy enforces it on sessions, and here jobs go to servers directly",
    ),
    // Roles of Vault's, policies of clouds.
    (&["bound_claims", "claims_rules", "condition", "conditions"], "it is `allow` here, a list of rules"),
    (&["bound_subject", "subject"], "it is `sub` here, in a rule of `allow`"),
    (&["bound_issuer", "oidc_discovery_url", "discovery_url"], "it is `issuer` here"),
    (
        &["jwks_url", "jwks_uri", "jwt_validation_pubkeys"],
        "leave it out: keys are found by the issuer; where that cannot be reached, `static_jwks` has them",
    ),
    (
        &["bound_audiences", "audiences", "aud"],
        "leave it out: jobs ask for a token for this authority's `public_url`, and no other is taken",
    ),
    (
        &["user_claim", "groups_claim", "token_policies", "role_type", "principals"],
        "leave it out: a job becomes the token's `bot_name`, and gets what that bot's roles give",
    ),
];

/// Kinds of resources.
static KINDS: Words = &[
    (&["scoped_token", "provision_token"], "write `kind: token`"),
    (&["scoped_role"], "write `kind: role`"),
    (
        &["remote_cluster"],
        "write `kind: leaf_cluster` at the root, with the leaf's URL and hosts, and `kind: trusted_cluster` at the leaf",
    ),
    (&["user"], "people do not log in here: what jobs become is a `kind: bot`"),
    (
        &["node", "app", "db", "kube_cluster", "app_server", "db_server", "kube_server", "windows_desktop"],
        "servers are no resources here: a `kind: role` names logins, hosts, databases and what else a job may have",
    ),
    (
        &["oidc", "saml"],
        "people do not log in here; a platform's jobs do, by a `kind: token` with its `join_method`",
    ),
    (
        &["lock"],
        "locks are no resources here: `machine-id authority lock` shuts somebody out at once, and revokes what they hold",
    ),
];

/// What a key, or an option, of that name is here.
pub fn key(name: &str) -> Option<&'static str> {
    find(KEYS, &name.trim_start_matches('-').replace('-', "_"))
}

/// What a kind of resource of that name is here.
pub fn kind(name: &str) -> Option<&'static str> {
    find(KINDS, name)
}

fn find(words: Words, name: &str) -> Option<&'static str> {
    words.iter().find(|(names, _)| names.contains(&name)).map(|(_, hint)| *hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_means_one_thing() {
        for words in [KEYS, KINDS] {
            let mut names: Vec<_> = words.iter().flat_map(|(names, _)| *names).collect();
            let all = names.len();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), all);
        }
        assert_eq!(key("--proxy-server"), key("proxy_server"));
        assert!(key("auth-server").is_some() && key("authority").is_none() && kind("user").is_some());
    }
}
