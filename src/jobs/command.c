#include "command_internal.h"

#include <stdio.h>
#include <string.h>

#define ID_MAX_BYTES (17u << 20)

bool rk_ns_parse(struct rk_ns *ns, const char *text)
{
    const char *dot = strchr(text, '.');
    if (dot == NULL || dot == text || dot[1] == '\0' || (size_t)(dot - text) >= sizeof ns->db ||
        strlen(dot + 1) >= sizeof ns->coll) {
        return false;
    }
    (void)snprintf(ns->full, sizeof ns->full, "%s", text);
    (void)snprintf(ns->db, sizeof ns->db, "%.*s", (int)(dot - text), text);
    (void)snprintf(ns->coll, sizeof ns->coll, "%s", dot + 1);
    return true;
}

void rk_id_init(struct rk_id *id)
{
    id->type = 0;
    rk_buf_init(&id->value, ID_MAX_BYTES);
}

void rk_id_deinit(struct rk_id *id)
{
    rk_buf_deinit(&id->value);
    id->type = 0;
}

enum rk_status rk_id_set(struct rk_id *id, uint8_t type, const void *data, size_t len)
{
    rk_buf_clear(&id->value);
    id->type = type;
    return rk_buf_append(&id->value, data, len);
}

enum rk_status rk_id_set_elem(struct rk_id *id, const struct rk_bson_elem *elem)
{
    return rk_id_set(id, elem->type, elem->value, elem->value_len);
}

void rk_bson_put_id(struct rk_bson_writer *w, const char *key, const struct rk_id *id)
{
    rk_bson_put(w, id->type, key, strlen(key), id->value.data, id->value.len);
}

void rk_bson_put_oid(struct rk_bson_writer *w, const char *key, const bson_oid_t *oid)
{
    rk_bson_put(w, RK_BSON_OID, key, strlen(key), oid->bytes, sizeof oid->bytes);
}

void rk_bson_put_string(struct rk_bson_writer *w, const char *key, const char *text)
{
    rk_bson_put_utf8(w, key, text, strlen(text));
}

void rk_bson_begin_doc(struct rk_bson_writer *w, const char *key)
{
    rk_bson_begin_sub(w, RK_BSON_DOCUMENT, key, strlen(key));
}

void rk_bson_begin_array(struct rk_bson_writer *w, const char *key)
{
    rk_bson_begin_sub(w, RK_BSON_ARRAY, key, strlen(key));
}

void rk_bson_put_literal(struct rk_bson_writer *w, const char *key, const char *text)
{
    rk_bson_begin_doc(w, key);
    rk_bson_put_string(w, "$literal", text);
    rk_bson_end(w);
}

void rk_bson_put_majority(struct rk_bson_writer *w, uint32_t wtimeout_ms)
{
    rk_bson_begin_doc(w, "writeConcern");
    rk_bson_put_string(w, "w", "majority");
    rk_bson_put_int64(w, "wtimeout", wtimeout_ms);
    rk_bson_end(w);
}

void rk_bson_append_majority(bson_t *command, uint32_t wtimeout_ms)
{
    BCON_APPEND(command, "writeConcern", "{", "w", BCON_UTF8("majority"), "wtimeout",
                BCON_INT64((int64_t)wtimeout_ms), "}");
}

void rk_bson_put_now_plus(struct rk_bson_writer *w, const char *key, int64_t ms)
{
    rk_bson_begin_doc(w, key);
    rk_bson_begin_array(w, "$add");
    rk_bson_put_string(w, "0", "$$NOW");
    rk_bson_put_int64(w, "1", ms);
    rk_bson_end(w);
    rk_bson_end(w);
}

/* The codes of mongod 6.0 (src/mongo/base/error_codes.yml) that name a passing condition:
 * elections, shutdowns, networks, locks, interrupted or late operations, stale routing, disk. */
