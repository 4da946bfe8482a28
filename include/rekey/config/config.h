/*
 * The configuration of rekeyd and rekeyctl: rekey.yaml, loaded with libcyaml, checked, and handed
 * out as one immutable value. conf/rekey.yaml explains every setting; the defaults there and here
 * are the same (a test compares them).
 *
 * An invalid file is refused with file, line, key and reason. The password of upstream.uri is best
 * given as ${NAME}, a reference to an environment variable; a plain one is accepted. Either way
 * uri is a secret: never log it. Relative file names are relative to the configuration file.
 */
#ifndef REKEY_CONFIG_CONFIG_H
#define REKEY_CONFIG_CONFIG_H

#include <rekey/admission/window.h>
#include <rekey/log/log.h>
#include <rekey/policy/policy.h>
#include <rekey/wire/compress.h>

enum rk_config_topology { RK_CONFIG_MIRROR, RK_CONFIG_SINGLE };
enum rk_config_read {
    RK_CONFIG_READ_PRIMARY,
    RK_CONFIG_READ_SECONDARY,
    RK_CONFIG_READ_SECONDARY_PREFERRED,
};

/* An entry of upstream.members or of upstream.listeners. */
struct rk_config_member {
    char *address;   /* members: host:port of the mongod, as the replica set spells it; else NULL */
    char *connect;   /* members: host:port or Unix socket to reach it by (default: address) */
    char *listen;    /* address:port or Unix socket to listen on */
    char *advertise; /* what clients are told (default: listen) */
    enum rk_config_read read; /* listeners: whom they lead to */
};

struct rk_config_tls {
    bool enabled;
    char *ca_file;
    char *cert_file; /* PEM: certificate chain */
    char *key_file;  /* PEM: private key; default: cert_file */
    bool verify; /* upstream: verify chain and host name. listener: require client certificates */
};

struct rk_config_upstream {
    char *uri; /* for keys, jobs and sweeps; single: what clients reach; libmongoc's syntax */
    enum rk_config_topology topology;
    struct rk_config_member *members; /* mirror: one listener each */
    unsigned members_count;
    struct rk_config_member *listeners; /* single */
    unsigned listeners_count;
    uint32_t resolve_interval_ms; /* how often names are looked up */
    uint32_t monitor_interval_ms; /* single: how often servers are looked at */
    uint32_t latency_window_ms;   /* single: secondaries slower than the nearest by more are left
                                     out */
    uint32_t catalog_interval_ms; /* how often views and collations are looked for */
    struct rk_config_tls tls;     /* of the data plane; the uri has its own options */
    char *state_db;               /* "rekey" */
};

struct rk_config_listener {
    uint32_t socket_mode;  /* permissions of Unix sockets: 0600, 0660 or 0666 */
    bool proxy_required;   /* every connection begins with a PROXY header */
    char **proxy_networks; /* who may connect then */
    unsigned proxy_networks_count;
    uint32_t proxy_header_bytes_max;
};

struct rk_config_limits {
    uint32_t workers;         /* 0: one per core */
    uint32_t connections_max; /* clients of all listeners; more are refused at accept */
    uint32_t listen_backlog;
    uint32_t message_bytes_max;            /* <= 48,000,000 */
    uint32_t advertised_message_bytes_max; /* maxMessageSizeBytes told to clients of protected
                                              namespaces: room for ciphertext to grow */
    uint32_t advertised_batch_docs_max;    /* maxWriteBatchSize told to them: many short values grow
                                              a lot */
    uint32_t buffer_high_bytes;            /* unsent bytes above which the other side is not read */
    uint32_t buffer_low_bytes;             /* and below which it is read again */
    uint32_t pipeline_max;                 /* requests awaiting a reply on one connection */
    uint32_t bound_cursors_max;            /* open cursors that compare protected fields */
    uint32_t connect_timeout_ms;
    uint32_t handshake_timeout_ms;   /* TLS, and the first complete message */
    uint32_t idle_timeout_ms;        /* 0: never */
    uint32_t drain_timeout_ms;       /* SIGTERM: how long commands in flight may take */
    uint32_t key_wait_timeout_ms;    /* a message held for a key fails after this */
    uint32_t server_wait_timeout_ms; /* single: a connection held for a server ends after this */
};

