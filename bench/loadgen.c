/*
 * Closed-loop load on one MongoDB endpoint, for the overhead benchmark: one thread and one
 * libmongoc client (hence one socket) per connection, each waiting for its reply before it sends
 * the next operation.
 *
 * Documents are about 1 KB: _id, three strings (ssn, phone, note) among unprotected ones. A find
 * counts only when the three came back as strings of the right length, an update only when it
 * matched its document: an endpoint that answers wrongly fails the run instead of winning it.
 * A worker stops at its first error; the exit status is 1 then.
 *
 * --op load inserts the documents that find and update pick from and prints nothing. The others
 * print one JSON line; proxy_cpu_us in it is what the process --proxy-pid used while measuring.
 */
#include <rekey/base/clock.h>
#include <rekey/base/histogram.h>

#include <errno.h>
#include <inttypes.h>
#include <mongoc/mongoc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define DATABASE "bench"
#define CONNECTIONS_MAX 1024u
#define SSN_LEN 24u
#define PHONE_LEN 32u
#define NOTE_LEN 64u
#define FILLERS 13u
#define FILLER_LEN 56u
#define LOAD_BATCH 500u

enum op { OP_LOAD, OP_FIND, OP_INSERT, OP_UPDATE };
static const char *const op_names[] = {"load", "find", "insert", "update"};

enum phase { PHASE_WARMUP, PHASE_MEASURE, PHASE_STOP };

struct options {
    const char *target; /* host:port */
    const char *coll;
    enum op op;
    uint32_t connections;
    uint32_t duration_ms;
    uint32_t warmup_ms;
    uint32_t docs; /* _id 0..docs-1 exist */
    uint32_t seed;
    uint32_t proxy_pid; /* 0: none */
};

struct run {
    struct options options;
    _Atomic int phase;
    pthread_barrier_t connected;
};

struct worker {
    struct run *run;
    pthread_t thread;
    uint64_t rng;
    mongoc_client_t *client;
    mongoc_collection_t *coll;
    char filler[FILLERS][FILLER_LEN + 1];
    struct rk_histogram latency_us; /* operations that completed while measuring */
    bool failed;
};

typedef bool op_fn(struct worker *w, bson_error_t *error);

static uint64_t next_random(struct worker *w)
{
    w->rng ^= w->rng << 13;
    w->rng ^= w->rng >> 7;
    w->rng ^= w->rng << 17;
    return w->rng;
}

static void random_text(struct worker *w, char *out, size_t len)
{
    static const char alphabet[] = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789";
    uint64_t bits = 0;
    for (size_t i = 0; i < len; i++) {
        if (i % 12 == 0) {
            bits = next_random(w);
        }
        out[i] = alphabet[bits & 31u];
        bits >>= 5;
    }
    out[len] = '\0';
}

static void append_random(struct worker *w, bson_t *doc, const char *key, size_t len)
{
    char text[NOTE_LEN + 1];
    random_text(w, text, len);
    bson_append_utf8(doc, key, -1, text, (int)len);
}

static void append_filler(const struct worker *w, bson_t *doc, unsigned from, unsigned to)
{
    for (unsigned i = from; i < to; i++) {
        const char key[] = {'f', (char)('a' + i), '\0'};
        bson_append_utf8(doc, key, 2, w->filler[i], (int)FILLER_LEN);
    }
}

/* All but the _id, which the caller has appended. */
static void append_fields(struct worker *w, bson_t *doc)
{
    append_random(w, doc, "ssn", SSN_LEN);
    append_filler(w, doc, 0, FILLERS / 3);
    append_random(w, doc, "phone", PHONE_LEN);
    append_filler(w, doc, FILLERS / 3, 2 * FILLERS / 3);
    append_random(w, doc, "note", NOTE_LEN);
    append_filler(w, doc, 2 * FILLERS / 3, FILLERS);
}

static void select_random_id(struct worker *w, bson_t *filter)
{
    BSON_APPEND_INT64(filter, "_id", (int64_t)(next_random(w) % w->run->options.docs));
}

static bool is_text(const bson_t *doc, const char *key, uint32_t len)
{
    bson_iter_t it;
    uint32_t found = 0;
    return bson_iter_init_find(&it, doc, key) && BSON_ITER_HOLDS_UTF8(&it) &&
           bson_iter_utf8(&it, &found) != NULL && found == len;
}

