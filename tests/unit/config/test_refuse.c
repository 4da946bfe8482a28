/* A file with a mistake is refused with line, key and reason. */
#include "fixture.h"

#define TEN "0123456789"
#define HUNDRED TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN

static void expect_refusal(const char *text, const char *message)
{
    struct rk_config *config = NULL;
    struct rk_error err = {0};
    write_bytes(text, strlen(text));
    assert_int_equal(rk_config_load(FILE_NAME, &config, &err), RK_EINVAL);
    assert_null(config);
    assert_int_equal(err.status, RK_EINVAL);
    assert_string_equal(err.message, message);
    assert_int_equal(rk_config_load(FILE_NAME, &config, NULL), RK_EINVAL);
}

struct refusal {
    const char *text;
    const char *message;
};

static void expect_refusals(const struct refusal *cases, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        expect_refusal(cases[i].text, cases[i].message);
    }
}
#define EXPECT_REFUSALS(cases) expect_refusals(cases, sizeof(cases) / sizeof((cases)[0]))

static void test_environment_references(void **state)
{
    (void)state;
    assert_int_equal(setenv("RK_TEST_EMPTY", "", 1), 0);
    const struct refusal cases[] = {
        {"upstream:\n  uri: mongodb://u:${RK_TEST_NONE}@h\n",
         "rekey.yaml:2: upstream.uri: the environment variable RK_TEST_NONE is not set"},
        {"upstream:\n  uri: mongodb://u:${RK_TEST_EMPTY}@h\n",
         "rekey.yaml:2: upstream.uri: the environment variable RK_TEST_EMPTY is not set"},
        {"upstream:\n  uri: mongodb://u:${RK_TEST_A@h\n",
         "rekey.yaml:2: upstream.uri: a ${ without NAME}"},
        {"upstream:\n  uri: mongodb://u:${}@h\n", "rekey.yaml:2: upstream.uri: a ${ without NAME}"},
    };
    EXPECT_REFUSALS(cases);
}

static void test_structure_is_checked(void **state)
{
    (void)state;
    const struct refusal cases[] = {
        {"", "rekey.yaml: the file is empty; upstream.uri is required"},
        {"# nothing\n", "rekey.yaml: the file is empty; upstream.uri is required"},
        {"just text\n", "rekey.yaml: top level: must be a mapping (\"name: value\" lines)"},
        {"log: {}\n", "rekey.yaml: upstream: is required and missing"},
        {"\nupstream: {}\n", "rekey.yaml:2: upstream.uri: is required and missing"},
        {UPSTREAM "limits:\n", "rekey.yaml:2: limits: is empty; remove the key or add settings "
                               "below it"},
        {UPSTREAM "limits: 5\n", "rekey.yaml:2: limits: must be a mapping (\"name: value\" lines)"},
        {UPSTREAM "policies:\n",
         "rekey.yaml:2: policies: must be a list (\"- item\" lines, or [] for none)"},
        {UPSTREAM "policies: [5]\n",
         "rekey.yaml:2: policies[0]: must be a mapping (\"name: value\" lines)"},
        {UPSTREAM "compression: {client: zlib}\n",
         "rekey.yaml:2: compression.client: must be a list (\"- item\" lines, or [] for none)"},
        {UPSTREAM "compression: {client: [lz4]}\n",
         "rekey.yaml:2: compression.client[0]: must be one of snappy, zlib, zstd, not \"lz4\""},
        {UPSTREAM "compression: {client: [zlib, zlib]}\n",
         "rekey.yaml:2: compression.client: lists zlib twice"},
        {UPSTREAM "compression: {upstream: [zlib, zstd, snappy, zlib]}\n",
         "rekey.yaml:2: compression.upstream: takes at most 3 entries"},
        {UPSTREAM "compression: {zlib_level: 10}\n",
         "rekey.yaml:2: compression.zlib_level: must be from 1 to 9, not 10"},
        {UPSTREAM "compression: {message_bytes_min: 2, message_bytes_max: 1}\n",
         "rekey.yaml:2: compression.message_bytes_min: must not pass "
         "compression.message_bytes_max (1), not 2"},
        {UPSTREAM "log:\n  file:\n", "rekey.yaml:3: log.file: has no value"},
        {UPSTREAM "log:\n  file: ~\n", "rekey.yaml:3: log.file: has no value"},
        {UPSTREAM "log:\n  file: ''\n", "rekey.yaml:3: log.file: has no value"},
        {UPSTREAM "log:\n  file: \"a\\0b\"\n", "rekey.yaml:3: log.file: must be a single value"},
        {UPSTREAM "log:\n  file: [a]\n", "rekey.yaml:3: log.file: must be a single value"},
        {"upstream:\n  uri: {a: b}\n", "rekey.yaml:2: upstream.uri: must be a single value"},
        {UPSTREAM "log: &x {file: a}\nlistener_tls: *x\n",
         "rekey.yaml:3: listener_tls: aliases (*name) are not supported; write the value out"},
        {UPSTREAM "log: {file: a}\nlog: {}\n", "rekey.yaml:3: log: set twice"},
        {UPSTREAM "sweep:\n  pause: true\n  pause: true\n", "rekey.yaml:4: sweep.pause: set twice"},
        {UPSTREAM "? [a]\n: b\n", "rekey.yaml:2: top level: not the name of a setting"},
        {UPSTREAM "---\nlog: {}\n", "rekey.yaml:3: a second YAML document; one is read"},
        {UPSTREAM "log: {file: a\nsweep: {}\n",
         "rekey.yaml:3: not valid YAML: did not find expected ',' or '}' while parsing a flow "
         "mapping"},
        {UPSTREAM "log:\n\tfile: a\n",
         "rekey.yaml:3: not valid YAML: found character that cannot start any token while "
         "scanning for the next token"},
    };
    EXPECT_REFUSALS(cases);
}

