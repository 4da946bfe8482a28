/* Replies: the shapes that mongod sends, decrypted; and the proxy's own error replies. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "fixture.h"

#include <rekey/policy/reply.h>

#define LEGACY_SSN "AQABAgMEBQYHCAkKCwwNDg8h7yrJw4EsTgpUEvRB9KCg"   /* 078-05-1120 */
#define LEGACY_PHONE "AQABAgMEBQYHCAkKCwwNDg83KbVsDJsy3NmUKJ8Gv8eJ" /* 555-0100 */
#define LEGACY_OTHER "AQABAgMEBQYHCAkKCwwNDg+K1MwqJrknkP4ktPInlkfV" /* does not open */

static struct fixture f;
static struct rk_policy_set *set;
static struct rk_buf docs, sealed, message, out, expected;
static struct rk_error err;
static struct rk_command_info info;

static int setup(void **state)
{
    (void)state;
    static const struct rk_legacy_format format = {.cipher = RK_LEGACY_AES_256_CBC,
                                                   .encoding = RK_LEGACY_BASE64,
                                                   .prefix = {0x01},
                                                   .prefix_len = 1,
                                                   .key = (char *)"app",
                                                   .bson_type = RK_BSON_STRING};
    static const struct rk_field_spec plain_fields[] = {
        {.path = "ssn", .algorithm = RK_ALGORITHM_DETERMINISTIC},
        {.path = "contacts.phone", .algorithm = RK_ALGORITHM_RANDOM},
    };
    static const struct rk_field_spec legacy_fields[] = {
        {.path = "ssn", .algorithm = RK_ALGORITHM_RANDOM, .legacy = &format, .n_legacy = 1},
        {.path = "tags", .algorithm = RK_ALGORITHM_RANDOM, .legacy = &format, .n_legacy = 1},
        {.path = "contacts.phone",
         .algorithm = RK_ALGORITHM_RANDOM,
         .legacy = &format,
         .n_legacy = 1},
    };
    static const struct rk_policy_spec specs[] = {
        {.ns = "db.people", .fields = plain_fields, .n_fields = 2},
        {.ns = "db.old", .fields = legacy_fields, .n_fields = 3},
    };
    struct rk_buf *const bufs[] = {&docs, &sealed, &message, &out, &expected};
    for (size_t i = 0; i < sizeof bufs / sizeof bufs[0]; i++) {
        rk_buf_init(bufs[i], FIXTURE_BYTES_MAX);
    }
    fixture_init(&f);
    return rk_policy_set_new(specs, 2, RK_UNDECRYPTABLE_ERROR, &set, &err) == RK_OK ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    struct rk_buf *const bufs[] = {&docs, &sealed, &message, &out, &expected};
    for (size_t i = 0; i < sizeof bufs / sizeof bufs[0]; i++) {
        rk_buf_deinit(bufs[i]);
    }
    rk_policy_set_unref(set);
    fixture_deinit(&f);
    return 0;
}

static const struct rk_policy *policy_of(const char *coll)
{
    return rk_policy_find(set, "db", 2, coll, strlen(coll));
}

static void request(const char *coll)
{
    info = (struct rk_command_info){.reply = RK_REPLY_SCAN, .db = "db"};
    (void)snprintf(info.coll, sizeof info.coll, "%s", coll);
    info.policy = policy_of(coll);
}

/* The document encrypted under coll's policy with the given key as current. */
static struct rk_bson_view seal_doc(const char *coll, uint32_t key_id, const char *json)
{
    rk_buf_clear(&docs);
    fixture_keys(&f, key_id);
    struct rk_bson_view plain = json_doc(&docs, json);
    assert_int_not_equal(encrypt_doc(&f, policy_of(coll), plain, &sealed, &err), RK_VERDICT_REJECT);
    fixture_keys(&f, NEW_KEY);
    return view_of(&sealed);
}

static size_t open_message(struct rk_buf *buf, uint32_t flags)
{
    size_t start = 0;
    rk_buf_clear(buf);
    assert_int_equal(rk_msg_begin(buf, 41, 42, flags, &start), RK_OK);
    assert_int_equal(rk_msg_section_body(buf), RK_OK);
    return start;
}

static void json_message(struct rk_buf *buf, uint32_t flags, const char *json)
{
    size_t start = open_message(buf, flags);
    (void)json_doc(buf, json);
    rk_msg_end(buf, start);
}