bool rk_code_transient(int code)
{
    static const int codes[] = {
        6,   7,   11,   24,    42,    46,    50,    63,    64,    70,    79,    83,  89,
        91,  100, 109,  112,   117,   128,   133,   134,   149,   150,   151,   165, 189,
        202, 216, 234,  237,   251,   262,   269,   279,   282,   314,   317,   327, 358,
        384, 462, 9001, 10107, 11600, 11601, 11602, 13388, 13435, 13436, 14031,
    };
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
        if (codes[i] == code) {
            return true;
        }
    }
    return false;
}

static enum rk_status status_of_code(int code)
{
    return rk_code_transient(code) ? RK_EIO : RK_EREFUSED;
}

static enum rk_status status_of(const bson_error_t *cause)
{
    bool network =
        cause->domain == MONGOC_ERROR_STREAM || cause->domain == MONGOC_ERROR_SERVER_SELECTION;
    bool server = cause->domain == MONGOC_ERROR_SERVER;
    return network ? RK_EIO : server ? status_of_code((int)cause->code) : RK_EREFUSED;
}

static enum rk_status failed(struct rk_error *err, const bson_error_t *cause)
{
    return rk_error_set_code(err, status_of(cause), (int)cause->code, "%s", cause->message);
}

enum rk_status rk_command_error(struct rk_error *err, const char *what, const bson_error_t *cause)
{
    return rk_error_set_code(err, status_of(cause), (int)cause->code, "%s: %s", what,
                             cause->message);
}

static enum rk_status check_write_concern(const struct rk_bson_view *reply, struct rk_error *err)
{
    struct rk_bson_elem elem;
    struct rk_bson_view concern;
    if (!rk_bson_find(reply, "writeConcernError", &elem) || !rk_bson_elem_view(&elem, &concern)) {
        return RK_OK;
    }
    const char *text = "";
    uint32_t len = 0;
    if (rk_bson_find(&concern, "errmsg", &elem)) {
        (void)rk_bson_elem_utf8(&elem, &text, &len);
    }
    /* Applied, but not (yet) safe: as good as not done, and always worth another try. */
    return rk_error_set_code(err, RK_EIO, (int)rk_view_int(&concern, "code"),
                             "write concern not satisfied: %.*s", (int)len, text);
}

enum rk_status rk_reply_check_writes(const bson_t *reply, const char *what, struct rk_error *err)
{
    struct rk_bson_view view = rk_reply_view(reply);
    struct rk_bson_view entry;
    struct rk_bson_elem elem;
    struct rk_bson_iter errors;
    enum rk_status status = RK_OK;
    int code = RK_MONGO_DUPLICATE_KEY;
    if (!rk_bson_find(&view, "writeErrors", &elem)) {
        return RK_OK;
    }
    if (!rk_bson_elem_view(&elem, &entry)) {
        return rk_error_set(err, RK_EIO, "mongod's reply is malformed");
    }
    rk_bson_iter_init(&errors, &entry);
    while (code == RK_MONGO_DUPLICATE_KEY && rk_bson_next(&errors, &elem) == RK_BSON_STEP_ELEM) {
        code = rk_bson_elem_view(&elem, &entry) ? (int)rk_view_int(&entry, "code") : 0;
        /* Without its text, which may hold values. */
        status = rk_error_set_code(err, status_of_code(code), code, "mongod refused %s (code %d)",
                                   what, code);
    }
    return status;
}

bool rk_is_duplicate(enum rk_status status, const struct rk_error *err)
{
    return status == RK_EREFUSED && err->code == RK_MONGO_DUPLICATE_KEY;
}

enum rk_status rk_command_run_bson(mongoc_client_t *client, const char *db, const bson_t *command,
                                   bson_t *reply, struct rk_error *err)
{
    bson_error_t cause;
    if (!mongoc_client_command_simple(client, db, command, NULL, reply, &cause)) {
        return failed(err, &cause);
    }
    struct rk_bson_view view = rk_reply_view(reply);
    return check_write_concern(&view, err);
}