static void test_unknown_keys_are_refused_by_name(void **state)
{
    (void)state;
    const struct refusal cases[] = {
        {UPSTREAM "nonsense: 1\n", "rekey.yaml:2: nonsense: there is no such setting"},
        {UPSTREAM "polices: []\n",
         "rekey.yaml:2: polices: there is no such setting; did you mean \"policies\"?"},
        {UPSTREAM "sweep:\n  guard:\n    p99_limit: 5\n",
         "rekey.yaml:4: sweep.guard.p99_limit: there is no such setting; did you mean "
         "\"p99_limit_ms\"?"},
        {UPSTREAM "keys:\n  keyringfile: k\n",
         "rekey.yaml:3: keys.keyringfile: there is no such setting; did you mean "
         "\"keyring_file\"?"},
        {UPSTREAM "policies:\n- namespace: a.b\n  fields:\n  - {pathh: x}\n",
         "rekey.yaml:5: policies[0].fields[0].pathh: there is no such setting; did you mean "
         "\"path\"?"},
        {UPSTREAM "<<: {}\n", "rekey.yaml:2: <<: there is no such setting"},
    };
    EXPECT_REFUSALS(cases);
}

#define AMQP UPSTREAM "sweep: {transport: amqp}\namqp:\n  addresses: ['b:5672']\n"
static void test_amqp(void **state)
{
    (void)state;
    const struct refusal cases[] = {
        {UPSTREAM "sweep: {transport: mqtt}\n",
         "rekey.yaml:2: sweep.transport: must be one of local, amqp, not \"mqtt\""},
        {UPSTREAM "sweep: {transport: amqp}\n",
         "rekey.yaml: amqp.addresses: is required with sweep.transport: amqp"},
        {AMQP, "rekey.yaml:3: amqp.user: is required with sweep.transport: amqp"},
        {AMQP "  user: u\n",
         "rekey.yaml:3: amqp.password_file: or amqp.password_env is required, one of them: the "
         "password itself does not belong in this file"},
        {AMQP "  user: u\n  password_file: f\n  password_env: E\n",
         "rekey.yaml:6: amqp.password_file: or amqp.password_env is required, one of them: the "
         "password itself does not belong in this file"},
        {AMQP "  user: u\n  password_file: f\n  tls: {enabled: true}\n",
         "rekey.yaml:7: amqp.tls.ca_file: is required: only this authority's brokers get the "
         "password"},
        {AMQP "  tls: {key_file: k}\n",
         "rekey.yaml:5: amqp.tls.key_file: is of no use without cert_file"},
        {UPSTREAM "amqp: {addresses: ['amqp://u:secret@b']}\n",
         "rekey.yaml:2: amqp.addresses[0]: must be host:port; the password has its own setting"},
        {UPSTREAM "amqp: {addresses: [b]}\n",
         "rekey.yaml:2: amqp.addresses[0]: must be host:port, not \"b\""},
        {UPSTREAM "amqp: {prefix: 'a b'}\n",
         "rekey.yaml:2: amqp.prefix: must be up to 60 letters, digits, dots, dashes and "
         "underscores, and not begin with \"amq.\", not \"a b\""},
        {UPSTREAM "amqp: {prefix: amq.x}\n",
         "rekey.yaml:2: amqp.prefix: must be up to 60 letters, digits, dots, dashes and "
         "underscores, and not begin with \"amq.\", not \"amq.x\""},
        {UPSTREAM "amqp: {reconnect_backoff_ms: 20000}\n",
         "rekey.yaml:2: amqp.reconnect_backoff_ms: must not pass amqp.reconnect_backoff_max_ms "
         "(10000), not 20000"},
        {UPSTREAM "amqp: {heartbeat_s: 0}\n",
         "rekey.yaml:2: amqp.heartbeat_s: must be from 1 to 3600, not 0"},
    };
    EXPECT_REFUSALS(cases);
}

