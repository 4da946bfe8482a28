/*
 * Arbitrary bytes as a request, through rk_msg_parse and rk_command_rewrite with a fixed policy
 * and fixed keys (tests/unit/policy/fixture.h). Beyond not crashing:
 *   - what would be sent is a whole OP_MSG of valid BSON with all its sections;
 *   - in every insert, update, findAndModify and bulkWrite of the protected namespace that would be
 *     sent, a walker that knows nothing of the policy's tree finds null or an envelope at each
 *     protected path, whatever operator names it;
 *   - plaintext planted at a protected path beside the fuzzer's own bytes is gone.
 *
 * Input: one byte that chooses the way in, then
 *   0     the sections of an OP_MSG
 *   1..3  a document: inserted, applied as an update, used as a filter, each with a marker
 */
#include "../unit/policy/fixture.h"

#include <rekey/policy/command.h>

#define MARKER "PLAINTEXT-MARKER"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static struct fixture f;
static struct rk_policy_set *set;
static struct rk_buf message;
static struct rk_buf out;

static const char *const paths[] = {"r", "d", "c.p", "c.q.s"};
#define N_PATHS (sizeof paths / sizeof paths[0])

static void check(bool ok, const char *what)
{
    if (!ok) {
        (void)fprintf(stderr, "fuzz_op_msg: %s\n", what);
        abort();
    }
}

static void setup(void)
{
    static const struct rk_field_spec fields[] = {
        {.path = "r", .algorithm = RK_ALGORITHM_RANDOM},
        {.path = "d", .algorithm = RK_ALGORITHM_DETERMINISTIC},
        {.path = "c.p", .algorithm = RK_ALGORITHM_RANDOM},
        {.path = "c.q.s", .algorithm = RK_ALGORITHM_DETERMINISTIC},
    };
    static const struct rk_policy_spec spec = {.ns = "db.c", .fields = fields, .n_fields = 4};
    fixture_init(&f);
    rk_buf_init(&message, FIXTURE_BYTES_MAX);
    rk_buf_init(&out, FIXTURE_BYTES_MAX);
    check(rk_policy_set_new(&spec, 1, RK_UNDECRYPTABLE_ERROR, &set, NULL) == RK_OK, "policy");
}

/* ---- what mongod would store, seen without the policy's own code */

static void check_sealed(const struct rk_bson_elem *elem)
{
    check(elem->type == RK_BSON_NULL || is_envelope(elem, OLD_KEY) || is_envelope(elem, NEW_KEY),
          "a protected value is not encrypted");
}

/* Every value that mongod reaches by path through documents and arrays. */
static void check_path(const struct rk_bson_view *view, bool in_array, const char *path)
{
    struct rk_bson_iter iter;
    struct rk_bson_elem elem;
    struct rk_bson_view sub;
    size_t len = strcspn(path, ".");
    rk_bson_iter_init(&iter, view);
    while (rk_bson_next(&iter, &elem) == RK_BSON_STEP_ELEM) {
        bool match = elem.key_len == len && memcmp(elem.key, path, len) == 0;
        if (!in_array && match && path[len] == '\0') {
            check_sealed(&elem);
        } else if ((in_array || match) && rk_bson_elem_view(&elem, &sub)) {
            check_path(&sub, elem.type == RK_BSON_ARRAY, in_array ? path : path + len + 1);
        }
    }
}

static bool chooses_element(const char *component, size_t len)
{
    return (len > 0 && strspn(component, "0123456789") == len) ||
           (len == 1 && component[0] == '$') ||
           (len > 2 && strncmp(component, "$[", 2) == 0 && component[len - 1] == ']');
}

/* A dotted key of an update, without what chooses elements of arrays (first it is a name:
 * documents are no arrays). Empty names stay: mongod refuses them. False where it does not fit. */
static bool plain_path(const char *key, char *to, size_t size)
{
    const char *start = key;
    size_t used = 0;
    for (size_t len; *key != '\0'; key += len + (key[len] == '.')) {
        len = strcspn(key, ".");
        if (key > start && chooses_element(key, len)) {
            continue;
        }
        int n = snprintf(to + used, size - used, "%s%.*s", key > start ? "." : "", (int)len, key);
        if (n < 0 || (size_t)n >= size - used) {
            return false;
        }
        used += (size_t)n;
    }
    to[used] = '\0';
    return true;
}

