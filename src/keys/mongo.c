#include <rekey/keys/mongo.h>

#include <mongoc/mongoc.h>

#define SERVER_SELECTION_TIMEOUT_MS 5000
#define CONNECT_TIMEOUT_MS 5000
#define SOCKET_TIMEOUT_MS 60000
#define WRITE_TIMEOUT_MS 30000

void rk_mongo_init(void)
{
    mongoc_init();
    mongoc_log_set_handler(NULL, NULL);
}

void rk_mongo_cleanup(void)
{
    mongoc_cleanup();
}

enum rk_status rk_mongo_error(struct rk_error *err, const char *what, const bson_error_t *cause)
{
    enum rk_status status = RK_EIO;
    if (cause->domain == MONGOC_ERROR_SERVER_SELECTION) {
        status = RK_ETIMEOUT;
    } else if (cause->domain == MONGOC_ERROR_SERVER && cause->code == RK_MONGO_DUPLICATE_KEY) {
        status = RK_ESTATE;
    }
    return rk_error_set(err, status, "%s: %s", what, cause->message);
}

static bool set_default(mongoc_uri_t *uri, const char *option, int32_t value)
{
    return mongoc_uri_has_option(uri, option) || mongoc_uri_set_option_as_int32(uri, option, value);
}

/* An unescaped '@' in a password makes its rest look like a host, which later errors would name. */
static bool hosts_ok(const mongoc_uri_t *uri)
{
    for (const mongoc_host_list_t *host = mongoc_uri_get_hosts(uri); host != NULL;
         host = host->next) {
        if (strchr(host->host, '@') != NULL) {
            return false;
        }
    }
    return true;
}

enum rk_status rk_mongo_pool_new(const char *text, const char *appname, uint32_t heartbeat_ms,
                                 mongoc_client_pool_t **out, struct rk_error *err)
{
    enum rk_status status = RK_OK;
    mongoc_client_pool_t *pool = NULL;
    bson_error_t cause;
    /* The parser's own message may quote the password, so it is not passed on. */
    mongoc_uri_t *uri = mongoc_uri_new_with_error(text, &cause);
    if (uri == NULL || !hosts_ok(uri)) {
        status = rk_error_set(err, RK_EINVAL,
                              "upstream.uri is not a valid connection string: it must read "
                              "mongodb://[user:password@]host:port[,...]/[?options], with special "
                              "characters in user and password percent-encoded");
        goto done;
    }
    if (!set_default(uri, MONGOC_URI_SERVERSELECTIONTIMEOUTMS, SERVER_SELECTION_TIMEOUT_MS) ||
        !set_default(uri, MONGOC_URI_CONNECTTIMEOUTMS, CONNECT_TIMEOUT_MS) ||
        !set_default(uri, MONGOC_URI_SOCKETTIMEOUTMS, SOCKET_TIMEOUT_MS) ||
        /* libmongoc (1.23) leaks a read's first reply when it finds no server for the second
         * attempt. Whoever reads here looks again by itself. */
        !mongoc_uri_set_option_as_bool(uri, MONGOC_URI_RETRYREADS, false) ||
        (heartbeat_ms != 0 &&
         !set_default(uri, MONGOC_URI_HEARTBEATFREQUENCYMS, (int32_t)heartbeat_ms))) {
        status = rk_error_set(err, RK_ENOMEM, "out of memory");
        goto done;
    }
    pool = mongoc_client_pool_new_with_error(uri, &cause);
    if (pool == NULL) {
        status = rk_error_set(err, RK_EINVAL, "upstream.uri: %s", cause.message);
        goto done;
    }
    (void)mongoc_client_pool_set_error_api(pool, MONGOC_ERROR_API_VERSION_2);
    (void)mongoc_client_pool_set_appname(pool, appname);
    *out = pool;
done:
    mongoc_uri_destroy(uri);
    return status;
}

enum rk_status rk_mongo_ping(mongoc_client_pool_t *pool, struct rk_error *err)
{
    enum rk_status status = RK_OK;
    bson_error_t cause;
    bson_t command = BSON_INITIALIZER;
    mongoc_client_t *client = mongoc_client_pool_pop(pool);
    BSON_APPEND_INT32(&command, "ping", 1);
    if (!mongoc_client_command_simple(client, "admin", &command, NULL, NULL, &cause)) {
        status = rk_mongo_error(err, "cannot reach mongod", &cause);
    }
    mongoc_client_pool_push(pool, client);
    bson_destroy(&command);
    return status;
}

void rk_mongo_majority_reads(bson_t *opts)
{
    bson_t concern;
    BSON_APPEND_DOCUMENT_BEGIN(opts, "readConcern", &concern);
    BSON_APPEND_UTF8(&concern, "level", "majority");
    bson_append_document_end(opts, &concern);
}

void rk_mongo_majority_writes(bson_t *opts)
{
    bson_t concern;
    BSON_APPEND_DOCUMENT_BEGIN(opts, "writeConcern", &concern);
    BSON_APPEND_UTF8(&concern, "w", "majority");
    BSON_APPEND_INT32(&concern, "wtimeout", WRITE_TIMEOUT_MS);
    bson_append_document_end(opts, &concern);
}

enum rk_status rk_mongo_now(mongoc_client_t *client, int64_t *now_ms, struct rk_error *err)
{
    enum rk_status status = RK_OK;
    bson_error_t cause;
    bson_t reply;
    bson_iter_t iter;
    bson_t *command = BCON_NEW("hello", BCON_INT32(1));
    mongoc_read_prefs_t *primary = mongoc_read_prefs_new(MONGOC_READ_PRIMARY);
    if (!mongoc_client_command_simple(client, "admin", command, primary, &reply, &cause)) {
        status = rk_mongo_error(err, "cannot ask for the server's time", &cause);
    } else if (!bson_iter_init_find(&iter, &reply, "localTime") ||
               !BSON_ITER_HOLDS_DATE_TIME(&iter)) {
        status = rk_error_set(err, RK_EIO, "the server does not tell its time");
    } else {
        *now_ms = bson_iter_date_time(&iter);
    }
    mongoc_read_prefs_destroy(primary);
    bson_destroy(&reply);
    bson_destroy(command);
    return status;
}