static void test_words_and_numbers_are_checked(void **state)
{
    (void)state;
    const struct refusal cases[] = {
        /* libcyaml alone would take this for true. */
        {UPSTREAM "listener_tls:\n  enabled: flase\n",
         "rekey.yaml:3: listener_tls.enabled: must be one of false, true, no, yes, off, on, not "
         "\"flase\""},
        {UPSTREAM "on_undecryptable: ignore\n",
         "rekey.yaml:2: on_undecryptable: must be one of error, leave, not \"ignore\""},
        {UPSTREAM "log:\n  level: verbose\n",
         "rekey.yaml:3: log.level: must be one of debug, info, warn, error, not \"verbose\""},
        {UPSTREAM "sweep:\n  threads: two\n",
         "rekey.yaml:3: sweep.threads: must be a whole number, not \"two\""},
        {UPSTREAM "sweep:\n  threads: -1\n",
         "rekey.yaml:3: sweep.threads: must be a whole number, not \"-1\""},
        {UPSTREAM "sweep:\n  threads: 010\n",
         "rekey.yaml:3: sweep.threads: must be a whole number, not \"010\""},
        {UPSTREAM "sweep:\n  threads: 0x10\n",
         "rekey.yaml:3: sweep.threads: must be a whole number, not \"0x10\""},
        {UPSTREAM "sweep:\n  threads: 1.5\n",
         "rekey.yaml:3: sweep.threads: must be a whole number, not \"1.5\""},
        {UPSTREAM "sweep:\n  threads: 4294967298\n",
         "rekey.yaml:3: sweep.threads: must be a whole number, not \"4294967298\""},
        {UPSTREAM "sweep:\n  batch_docs: 0\n",
         "rekey.yaml:3: sweep.batch_docs: must be from 1 to 100000, not 0"},
        {UPSTREAM "sweep:\n  window:\n    - Mon 22:00-06:00\n    - Mon-Fri 22-06\n",
         "rekey.yaml:5: sweep.window[1]: must read like \"Mon-Fri 22:00-06:00\", \"Sat "
         "00:00-24:00\" or \"22:00-06:00\", not \"Mon-Fri 22-06\""},
        {UPSTREAM "sweep:\n  window: [Monday-Friday 22:00-06:00 and later]\n",
         "rekey.yaml:3: sweep.window[0]: must not be longer than 31 bytes"},
        {UPSTREAM "sweep:\n  window: 22:00-06:00\n",
         "rekey.yaml:3: sweep.window: must be a list (\"- item\" lines, or [] for none)"},
        {UPSTREAM "sweep:\n  time_zone: Central European\n",
         "rekey.yaml:3: sweep.time_zone: must be the name of a time zone such as Europe/London, "
         "not \"Central European\""},
        {UPSTREAM
         "keys: {keyring_file: k}\npolicies:\n  - namespace: a.b\n    fields: [{path: x}]\n"
         "    sweep:\n      priority: 1000001\n",
         "rekey.yaml:7: policies[0].sweep.priority: must be from -1000000 to 1000000, not 1000001"},
        {UPSTREAM
         "keys: {keyring_file: k}\npolicies:\n  - namespace: a.b\n    fields: [{path: x}]\n"
         "    sweep: {priority: -5, concurrency: 1025}\n",
         "rekey.yaml:6: policies[0].sweep.concurrency: must be from 0 to 1024, not 1025"},
        {UPSTREAM
         "policies:\n  - namespace: a.b\n    fields: [{path: x}]\n    sweep: {priority: -}\n",
         "rekey.yaml:5: policies[0].sweep.priority: must be a whole number, not \"-\""},
        {UPSTREAM "sweep:\n  read_preference: fastest\n",
         "rekey.yaml:3: sweep.read_preference: must be one of primary, secondary, "
         "secondaryPreferred, nearest, not \"fastest\""},
        {UPSTREAM "sweep:\n\n  threads: 65\n",
         "rekey.yaml:4: sweep.threads: must be from 1 to 64, not 65"},
        {UPSTREAM "limits:\n  advertised_message_bytes_max: 16809983\n",
         "rekey.yaml:3: limits.advertised_message_bytes_max: must be from 16809984 to 48000000, "
         "not 16809983"},
        {UPSTREAM "limits:\n  message_bytes_max: 48000001\n",
         "rekey.yaml:3: limits.message_bytes_max: must be from 16809984 to 48000000, not "
         "48000001"},
    };
    EXPECT_REFUSALS(cases);
}