static void check_operator(const struct rk_bson_elem *op)
{
    struct rk_bson_view fields;
    struct rk_bson_iter iter;
    struct rk_bson_elem field;
    struct rk_bson_view sub;
    char path[64];
    if (strcmp(op->key, "$unset") == 0 || !rk_bson_elem_view(op, &fields)) {
        return;
    }
    rk_bson_iter_init(&iter, &fields);
    while (rk_bson_next(&iter, &field) == RK_BSON_STEP_ELEM) {
        if (!plain_path(field.key, path, sizeof path)) {
            continue;
        }
        size_t len = strlen(path);
        for (size_t i = 0; i < N_PATHS; i++) {
            if (strcmp(path, paths[i]) == 0) {
                check_sealed(&field);
            }
            if (strncmp(path, paths[i], len) == 0 && paths[i][len] == '.' &&
                rk_bson_elem_view(&field, &sub)) {
                check_path(&sub, field.type == RK_BSON_ARRAY, paths[i] + len + 1);
            }
        }
    }
}

static void check_update(const struct rk_bson_elem *u)
{
    struct rk_bson_view view;
    struct rk_bson_iter iter;
    struct rk_bson_elem elem;
    if (u->type != RK_BSON_DOCUMENT || !rk_bson_elem_view(u, &view)) {
        return; /* a pipeline: nothing of it may name a protected path */
    }
    rk_bson_iter_init(&iter, &view);
    bool first = rk_bson_next(&iter, &elem) == RK_BSON_STEP_ELEM;
    if (!first || elem.key[0] != '$') {
        for (size_t i = 0; i < N_PATHS; i++) {
            check_path(&view, false, paths[i]);
        }
        return;
    }
    do {
        check_operator(&elem);
    } while (rk_bson_next(&iter, &elem) == RK_BSON_STEP_ELEM);
}

/* Each document under this name: members of arrays in the body, documents of sequences. */
static void each_member(const struct rk_msg *msg, const char *list,
                        void (*see)(void *arg, const struct rk_bson_view *member), void *arg)
{
    struct rk_bson_view body = {msg->body, msg->body_len};
    struct rk_bson_view view;
    struct rk_bson_iter iter;
    struct rk_bson_iter members;
    struct rk_bson_elem elem;
    struct rk_bson_elem member;
    rk_bson_iter_init(&iter, &body);
    while (rk_bson_next(&iter, &elem) == RK_BSON_STEP_ELEM) {
        if (strcmp(elem.key, list) != 0 || !rk_bson_elem_view(&elem, &view)) {
            continue;
        }
        rk_bson_iter_init(&members, &view);
        while (rk_bson_next(&members, &member) == RK_BSON_STEP_ELEM) {
            if (rk_bson_elem_view(&member, &view)) {
                see(arg, &view);
            }
        }
    }
    for (unsigned i = 0; i < msg->n_sequences; i++) {
        const struct rk_msg_sequence *seq = &msg->sequences[i];
        for (uint32_t off = 0; strcmp(seq->id, list) == 0 && off < seq->docs_len; off += view.len) {
            check(rk_bson_view_init(&view, seq->docs + off, seq->docs_len - off),
                  "a sequence's document is cut short");
            see(arg, &view);
        }
    }
}

static void check_document(void *arg, const struct rk_bson_view *document)
{
    (void)arg;
    for (size_t i = 0; i < N_PATHS; i++) {
        check_path(document, false, paths[i]);
    }
}

/* name: of the field that is an update. */
static void check_statement(void *name, const struct rk_bson_view *statement)
{
    struct rk_bson_iter iter;
    struct rk_bson_elem elem;
    rk_bson_iter_init(&iter, statement);
    while (rk_bson_next(&iter, &elem) == RK_BSON_STEP_ELEM) {
        if (strcmp(elem.key, name) == 0) {
            check_update(&elem);
        }
    }
}

/* ---- bulkWrite */

struct namespaces {
    bool protected[64];
    unsigned n;
};