/* {cursor: {id, ns, <batch>: [docs...]}, ok: 1} */
static void cursor_message(const char *batch, const struct rk_bson_view *view, size_t n)
{
    char key[24];
    struct rk_bson_writer w;
    size_t start = open_message(&message, 0);
    rk_bson_writer_init(&w, &message);
    rk_bson_begin(&w);
    rk_bson_begin_sub(&w, RK_BSON_DOCUMENT, "cursor", 6);
    rk_bson_put_int64(&w, "id", 0);
    rk_bson_begin_sub(&w, RK_BSON_ARRAY, batch, strlen(batch));
    for (size_t i = 0; i < n; i++) {
        (void)snprintf(key, sizeof key, "%zu", i);
        rk_bson_put_doc(&w, RK_BSON_DOCUMENT, key, &view[i]);
    }
    rk_bson_end(&w);
    rk_bson_end(&w);
    rk_bson_put_double(&w, "ok", 1.0);
    rk_bson_end(&w);
    assert_int_equal(rk_bson_writer_status(&w), RK_OK);
    rk_msg_end(&message, start);
}

static enum rk_verdict rewrite(void)
{
    struct rk_msg msg;
    const char *why = "";
    err = (struct rk_error){0};
    if (rk_msg_parse(message.data, message.len, &msg, &why) != RK_PARSE_OK) {
        fail_msg("%s", why);
    }
    enum rk_verdict verdict =
        rk_reply_rewrite(set, &f.crypt, &info, message.data, message.len, &msg, &out, &err);
    if (verdict == RK_VERDICT_REPLACE) {
        assert_int_equal(rk_msg_parse(out.data, out.len, &msg, &why), RK_PARSE_OK);
    } else {
        assert_int_equal(out.len, 0);
    }
    return verdict;
}

static void assert_out(void)
{
    assert_int_equal(out.len, expected.len);
    assert_memory_equal(out.data, expected.data, expected.len);
}

/* The body of what came out, whole. */
static struct rk_bson_view out_body(void)
{
    struct rk_bson_view view = {0};
    assert_true(rk_bson_view_init(&view, out.data + 21, out.len - 21));
    assert_true(rk_bson_validate(&view, 200));
    return view;
}

static void assert_text(const char *path, const char *text)
{
    struct rk_bson_elem elem;
    const char *found;
    uint32_t len;
    if (!find_path(out_body(), path, &elem) || !rk_bson_elem_utf8(&elem, &found, &len)) {
        fail_msg("no text at %s", path);
    }
    assert_string_equal(found, text);
}

static void test_forward(void **state)
{
    (void)state;
    request("people");
    json_message(&message, 0, "{'cursor': {'firstBatch': [{'ssn': 'x'}], 'id': 0}, 'ok': 1.0}");
    assert_int_equal(rewrite(), RK_VERDICT_FORWARD);

    struct rk_bson_view doc = seal_doc("people", NEW_KEY, "{'ssn': 'x'}");
    cursor_message("firstBatch", &doc, 1);
    info.reply = RK_REPLY_PASS;
    assert_int_equal(rewrite(), RK_VERDICT_FORWARD);
    info.reply = RK_REPLY_HELLO;
    assert_int_equal(rewrite(), RK_VERDICT_FORWARD);

    /* Legacy readers that find nothing to read. */
    request("old");
    json_message(&message, 0,
                 "{'cursor': {'firstBatch': [{'ssn': 'x', 'tags': ['a']}]}, 'ok': 1.0}");
    assert_int_equal(rewrite(), RK_VERDICT_FORWARD);
}

static void test_batches(void **state)
{
    (void)state;
    static const char *const batches[] = {"firstBatch", "nextBatch"};
    request("people");
    for (size_t i = 0; i < 2; i++) {
        rk_buf_clear(&expected);
        struct rk_bson_view view[2];
        view[1] = json_doc(&expected, "{'ssn': 'never encrypted'}");
        view[0] = seal_doc("people", OLD_KEY, "{'_id': 1, 'ssn': 'x', 'contacts': [{'phone': 1}]}");
        cursor_message(batches[i], view, 2);
        assert_int_equal(rewrite(), RK_VERDICT_REPLACE);
        char path[64];
        (void)snprintf(path, sizeof path, "cursor.%s.0.ssn", batches[i]);
        assert_text(path, "x");
        (void)snprintf(path, sizeof path, "cursor.%s.1.ssn", batches[i]);
        assert_text(path, "never encrypted");
    }
    rk_buf_clear(&docs);
    struct rk_bson_view plain =
        json_doc(&docs, "{'_id': 1, 'ssn': 'x', 'contacts': [{'phone': 1}]}");
    struct rk_bson_elem elem;
    assert_true(find_path(out_body(), "cursor.nextBatch.0", &elem));
    assert_int_equal(elem.value_len, plain.len);
    assert_memory_equal(elem.value, plain.data, plain.len);
}