static void test_contradictions(void **state)
{
    (void)state;
    const struct refusal cases[] = {
        {UPSTREAM "limits:\n  buffer_high_bytes: 100000\n",
         "rekey.yaml:2: limits.buffer_low_bytes: must be below limits.buffer_high_bytes (100000), "
         "not 262144"},
        {UPSTREAM "limits:\n  message_bytes_max: 20000000\n  advertised_message_bytes_max: "
                  "20000001\n",
         "rekey.yaml:4: limits.advertised_message_bytes_max: must not pass "
         "limits.message_bytes_max (20000000), not 20000001"},
        {UPSTREAM "sweep:\n  range_docs: 10\n  batch_docs: 11\n",
         "rekey.yaml:4: sweep.batch_docs: must not pass sweep.range_docs (10), not 11"},
        {UPSTREAM "sweep:\n  retry_backoff_ms: 10001\n",
         "rekey.yaml:3: sweep.retry_backoff_ms: must not pass sweep.retry_backoff_max_ms (10000), "
         "not 10001"},
        {UPSTREAM "sweep:\n  max_rate: 50\n  guard: {rate_min: 100}\n",
         "rekey.yaml:4: sweep.guard.rate_min: must not pass sweep.max_rate (50), not 100"},
        {UPSTREAM "keys:\n  provider: vualt\n",
         "rekey.yaml:3: keys.provider: must be one of keyring, vault, not \"vualt\""},
        {UPSTREAM "keys:\n  provider: vault\n",
         "rekey.yaml:2: keys.vault.addresses: is required with keys.provider: vault"},
        {UPSTREAM "keys:\n  provider: vault\n  vault:\n    addresses: ['http://v:8200']\n    "
                  "ca_file: c\n",
         "rekey.yaml:5: keys.vault.addresses[0]: must be https://host:port, without a path, not "
         "\"http://v:8200\""},
        {UPSTREAM "keys:\n  provider: vault\n  vault:\n    addresses: ['https://v:8200']\n",
         "rekey.yaml:4: keys.vault.ca_file: is required: only this authority's servers get Rekey's "
         "token"},
        {UPSTREAM "keys:\n  provider: vault\n  vault:\n    addresses: ['https://v:8200']\n    "
                  "ca_file: c\n    key: a/../b\n",
         "rekey.yaml:7: keys.vault.key: must not hold a slash"},
        {UPSTREAM "keys:\n  provider: vault\n  vault:\n    addresses: ['https://v:8200']\n    "
                  "ca_file: c\n    transit_mount: ../sys\n",
         "rekey.yaml:7: keys.vault.transit_mount: must be a name of up to 60 letters, digits, "
         "dots, dashes, underscores and inner slashes, not \"../sys\""},
        {UPSTREAM "keys:\n  provider: vault\n  vault:\n    addresses: ['https://v:8200']\n    "
                  "ca_file: c\n",
         "rekey.yaml:4: keys.vault.role_id: is required with keys.vault.auth: approle"},
        {UPSTREAM "keys:\n  provider: vault\n  vault:\n    addresses: ['https://v:8200']\n    "
                  "ca_file: c\n    role_id: r\n",
         "rekey.yaml:4: keys.vault.secret_id_file: or keys.vault.secret_id_env is required, one of "
         "them: the secret_id itself does not belong in this file"},
        {UPSTREAM "keys:\n  provider: vault\n  vault:\n    addresses: ['https://v:8200']\n    "
                  "ca_file: c\n    auth: token_file\n",
         "rekey.yaml:4: keys.vault.token_file: is required with keys.vault.auth: token_file"},
        {UPSTREAM "listener_tls:\n  enabled: true\n",
         "rekey.yaml:2: listener_tls.cert_file: is required when listener_tls.enabled is true"},
        {UPSTREAM "listener_tls: {enabled: true, cert_file: c, verify: true}\n",
         "rekey.yaml:2: listener_tls.ca_file: is required to verify client certificates"},
        {UPSTREAM "listener_tls: {key_file: k}\n",
         "rekey.yaml:2: listener_tls.key_file: is of no use without cert_file"},
        {UPSTREAM "admin: {address: here}\n",
         "rekey.yaml:2: admin.address: must be host:port (IPv6 in brackets) or the path of a Unix "
         "socket of at most 107 bytes, not \"here\""},
        {UPSTREAM "admin:\n  address: 10.0.0.1:9270\n",
         "rekey.yaml:2: admin.tls.enabled: must be true where admin.address is not on the loopback "
         "interface (10.0.0.1): the token would be readable on its way"},
        {UPSTREAM "admin:\n  address: '[::]:9270'\n  tls: {enabled: true, cert_file: c}\n",
         "rekey.yaml:2: admin.token_file: is required where admin.address is not on the loopback "
         "interface (::)"},
        {UPSTREAM "admin:\n  address: '[::1]:9270'\n  tls: {enabled: true}\n",
         "rekey.yaml:4: admin.tls.cert_file: is required when admin.tls.enabled is true"},
        {UPSTREAM "admin:\n  request_bytes_max: 9\n",
         "rekey.yaml:3: admin.request_bytes_max: must be from 256 to 65536, not 9"},
        {"upstream: {uri: 'http://u:secret@h'}\n",
         "rekey.yaml:1: upstream.uri: must start with mongodb:// or mongodb+srv://"},
        {"upstream:\n  uri: mongodb://h\n  state_db: admin\n",
         "rekey.yaml:3: upstream.state_db: must be the name of a database of its own, not "
         "\"admin\""},
        {"upstream:\n  uri: mongodb://h/?ssl=true\n  members: [{address: 'h:1', listen: 'h:2'}]\n",
         "rekey.yaml:1: upstream.tls.enabled: must be set, true or false, since upstream.uri asks "
         "for TLS"},
    };
    EXPECT_REFUSALS(cases);
    /* The default of rate_min does not stand in the way of a low max_rate. */
    rk_config_free(load(UPSTREAM "sweep: {max_rate: 50}\n"));
}