static void see_namespace(void *arg, const struct rk_bson_view *info)
{
    struct namespaces *seen = arg;
    struct rk_bson_elem ns;
    const char *text;
    uint32_t len;
    if (seen->n < sizeof seen->protected) {
        seen->protected[seen->n++] = rk_bson_find(info, "ns", &ns) &&
                                     rk_bson_elem_utf8(&ns, &text, &len) && len == 4 &&
                                     memcmp(text, "db.c", 4) == 0;
    }
}

static void check_op(void *arg, const struct rk_bson_view *op)
{
    const struct namespaces *seen = arg;
    struct rk_bson_iter iter;
    struct rk_bson_elem kind;
    struct rk_bson_elem elem;
    struct rk_bson_view document;
    int64_t index;
    char mods[] = "updateMods";
    rk_bson_iter_init(&iter, op);
    if (rk_bson_next(&iter, &kind) != RK_BSON_STEP_ELEM || !rk_bson_elem_int(&kind, &index) ||
        index < 0 || index >= seen->n || !seen->protected[index]) {
        return;
    }
    check_statement(mods, op);
    if (rk_bson_find(op, "document", &elem) && rk_bson_elem_view(&elem, &document)) {
        check_document(NULL, &document);
    }
}

/* Writes to the protected collection that mongod would carry out. */
static void check_write(const struct rk_msg *msg)
{
    struct rk_bson_view body = {msg->body, msg->body_len};
    struct rk_bson_iter iter;
    struct rk_bson_elem elem;
    struct namespaces seen = {.n = 0};
    char u[] = "u";
    char update[] = "update";
    rk_bson_iter_init(&iter, &body);
    check(rk_bson_next(&iter, &elem) == RK_BSON_STEP_ELEM, "an empty command is sent");
    if (strcmp(elem.key, "insert") == 0) {
        each_member(msg, "documents", check_document, NULL);
    } else if (strcmp(elem.key, "update") == 0) {
        each_member(msg, "updates", check_statement, u);
    } else if (strcasecmp(elem.key, "findAndModify") == 0) {
        check_statement(update, &body);
    } else if (strcmp(elem.key, "bulkWrite") == 0) {
        each_member(msg, "nsInfo", see_namespace, &seen);
        each_member(msg, "ops", check_op, &seen);
    }
}

static void check_valid(const struct rk_msg *msg)
{
    /* Envelopes add no depth, lists of them in filters two levels. */
    const unsigned depth = RK_COMMAND_DEPTH_MAX + 2;
    struct rk_bson_view view;
    check(rk_bson_view_init(&view, msg->body, msg->body_len) && rk_bson_validate(&view, depth),
          "the body is not valid BSON");
    for (unsigned i = 0; i < msg->n_sequences; i++) {
        for (uint32_t off = 0; off < msg->sequences[i].docs_len; off += view.len) {
            check(rk_bson_view_init(&view, msg->sequences[i].docs + off,
                                    msg->sequences[i].docs_len - off) &&
                      rk_bson_validate(&view, depth),
                  "a sequence's document is not valid BSON");
        }
    }
}

/* ---- ways in */

static enum rk_verdict rewrite(struct rk_msg *sent)
{
    struct rk_command_info info;
    struct rk_error err = {0};
    struct rk_msg msg;
    const char *why;
    if (rk_msg_parse(message.data, message.len, &msg, &why) != RK_PARSE_OK) {
        return RK_VERDICT_REJECT;
    }
    enum rk_verdict verdict =
        rk_command_rewrite(set, &f.crypt, message.data, message.len, &msg, &out, &info, &err);
    check(verdict != RK_VERDICT_HOLD, "held, though there is a current key");
    check(verdict != RK_VERDICT_REJECT || (err.code != 0 && err.message[0] != '\0'),
          "rejected without a reason");
    check(info.write_errors == NULL || verdict == RK_VERDICT_REPLACE, "errors of statements lost");
    rk_write_errors_free(info.write_errors);
    *sent = msg;
    if (verdict == RK_VERDICT_REPLACE) {
        check(rk_msg_parse(out.data, out.len, sent, &why) == RK_PARSE_OK, "not an OP_MSG any more");
        check(sent->n_sequences == msg.n_sequences, "a section was lost");
        check_valid(sent);
    }
    if ((info.policy != NULL || strcmp(info.name, "bulkWrite") == 0) &&
        verdict != RK_VERDICT_REJECT) {
        check_write(sent);
    }
    return verdict;
}

