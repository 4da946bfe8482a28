/*
 * Arbitrary bytes as a document and as a reply, through the document and reply rewriters with a
 * fixed policy and fixed keys (tests/unit/policy/fixture.h). Beyond not crashing:
 *   - what is written is valid BSON, and a whole OP_MSG;
 *   - encrypting and then decrypting gives the input back byte for byte;
 *   - in what was encrypted every protected path holds null or an envelope, as a walker that
 *     knows nothing of the policy's tree sees it, and a planted plaintext is gone.
 *
 * Input: one byte of choices, then the document.
 */
#include "../unit/policy/fixture.h"

#include <rekey/policy/reply.h>

#define DEPTH_MAX 200
#define MARKER "PLAINTEXT-MARKER"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static struct fixture f;
static struct rk_policy_set *set;
static const struct rk_policy *policy;
static struct rk_buf sealed, plain, message;

static void check(bool ok, const char *what)
{
    if (!ok) {
        (void)fprintf(stderr, "fuzz_rewrite: %s\n", what);
        abort();
    }
}

static void setup(void)
{
    static const struct rk_legacy_format formats[] = {
        {.cipher = RK_LEGACY_AES_256_CBC,
         .encoding = RK_LEGACY_BASE64,
         .prefix = {0x01},
         .prefix_len = 1,
         .key = (char *)"app",
         .bson_type = RK_BSON_STRING},
        {.cipher = RK_LEGACY_AES_256_GCM,
         .encoding = RK_LEGACY_BINARY,
         .key = (char *)"app",
         .bson_type = RK_BSON_STRING},
    };
    static const struct rk_field_spec fields[] = {
        {.path = "r", .algorithm = RK_ALGORITHM_RANDOM},
        {.path = "d", .algorithm = RK_ALGORITHM_DETERMINISTIC},
        {.path = "c.p", .algorithm = RK_ALGORITHM_RANDOM, .legacy = formats, .n_legacy = 2},
        {.path = "c.q.s", .algorithm = RK_ALGORITHM_RANDOM},
    };
    static const struct rk_policy_spec spec = {.ns = "db.c", .fields = fields, .n_fields = 4};
    fixture_init(&f);
    rk_buf_init(&sealed, FIXTURE_BYTES_MAX);
    rk_buf_init(&plain, FIXTURE_BYTES_MAX);
    rk_buf_init(&message, FIXTURE_BYTES_MAX);
    check(rk_policy_set_new(&spec, 1, RK_UNDECRYPTABLE_ERROR, &set, NULL) == RK_OK, "policy");
    policy = rk_policy_set_at(set, 0);
}

/* Every value that mongod reaches by path (whole components, through arrays) is null or sealed. */
static void check_path(const struct rk_bson_view *view, bool in_array, const char *path)
{
    struct rk_bson_iter iter;
    struct rk_bson_elem elem;
    struct rk_bson_view sub;
    size_t len = strcspn(path, ".");
    rk_bson_iter_init(&iter, view);
    while (rk_bson_next(&iter, &elem) == RK_BSON_STEP_ELEM) {
        if (in_array) {
            if (rk_bson_elem_view(&elem, &sub)) {
                check_path(&sub, elem.type == RK_BSON_ARRAY, path);
            }
        } else if (elem.key_len == len && memcmp(elem.key, path, len) == 0) {
            if (path[len] == '\0') {
                check(elem.type == RK_BSON_NULL || is_envelope(&elem, OLD_KEY) ||
                          is_envelope(&elem, NEW_KEY),
                      "a protected value is not encrypted");
            } else if (rk_bson_elem_view(&elem, &sub)) {
                check_path(&sub, elem.type == RK_BSON_ARRAY, path + len + 1);
            }
        }
    }
}

static void fuzz_document(struct rk_bson_view view, enum rk_undecryptable undecryptable)
{
    struct rk_error err;
    bool valid = rk_bson_validate(&view, DEPTH_MAX);
    enum rk_verdict verdict = encrypt_doc(&f, policy, view, &sealed, &err);
    if (valid && (verdict == RK_VERDICT_FORWARD || verdict == RK_VERDICT_REPLACE)) {
        struct rk_bson_view encrypted = view_of(&sealed);
        check(rk_bson_validate(&encrypted, DEPTH_MAX), "encrypted: not valid BSON");
        for (size_t i = 0; i < policy->n_fields; i++) {
            check_path(&encrypted, false, policy->fields[i].path);
        }
        /* Envelopes that were there before come back as plaintext, or as errors. */
        if (rk_envelope_scan(view.data, view.len) == NULL) {
            verdict = decrypt_doc(&f, RK_UNDECRYPTABLE_ERROR, policy, encrypted, &plain, &err);
            check(verdict == RK_VERDICT_FORWARD || verdict == RK_VERDICT_REPLACE,
                  "what was encrypted does not decrypt");
            check(plain.len == view.len && memcmp(plain.data, view.data, view.len) == 0,
                  "decrypted: not the same bytes");
        }
    }
    verdict = decrypt_doc(&f, undecryptable, policy, view, &plain, &err);
    if (valid && (verdict == RK_VERDICT_FORWARD || verdict == RK_VERDICT_REPLACE)) {
        struct rk_bson_view decrypted = view_of(&plain);
        /* Nested values may bring their own depth with them. */
        check(rk_bson_validate(&decrypted, 2 * DEPTH_MAX), "decrypted: not valid BSON");
    }
}