#define M "upstream.members"

static void test_addresses(void **state)
{
    (void)state;
    const struct refusal cases[] = {
        {MEMBERS "  - {address: h, listen: 'a:1'}\n",
         "rekey.yaml:4: " M "[0].address: must be host:port (IPv6 in brackets), not \"h\""},
        {MEMBERS "  - {address: 'h:0', listen: 'a:1'}\n",
         "rekey.yaml:4: " M "[0].address: must be host:port (IPv6 in brackets), not \"h:0\""},
        {MEMBERS "  - {address: 'h:65536', listen: 'a:1'}\n",
         "rekey.yaml:4: " M "[0].address: must be host:port (IPv6 in brackets), not \"h:65536\""},
        {MEMBERS "  - {address: 'h/x:1', listen: 'a:1'}\n",
         "rekey.yaml:4: " M "[0].address: must be host:port (IPv6 in brackets), not \"h/x:1\""},
        {MEMBERS "  - address: h:1\n    listen: ':27017'\n",
         "rekey.yaml:5: " M "[0].listen: must be host:port (IPv6 in brackets), not \":27017\""},
        {MEMBERS "  - address: h:1\n    listen: 27017\n",
         "rekey.yaml:5: " M "[0].listen: must be host:port (IPv6 in brackets), not \"27017\""},
        {MEMBERS "  - address: h:1\n    listen: ::1:27017\n",
         "rekey.yaml:5: " M "[0].listen: must be host:port (IPv6 in brackets), not "
         "\"::1:27017\""},
        {MEMBERS "  - address: h:1\n    listen: '[::g]:27017'\n",
         "rekey.yaml:5: " M "[0].listen: must be host:port (IPv6 in brackets), not "
         "\"[::g]:27017\""},
        {MEMBERS "  - address: h:1\n    listen: 300.1.1.1:27017\n",
         "rekey.yaml:5: " M "[0].listen: must be host:port (IPv6 in brackets), not "
         "\"300.1.1.1:27017\""},
        {MEMBERS "  - {address: /tmp/a.sock, listen: 'a:1'}\n",
         "rekey.yaml:4: " M "[0].address: must be host:port (IPv6 in brackets); the path of a Unix "
         "socket is for connect, not \"/tmp/a.sock\""},
        {MEMBERS "  - {address: 'h:1', connect: a.sock, listen: 'a:1'}\n",
         "rekey.yaml:4: " M "[0].connect: must be host:port (IPv6 in brackets), not \"a.sock\""},
        {MEMBERS "  - {address: 'h:1', listen: /" HUNDRED "12345678}\n",
         "rekey.yaml:4: " M "[0].listen: must not be longer than 107 bytes: sockets have no longer "
         "paths"},
        {MEMBERS "  - {address: 'h:1', listen: /a}\n  - {address: 'h:2', listen: /a}\n",
         "rekey.yaml:5: " M "[1].listen: is already taken by member 0"},
        {MEMBERS "  - {address: 'h:1', connect: /a, listen: /a}\n",
         "rekey.yaml:4: " M "[0].listen: is the address of the mongod of member 0"},
        {UPSTREAM "listener:\n  proxy_protocol: required\n",
         "rekey.yaml:2: listener.proxy_networks: is required with listener.proxy_protocol: whoever "
         "may connect can claim any address"},
        {UPSTREAM "listener:\n  proxy_networks: [10.0.0.0/8]\n",
         "rekey.yaml:3: listener.proxy_networks: is of no use while listener.proxy_protocol is "
         "off"},
        {UPSTREAM "listener:\n  proxy_protocol: required\n  proxy_networks: ['::1', 10.0.0.1/8]\n",
         "rekey.yaml:4: listener.proxy_networks[1]: must be an address or a network such as "
         "10.0.0.0/8, without bits behind the prefix, not \"10.0.0.1/8\""},
        {UPSTREAM "listener: {proxy_protocol: v1}\n",
         "rekey.yaml:2: listener.proxy_protocol: must be one of off, required, not \"v1\""},
        {UPSTREAM "listener: {socket_access: 0700}\n",
         "rekey.yaml:2: listener.socket_access: must be one of owner, group, everyone, not "
         "\"0700\""},
        {MEMBERS "  - address: h:1\n    listen: 0.0.0.0:27017\n",
         "rekey.yaml:4: " M "[0].advertise: is required when listen is 0.0.0.0: clients cannot "
         "dial that"},
        {MEMBERS "  - address: h:1\n    listen: '[::]:27017'\n",
         "rekey.yaml:4: " M "[0].advertise: is required when listen is ::: clients cannot dial "
         "that"},
        {MEMBERS "  - {address: 'h:1', listen: '0.0.0.0:2', advertise: '0.0.0.0:2'}\n",
         "rekey.yaml:4: " M "[0].advertise: must not be 0.0.0.0: clients cannot dial that"},
        {MEMBERS "  - address: h:1\n", "rekey.yaml:4: " M "[0].listen: is required and missing"},
    };
    EXPECT_REFUSALS(cases);
}

