//! The rows for which a server is needed: what is wrong, the line of shell that does it, its exit status, and the parts of the
//! message.

use super::{Misuse, misuse};

/// Every row of this file.
pub fn all() -> impl Iterator<Item = &'static Misuse> {
    [ADDRESSES, OF_CERTIFICATES, OF_ETCD, OF_REDIS, OF_MONGODB].into_iter().flatten()
}

/// The line that asks the store of this URL once, with these flags, and with more time than any machine needs.
macro_rules! once {
    ($url:literal) => {
        concat!("elect run -qn --ttl 30s -b x -s \"", $url, "\" -- true")
    };
    ($url:literal, $flags:literal) => {
        concat!("elect run -qn --ttl 30s -b x -s \"", $url, "\" ", $flags, " -- true")
    };
}

/// The same until the server has told its reason: a connection that it ends may be gone before its last word is read.
macro_rules! until_told {
    ($url:literal, $flags:literal) => {
        concat!(
            "for attempt in 1 2 3 4 5 6 7 8; do status=0; ",
            once!($url, $flags),
            " 2>said || status=$?; grep -q 'has ended the connection' said || break; done; cat said >&2; exit $status"
        )
    };
}

/// Addresses at which there is no server, and that no kind of store has.
pub const ADDRESSES: &[Misuse] = &[
    misuse(
        "an address without a kind of store",
        once!("127.0.0.1:2379"),
        2,
        &["port 2379 is usual for etcd", "etcd://HOST:2379"],
    ),
    misuse(
        "a URL of the web",
        once!("http://127.0.0.1:2379"),
        2,
        &["--store http: is not a kind of store", "did you mean etcd?"],
    ),
    misuse(
        "a misspelled kind of store",
        once!("ectd://u:hunter2@db"),
        2,
        &["--store ectd: is not a kind of store", "did you mean etcd?"],
    ),
    misuse("a port that is too large", once!("etcd://127.0.0.1:99999"), 2, &["HOST:PORT with a port of at most 65535"]),
    misuse(
        "a password with characters that are not encoded",
        once!("redis://u:hunter2/x@db"),
        2,
        &["--store redis:…", "has to be %-encoded"],
    ),
    misuse(
        "a password in the URL of an etcd",
        once!("etcd://u:hunter2@127.0.0.1:1"),
        2,
        &["--username", "--password-file"],
    ),
    misuse(
        "certificates for a store without TLS",
        once!("etcd://127.0.0.1:1", "--tls-ca /ca.pem"),
        2,
        &["--tls-ca", "etcds://"],
    ),
    misuse(
        "verification that is both skipped and asked for",
        once!("rediss://127.0.0.1:1", "--tls-skip-verify --tls-ca /ca.pem"),
        2,
        &["--tls-skip-verify", "--tls-ca", "leave one of the two out"],
    ),
    misuse(
        "an etcd that the DNS does not know",
        once!("etcd://no-such-host.invalid"),
        69,
        &["no-such-host.invalid", "not known", "DNS"],
    ),
    misuse(
        "a Redis that the DNS does not know",
        once!("redis://:hunter2@no-such-host.invalid"),
        69,
        &["no-such-host.invalid", "not known", "DNS"],
    ),
    misuse(
        "a MongoDB that the DNS does not know",
        once!("mongodb://u:hunter2@no-such-host.invalid"),
        69,
        &["no-such-host.invalid", "not known", "DNS"],
    ),
    misuse(
        "a MongoDB without an SRV record",
        once!("mongodb+srv://u:hunter2@no-such-host.invalid"),
        69,
        &["no-such-host.invalid", "SRV record"],
    ),
    misuse(
        "an etcd that does not run",
        once!("etcd://127.0.0.1:1"),
        69,
        &["127.0.0.1:1", "Connection refused", "check host and port"],
    ),
    misuse(
        "a Redis that does not run",
        once!("redis://127.0.0.1:1"),
        69,
        &["127.0.0.1:1", "Connection refused", "check host and port"],
    ),
    misuse(
        "a MongoDB that does not run",
        once!("mongodb://127.0.0.1:1"),
        69,
        &["127.0.0.1:1", "Connection refused", "check host and port"],
    ),
    misuse(
        "a socket file at which nothing listens",
        once!("redis+unix:///nonexistent/redis.sock"),
        69,
        &["/nonexistent/redis.sock", "no server listens"],
    ),
];

