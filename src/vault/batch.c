/*
 * Values on their way to transit's encrypt and decrypt. What all sessions and sweepers ask for is
 * gathered in lanes, one for each operation and key, and sent with batch_input: when a batch is
 * full, or keys.vault.transit.coalesce_us after its first value came. While as many requests as
 * allowed are under way, a lane gathers on, so that batches grow with the load.
 *
 * All of it runs on the client's thread but rk_vault_answer.
 */
#include "client_internal.h"

#include "item.h"
#include "wipe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATH_MAX_LEN 300
#define KEY_MAX_LEN 256
#define ITEM_OVERHEAD 96u /* of JSON around two or three texts */
#define BODY_MAX (1u << 30)

/* One message's values, until the last has an answer. */
struct submission {
    struct rk_vault_client *client;
    struct rk_remote *remote;
    size_t left;
    enum rk_status status; /* the first failure */
    char message[256];
    rk_provider_answered_fn *fn;
    void *arg;
};

struct item {
    struct submission *submission;
    size_t index;
    size_t bytes;
};

struct rk_lane {
    struct rk_lane *next;
    struct rk_vault_client *client;
    enum rk_remote_op op;
    char path[PATH_MAX_LEN];
    struct item *items; /* waiting, oldest first */
    size_t n;
    size_t cap;
    size_t bytes; /* of all of them */
    bool due;     /* waits for nothing but a free request */
    unsigned in_flight;
    struct event *timer;
};

struct batch {
    struct rk_lane *lane;
    size_t n;
    struct item items[];
};

/* ---- the ends of submissions */

static void submission_done(struct submission *submission)
{
    submission->fn(submission->arg, submission->status, submission->message);
    free(submission);
}

static void item_done(const struct item *item, enum rk_status status, const char *message)
{
    struct submission *submission = item->submission;
    if (status != RK_OK && submission->status == RK_OK) {
        submission->status = status;
        (void)snprintf(submission->message, sizeof submission->message, "%s", message);
    }
    if (--submission->left == 0) {
        submission_done(submission);
    }
}

/* ---- what is sent */

/* The request's JSON; NULL: out of memory. Everything in it is base64, digits or our own text. */
static char *body_of(const struct batch *batch)
{
    struct rk_buf out;
    struct rk_remote_value value;
    char *body = NULL;
    rk_buf_init(&out, BODY_MAX);
    bool ok = rk_item_put_text(&out, "{\"batch_input\":[");
    for (size_t i = 0; i < batch->n && ok; i++) {
        const struct item *item = &batch->items[i];
        (void)rk_remote_at(item->submission->remote, item->index, &value);
        ok = (i == 0 || rk_item_put_text(&out, ",")) && rk_item_put(&out, &value);
    }
    ok = ok && rk_item_put_text(&out, "]}") && rk_buf_append_u8(&out, '\0') == RK_OK;
    if (ok) {
        body = rk_wipe_strdup((const char *)out.data);
    }
    rk_buf_cleanse(&out);
    rk_buf_deinit(&out);
    return body;
}

/* ---- what comes back */

static void take_result(const struct item *item, const json_t *result)
{
    struct rk_vault_counters *counters = &item->submission->client->counters;
    const char *why = "";
    const char *error = json_string_value(json_object_get(result, "error"));
    enum rk_status status = rk_item_take(item->submission->remote, item->index, result, &why);
    bool ok = status == RK_OK && (error == NULL || error[0] == '\0');
    rk_counter_add(ok ? &counters->values : &counters->value_failures, 1);
    item_done(item, status, why);
}

static void pump(struct rk_lane *lane);
static void send_batch(struct batch *batch);

/* Too large for Vault as a whole: half of it at a time. */
static bool halve(const struct batch *batch)
{
    struct batch *halves[2];
    size_t first = batch->n / 2;
    halves[0] = malloc(sizeof *batch + first * sizeof batch->items[0]);
    halves[1] = malloc(sizeof *batch + (batch->n - first) * sizeof batch->items[0]);
    if (halves[0] == NULL || halves[1] == NULL) {
        free(halves[0]);
        free(halves[1]);
        return false;
    }
    *halves[0] = (struct batch){.lane = batch->lane, .n = first};
    *halves[1] = (struct batch){.lane = batch->lane, .n = batch->n - first};
    memcpy(halves[0]->items, batch->items, first * sizeof batch->items[0]);
    memcpy(halves[1]->items, batch->items + first, halves[1]->n * sizeof batch->items[0]);
    send_batch(halves[0]);
    send_batch(halves[1]);
    return true;
}