/* Views, $lookup and renames: no policy known, but envelopes speak for themselves. */
static void test_without_policy(void **state)
{
    (void)state;
    request("some_view");
    assert_null(info.policy);
    struct rk_bson_view doc = seal_doc("people", NEW_KEY, "{'ssn': 'x'}");
    cursor_message("firstBatch", &doc, 1);
    assert_int_equal(rewrite(), RK_VERDICT_REPLACE);
    assert_text("cursor.firstBatch.0.ssn", "x");
}

static void test_header(void **state)
{
    (void)state;
    request("people");
    struct rk_bson_view doc = seal_doc("people", NEW_KEY, "{'ssn': 'x'}");
    cursor_message("nextBatch", &doc, 1);
    uint8_t crc[4];
    rk_store_u32(message.data, (uint32_t)message.len + 4);
    rk_store_u32(message.data + 16, RK_MSG_MORE_TO_COME | RK_MSG_CHECKSUM_PRESENT);
    rk_store_u32(crc, rk_crc32c(message.data, message.len));
    assert_int_equal(rk_buf_append(&message, crc, sizeof crc), RK_OK);
    assert_int_equal(rewrite(), RK_VERDICT_REPLACE);
    struct rk_msg msg;
    const char *why;
    assert_int_equal(rk_msg_parse(out.data, out.len, &msg, &why), RK_PARSE_OK);
    assert_int_equal(msg.flags, RK_MSG_MORE_TO_COME);
    assert_int_equal(msg.frame.request_id, 41);
    assert_int_equal(msg.frame.response_to, 42);
}

static void test_sequences(void **state)
{
    (void)state;
    request("people");
    struct rk_bson_view doc = seal_doc("people", NEW_KEY, "{'ssn': 'x'}");
    size_t seq = 0;
    json_message(&message, 0, "{'ok': 1.0}");
    assert_int_equal(rk_msg_section_sequence(&message, "docs", &seq), RK_OK);
    assert_int_equal(rk_buf_append(&message, doc.data, doc.len), RK_OK);
    assert_int_equal(rk_buf_append(&message, doc.data, doc.len), RK_OK);
    rk_msg_sequence_end(&message, seq);
    rk_msg_end(&message, 0);
    assert_int_equal(rewrite(), RK_VERDICT_REPLACE);

    json_message(&expected, 0, "{'ok': 1.0}");
    assert_int_equal(rk_msg_section_sequence(&expected, "docs", &seq), RK_OK);
    (void)json_doc(&expected, "{'ssn': 'x'}");
    (void)json_doc(&expected, "{'ssn': 'x'}");
    rk_msg_sequence_end(&expected, seq);
    rk_msg_end(&expected, 0);
    assert_out();
}