static void test_topologies(void **state)
{
    (void)state;
    const struct refusal cases[] = {
        {"upstream:\n  uri: mongodb://h/\n  topology: both\n",
         "rekey.yaml:3: upstream.topology: must be one of mirror, single, not \"both\""},
        {"upstream:\n  uri: mongodb://h/\n  topology: single\n  members: [{address: 'h:1', listen: "
         "'a:1'}]\n",
         "rekey.yaml:4: upstream.members: is for topology mirror; topology single has listeners"},
        {"upstream:\n  uri: mongodb://h/\n  listeners: [{listen: 'a:1'}]\n",
         "rekey.yaml:3: upstream.listeners: is for topology single; topology mirror has members"},
        {"upstream:\n  uri: mongodb://h/\n  topology: single\n  listeners:\n  - {listen: 'a:1'}\n"
         "  - {listen: '0.0.0.0:1', advertise: 'b:1'}\n",
         "rekey.yaml:6: upstream.listeners[1].listen: is already taken by listener 0"},
        {"upstream:\n  uri: mongodb://h/\n  topology: single\n  listeners: [{listen: "
         "'0.0.0.0:1'}]\n",
         "rekey.yaml:4: upstream.listeners[0].advertise: is required when listen is 0.0.0.0: "
         "clients cannot dial that"},
        {"upstream:\n  uri: mongodb://h/\n  topology: single\n  listeners: [{listen: 'a:1', read: "
         "nearest}]\n",
         "rekey.yaml:4: upstream.listeners[0].read: must be one of primary, secondary, "
         "secondaryPreferred, not \"nearest\""},
        {"upstream:\n  uri: mongodb://h/?loadbalanced=TRUE\n",
         "rekey.yaml:2: upstream.uri: must not set loadBalanced=true: rekeyd needs to see the "
         "servers themselves; name them instead of their load balancer"},
        {"upstream:\n  uri: mongodb://h/\n  monitor_interval_ms: 499\n",
         "rekey.yaml:3: upstream.monitor_interval_ms: must be from 500 to 3600000, not 499"},
    };
    EXPECT_REFUSALS(cases);
}

static void test_members_in_conflict(void **state)
{
    (void)state;
    const struct refusal cases[] = {
        {MEMBERS "  - {address: 'h:1', listen: 'a:1'}\n  - {address: 'H:1', listen: 'a:2'}\n",
         "rekey.yaml:5: " M "[1].address: is already that of member 0"},
        {MEMBERS "  - {address: 'h:1', listen: 'a:1'}\n  - {address: 'h:2', listen: 'a:1'}\n",
         "rekey.yaml:5: " M "[1].listen: is already taken by member 0"},
        {MEMBERS "  - {address: 'h:1', listen: '0.0.0.0:1', advertise: 'x:1'}\n"
                 "  - {address: 'h:2', listen: '127.0.0.1:1'}\n",
         "rekey.yaml:5: " M "[1].listen: is already taken by member 0"},
        {MEMBERS "  - {address: 'h:1', listen: 'a:1', advertise: 'x:1'}\n"
                 "  - {address: 'h:2', listen: 'a:2', advertise: 'x:1'}\n",
         "rekey.yaml:5: " M "[1].advertise: is already that of member 0"},
        {MEMBERS "  - {address: 'h:1', listen: 'h:1'}\n",
         "rekey.yaml:4: " M "[0].listen: is the address of the mongod of member 0"},
        {MEMBERS "  - {address: 'h:1', listen: 'a:1', advertise: 'h:2'}\n"
                 "  - {address: 'h:2', listen: 'a:2'}\n",
         "rekey.yaml:4: " M "[0].advertise: is the address of the mongod of member 1: clients "
         "would go around the proxy"},
    };
    EXPECT_REFUSALS(cases);
}

