#include "catalog_internal.h"

#include <pthread.h>
#include <rekey/base/clock.h>
#include <rekey/log/log.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct rk_catalog {
    mongoc_client_pool_t *pool;
    pthread_t thread;
    pthread_mutex_t lock; /* guards what is below */
    pthread_cond_t wake;  /* for the thread */
    pthread_cond_t ready; /* it has looked once */
    struct rk_policy_set *configured;
    struct rk_policy_set *marked;
    struct rk_catalog_entries entries; /* the last listing */
    uint32_t interval_ms;
    bool started;
    bool stopping;
    bool looked;
    bool again;   /* other policies: look before the interval is over */
    bool failing; /* the last look failed, which was logged */
    rk_catalog_fn *fn;
    void *arg;
};

static void log_marks(const struct rk_policy_mark *marks, size_t n)
{
    static const struct {
        const char *event;
        const char *effect;
    } kinds[] = {
        [RK_MARK_COLLATION] = {"collection_with_collation",
                               "comparisons of deterministic fields are refused unless the "
                               "command has the collation {locale: \"simple\"}"},
        [RK_MARK_OUTSIDE] = {"unprotected_collection_with_collation",
                             "pipelines of unprotected collections that compare protected fields "
                             "are refused unless the command has the collation {locale: "
                             "\"simple\"}"},
        [RK_MARK_VIEW] = {"view_without_policy",
                          "comparisons in it are refused: it reads protected fields"},
    };
    for (size_t i = 0; i < n; i++) {
        rk_log(RK_LOG_WARN, kinds[marks[i].kind].event, RK_S("db", marks[i].db),
               RK_S("collection", marks[i].coll), RK_S("effect", kinds[marks[i].kind].effect));
    }
}

/* A set marked by the present entries takes the place of the former one. Locked. */
static enum rk_status publish(struct rk_catalog *catalog, struct rk_error *err)
{
    struct rk_policy_mark *marks = NULL;
    struct rk_policy_set *marked = NULL;
    size_t n = 0;
    enum rk_status status =
        rk_catalog_marks(&catalog->entries, catalog->configured, &marks, &n, err);
    if (status == RK_OK) {
        status = rk_policy_set_marked(catalog->configured, marks, n, &marked, err);
    }
    if (status == RK_OK) {
        log_marks(marks, n);
        rk_policy_set_unref(catalog->marked);
        catalog->marked = marked;
        if (catalog->fn != NULL) {
            catalog->fn(catalog->arg, marked);
        }
    }
    free(marks);
    return status;
}

static bool same_entries(const struct rk_catalog_entries *a, const struct rk_catalog_entries *b)
{
    bool same = a->n == b->n;
    for (size_t i = 0; same && i < a->n; i++) {
        const struct rk_catalog_entry *x = &a->at[i];
        const struct rk_catalog_entry *y = &b->at[i];
        same = strcmp(x->db, y->db) == 0 && strcmp(x->coll, y->coll) == 0 &&
               x->n_reads_from == y->n_reads_from &&
               (x->pipeline == NULL || y->pipeline == NULL ? x->pipeline == y->pipeline
                                                           : bson_equal(x->pipeline, y->pipeline));
        for (size_t k = 0; same && k < x->n_reads_from; k++) {
            same = strcmp(x->reads_from[k], y->reads_from[k]) == 0;
        }
    }
    return same;
}

static void log_failure(struct rk_catalog *catalog, const struct rk_error *err)
{
    if (!catalog->failing) {
        rk_log(RK_LOG_WARN, "catalog_unreadable", RK_S("reason", err->message),
               RK_S("effect", "collations and views that are made past Rekey are not noticed"),
               RK_S("advice", "the account of upstream.uri needs listCollections on the protected "
                              "databases"));
    }
    catalog->failing = true;
}

/* Locked; unlocks while it asks. */
static void look(struct rk_catalog *catalog)
{
    struct rk_catalog_entries entries = {0};
    struct rk_error err = {0};
    struct rk_policy_set *policies = rk_policy_set_ref(catalog->configured);
    (void)pthread_mutex_unlock(&catalog->lock);
    mongoc_client_t *client = mongoc_client_pool_pop(catalog->pool);
    enum rk_status status = rk_catalog_list(client, policies, &entries, &err);
    mongoc_client_pool_push(catalog->pool, client);
    rk_policy_set_unref(policies);
    (void)pthread_mutex_lock(&catalog->lock);
    if (status == RK_OK && !same_entries(&entries, &catalog->entries)) {
        struct rk_catalog_entries former = catalog->entries;
        catalog->entries = entries;
        entries = former;
        status = publish(catalog, &err);
    }
    if (status == RK_OK) {
        catalog->failing = false;
    } else {
        log_failure(catalog, &err);
    }
    rk_catalog_entries_free(&entries);
}