/// Certificates: `$GOOD`, `$EXPIRED` and `$ELSEWHERE` show one of `$CA`.
pub const OF_CERTIFICATES: &[Misuse] = &[
    misuse(
        "an authority that this system does not know, of an etcd",
        once!("etcds://$GOOD"),
        77,
        &["127.0.0.1:", "does not know: name it with --tls-ca"],
    ),
    misuse(
        "the authority of another server than an etcd",
        once!("etcds://$GOOD", "--tls-ca $OTHER_CA"),
        77,
        &["127.0.0.1:", "that --tls-ca does not name: name the right one"],
    ),
    misuse(
        "a certificate that has expired, of an etcd",
        once!("etcds://$EXPIRED", "--tls-ca $CA"),
        77,
        &["127.0.0.1:", "it has expired: renew it"],
    ),
    misuse(
        "a certificate for another name, of an etcd",
        once!("etcds://$ELSEWHERE", "--tls-ca $CA"),
        77,
        &["127.0.0.1:", "it is not issued for", "\"db.example\": ", "use a name of the certificate"],
    ),
    misuse(
        "a file of authorities that does not exist, for an etcd",
        once!("etcds://$GOOD", "--tls-ca /no/such"),
        77,
        &["/no/such cannot be read: No such file", "check --tls-ca"],
    ),
    misuse(
        "a file without a certificate, for an etcd",
        once!("etcds://$GOOD", "--tls-ca $RIGHT"),
        77,
        &["right: no certificate in PEM", "check --tls-ca"],
    ),
    misuse(
        "a key of another certificate, for an etcd",
        once!("etcds://$GOOD", "--tls-ca $CA --tls-cert $CERT --tls-key $OTHER_KEY"),
        77,
        &["is not the key of the certificate", "of one pair"],
    ),
    misuse(
        "key and certificate swapped, for an etcd",
        once!("etcds://$GOOD", "--tls-ca $CA --tls-cert $KEY --tls-key $CERT"),
        77,
        &["no certificate in PEM", "swapped"],
    ),
    misuse(
        "an authority that this system does not know, of a Redis",
        once!("rediss://$GOOD"),
        77,
        &["127.0.0.1:", "does not know: name it with --tls-ca"],
    ),
    misuse(
        "the authority of another server than a Redis",
        once!("rediss://$GOOD", "--tls-ca $OTHER_CA"),
        77,
        &["127.0.0.1:", "that --tls-ca does not name: name the right one"],
    ),
    misuse(
        "a certificate that has expired, of a Redis",
        once!("rediss://$EXPIRED", "--tls-ca $CA"),
        77,
        &["127.0.0.1:", "it has expired: renew it"],
    ),
    misuse(
        "a certificate for another name, of a Redis",
        once!("rediss://$ELSEWHERE", "--tls-ca $CA"),
        77,
        &["127.0.0.1:", "it is not issued for", "\"db.example\": ", "use a name of the certificate"],
    ),
    misuse(
        "a file of authorities that does not exist, for a Redis",
        once!("rediss://$GOOD", "--tls-ca /no/such"),
        77,
        &["/no/such cannot be read: No such file", "check --tls-ca"],
    ),
    misuse(
        "a file without a certificate, for a Redis",
        once!("rediss://$GOOD", "--tls-ca $RIGHT"),
        77,
        &["right: no certificate in PEM", "check --tls-ca"],
    ),
    misuse(
        "a key of another certificate, for a Redis",
        once!("rediss://$GOOD", "--tls-ca $CA --tls-cert $CERT --tls-key $OTHER_KEY"),
        77,
        &["is not the key of the certificate", "of one pair"],
    ),
    misuse(
        "key and certificate swapped, for a Redis",
        once!("rediss://$GOOD", "--tls-ca $CA --tls-cert $KEY --tls-key $CERT"),
        77,
        &["no certificate in PEM", "swapped"],
    ),
    misuse(
        "an authority that this system does not know, of a MongoDB",
        once!("mongodb://$GOOD/?tls=true"),
        77,
        &["127.0.0.1:", "does not know: name it with --tls-ca"],
    ),
    misuse(
        "the authority of another server than a MongoDB",
        once!("mongodb://$GOOD/?tls=true", "--tls-ca $OTHER_CA"),
        77,
        &["127.0.0.1:", "that --tls-ca does not name: name the right one"],
    ),
    misuse(
        "a certificate that has expired, of a MongoDB",
        once!("mongodb://$EXPIRED/?tls=true", "--tls-ca $CA"),
        77,
        &["127.0.0.1:", "it has expired: renew it"],
    ),
    misuse(
        "a certificate for another name, of a MongoDB",
        once!("mongodb://$ELSEWHERE/?tls=true", "--tls-ca $CA"),
        77,
        &["127.0.0.1:", "it is not issued for", "\"db.example\": ", "use a name of the certificate"],
    ),
    misuse(
        "a file of authorities that does not exist, for a MongoDB",
        once!("mongodb://$GOOD/?tls=true", "--tls-ca /no/such"),
        77,
        &["/no/such cannot be read: No such file", "check --tls-ca"],
    ),
    misuse(
        "a file without a certificate, for a MongoDB",
        once!("mongodb://$GOOD/?tls=true", "--tls-ca $RIGHT"),
        77,
        &["right: no certificate in PEM", "check --tls-ca"],
    ),
    misuse(
        "a key of another certificate, for a MongoDB",
        once!("mongodb://$GOOD/?tls=true", "--tls-ca $CA --tls-cert $CERT --tls-key $OTHER_KEY"),
        77,
        &["is not the key of the certificate", "of one pair"],
    ),
    misuse(
        "key and certificate swapped, for a MongoDB",
        once!("mongodb://$GOOD/?tls=true", "--tls-ca $CA --tls-cert $KEY --tls-key $CERT"),
        77,
        &["no certificate in PEM", "swapped"],
    ),
];