/* The place comes from this area, the reason from the policy area. */
static void expect_policy_refusal(const char *policies, const char *place, const char *reason)
{
    char text[1000];
    struct rk_config *config = NULL;
    struct rk_error err = {0};
    (void)snprintf(text, sizeof text, UPSTREAM "keys: {keyring_file: k}\npolicies:\n%s", policies);
    write_bytes(text, strlen(text));
    assert_int_equal(rk_config_load(FILE_NAME, &config, &err), RK_EINVAL);
    if (strncmp(err.message, place, strlen(place)) != 0 || strstr(err.message, reason) == NULL) {
        fail_msg("%s", err.message);
    }
}

static void test_policies_are_refused_at_their_line(void **state)
{
    (void)state;
    expect_refusal(UPSTREAM "policies: [{namespace: a.b, fields: [{path: x}]}]\n",
                   "rekey.yaml: keys.keyring_file: is required when there are policies");
    expect_policy_refusal("- namespace: ab\n  fields: [{path: x}]\n",
                          "rekey.yaml:4: policies[0].namespace: ", "ab");
    expect_policy_refusal("- namespace: a.b\n  fields: [{path: x}]\n"
                          "- namespace: admin.x\n  fields: [{path: x}]\n",
                          "rekey.yaml:6: policies[1].namespace: ", "admin");
    expect_policy_refusal("- namespace: a.b\n  fields: [{path: x}]\n"
                          "- namespace: a.b\n  fields: [{path: y}]\n",
                          "rekey.yaml:6: policies[1].namespace: ", "a.b");
    expect_policy_refusal("- namespace: a.b\n  fields:\n  - path: _id\n",
                          "rekey.yaml:6: policies[0].fields[0]: ", "_id");
    expect_policy_refusal("- namespace: a.b\n  fields:\n  - path: x\n  - path: y\n  - path: x.z\n",
                          "rekey.yaml:8: policies[0].fields[2]: ", "x.z");
    expect_policy_refusal("- namespace: a.b\n  fields: []\n",
                          "rekey.yaml:5: policies[0].fields: ", "at least 1 entry");
    expect_policy_refusal("- namespace: a.b\n  fields:\n  - {path: x, algorithm: rot13}\n",
                          "rekey.yaml:6: policies[0].fields[0].algorithm: ", "rot13");
    expect_policy_refusal("- namespace: a.b\n  fields:\n  - path: x\n    legacy:\n"
                          "    - {cipher: aes-256-cbc, encoding: binary, key: k,\n"
                          "       version_hex: 0g}\n",
                          "rekey.yaml:9: policies[0].fields[0].legacy[0].version_hex: ", "hexa");
    expect_policy_refusal("- namespace: a.b\n  fields:\n  - path: x\n    legacy:\n"
                          "    - {cipher: aes-256-cbc, encoding: binary}\n",
                          "rekey.yaml:8: policies[0].fields[0].legacy[0].key: ", "required");
    expect_policy_refusal("- namespace: a.b\n  fields:\n  - path: x\n    legacy:\n"
                          "    - {cipher: aes-256-gcm, encoding: binary, key: k,\n"
                          "       iv_hex: 00112233445566778899aabbccddeeff}\n",
                          "rekey.yaml:9: policies[0].fields[0].legacy[0].iv_hex: ", "12 bytes");
    expect_policy_refusal("- namespace: a.b\n  fields:\n  - path: x\n    legacy:\n"
                          "    - {cipher: aes-256-gcm, encoding: binary, key: k,\n"
                          "       iv_implied: true}\n",
                          "rekey.yaml:9: policies[0].fields[0].legacy[0].iv_implied: ", "iv_hex");
    expect_policy_refusal("- namespace: a.b\n  fields: [{path: x, type: string}]\n",
                          "rekey.yaml:5: policies[0].fields[0]", "needs algorithm deterministic");
    expect_policy_refusal("- namespace: a.b\n  fields: [{path: x, accept_plaintext: true}]\n",
                          "rekey.yaml:5: policies[0].fields[0]", "needs algorithm deterministic");
    expect_policy_refusal("- namespace: a.b\n  fields:\n  - path: x\n    type: double\n",
                          "rekey.yaml:7: policies[0].fields[0].type: ", "double");
    expect_policy_refusal("- namespace: a.b\n  key: 'a:b'\n  fields: [{path: x}]\n",
                          "rekey.yaml:5: policies[0].key: ", "no name for a key");
    expect_policy_refusal("- namespace: a.b\n  fields:\n  - path: x\n    key: a b\n",
                          "rekey.yaml:6: policies[0].fields[0]: ", "no name for a key");
    expect_policy_refusal("- namespace: a.b\n  former_keys:\n  - x\n  - x y\n"
                          "  fields: [{path: x}]\n",
                          "rekey.yaml:7: policies[0].former_keys[1]: ", "no name for a key");
    expect_policy_refusal("- namespace: a.b\n  former_keys: [a, b, c, d, e, f, g, h]\n"
                          "  fields: [{path: x}]\n",
                          "rekey.yaml:5: policies[0].former_keys: ", "more than 7");
    expect_refusal("upstream: {uri: 'mongodb://h', state_db: mine}\nkeys: {keyring_file: k}\n"
                   "policies:\n- namespace: mine.x\n  fields: [{path: a}]\n",
                   "rekey.yaml:4: policies[0].namespace: mine is the database of Rekey's own "
                   "state (upstream.state_db)");
}