static struct timespec after_ms(uint32_t ms)
{
    uint64_t at_us = rk_clock_mono_us() + (uint64_t)ms * 1000;
    return (struct timespec){.tv_sec = (time_t)(at_us / 1000000),
                             .tv_nsec = (long)(at_us % 1000000) * 1000};
}

static void *run(void *arg)
{
    struct rk_catalog *catalog = arg;
    (void)pthread_mutex_lock(&catalog->lock);
    while (!catalog->stopping) {
        catalog->again = false;
        look(catalog);
        catalog->looked = true;
        (void)pthread_cond_broadcast(&catalog->ready);
        const struct timespec until = after_ms(catalog->interval_ms);
        int waited = 0;
        while (!catalog->stopping && !catalog->again && waited == 0) {
            waited = pthread_cond_timedwait(&catalog->wake, &catalog->lock, &until);
        }
    }
    (void)pthread_mutex_unlock(&catalog->lock);
    return NULL;
}

static void wait_for_first_look(struct rk_catalog *catalog, uint32_t timeout_ms)
{
    const struct timespec until = after_ms(timeout_ms);
    int waited = 0;
    (void)pthread_mutex_lock(&catalog->lock);
    while (!catalog->looked && waited == 0) {
        waited = pthread_cond_timedwait(&catalog->ready, &catalog->lock, &until);
    }
    (void)pthread_mutex_unlock(&catalog->lock);
}

enum rk_status rk_catalog_start(const struct rk_catalog_config *config, struct rk_catalog **out,
                                struct rk_error *err)
{
    struct rk_catalog *catalog = calloc(1, sizeof *catalog);
    if (catalog == NULL) {
        return rk_error_set(err, RK_ENOMEM, "out of memory for the catalog");
    }
    catalog->pool = config->client_pool;
    catalog->configured = rk_policy_set_ref(config->policies);
    catalog->marked = rk_policy_set_ref(config->policies);
    catalog->interval_ms = config->interval_ms;
    pthread_condattr_t attr;
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_mutex_init(&catalog->lock, NULL);
    (void)pthread_cond_init(&catalog->wake, &attr);
    (void)pthread_cond_init(&catalog->ready, &attr);
    (void)pthread_condattr_destroy(&attr);
    catalog->started = pthread_create(&catalog->thread, NULL, run, catalog) == 0;
    if (!catalog->started) {
        rk_catalog_stop(catalog);
        return rk_error_set(err, RK_EIO, "cannot start the catalog's thread");
    }
    wait_for_first_look(catalog, config->start_timeout_ms);
    *out = catalog;
    return RK_OK;
}

struct rk_policy_set *rk_catalog_policies(struct rk_catalog *catalog)
{
    (void)pthread_mutex_lock(&catalog->lock);
    struct rk_policy_set *policies = rk_policy_set_ref(catalog->marked);
    (void)pthread_mutex_unlock(&catalog->lock);
    return policies;
}

void rk_catalog_watch(struct rk_catalog *catalog, rk_catalog_fn *fn, void *arg)
{
    (void)pthread_mutex_lock(&catalog->lock);
    catalog->fn = fn;
    catalog->arg = arg;
    if (fn != NULL) {
        fn(arg, catalog->marked);
    }
    (void)pthread_mutex_unlock(&catalog->lock);
}

enum rk_status rk_catalog_reconfigure(struct rk_catalog *catalog, struct rk_policy_set *policies,
                                      uint32_t interval_ms, struct rk_error *err)
{
    (void)pthread_mutex_lock(&catalog->lock);
    struct rk_policy_set *former = catalog->configured;
    catalog->configured = rk_policy_set_ref(policies);
    enum rk_status status = publish(catalog, err);
    if (status != RK_OK) {
        catalog->configured = former;
        former = policies;
    }
    rk_policy_set_unref(former);
    catalog->interval_ms = interval_ms;
    catalog->again = true;
    (void)pthread_cond_signal(&catalog->wake);
    (void)pthread_mutex_unlock(&catalog->lock);
    return status;
}

void rk_catalog_stop(struct rk_catalog *catalog)
{
    if (catalog == NULL) {
        return;
    }
    (void)pthread_mutex_lock(&catalog->lock);
    catalog->stopping = true;
    (void)pthread_cond_signal(&catalog->wake);
    (void)pthread_mutex_unlock(&catalog->lock);
    if (catalog->started) {
        (void)pthread_join(catalog->thread, NULL);
    }
    rk_catalog_entries_free(&catalog->entries);
    rk_policy_set_unref(catalog->configured);
    rk_policy_set_unref(catalog->marked);
    (void)pthread_cond_destroy(&catalog->ready);
    (void)pthread_cond_destroy(&catalog->wake);
    (void)pthread_mutex_destroy(&catalog->lock);
    free(catalog);
}