static void test_legacy(void **state)
{
    (void)state;
    request("old");
    json_message(&message, 0,
                 "{'cursor': {'firstBatch': [{'ssn': '" LEGACY_SSN "', 'x': '" LEGACY_SSN
                 "', 'contacts': [{'phone': '" LEGACY_PHONE "'}]}], 'id': 0}, 'ok': 1.0}");
    assert_int_equal(rewrite(), RK_VERDICT_REPLACE);
    json_message(&expected, 0,
                 "{'cursor': {'firstBatch': [{'ssn': '078-05-1120', 'x': '" LEGACY_SSN
                 "', 'contacts': [{'phone': '555-0100'}]}], 'id': 0}, 'ok': 1.0}");
    assert_out();

    /* findAndModify; a legacy-looking value elsewhere in the reply is none. */
    json_message(&message, 0,
                 "{'lastErrorObject': {'n': 1}, 'value': {'tags': ['" LEGACY_SSN
                 "', 'a']}, 'ssn': '" LEGACY_SSN "', 'ok': 1.0}");
    assert_int_equal(rewrite(), RK_VERDICT_REPLACE);
    json_message(&expected, 0,
                 "{'lastErrorObject': {'n': 1}, 'value': {'tags': ['078-05-1120', 'a']}, 'ssn': "
                 "'" LEGACY_SSN "', 'ok': 1.0}");
    assert_out();
    json_message(&message, 0, "{'value': null, 'ok': 1.0}");
    assert_int_equal(rewrite(), RK_VERDICT_FORWARD);

    json_message(&message, 0, "{'cursor': {'nextBatch': [{'ssn': '" LEGACY_OTHER "'}]}}");
    assert_int_equal(rewrite(), RK_VERDICT_REJECT);
    assert_int_equal(err.code, 96);
    assert_non_null(strstr(err.message, "db.old"));
    assert_non_null(strstr(err.message, "\"cursor.nextBatch.0.ssn\""));

    /* The same bytes in a namespace without legacy readers are what they are. */
    request("people");
    assert_int_equal(rewrite(), RK_VERDICT_FORWARD);
}

static void test_distinct(void **state)
{
    (void)state;
    static const char *const values[] = {"{'ssn': 'a'}", "{'ssn': 'b'}", "{'ssn': null}"};
    static const uint32_t keys[] = {OLD_KEY, NEW_KEY};
    request("people");
    info.distinct_field = &info.policy->fields[0];
    struct rk_bson_writer w;
    size_t start = open_message(&message, 0);
    unsigned n = 0;
    rk_bson_writer_init(&w, &message);
    rk_bson_begin(&w);
    rk_bson_begin_sub(&w, RK_BSON_ARRAY, "values", 6);
    for (size_t k = 0; k < 2; k++) {
        for (size_t i = 0; i < 3; i++) {
            char key[24];
            struct rk_bson_elem elem;
            struct rk_bson_view view = seal_doc("people", keys[k], values[i]);
            assert_true(rk_bson_find(&view, "ssn", &elem));
            int len = snprintf(key, sizeof key, "%u", n++);
            rk_bson_copy_as(&w, key, (size_t)len, &elem);
        }
    }
    rk_bson_put_utf8(&w, "6", "a", 1); /* plaintext that the sweep has not met yet */
    rk_bson_put_int32(&w, "7", 1);
    rk_bson_put_int64(&w, "8", 1); /* equal numbers came back once for each width */
    rk_bson_end(&w);
    rk_bson_put_double(&w, "ok", 1.0);
    rk_bson_end(&w);
    rk_msg_end(&message, start);

    assert_int_equal(rewrite(), RK_VERDICT_REPLACE);
    json_message(&expected, 0, "{'values': [null, 1, 'a', 'b'], 'ok': 1.0}");
    assert_out();

    /* Not on a protected path: decrypted as anywhere, nothing dropped. */
    info.distinct_field = NULL;
    assert_int_equal(rewrite(), RK_VERDICT_REPLACE);
    json_message(&expected, 0,
                 "{'values': ['a', 'b', null, 'a', 'b', null, 'a', 1, 1L], "
                 "'ok': 1.0}");
    assert_out();

    request("old");
    info.distinct_field = &info.policy->fields[0];
    json_message(&message, 0,
                 "{'values': ['" LEGACY_SSN "', 'x', '078-05-1120', '" LEGACY_SSN "'], 'ok': 1.0}");
    assert_int_equal(rewrite(), RK_VERDICT_REPLACE);
    json_message(&expected, 0, "{'values': ['078-05-1120', 'x'], 'ok': 1.0}");
    assert_out();
    json_message(&message, 0, "{'values': [], 'ok': 1.0}");
    assert_int_equal(rewrite(), RK_VERDICT_FORWARD);
    json_message(&message, 0, "{'values': 5, 'ok': 1.0}");
    assert_int_equal(rewrite(), RK_VERDICT_FORWARD);
}

#define EVENT(coll, rest)                                                                          \
    "{'cursor': {'nextBatch': [{'_id': {'_data': '82'}, 'operationType': 'update', 'ns': {'db': "  \
    "'db', 'coll': '" coll "'}, " rest "}], 'id': 1}, 'ok': 1.0}"