static void on_answer(void *arg, enum rk_status status, const json_t *answer,
                      const struct rk_error *err)
{
    struct batch *batch = arg;
    struct rk_lane *lane = batch->lane;
    const json_t *results = json_object_get(json_object_get(answer, "data"), "batch_results");
    lane->in_flight--;
    if (status == RK_ELIMIT && batch->n > 1 && halve(batch)) {
        free(batch);
        return;
    }
    bool whole = status == RK_OK && json_array_size(results) == batch->n;
    rk_counter_add(&lane->client->counters.value_failures, whole ? 0 : batch->n);
    for (size_t i = 0; i < batch->n; i++) {
        if (whole) {
            take_result(&batch->items[i], json_array_get(results, i));
        } else if (status != RK_OK) {
            item_done(&batch->items[i], status, err->message);
        } else {
            item_done(&batch->items[i], RK_EIO, "vault: the answer has not as many items as asked");
        }
    }
    free(batch);
    if (!lane->client->stopping) {
        pump(lane);
    }
}

static void send_batch(struct batch *batch)
{
    struct rk_error err;
    char *body = body_of(batch);
    batch->lane->in_flight++;
    rk_counter_add(&batch->lane->client->counters.batches[batch->lane->op], 1);
    if (body == NULL) {
        (void)rk_error_set(&err, RK_ENOMEM, "vault: out of memory");
        on_answer(batch, RK_ENOMEM, NULL, &err);
        return;
    }
    rk_client_send(batch->lane->client, batch->lane->path, body, on_answer, batch);
}

/* ---- lanes */

static bool is_full(const struct rk_lane *lane)
{
    const struct rk_config_transit *limits = &lane->client->settings->transit;
    return lane->n >= limits->batch_values_max || lane->bytes >= limits->batch_bytes_max;
}

/* The oldest values, as many as one request may have. NULL: out of memory. */
static struct batch *take_batch(struct rk_lane *lane)
{
    const struct rk_config_transit *limits = &lane->client->settings->transit;
    size_t n = 0;
    size_t bytes = 0;
    while (n < lane->n && n < limits->batch_values_max && bytes < limits->batch_bytes_max) {
        bytes += lane->items[n++].bytes;
    }
    struct batch *batch = malloc(sizeof *batch + n * sizeof batch->items[0]);
    if (batch != NULL) {
        *batch = (struct batch){.lane = lane, .n = n};
        memcpy(batch->items, lane->items, n * sizeof batch->items[0]);
        lane->n -= n;
        lane->bytes -= bytes;
        memmove(lane->items, lane->items + n, lane->n * sizeof lane->items[0]);
    }
    return batch;
}

static void fail_waiting(struct rk_lane *lane, enum rk_status status, const char *message)
{
    while (lane->n > 0) {
        struct item item = lane->items[--lane->n];
        lane->bytes -= item.bytes;
        item_done(&item, status, message);
    }
}

static void pump(struct rk_lane *lane)
{
    const struct rk_config_transit *limits = &lane->client->settings->transit;
    while (lane->n > 0 && lane->in_flight < limits->requests_max && (lane->due || is_full(lane))) {
        struct batch *batch = take_batch(lane);
        if (batch == NULL) {
            fail_waiting(lane, RK_ENOMEM, "vault: out of memory");
            return;
        }
        send_batch(batch);
    }
    if (lane->n == 0) {
        lane->due = false;
        (void)event_del(lane->timer);
    } else if (!lane->due && !event_pending(lane->timer, EV_TIMEOUT, NULL)) {
        const struct timeval in = {.tv_sec = limits->coalesce_us / 1000000u,
                                   .tv_usec = (suseconds_t)(limits->coalesce_us % 1000000u)};
        (void)event_add(lane->timer, &in);
    }
}

static void on_coalesced(evutil_socket_t fd, short what, void *arg)
{
    struct rk_lane *lane = arg;
    (void)fd;
    (void)what;
    lane->due = true;
    pump(lane);
}