/* Each compressor at most once; the order is the client's to choose. */
struct rk_config_compression {
    enum rk_compressor client[RK_COMPRESSORS_MAX]; /* told to clients that offer them */
    unsigned client_count;
    enum rk_compressor upstream[RK_COMPRESSORS_MAX]; /* of a client's offer, what members get */
    unsigned upstream_count;
    uint32_t zlib_level; /* of messages that Rekey compresses itself */
    uint32_t zstd_level;
    uint32_t message_bytes_min; /* of those: shorter replies are sent plain */
    uint32_t message_bytes_max; /* and longer messages */
};

/* HTTP for those who watch rekeyd. */
struct rk_config_admin {
    char *address;    /* host:port or Unix socket; NULL: nobody listens */
    char *token_file; /* what /metrics asks for; read anew for every request */
    struct rk_config_tls tls;
    uint32_t connections_max;
    uint32_t request_bytes_max;
    uint32_t request_timeout_ms; /* for all of a connection */
};

enum rk_config_vault_auth { RK_CONFIG_VAULT_APPROLE, RK_CONFIG_VAULT_TOKEN_FILE };

/* A key from before Rekey, in Vault's kv store. */
struct rk_config_vault_legacy {
    char *name;  /* as policies spell it */
    char *path;  /* of the API: "secret/data/old-key" (version 2), "secret/old-key" (version 1) */
    char *field; /* of the secret: 64 hexadecimal digits, or base64 of 32 bytes */
};

enum rk_config_vault_mode {
    RK_CONFIG_VAULT_ENVELOPE, /* data keys, unwrapped here */
    RK_CONFIG_VAULT_TRANSIT,  /* values go to Vault */
};

/* Values that Vault seals and opens: how they are sent. */
struct rk_config_transit {
    uint32_t coalesce_us;      /* how long the first value of a batch waits for others */
    uint32_t batch_values_max; /* in one request */
    uint32_t batch_bytes_max;  /* of JSON, roughly; one value may have more */
    uint32_t requests_max;     /* under way at once, for each operation and key */
};

struct rk_config_vault {
    char **addresses; /* https://host:port, tried in this order */
    unsigned addresses_count;
    char **redirect_hosts; /* host:port that an answer may redirect to, besides addresses */
    unsigned redirect_hosts_count;
    char *ns; /* Vault Enterprise's namespace */
    char *ca_file;
    char *cert_file; /* client certificate */
    char *key_file;  /* default: cert_file */
    char *transit_mount;
    char *key; /* the key-encryption key's name */
    enum rk_config_vault_mode mode;
    struct rk_config_transit transit;
    struct rk_config_vault_legacy *legacy;
    unsigned legacy_count;
    enum rk_config_vault_auth auth;
    char *auth_mount; /* of AppRole */
    char *role_id;
    char *secret_id_file; /* read anew for every login */
    char *secret_id_env;  /* name of the environment variable that holds the secret_id */
    char *token_file;     /* read anew when its token ends or is refused */
    bool trim; /* destroying a data key disallows the key-encryption key's versions before it */
    uint32_t connect_timeout_ms;
    uint32_t request_timeout_ms; /* of one attempt */
    uint32_t retry_timeout_ms;   /* of a request with all its attempts */
    uint32_t retry_backoff_ms;   /* first pause; doubles, with jitter */
    uint32_t retry_backoff_max_ms;
    uint32_t refused_login_pause_ms; /* until a secret_id that was refused is tried again */
    uint32_t health_interval_ms;     /* how often an unsealed server is looked for */
    uint32_t revoke_timeout_ms;      /* for having the token forgotten at the end; 0: not done */
    uint32_t response_bytes_max;
    uint32_t connections_max;
};

enum rk_config_provider { RK_CONFIG_KEYRING, RK_CONFIG_VAULT };