static bool wrong_answer(bson_error_t *error, const char *what)
{
    bson_set_error(error, MONGOC_ERROR_CLIENT, MONGOC_ERROR_CLIENT_NOT_READY, "%s", what);
    return false;
}

static bool op_find(struct worker *w, bson_error_t *error)
{
    bson_t filter = BSON_INITIALIZER;
    bson_t opts = BSON_INITIALIZER;
    select_random_id(w, &filter);
    BSON_APPEND_INT32(&opts, "limit", 1);
    BSON_APPEND_BOOL(&opts, "singleBatch", true);

    mongoc_cursor_t *cursor = mongoc_collection_find_with_opts(w->coll, &filter, &opts, NULL);
    const bson_t *doc = NULL;
    bool ok = mongoc_cursor_next(cursor, &doc);
    if (ok) {
        ok = is_text(doc, "ssn", SSN_LEN) && is_text(doc, "phone", PHONE_LEN) &&
             is_text(doc, "note", NOTE_LEN);
        if (!ok) {
            (void)wrong_answer(error, "find returned a document without its plaintext");
        }
    } else if (!mongoc_cursor_error(cursor, error)) {
        (void)wrong_answer(error, "find returned no document");
    }
    mongoc_cursor_destroy(cursor);
    bson_destroy(&opts);
    bson_destroy(&filter);
    return ok;
}

static bool op_insert(struct worker *w, bson_error_t *error)
{
    bson_t doc = BSON_INITIALIZER;
    bson_oid_t oid;
    bson_oid_init(&oid, NULL);
    BSON_APPEND_OID(&doc, "_id", &oid);
    append_fields(w, &doc);
    bool ok = mongoc_collection_insert_one(w->coll, &doc, NULL, NULL, error);
    bson_destroy(&doc);
    return ok;
}

static bool op_update(struct worker *w, bson_error_t *error)
{
    bson_t filter = BSON_INITIALIZER;
    bson_t update = BSON_INITIALIZER;
    bson_t set;
    bson_t reply;
    bson_iter_t it;
    select_random_id(w, &filter);
    BSON_APPEND_DOCUMENT_BEGIN(&update, "$set", &set);
    append_random(w, &set, "ssn", SSN_LEN);
    append_random(w, &set, "phone", PHONE_LEN);
    append_random(w, &set, "note", NOTE_LEN);
    bson_append_document_end(&update, &set);

    bool ok = mongoc_collection_update_one(w->coll, &filter, &update, NULL, &reply, error);
    if (ok && !(bson_iter_init_find(&it, &reply, "matchedCount") && bson_iter_as_int64(&it) == 1)) {
        ok = wrong_answer(error, "update matched no document");
    }
    bson_destroy(&reply);
    bson_destroy(&update);
    bson_destroy(&filter);
    return ok;
}

/* Inserts the documents that find and update pick from. */
static bool load_documents(struct worker *w, bson_error_t *error)
{
    bson_t batch[LOAD_BATCH];
    const bson_t *views[LOAD_BATCH];
    uint32_t docs = w->run->options.docs;
    bool ok = true;
    for (uint32_t first = 0; ok && first < docs; first += LOAD_BATCH) {
        uint32_t n = docs - first < LOAD_BATCH ? docs - first : LOAD_BATCH;
        for (uint32_t i = 0; i < n; i++) {
            bson_init(&batch[i]);
            BSON_APPEND_INT64(&batch[i], "_id", (int64_t)(first + i));
            append_fields(w, &batch[i]);
            views[i] = &batch[i];
        }
        ok = mongoc_collection_insert_many(w->coll, views, n, NULL, NULL, error);
        for (uint32_t i = 0; i < n; i++) {
            bson_destroy(&batch[i]);
        }
    }
    return ok;
}

/* directConnection: the endpoint under test and no other that its hello names. w=1: the server's
 * default would be majority, and waiting for the journal hides what a proxy costs. */
static bool worker_connect(struct worker *w, bson_error_t *error)
{
    const struct options *o = &w->run->options;
    char uri[512];
    int len = snprintf(uri, sizeof uri, "mongodb://%s/?directConnection=true&w=1", o->target);
    if (len < 0 || (size_t)len >= sizeof uri) {
        return wrong_answer(error, "--target is too long");
    }
    w->client = mongoc_client_new(uri);
    if (!w->client) {
        return wrong_answer(error, "--target is not host:port");
    }
    mongoc_client_set_error_api(w->client, MONGOC_ERROR_API_VERSION_2);
    w->coll = mongoc_client_get_collection(w->client, DATABASE, o->coll);
    bson_t ping = BSON_INITIALIZER;
    BSON_APPEND_INT32(&ping, "ping", 1);
    bool ok = mongoc_client_command_simple(w->client, DATABASE, &ping, NULL, NULL, error);
    bson_destroy(&ping);
    return ok;
}