/* "<mount>/<operation>/<key>" of "<mount>/<key>[:v<version>]" */
static bool path_of(const struct rk_remote_value *value, char path[PATH_MAX_LEN])
{
    size_t len = strcspn(value->key, ":");
    const char *slash = memrchr(value->key, '/', len);
    if (slash == NULL || len > KEY_MAX_LEN) {
        return false;
    }
    size_t mount_len = (size_t)(slash - value->key);
    int n = snprintf(path, PATH_MAX_LEN, "%.*s/%s/%.*s", (int)mount_len, value->key,
                     value->op == RK_REMOTE_SEAL ? "encrypt" : "decrypt",
                     (int)(len - mount_len - 1), slash + 1);
    return n > 0 && n < PATH_MAX_LEN;
}

/* NULL: out of memory, or no key of Vault's. Lanes stay: there are few keys. */
static struct rk_lane *lane_of(struct rk_vault_client *client, const struct rk_remote_value *value)
{
    char path[PATH_MAX_LEN];
    if (!path_of(value, path)) {
        return NULL;
    }
    for (struct rk_lane *lane = client->lanes; lane != NULL; lane = lane->next) {
        if (lane->op == value->op && strcmp(lane->path, path) == 0) {
            return lane;
        }
    }
    struct rk_lane *lane = calloc(1, sizeof *lane);
    if (lane == NULL) {
        return NULL;
    }
    lane->timer = event_new(rk_worker_base(client->worker), -1, 0, on_coalesced, lane);
    if (lane->timer == NULL) {
        free(lane);
        return NULL;
    }
    lane->client = client;
    lane->op = value->op;
    memcpy(lane->path, path, sizeof path);
    lane->next = client->lanes;
    client->lanes = lane;
    return lane;
}

static bool lane_add(struct rk_lane *lane, const struct item *item)
{
    if (lane->n == lane->cap) {
        size_t cap = lane->cap == 0 ? 64 : 2 * lane->cap;
        struct item *items = realloc(lane->items, cap * sizeof *items);
        if (items == NULL) {
            return false;
        }
        lane->items = items;
        lane->cap = cap;
    }
    lane->items[lane->n++] = *item;
    lane->bytes += item->bytes;
    return true;
}

/* ---- submissions */

static void submission_start(void *arg)
{
    struct submission *submission = arg;
    struct rk_vault_client *client = submission->client;
    struct rk_remote_value value;
    submission->left = 1; /* this function's own share, so that nothing ends it meanwhile */
    for (size_t i = 0; i < rk_remote_count(submission->remote); i++) {
        if (!rk_remote_at(submission->remote, i, &value)) {
            continue;
        }
        const struct item item = {submission, i,
                                  (value.in_len + value.aad_len + 2) / 3 * 4 + ITEM_OVERHEAD};
        struct rk_lane *lane = client->stopping ? NULL : lane_of(client, &value);
        submission->left++;
        if (lane == NULL || !lane_add(lane, &item)) {
            item_done(&item, client->stopping ? RK_ESTATE : RK_EINVAL,
                      client->stopping ? "shutting down"
                                       : "out of memory, or not a key in Vault's transit engine");
        }
    }
    for (struct rk_lane *lane = client->lanes; lane != NULL && !client->stopping;
         lane = lane->next) {
        lane->due = lane->due || (lane->n > 0 && client->settings->transit.coalesce_us == 0);
        pump(lane);
    }
    const struct item own = {.submission = submission};
    item_done(&own, RK_OK, "");
}

void rk_vault_answer(struct rk_vault_client *client, struct rk_remote *remote,
                     rk_provider_answered_fn *fn, void *arg)
{
    if (rk_vault_state(client) == RK_VAULT_UNAVAILABLE) {
        fn(arg, RK_EIO, "vault: no unsealed server answers");
        return;
    }
    struct submission *submission = calloc(1, sizeof *submission);
    if (submission != NULL) {
        *submission = (struct submission){.client = client, .remote = remote, .fn = fn, .arg = arg};
    }
    if (submission == NULL ||
        rk_worker_post(client->worker, submission_start, submission) != RK_OK) {
        free(submission);
        fn(arg, RK_ENOMEM, "vault: out of memory");
    }
}

void rk_batch_stop(struct rk_vault_client *client)
{
    while (client->lanes != NULL) {
        struct rk_lane *lane = client->lanes;
        client->lanes = lane->next;
        fail_waiting(lane, RK_ESTATE, "shutting down");
        event_free(lane->timer);
        free(lane->items);
        free(lane);
    }
}