static void test_change_events(void **state)
{
    (void)state;
    static const char before[] =
        "'fullDocument': {'ssn': '" LEGACY_SSN "'}, 'fullDocumentBeforeChange': {'contacts': "
        "{'phone': '" LEGACY_PHONE "'}}, 'updateDescription': {'updatedFields': {'ssn': "
        "'" LEGACY_SSN "', 'contacts.0.phone': '" LEGACY_PHONE "', 'contacts.1': {'phone': "
        "'" LEGACY_PHONE "'}, 'tags.0': '" LEGACY_SSN "', 'tags.x': '" LEGACY_SSN
        "', 'other.ssn': '" LEGACY_SSN "'}, 'removedFields': ['x']}";
    static const char after[] =
        "'fullDocument': {'ssn': '078-05-1120'}, 'fullDocumentBeforeChange': {'contacts': "
        "{'phone': '555-0100'}}, 'updateDescription': {'updatedFields': {'ssn': '078-05-1120', "
        "'contacts.0.phone': '555-0100', 'contacts.1': {'phone': '555-0100'}, 'tags.0': "
        "'078-05-1120', 'tags.x': '" LEGACY_SSN "', 'other.ssn': '" LEGACY_SSN
        "'}, 'removedFields': ['x']}";
    char text[4096];
    static const char *const streams[] = {"old", "$cmd.aggregate", ""};
    for (size_t i = 0; i < sizeof streams / sizeof streams[0]; i++) {
        request(streams[i]);
        (void)snprintf(text, sizeof text, EVENT("old", "%s"), before);
        json_message(&message, 0, text);
        assert_int_equal(rewrite(), RK_VERDICT_REPLACE);
        (void)snprintf(text, sizeof text, EVENT("old", "%s"), after);
        json_message(&expected, 0, text);
        assert_out();
        /* The event's namespace decides, not the stream's. */
        (void)snprintf(text, sizeof text, EVENT("unprotected", "%s"), before);
        json_message(&message, 0, text);
        assert_int_equal(rewrite(), RK_VERDICT_FORWARD);
    }
    /* Without its ns (a projection) it is the command's. */
    request("old");
    json_message(&message, 0,
                 "{'cursor': {'nextBatch': [{'_id': {'_data': '82'}, 'fullDocument': {'ssn': "
                 "'" LEGACY_SSN "'}}]}}");
    assert_int_equal(rewrite(), RK_VERDICT_REPLACE);
    assert_text("cursor.nextBatch.0.fullDocument.ssn", "078-05-1120");
    /* Events without documents. */
    json_message(&message, 0,
                 "{'cursor': {'nextBatch': [{'_id': {'_data': '82'}, 'operationType': 'drop', "
                 "'ns': 5, 'fullDocument': null, 'updateDescription': null}]}}");
    assert_int_equal(rewrite(), RK_VERDICT_FORWARD);
    /* A document that looks like an event. */
    json_message(&message, 0, EVENT("unprotected", "'ssn': '" LEGACY_SSN "'"));
    assert_int_equal(rewrite(), RK_VERDICT_REPLACE);
    assert_text("cursor.nextBatch.0.ssn", "078-05-1120");
}

static void test_change_event_envelopes(void **state)
{
    (void)state;
    request("people");
    struct rk_bson_view doc = seal_doc("people", NEW_KEY, "{'ssn': 'x'}");
    struct rk_bson_elem ssn;
    assert_true(rk_bson_find(&doc, "ssn", &ssn));
    struct rk_buf event;
    struct rk_bson_writer w;
    rk_buf_init(&event, FIXTURE_BYTES_MAX);
    rk_bson_writer_init(&w, &event);
    rk_bson_begin(&w);
    rk_bson_begin_sub(&w, RK_BSON_DOCUMENT, "updateDescription", 17);
    rk_bson_begin_sub(&w, RK_BSON_DOCUMENT, "updatedFields", 13);
    rk_bson_copy_as(&w, "contacts.0.phone", 16, &ssn);
    rk_bson_end(&w);
    rk_bson_end(&w);
    rk_bson_end(&w);
    struct rk_bson_view view = view_of(&event);
    cursor_message("nextBatch", &view, 1);
    assert_int_equal(rewrite(), RK_VERDICT_REPLACE);
    struct rk_bson_elem elem;
    assert_true(find_path(out_body(), "cursor.nextBatch.0.updateDescription.updatedFields", &elem));
    assert_true(rk_bson_elem_view(&elem, &view));
    assert_true(rk_bson_find(&view, "contacts.0.phone", &elem));
    assert_int_equal(elem.type, RK_BSON_STRING);
    rk_buf_deinit(&event);
}