/// etcd: `$TLS` asks for certificates, and `$USERS` for users.
pub const OF_ETCD: &[Misuse] = &[
    misuse("an etcd with TLS, asked without", once!("etcd://$TLS"), 69, &["127.0.0.1:", "etcds://"]),
    misuse(
        "an etcd without TLS, asked with",
        once!("etcds://$PLAIN", "--tls-ca $CA"),
        69,
        &["127.0.0.1:", "without TLS (etcd://)"],
    ),
    misuse(
        "no certificate for an etcd that asks for one",
        until_told!("etcds://$TLS", "--tls-ca $CA"),
        77,
        &["127.0.0.1:", "--tls-cert and --tls-key"],
    ),
    misuse(
        "a certificate of another authority, for an etcd",
        until_told!("etcds://$TLS", "--tls-ca $CA --tls-cert $OTHER_CERT --tls-key $OTHER_KEY"),
        77,
        &["127.0.0.1:", "does not accept the certificate of --tls-cert"],
    ),
    misuse(
        "a wrong password for an etcd",
        once!("etcd://$USERS", "--username elect --password-file $WRONG"),
        77,
        &["127.0.0.1:", "authentication failed", "check --username (\"elect\") and --password-file"],
    ),
    misuse(
        "a user whom an etcd does not know",
        once!("etcd://$USERS", "--username nobody --password-file $RIGHT"),
        77,
        &["127.0.0.1:", "authentication failed", "check --username (\"nobody\") and --password-file"],
    ),
    misuse(
        "no user for an etcd that asks for one",
        once!("etcd://$USERS"),
        77,
        &["127.0.0.1:", "give --username and --password-file"],
    ),
    misuse(
        "a user of an etcd without permissions",
        once!("etcd://$USERS", "--username stranger --password-file $RIGHT"),
        77,
        &["127.0.0.1:", "permission denied", "user \"stranger\" needs a role"],
    ),
    misuse(
        "another prefix than an etcd's user may use",
        once!("etcd://$USERS/elsewhere", "--username elect --password-file $RIGHT"),
        77,
        &["127.0.0.1:", "permission denied", "/elsewhere"],
    ),
    misuse(
        "a user for an etcd that has none",
        once!("etcd://$PLAIN", "--username elect --password-file $WRONG"),
        77,
        &["127.0.0.1:", "authentication is not enabled", "leave --username out"],
    ),
    misuse("a Redis instead of an etcd", once!("etcd://$REDIS"), 69, &["127.0.0.1:", "check host and port"]),
    misuse("a MongoDB instead of an etcd", once!("etcd://$MONGODB"), 69, &["127.0.0.1:", "check host and port"]),
    misuse("a web server instead of an etcd", once!("etcd://$WEB"), 69, &["127.0.0.1:", "check host and port"]),
    misuse(
        "a server for shells instead of an etcd",
        once!("etcd://$SHELL_SERVER"),
        69,
        &["127.0.0.1:", "check host and port"],
    ),
    misuse(
        "a server for shells instead of an etcd with TLS",
        once!("etcds://$SHELL_SERVER", "--tls-ca $CA"),
        77,
        &["127.0.0.1:", "answers without TLS: write etcd://"],
    ),
];