struct rk_config_keys {
    enum rk_config_provider provider;
    char *keyring_file;
    struct rk_config_vault vault;
    uint32_t refresh_interval_ms;
    uint32_t negative_cache_ms;
    uint32_t
        instance_lease_ms;    /* an instance that is silent this long does not hold up rotations */
    uint32_t cursor_grace_ms; /* nor does a query that began so long before the key came */
    uint32_t rotate_after_days;        /* 0: not by age */
    uint32_t rotate_after_encryptions; /* 0: not by count, and not counted */
    uint32_t encryption_lease;         /* an instance counts so many ahead */
    uint32_t write_settle_ms; /* a write under a former key may be on its way for so long */
    bool create_first_key;
    bool create_tenant_keys; /* the first key of each tenant */
    uint32_t tenants_max;
    bool start_degraded; /* without the provider, too */
};

struct rk_config_guard {
    uint32_t p99_limit_ms; /* foreground p99 above this halves the sweep's rate; 0: off */
    uint32_t interval_ms;  /* how often the guard looks */
    uint32_t samples_min;  /* fewer foreground operations in the window: no judgement */
    uint32_t rate_min;     /* docs/s that halving never goes below; 0 allows a full stop */
};

enum rk_config_sweep_mode {
    RK_CONFIG_SWEEP_BOTH, /* the default */
    RK_CONFIG_SWEEP_PROACTIVE,
    RK_CONFIG_SWEEP_LAZY,
};

/* How instances share the ranges of a job. */
enum rk_config_transport {
    RK_CONFIG_TRANSPORT_LOCAL, /* each looks for the next one in jobStatus */
    RK_CONFIG_TRANSPORT_AMQP,  /* messages name them */
};

struct rk_config_amqp {
    char **addresses; /* host:port of the brokers of one cluster, tried in this order */
    unsigned addresses_count;
    char *vhost;
    char *user;
    char *password_file; /* read anew for every connection */
    char *password_env;  /* name of the environment variable that holds the password */
    struct rk_config_tls tls;
    char *prefix;         /* of the names of exchanges and queues */
    uint32_t prefetch;    /* messages ahead of each sweeper thread, of each queue */
    uint32_t heartbeat_s; /* a broker that is silent for twice as long is gone */
    uint32_t connect_timeout_ms;
    uint32_t confirm_timeout_ms;   /* for the broker to have taken the messages of a batch */
    uint32_t reconnect_backoff_ms; /* first pause; doubles, with jitter */
    uint32_t reconnect_backoff_max_ms;
    uint32_t refeed_interval_ms; /* a range that nobody took for so long is sent again */
};

#define RK_CONFIG_ZONE_SIZE 64u

/* Whom the sweep reads from. */
enum rk_config_scan {
    RK_CONFIG_SCAN_PRIMARY,
    RK_CONFIG_SCAN_SECONDARY,
    RK_CONFIG_SCAN_SECONDARY_PREFERRED,
    RK_CONFIG_SCAN_NEAREST,
};

struct rk_config_span {
    char text[RK_WINDOW_TEXT_SIZE]; /* rekey/admission/window.h */
};

/* Without pointers: may be copied. */
/* What pauses a job: documents that cannot be processed, of the last ones that an instance looked
 * at for it. */
struct rk_config_dead_letters {
    uint32_t pause_count;         /* more than so many; 0: never */
    uint32_t pause_share_percent; /* more than this part of them; 0: never */
    uint32_t docs_min;            /* fewer say nothing about a share */
    uint32_t window_docs;         /* how many the last ones are */
};

