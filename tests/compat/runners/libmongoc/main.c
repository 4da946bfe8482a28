/* Requests in, answers out, and the pools of clients. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runner.h"

static struct pool *pools;

static struct pool *pool_of(const char *uri)
{
    struct pool *pool;
    for (pool = pools; pool != NULL; pool = pool->next) {
        if (strcmp(pool->uri, uri) == 0) {
            return pool;
        }
    }
    pool = bson_malloc0(sizeof *pool);
    pool->uri = bson_strdup(uri);
    pool->next = pools;
    pools = pool;
    return pool;
}

mongoc_client_t *pool_pop(struct pool *pool, bson_error_t *error)
{
    if (pool->clients == NULL) {
        mongoc_uri_t *uri = mongoc_uri_new_with_error(pool->uri, error);
        if (uri == NULL) {
            return NULL;
        }
        pool->clients = mongoc_client_pool_new_with_error(uri, error);
        mongoc_uri_destroy(uri);
        if (pool->clients == NULL) {
            return NULL;
        }
        mongoc_client_pool_set_error_api(pool->clients, MONGOC_ERROR_API_VERSION_2);
    }
    return mongoc_client_pool_pop(pool->clients);
}

void pool_close(struct pool *pool)
{
    if (pool->clients != NULL) {
        mongoc_client_pool_destroy(pool->clients);
        pool->clients = NULL;
    }
}

static char *describe(void)
{
    bson_t answer = BSON_INITIALIZER;
    bson_t compressors;
    uint32_t n = 0;
    const char *const names[] = {
#ifdef MONGOC_ENABLE_COMPRESSION_SNAPPY
        "snappy",
#endif
#ifdef MONGOC_ENABLE_COMPRESSION_ZLIB
        "zlib",
#endif
#ifdef MONGOC_ENABLE_COMPRESSION_ZSTD
        "zstd",
#endif
    };

    BSON_APPEND_UTF8(&answer, "driver", "libmongoc");
    BSON_APPEND_UTF8(&answer, "version", mongoc_get_version());
    BSON_APPEND_ARRAY_BEGIN(&answer, "compressors", &compressors);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char buffer[16];
        const char *key;
        bson_uint32_to_string(n++, &key, buffer, sizeof buffer);
        BSON_APPEND_UTF8(&compressors, key, names[i]);
    }
    bson_append_array_end(&answer, &compressors);
    char *json = bson_as_relaxed_extended_json(&answer, NULL);
    bson_destroy(&answer);
    return json;
}

static void run_steps(struct scenario *scenario, const bson_t *steps, bson_string_t *answer)
{
    bson_iter_t iter;
    const char *separator = "";

    bson_iter_init(&iter, steps);
    while (bson_iter_next(&iter)) {
        const uint8_t *data = NULL;
        uint32_t len = 0;
        bson_t step = BSON_INITIALIZER;
        if (BSON_ITER_HOLDS_DOCUMENT(&iter)) {
            bson_iter_document(&iter, &len, &data);
            bson_init_static(&step, data, len);
        }
        char *result = scenario_step(scenario, &step);
        bson_string_append(answer, separator);
        bson_string_append(answer, result);
        bson_free(result);
        separator = ", ";
    }
}

static char *run_scenario(const bson_t *request)
{
    struct scenario scenario = {.pool = NULL};
    bson_string_t *answer = bson_string_new("{\"id\": ");
    bson_t id = BSON_INITIALIZER;
    bson_t steps;
    const char *name = text_of(request, "id");
    const char *uri = text_of(request, "uri");

    scenario.db = text_of(request, "db");
    BSON_APPEND_UTF8(&id, "0", name != NULL ? name : "");
    char *quoted = bson_array_as_json(&id, NULL); /* [ "id" ] */
    bson_string_append_printf(answer, "%.*s, \"results\": [", (int)strlen(quoted) - 4, quoted + 2);
    if (uri != NULL && scenario.db != NULL && view_of(request, "steps", &steps)) {
        scenario.pool = pool_of(uri);
        pthread_mutex_init(&scenario.lock, NULL);
        run_steps(&scenario, &steps, answer);
        scenario_release(&scenario);
        pthread_mutex_destroy(&scenario.lock);
    }
    bson_string_append(answer, "]}");
    bson_free(quoted);
    bson_destroy(&id);
    return bson_string_free(answer, false);
}

static char *answer_to(const char *line, size_t len)
{
    bson_error_t error;
    bson_t *request = bson_new_from_json((const uint8_t *)line, (ssize_t)len, &error);
    if (request == NULL) {
        fprintf(stderr, "%s\n", error.message);
        return bson_strdup("{\"results\": [], \"invalid\": \"request\"}");
    }
    char *answer = bson_has_field(request, "describe") ? describe() : run_scenario(request);
    bson_destroy(request);
    return answer;
}

/* libmongoc's own handler writes some levels to stdout, where answers go. */
static void log_line(mongoc_log_level_t level, const char *domain, const char *message,
                     void *context)
{
    (void)context;
    fprintf(stderr, "%s %s: %s\n", mongoc_log_level_str(level), domain, message);
}

int main(void)
{
    char *line = NULL;
    size_t size = 0;
    ssize_t len;

    mongoc_init();
    mongoc_log_set_handler(log_line, NULL);
    while ((len = getline(&line, &size, stdin)) > 0) {
        char *answer = answer_to(line, (size_t)len);
        puts(answer);
        fflush(stdout);
        bson_free(answer);
    }
    free(line);
    while (pools != NULL) {
        struct pool *pool = pools;
        pools = pool->next;
        pool_close(pool);
        bson_free(pool->uri);
        bson_free(pool);
    }
    mongoc_cleanup();
    return 0;
}