/// Redis: `$TLS` asks for certificates, `$USERS` for a password, and `$BARE` has no INFO.
pub const OF_REDIS: &[Misuse] = &[
    misuse("a Redis with TLS, asked without", once!("redis://$TLS"), 69, &["127.0.0.1:", "rediss://"]),
    misuse(
        "a Redis without TLS, asked with",
        "elect run -qn --ttl 4s -b x -s rediss://$PLAIN --tls-ca $CA -- true",
        69,
        &["127.0.0.1:", "did not answer in time", "a server without TLS is silent to TLS"],
    ),
    misuse(
        "no certificate for a Redis that asks for one",
        until_told!("rediss://$TLS", "--tls-ca $CA"),
        77,
        &["127.0.0.1:", "--tls-cert and --tls-key"],
    ),
    misuse(
        "a certificate of another authority, for a Redis",
        until_told!("rediss://$TLS", "--tls-ca $CA --tls-cert $OTHER_CERT --tls-key $OTHER_KEY"),
        77,
        &["127.0.0.1:", "does not accept the certificate of --tls-cert"],
    ),
    misuse(
        "a wrong password for a Redis",
        once!("redis://:hunter2@$USERS"),
        77,
        &["127.0.0.1:", "this user with this password", "--password-file"],
    ),
    misuse(
        "no password for a Redis that asks for one",
        once!("redis://$USERS"),
        77,
        &["127.0.0.1:", "asks for a password", "--password-file"],
    ),
    misuse(
        "a user whom a Redis does not know",
        once!("redis://nobody:hunter2@$PLAIN"),
        77,
        &["127.0.0.1:", "this user with this password", "\"nobody\""],
    ),
    misuse(
        "a user of a Redis without permissions",
        once!("redis://$PLAIN", "--username stranger --password-file $RIGHT"),
        77,
        &["127.0.0.1:", "permission denied", "\"stranger\"", "elect-stores(7)"],
    ),
    misuse(
        "a database that a Redis does not have",
        once!("redis://$PLAIN/99"),
        77,
        &["127.0.0.1:", "number in --store: give a smaller one"],
    ),
    misuse(
        "an option that a Redis does not have",
        once!("redis://$PLAIN?replica=1"),
        2,
        &["--store redis:…", "an option after the ? is not known"],
    ),
    misuse(
        "a Redis without INFO",
        once!("redis://$BARE"),
        77,
        &["127.0.0.1:", "lacks the command INFO", "version 6 or newer"],
    ),
    misuse(
        "a member of a Redis Cluster",
        once!("redis://$CLUSTER"),
        77,
        &["127.0.0.1:", "Redis Cluster", "use a Redis of its own"],
    ),
    misuse("a replica of a Redis", once!("redis://$REPLICA"), 69, &["127.0.0.1:", "is a replica", "name its primary"]),
    misuse(
        "a Redis instead of a Sentinel",
        once!("redis+sentinel://$PLAIN/main"),
        77,
        &["127.0.0.1:", "is a Redis and no Sentinel: write --store redis://HOST:PORT/DB"],
    ),
    misuse("an etcd instead of a Redis", once!("redis://$ETCD"), 69, &["127.0.0.1:", "check host and port"]),
    misuse("a MongoDB instead of a Redis", once!("redis://$MONGODB"), 69, &["127.0.0.1:", "check host and port"]),
    misuse("a web server instead of a Redis", once!("redis://$WEB"), 69, &["127.0.0.1:", "check host and port"]),
    misuse(
        "a server for shells instead of a Redis",
        once!("redis://$SHELL_SERVER"),
        69,
        &["127.0.0.1:", "check host and port"],
    ),
    misuse(
        "a server for shells instead of a Redis with TLS",
        once!("rediss://$SHELL_SERVER", "--tls-ca $CA"),
        77,
        &["127.0.0.1:", "without TLS"],
    ),
];