static void test_unreadable_files(void **state)
{
    (void)state;
    struct rk_config *config = NULL;
    struct rk_error err;
    assert_int_equal(rk_config_load("none.yaml", &config, &err), RK_EIO);
    assert_string_equal(err.message, "none.yaml: cannot open: No such file or directory");
    assert_int_equal(rk_config_load(".", &config, &err), RK_EIO);
    assert_string_equal(err.message, ".: cannot read: Is a directory");
    size_t len = (1u << 20) + 8192;
    char *large = malloc(len);
    assert_non_null(large);
    memset(large, '#', len);
    write_bytes(large, len);
    free(large);
    assert_int_equal(rk_config_load(FILE_NAME, &config, &err), RK_ELIMIT);
    assert_string_equal(err.message, "rekey.yaml: larger than 1048576 bytes");
}

static void test_daemon_needs_a_member(void **state)
{
    (void)state;
    struct rk_error err;
    struct rk_config *c = load(UPSTREAM);
    assert_int_equal(rk_config_check_daemon(c, &err), RK_EINVAL);
    assert_string_equal(err.message, "rekey.yaml: upstream.members: rekeyd needs at least one "
                                     "member to listen for");
    rk_config_free(c);
    rk_config_free(NULL);
}

/* Broken copies of a real file are loaded or refused with the file's name, and nothing else. */
static void expect_loaded_or_refused(const char *text, size_t len)
{
    struct rk_config *config = NULL;
    struct rk_error err = {0};
    write_bytes(text, len);
    if (rk_config_load(FILE_NAME, &config, &err) == RK_OK) {
        assert_non_null(config);
    } else {
        assert_null(config);
        assert_memory_equal(err.message, FILE_NAME ":", strlen(FILE_NAME) + 1);
    }
    rk_config_free(config);
}

static void test_broken_files_do_no_harm(void **state)
{
    (void)state;
    static const char alphabet[] = "\0\n\t :-[]{}&*!|>'\"%@`#,?0x\xFF\xC3\x80~";
    char path[5000];
    char text[4096];
    char broken[4096];
    (void)snprintf(path, sizeof path, "%s/conf/examples/demo.yaml", repository);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    size_t len = fread(text, 1, sizeof text, f);
    (void)fclose(f);
    assert_in_range(len, 500, sizeof text - 1);
    uint32_t random = 1;
    for (size_t i = 0; i < len; i++) {
        expect_loaded_or_refused(text, i);
        memcpy(broken, text, len);
        random = random * 1664525u + 1013904223u;
        broken[i] = alphabet[(random >> 16) % (sizeof alphabet - 1)];
        expect_loaded_or_refused(broken, len);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_environment_references),
        cmocka_unit_test(test_structure_is_checked),
        cmocka_unit_test(test_unknown_keys_are_refused_by_name),
        cmocka_unit_test(test_amqp),
        cmocka_unit_test(test_words_and_numbers_are_checked),
        cmocka_unit_test(test_contradictions),
        cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_members_in_conflict),
        cmocka_unit_test(test_topologies),
        cmocka_unit_test(test_policies_are_refused_at_their_line),
        cmocka_unit_test(test_unreadable_files),
        cmocka_unit_test(test_daemon_needs_a_member),
        cmocka_unit_test(test_broken_files_do_no_harm),
    };
    return RUN_IN_DIRECTORY(tests);
}