static void test_hold_and_limits(void **state)
{
    (void)state;
    request("people");
    struct rk_bson_view doc = seal_doc("people", OLD_KEY, "{'ssn': 'x', 'contacts': {'phone': 1}}");
    cursor_message("firstBatch", &doc, 1);
    fixture_no_keys(&f);
    assert_int_equal(rewrite(), RK_VERDICT_HOLD);
    assert_int_equal(f.crypt.missing_key, OLD_KEY);
    static const uint32_t absent = OLD_KEY;
    f.crypt.absent_keys = &absent;
    f.crypt.n_absent = 1;
    assert_int_equal(rewrite(), RK_VERDICT_REPLACE);
    struct rk_bson_elem shown;
    assert_true(find_path(out_body(), "cursor.firstBatch.0.ssn.rekeyError", &shown));
    f.crypt.n_absent = 0;
    fixture_keys(&f, NEW_KEY);

    size_t max = out.max;
    assert_int_equal(rewrite(), RK_VERDICT_REPLACE);
    size_t whole = out.len;
    rk_buf_deinit(&out);
    for (out.max = 0; out.max < whole; out.max++) {
        assert_int_equal(rewrite(), RK_VERDICT_REJECT);
        assert_int_equal(err.code, 10334);
    }
    out.max = max;

    /* A malformed reply: the cursor holds an element that runs over its end. */
    struct rk_bson_elem elem;
    struct rk_bson_view body;
    assert_true(rk_bson_view_init(&body, message.data + 21, message.len - 21));
    assert_true(find_path(body, "cursor.firstBatch.0.ssn", &elem));
    message.data[elem.value - message.data + 3] = 0x7F;
    assert_int_equal(rewrite(), RK_VERDICT_REJECT);
    assert_int_equal(err.code, 22);
}

static void error_reply(int code, const char *text)
{
    struct rk_msg msg;
    const char *why;
    err = (struct rk_error){.status = RK_EREFUSED, .code = code};
    memcpy(err.message, text, strlen(text) + 1);
    rk_buf_clear(&out);
    assert_int_equal(rk_reply_error(&out, 5, 6, &err), RK_OK);
    assert_int_equal(rk_msg_parse(out.data, out.len, &msg, &why), RK_PARSE_OK);
    assert_int_equal(msg.frame.request_id, 5);
    assert_int_equal(msg.frame.response_to, 6);
    assert_int_equal(msg.flags, 0);
}

static void test_error(void **state)
{
    (void)state;
    error_reply(31041, "db.c: no");
    json_message(&expected, 0,
                 "{'ok': 0.0, 'errmsg': 'db.c: no', 'code': 31041, 'codeName': 'Location31041'}");
    rk_store_u32(expected.data + 4, 5);
    rk_store_u32(expected.data + 8, 6);
    assert_out();

    error_reply(13, "no");
    assert_text("codeName", "Unauthorized");
    error_reply(10334, "no");
    assert_text("codeName", "BSONObjectTooLarge");
    error_reply(0, "no");
    assert_text("codeName", "InternalError");

    /* Drivers refuse text that is not UTF-8, and a message may hold foreign bytes or be cut. */
    error_reply(2, "a\xFF"
                   "b\xC3\xA9 \xE2\x82 \xED\xA0\x80 \xF0\x9F\x98\x80 \xC0\x80 \xF5 \xC3");
    assert_text("errmsg", "a?b\xC3\xA9 ?? ??? \xF0\x9F\x98\x80 ?? ? ?");

    struct rk_buf small;
    rk_buf_init(&small, 64);
    assert_int_equal(rk_reply_error(&small, 1, 2, &err), RK_ELIMIT);
    assert_int_equal(small.len, 0);
    rk_buf_deinit(&small);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forward),
        cmocka_unit_test(test_batches),
        cmocka_unit_test(test_without_policy),
        cmocka_unit_test(test_header),
        cmocka_unit_test(test_sequences),
        cmocka_unit_test(test_legacy),
        cmocka_unit_test(test_distinct),
        cmocka_unit_test(test_change_events),
        cmocka_unit_test(test_change_event_envelopes),
        cmocka_unit_test(test_hold_and_limits),
        cmocka_unit_test(test_error),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