struct rk_config_sweep {
    enum rk_config_transport transport;
    bool pause;
    enum rk_config_sweep_mode mode;
    uint32_t hot_docs_max;     /* documents read under an old key that wait for the sweep */
    uint32_t hot_repeat_ms;    /* one of them is not noted again sooner */
    uint32_t max_rate;         /* docs/s of this instance; 0: as fast as it goes */
    uint32_t threads;          /* ranges worked on at once */
    uint32_t range_docs;       /* documents in one JobStatus range */
    uint32_t batch_docs;       /* documents in one bulk update */
    bool transactions;         /* a batch is written in one, where there are transactions */
    uint32_t ranges_ahead;     /* ranges cut ahead of the workers */
    uint32_t split_after_ms;   /* a range worked on for longer is split; 0: never */
    uint32_t lease_ms;         /* a range whose owner is silent this long is taken over */
    uint32_t poll_interval_ms; /* how often jobs are looked for */
    uint32_t attempts_max;     /* of a range, before the job is marked failed */
    uint32_t retry_backoff_ms; /* first pause after a failed batch; doubles, with jitter */
    uint32_t retry_backoff_max_ms;
    uint32_t write_timeout_ms; /* wtimeout of majority writes */
    struct rk_config_guard guard;
    struct rk_config_dead_letters dead_letters;
    struct rk_config_span window[RK_WINDOW_SPANS_MAX]; /* when it may sweep; none: always */
    unsigned window_count;
    char time_zone[RK_CONFIG_ZONE_SIZE]; /* whose local time that is, as mongod knows it */
    enum rk_config_scan read_preference;
};

/* What jobs over a policy's collections begin with (policies[].sweep). */
struct rk_config_terms {
    char *ns; /* of the policy */
    int32_t priority;
    uint32_t concurrency;
};

#define RK_CONFIG_PRIORITY_MAX 1000000
#define RK_CONFIG_CONCURRENCY_MAX 1024u

/* rekeyctl's scans: verify, and the counts of keys retire and keys destroy. */
struct rk_config_verify {
    enum rk_config_scan read_preference;
    uint32_t sample;   /* values of a collection that are opened to see that it works */
    uint32_t max_rate; /* docs/s; 0: as fast as it goes */
    uint32_t batch_docs;
    uint32_t checkpoint_interval_ms;
    uint32_t lease_ms; /* a scan whose process is silent this long is taken over */
};

struct rk_config_log {
    char *file; /* NULL or "-": standard error */
    enum rk_log_level level;
    uint32_t event_lines_per_s; /* of one event at level warn or error; 0: no limit */
};

struct rk_config {
    char *path; /* the file it came from */
    struct rk_config_upstream upstream;
    struct rk_config_tls listener_tls;
    struct rk_config_listener listener;
    struct rk_config_limits limits;
    struct rk_config_compression compression;
    struct rk_config_keys keys;
    struct rk_config_sweep sweep;
    uint64_t sweep_given; /* bit i: the file sets setting i of the sweep (config/sweep.h) */
    struct rk_config_amqp amqp;
    struct rk_config_verify verify;
    struct rk_config_admin admin;
    struct rk_config_log log;
    struct rk_policy_set *policies;
    struct rk_config_terms *terms; /* of policies, in the file's order */
    unsigned terms_count;
};

/*
 * Loads and checks a file. The message in err is complete: "conf/rekey.yaml:12: policies[0]...".
 * Strings without a default are NULL when the file does not set them; policies may be empty, never
 * NULL. The certificate and key files are not opened here.
 */
RK_MUST_CHECK enum rk_status rk_config_load(const char *path, struct rk_config **out,
                                            struct rk_error *err);
/* What rekeyd needs and rekeyctl does not: something to listen for. */
RK_MUST_CHECK enum rk_status rk_config_check_daemon(const struct rk_config *config,
                                                    struct rk_error *err);
void rk_config_free(struct rk_config *config);

/* Of the policy with this namespace, as it is written there. */
const struct rk_config_terms *rk_config_terms(const struct rk_config *config, const char *ns);

/* What rekeyd listens for: the members, or in the single topology the listeners. */
const struct rk_config_member *rk_config_listeners(const struct rk_config *config, unsigned *n);

/*
 * Which settings of next cannot take effect without a restart: writes the first such key's name
 * ("upstream.members") and returns false; true when a reload may go on. Reloadable: policies,
 * on_undecryptable, upstream.members and listeners, sweep.* except transport and hot_*,
 * compression.*, log.level, limits except workers and listen_backlog; nothing else.
 */
bool rk_config_reloadable(const struct rk_config *now, const struct rk_config *next,
                          const char **key);

#endif