static bool message_of(const uint8_t *sections, size_t len)
{
    size_t off;
    rk_buf_clear(&message);
    if (rk_msg_begin(&message, 1, 0, 0, &off) != RK_OK ||
        rk_buf_append(&message, sections, len) != RK_OK) {
        return false;
    }
    rk_msg_end(&message, off);
    return true;
}

static void copy_elements(struct rk_bson_writer *w, const struct rk_bson_view *view)
{
    struct rk_bson_iter iter;
    struct rk_bson_elem elem;
    rk_bson_iter_init(&iter, view);
    while (rk_bson_next(&iter, &elem) == RK_BSON_STEP_ELEM) {
        rk_bson_copy(w, &elem);
    }
}

static void put_marker(struct rk_bson_writer *w)
{
    rk_bson_put_utf8(w, "d", MARKER, strlen(MARKER));
}

/* {update: "c", updates: [{q: {}, u: {<document>, $set: {d: marker}}}]} and its like. */
static void write_command(struct rk_bson_writer *w, unsigned way, const struct rk_bson_view *doc)
{
    static const char *const names[] = {"insert", "update", "delete"};
    static const char *const lists[] = {"documents", "updates", "deletes"};
    rk_bson_begin(w);
    rk_bson_put_utf8(w, names[way - 1], "c", 1);
    rk_bson_put_utf8(w, "$db", "db", 2);
    rk_bson_begin_sub(w, RK_BSON_ARRAY, lists[way - 1], strlen(lists[way - 1]));
    rk_bson_begin_sub(w, RK_BSON_DOCUMENT, "0", 1);
    if (way == 1) {
        copy_elements(w, doc);
        put_marker(w);
    } else {
        const char *key = way == 2 ? "u" : "q";
        rk_bson_begin_sub(w, RK_BSON_DOCUMENT, key, 1);
        copy_elements(w, doc);
        if (way == 2) {
            rk_bson_begin_sub(w, RK_BSON_DOCUMENT, "$set", 4);
        }
        put_marker(w);
        if (way == 2) {
            rk_bson_end(w);
        }
        rk_bson_end(w);
    }
    rk_bson_end(w);
    rk_bson_end(w);
    rk_bson_end(w);
}

static void fuzz_marker(unsigned way, const uint8_t *data, size_t len)
{
    struct rk_bson_view doc;
    struct rk_bson_writer w;
    struct rk_msg sent;
    size_t off;
    if (!rk_bson_view_init(&doc, data, len) || !rk_bson_validate(&doc, RK_COMMAND_DEPTH_MAX) ||
        memmem(data, len, MARKER, strlen(MARKER)) != NULL) {
        return;
    }
    rk_buf_clear(&message);
    rk_bson_writer_init(&w, &message);
    if (rk_msg_begin(&message, 1, 0, 0, &off) != RK_OK || rk_msg_section_body(&message) != RK_OK) {
        return;
    }
    write_command(&w, way, &doc);
    if (rk_bson_writer_status(&w) != RK_OK) {
        return;
    }
    rk_msg_end(&message, off);
    enum rk_verdict verdict = rewrite(&sent);
    /* Behind plain names "$set" is no operator but a name, which the policy does not know. */
    bool replacement = way == 2 && doc.len > 5 && doc.data[5] != '$';
    if (verdict == RK_VERDICT_REJECT || replacement) {
        return;
    }
    check(verdict == RK_VERDICT_REPLACE, "a marker was forwarded");
    check(memmem(out.data, out.len, MARKER, strlen(MARKER)) == NULL, "a marker is left");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct rk_msg sent;
    if (len == 0) {
        return 0;
    }
    if (f.aead == NULL) {
        setup();
    }
    unsigned way = data[0] % 4;
    if (way > 0) {
        fuzz_marker(way, data + 1, len - 1);
    } else if (message_of(data + 1, len - 1)) {
        (void)rewrite(&sent);
    }
    return 0;
}