/* The document beside and above planted plaintext. */
static void fuzz_marker(struct rk_bson_view view)
{
    struct rk_bson_writer w;
    struct rk_error err;
    if (!rk_bson_validate(&view, DEPTH_MAX / 2) ||
        memmem(view.data, view.len, MARKER, strlen(MARKER)) != NULL) {
        return;
    }
    rk_buf_clear(&plain);
    rk_bson_writer_init(&w, &plain);
    rk_bson_begin(&w);
    rk_bson_put_doc(&w, RK_BSON_DOCUMENT, "x", &view);
    rk_bson_begin_sub(&w, RK_BSON_DOCUMENT, "r", 1);
    rk_bson_put_utf8(&w, "m", MARKER, strlen(MARKER));
    rk_bson_put_doc(&w, RK_BSON_ARRAY, "f", &view);
    rk_bson_end(&w);
    rk_bson_put_utf8(&w, "d", MARKER, strlen(MARKER));
    rk_bson_begin_sub(&w, RK_BSON_ARRAY, "c", 1);
    rk_bson_put_doc(&w, RK_BSON_DOCUMENT, "0", &view);
    rk_bson_begin_sub(&w, RK_BSON_DOCUMENT, "1", 1);
    rk_bson_put_utf8(&w, "p", MARKER, strlen(MARKER));
    rk_bson_put_doc(&w, RK_BSON_DOCUMENT, "q", &view);
    rk_bson_end(&w);
    rk_bson_end(&w);
    rk_bson_end(&w);
    enum rk_verdict verdict = encrypt_doc(&f, policy, view_of(&plain), &sealed, &err);
    if (verdict == RK_VERDICT_REPLACE) {
        check(memmem(sealed.data, sealed.len, MARKER, strlen(MARKER)) == NULL, "marker leaked");
    } else {
        check(verdict != RK_VERDICT_FORWARD, "marker forwarded");
    }
}

static void fuzz_reply(struct rk_bson_view view, uint8_t choices)
{
    struct rk_command_info info = {.db = "db", .reply = RK_REPLY_SCAN};
    const struct rk_error refused = {.code = 31041, .message = "db.c: no"};
    struct rk_msg msg;
    struct rk_error err;
    const char *why;
    size_t start;
    if ((choices & 2) != 0) {
        memcpy(info.coll, "c", 2);
        info.policy = policy;
    }
    if ((choices & 4) != 0) {
        info.policy = policy;
        info.distinct_field = &policy->fields[2];
    }
    if ((choices & 32) != 0) {
        check(rk_write_errors_new(&info.write_errors) == RK_OK &&
                  rk_write_errors_add(info.write_errors, 0, &refused) == RK_OK &&
                  rk_write_errors_add(info.write_errors, 3, &refused) == RK_OK,
              "out of memory");
    }
    rk_buf_clear(&message);
    check(rk_msg_begin(&message, 1, 2, 0, &start) == RK_OK &&
              rk_msg_section_body(&message) == RK_OK &&
              rk_buf_append(&message, view.data, view.len) == RK_OK,
          "out of memory");
    if ((choices & 16) != 0) {
        size_t sequence;
        check(rk_msg_section_sequence(&message, "docs", &sequence) == RK_OK &&
                  rk_buf_append(&message, view.data, view.len) == RK_OK,
              "out of memory");
        rk_msg_sequence_end(&message, sequence);
    }
    rk_msg_end(&message, start);
    check(rk_msg_parse(message.data, message.len, &msg, &why) == RK_PARSE_OK, "message");
    enum rk_verdict verdict =
        rk_reply_rewrite(set, &f.crypt, &info, message.data, message.len, &msg, &plain, &err);
    if (verdict == RK_VERDICT_REPLACE) {
        check(rk_msg_parse(plain.data, plain.len, &msg, &why) == RK_PARSE_OK, "reply: no OP_MSG");
        struct rk_bson_view body;
        check(rk_bson_view_init(&body, msg.body, msg.body_len), "reply: no body");
        check(!rk_bson_validate(&view, DEPTH_MAX) || rk_bson_validate(&body, 2 * DEPTH_MAX),
              "reply: not valid BSON");
    } else {
        check(plain.len == 0, "output without REPLACE");
    }
    rk_write_errors_free(info.write_errors);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static const uint32_t absent[] = {0, UNKNOWN_KEY};
    struct rk_bson_view view;
    if (policy == NULL) {
        setup();
    }
    if (len < 1 || !rk_bson_view_init(&view, data + 1, len - 1)) {
        return 0;
    }
    f.crypt.absent_keys = absent;
    f.crypt.n_absent = (data[0] & 8) != 0 ? 2 : 0;
    fuzz_document(view, (data[0] & 1) != 0 ? RK_UNDECRYPTABLE_LEAVE : RK_UNDECRYPTABLE_ERROR);
    fuzz_marker(view);
    fuzz_reply(view, data[0]);
    return 0;
}