static bool worker_loop(struct worker *w, op_fn *op, bson_error_t *error)
{
    for (;;) {
        uint64_t start_us = rk_clock_mono_us();
        if (!op(w, error)) {
            return false;
        }
        uint64_t end_us = rk_clock_mono_us();
        int phase = atomic_load_explicit(&w->run->phase, memory_order_relaxed);
        if (phase == PHASE_STOP) {
            return true;
        }
        if (phase == PHASE_MEASURE) {
            rk_histogram_record(&w->latency_us, end_us - start_us);
        }
    }
}

static void worker_init(struct worker *w, struct run *run, uint32_t i)
{
    w->run = run;
    /* xorshift needs a state that is not 0 and whose bits are mixed (Knuth's multiplier). */
    w->rng = ((uint64_t)run->options.seed * CONNECTIONS_MAX + i + 1) * 0x9E3779B97F4A7C15ull;
    rk_histogram_init(&w->latency_us);
    for (unsigned f = 0; f < FILLERS; f++) {
        random_text(w, w->filler[f], FILLER_LEN);
    }
}

static void worker_finish(struct worker *w, bool ok, const bson_error_t *error)
{
    if (!ok) {
        const struct options *o = &w->run->options;
        (void)fprintf(stderr, "loadgen: %s %s: %s (code %u)\n", o->target, op_names[o->op],
                      error->message, error->code);
        w->failed = true;
    }
    mongoc_collection_destroy(w->coll);
    mongoc_client_destroy(w->client);
}

static void *worker_main(void *arg)
{
    static op_fn *const ops[] = {
        [OP_FIND] = op_find, [OP_INSERT] = op_insert, [OP_UPDATE] = op_update};
    struct worker *w = arg;
    bson_error_t error = {0};
    bool ok = worker_connect(w, &error);
    (void)pthread_barrier_wait(&w->run->connected);
    ok = ok && worker_loop(w, ops[w->run->options.op], &error);
    worker_finish(w, ok, &error);
    return NULL;
}

static uint64_t process_cpu_us(uint32_t pid)
{
    clockid_t clock;
    struct timespec ts;
    if (pid == 0 || clock_getcpuclockid((pid_t)pid, &clock) != 0 ||
        clock_gettime(clock, &ts) != 0) {
        return 0;
    }
    return (uint64_t)ts.tv_sec * 1000000u + (uint64_t)ts.tv_nsec / 1000u;
}

static void sleep_ms(uint32_t ms)
{
    struct timespec left = {.tv_sec = ms / 1000u, .tv_nsec = (long)(ms % 1000u) * 1000000L};
    while (nanosleep(&left, &left) != 0 && errno == EINTR) {
        continue;
    }
}

/* Waits through the phases, joins the workers and prints the result; true when none failed. */
static bool measure(struct run *run, struct worker *workers)
{
    const struct options *o = &run->options;
    (void)pthread_barrier_wait(&run->connected);
    sleep_ms(o->warmup_ms);
    uint64_t cpu_us = process_cpu_us(o->proxy_pid);
    uint64_t start_us = rk_clock_mono_us();
    atomic_store(&run->phase, PHASE_MEASURE);
    sleep_ms(o->duration_ms);
    atomic_store(&run->phase, PHASE_STOP);
    double seconds = (double)(rk_clock_mono_us() - start_us) / 1e6;
    cpu_us = process_cpu_us(o->proxy_pid) - cpu_us;

    uint32_t errors = 0;
    struct rk_histogram_snapshot merged = {0};
    for (uint32_t i = 0; i < o->connections; i++) {
        (void)pthread_join(workers[i].thread, NULL);
        errors += workers[i].failed ? 1 : 0;
        rk_histogram_add_to(&workers[i].latency_us, &merged);
    }
    uint64_t ops = rk_histogram_total(&merged);
    printf("{\"op\": \"%s\", \"connections\": %" PRIu32 ", \"ops\": %" PRIu64
           ", \"ops_per_s\": %.1f, \"p50_us\": %" PRIu64 ", \"p99_us\": %" PRIu64
           ", \"proxy_cpu_us\": %" PRIu64 ", \"errors\": %" PRIu32 "}\n",
           op_names[o->op], o->connections, ops, (double)ops / seconds,
           rk_histogram_quantile(&merged, 0.50), rk_histogram_quantile(&merged, 0.99), cpu_us,
           errors);
    return errors == 0;
}