enum rk_status rk_command_run(mongoc_client_t *client, const char *db, const struct rk_buf *command,
                              bson_t *reply, struct rk_error *err)
{
    bson_t view;
    if (!bson_init_static(&view, command->data, command->len)) {
        bson_init(reply);
        return rk_error_set(err, RK_EINVAL, "command is no BSON document");
    }
    return rk_command_run_bson(client, db, &view, reply, err);
}

enum rk_status rk_command_run_on(mongoc_client_t *client, const char *db,
                                 const struct rk_buf *command, mongoc_read_mode_t mode,
                                 uint32_t *server, bson_t *reply, struct rk_error *err)
{
    bson_t view;
    bson_error_t cause;
    enum rk_status status = RK_OK;
    mongoc_read_prefs_t *prefs = mongoc_read_prefs_new(mode);
    mongoc_server_description_t *chosen = mongoc_client_select_server(client, false, prefs, &cause);
    if (chosen == NULL) {
        bson_init(reply);
        status = failed(err, &cause);
        goto done;
    }
    *server = mongoc_server_description_id(chosen);
    if (!bson_init_static(&view, command->data, command->len)) {
        bson_init(reply);
        status = rk_error_set(err, RK_EINVAL, "command is no BSON document");
    } else if (!mongoc_client_command_simple_with_server_id(client, db, &view, prefs, *server,
                                                            reply, &cause)) {
        status = failed(err, &cause);
    }
done:
    mongoc_server_description_destroy(chosen);
    mongoc_read_prefs_destroy(prefs);
    return status;
}

struct rk_bson_view rk_reply_view(const bson_t *reply)
{
    /* By the document's own prefix: gcc 12's fake stack under AddressSanitizer does not keep
     * bson_t's alignment of 128, so UBSan would object to reading its members. */
    const uint8_t *data = bson_get_data(reply);
    return (struct rk_bson_view){data, rk_load_u32(data)};
}

int64_t rk_view_int(const struct rk_bson_view *view, const char *key)
{
    struct rk_bson_elem elem;
    int64_t value = 0;
    if (rk_bson_find(view, key, &elem)) {
        (void)rk_bson_elem_int(&elem, &value);
    }
    return value;
}

bool rk_view_path(const struct rk_bson_view *view, const char *const *keys, size_t n_keys,
                  struct rk_bson_elem *elem)
{
    struct rk_bson_view at = *view;
    for (size_t i = 0; i < n_keys; i++) {
        if (!rk_bson_find(&at, keys[i], elem) ||
            (i + 1 < n_keys && !rk_bson_elem_view(elem, &at))) {
            return false;
        }
    }
    return n_keys > 0;
}

int64_t rk_view_date(const struct rk_bson_view *view, const char *key)
{
    struct rk_bson_elem elem;
    return rk_bson_find(view, key, &elem) && elem.type == RK_BSON_DATE ? rk_load_i64(elem.value)
                                                                       : 0;
}

bool rk_view_oid(const struct rk_bson_view *view, const char *key, bson_oid_t *oid)
{
    struct rk_bson_elem elem;
    if (!rk_bson_find(view, key, &elem) || elem.type != RK_BSON_OID) {
        return false;
    }
    memcpy(oid->bytes, elem.value, sizeof oid->bytes);
    return true;
}

enum rk_status rk_reply_batch(const bson_t *reply, struct rk_bson_iter *docs, struct rk_error *err)
{
    static const char *const path[] = {"cursor", "firstBatch"};
    struct rk_bson_view view = rk_reply_view(reply);
    struct rk_bson_view batch;
    struct rk_bson_elem elem;
    if (!rk_view_path(&view, path, 2, &elem) || !rk_bson_elem_view(&elem, &batch)) {
        return rk_error_set(err, RK_EIO, "mongod's reply has no documents");
    }
    rk_bson_iter_init(docs, &batch);
    return RK_OK;
}

bool rk_batch_next(struct rk_bson_iter *docs, struct rk_bson_view *doc)
{
    struct rk_bson_elem elem;
    return rk_bson_next(docs, &elem) == RK_BSON_STEP_ELEM && rk_bson_elem_view(&elem, doc);
}