/// MongoDB: `$TLS` asks for certificates, and `$USERS` for users.
pub const OF_MONGODB: &[Misuse] = &[
    misuse("a MongoDB with TLS, asked without", once!("mongodb://$TLS"), 69, &["127.0.0.1:", "?tls=true"]),
    misuse(
        "a MongoDB without TLS, asked with",
        once!("mongodb://$PLAIN/?tls=true", "--tls-ca $CA"),
        69,
        &["127.0.0.1:", "without TLS"],
    ),
    misuse(
        "no certificate for a MongoDB that asks for one",
        once!("mongodb://$TLS/?tls=true", "--tls-ca $CA"),
        69,
        &["127.0.0.1:", "--tls-cert and --tls-key"],
    ),
    misuse(
        "a certificate of another authority, for a MongoDB",
        once!("mongodb://$TLS/?tls=true", "--tls-ca $CA --tls-cert $OTHER_CERT --tls-key $OTHER_KEY"),
        69,
        &["127.0.0.1:", "--tls-cert and --tls-key"],
    ),
    misuse(
        "a wrong password for a MongoDB",
        once!("mongodb://root:hunter2@$USERS/?authSource=admin"),
        77,
        &["127.0.0.1:", "authentication failed", "check --username"],
    ),
    misuse(
        "a user in another database of a MongoDB",
        once!("mongodb://root:hunter2@$USERS/elect"),
        77,
        &["127.0.0.1:", "authentication failed", "add ?authSource=admin"],
    ),
    misuse(
        "no user for a MongoDB that asks for one",
        once!("mongodb://$USERS"),
        77,
        &["127.0.0.1:", "asks for a user: give --username"],
    ),
    misuse(
        "a user of a MongoDB without permissions",
        once!("mongodb://$USERS/?authSource=admin", "--username stranger --password-file $RIGHT"),
        77,
        &["127.0.0.1:", "permission denied", "needs find, insert and update"],
    ),
    misuse(
        "a user for a MongoDB that has none",
        once!("mongodb://u:hunter2@$PLAIN"),
        77,
        &["127.0.0.1:", "authentication failed", "check --username"],
    ),
    misuse(
        "another replica set",
        once!("mongodb://$PLAIN/?replicaSet=wrong"),
        69,
        &["127.0.0.1:", "\"wrong\"", "check replicaSet="],
    ),
    misuse(
        "an option that a MongoDB does not have",
        once!("mongodb://$PLAIN/?retryWritse=true"),
        2,
        &["--store mongodb:", "retrywritse", "retrywrites"],
    ),
    misuse("a database of a MongoDB's own", once!("mongodb://$PLAIN/local"), 2, &["--store mongodb:", "local"]),
    misuse("an etcd instead of a MongoDB", once!("mongodb://$ETCD"), 69, &["127.0.0.1:", "check host and port"]),
    misuse("a Redis instead of a MongoDB", once!("mongodb://$REDIS"), 69, &["127.0.0.1:", "check host and port"]),
    misuse(
        "a web server instead of a MongoDB",
        once!("mongodb://$WEB"),
        69,
        &["127.0.0.1:", "does not speak the protocol of MongoDB", "check host and port"],
    ),
    misuse(
        "a server for shells instead of a MongoDB",
        once!("mongodb://$SHELL_SERVER"),
        69,
        &["127.0.0.1:", "does not speak the protocol of MongoDB", "check host and port"],
    ),
];