static bool load(struct worker *w)
{
    bson_error_t error = {0};
    bool ok = worker_connect(w, &error) && load_documents(w, &error);
    worker_finish(w, ok, &error);
    return ok;
}

static bool run_workers(struct run *run, struct worker *workers)
{
    uint32_t n = run->options.connections;
    if (pthread_barrier_init(&run->connected, NULL, n + 1) != 0) {
        (void)fputs("loadgen: cannot make a barrier\n", stderr);
        return false;
    }
    for (uint32_t i = 0; i < n; i++) {
        worker_init(&workers[i], run, i);
        if (pthread_create(&workers[i].thread, NULL, worker_main, &workers[i]) != 0) {
            (void)fputs("loadgen: cannot start a thread\n", stderr);
            exit(1); /* the threads already started wait at the barrier for ever */
        }
    }
    bool ok = measure(run, workers);
    (void)pthread_barrier_destroy(&run->connected);
    return ok;
}

static bool parse_u32(const char *text, uint32_t min, uint32_t max, uint32_t *out)
{
    char *end = NULL;
    errno = 0;
    unsigned long v = strtoul(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || text[0] == '-' || v < min || v > max) {
        return false;
    }
    *out = (uint32_t)v;
    return true;
}

static bool parse_op(const char *text, enum op *out)
{
    for (size_t i = 0; i < sizeof op_names / sizeof op_names[0]; i++) {
        if (strcmp(text, op_names[i]) == 0) {
            *out = (enum op)i;
            return true;
        }
    }
    return false;
}

static bool parse_option(struct options *o, const char *name, const char *value)
{
    const struct {
        const char *name;
        uint32_t min;
        uint32_t max;
        uint32_t *out;
    } numbers[] = {
        {"--connections", 1, CONNECTIONS_MAX, &o->connections},
        {"--duration-ms", 1, 3600000, &o->duration_ms},
        {"--warmup-ms", 0, 3600000, &o->warmup_ms},
        {"--docs", 1, 1000000000, &o->docs},
        {"--seed", 0, UINT32_MAX, &o->seed},
        {"--proxy-pid", 1, INT32_MAX, &o->proxy_pid},
    };
    if (strcmp(name, "--target") == 0) {
        o->target = value;
        return true;
    }
    if (strcmp(name, "--coll") == 0) {
        o->coll = value;
        return true;
    }
    if (strcmp(name, "--op") == 0) {
        return parse_op(value, &o->op);
    }
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        if (strcmp(name, numbers[i].name) == 0) {
            return parse_u32(value, numbers[i].min, numbers[i].max, numbers[i].out);
        }
    }
    return false;
}

static bool parse_options(int argc, char **argv, struct options *o)
{
    for (int i = 1; i < argc; i += 2) {
        if (i + 1 == argc || !parse_option(o, argv[i], argv[i + 1])) {
            (void)fprintf(stderr, "loadgen: bad option %s\n", argv[i]);
            return false;
        }
    }
    return o->target != NULL;
}

static void usage(void)
{
    (void)fputs("usage: bench_loadgen --target HOST:PORT [--op load|find|insert|update]\n"
                "         [--coll NAME] [--connections N] [--duration-ms N] [--warmup-ms N]\n"
                "         [--docs N] [--seed N] [--proxy-pid PID]\n",
                stderr);
}

int main(int argc, char **argv)
{
    struct run run = {.options = {.coll = "plain",
                                  .op = OP_FIND,
                                  .connections = 1,
                                  .duration_ms = 1500,
                                  .warmup_ms = 200,
                                  .docs = 20000}};
    struct options *o = &run.options;
    if (!parse_options(argc, argv, o)) {
        usage();
        return 2;
    }
    struct worker *workers = calloc(o->connections, sizeof *workers);
    if (!workers) {
        (void)fputs("loadgen: out of memory\n", stderr);
        return 1;
    }
    mongoc_init();
    bool ok;
    if (o->op == OP_LOAD) {
        worker_init(&workers[0], &run, 0);
        ok = load(&workers[0]);
    } else {
        ok = run_workers(&run, workers);
    }
    mongoc_cleanup();
    free(workers);
    return ok ? 0 : 1;
}
