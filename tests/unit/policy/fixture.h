/*
 * Keys, a crypt and documents for the tests of src/policy. Documents are written as relaxed JSON
 * with single quotes: {'a': 1, 'b': [true, null, 'x'], 'c': 1.5, 'd': 2L, 'e': /x/} (int32, bool,
 * null, string, double, document, array, int64, regular expression).
 */
#ifndef REKEY_TEST_POLICY_FIXTURE_H
#define REKEY_TEST_POLICY_FIXTURE_H

#include <assert.h>
#include <rekey/policy/crypt.h>
#include <rekey/policy/document.h>
#include <rekey/policy/policy.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OLD_KEY 7u
#define NEW_KEY 9u
#define UNKNOWN_KEY 11u
#define FIXTURE_BYTES_MAX (48u << 20)

struct fixture {
    struct rk_aead *aead;
    struct rk_data_key *old_key;
    struct rk_data_key *new_key;
    struct rk_data_key *unknown_key; /* in no keyset */
    struct rk_crypt crypt;           /* keyset: old and new, new is current, legacy key "app" */
};

static inline void fixture_keys(struct fixture *f, uint32_t current_id)
{
    static const uint8_t legacy_key[32] = {0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11,
                                           0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11,
                                           0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11,
                                           0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11};
    const struct rk_keyset_key keys[] = {
        {OLD_KEY, current_id == OLD_KEY ? RK_KEY_WRITES : RK_KEY_READS, RK_KEY_NAME_DEFAULT,
         f->old_key},
        {NEW_KEY, current_id == NEW_KEY ? RK_KEY_WRITES : RK_KEY_READS, RK_KEY_NAME_DEFAULT,
         f->new_key}};
    const struct rk_legacy_key legacy = {.name = "app", .key = legacy_key};
    rk_keyset_unref(f->crypt.keys);
    f->crypt.keys = NULL;
    enum rk_status status = rk_keyset_new(keys, 2, &legacy, 1, &f->crypt.keys, NULL);
    assert(status == RK_OK);
    (void)status;
}

static inline void fixture_no_keys(struct fixture *f)
{
    rk_keyset_unref(f->crypt.keys);
    f->crypt.keys = NULL;
    enum rk_status status = rk_keyset_new(NULL, 0, NULL, 0, &f->crypt.keys, NULL);
    assert(status == RK_OK);
    (void)status;
}

static inline void fixture_init(struct fixture *f)
{
    uint8_t root[RK_DATA_KEY_LEN];
    struct rk_data_key **const keys[] = {&f->old_key, &f->new_key, &f->unknown_key};
    static const uint32_t ids[] = {OLD_KEY, NEW_KEY, UNKNOWN_KEY};
    *f = (struct fixture){0};
    enum rk_status status = rk_aead_new(&f->aead, NULL);
    assert(status == RK_OK);
    for (size_t i = 0; i < 3; i++) {
        memset(root, (int)ids[i], sizeof root);
        status = rk_data_key_new(ids[i], root, 1000 + ids[i], keys[i], NULL);
        assert(status == RK_OK);
    }
    (void)status;
    f->crypt.aead = f->aead;
    f->crypt.now_s = 1700000000;
    rk_buf_init(&f->crypt.scratch, FIXTURE_BYTES_MAX);
    fixture_keys(f, NEW_KEY);
}

static inline void fixture_deinit(struct fixture *f)
{
    rk_keyset_unref(f->crypt.keys);
    rk_data_key_unref(f->old_key);
    rk_data_key_unref(f->new_key);
    rk_data_key_unref(f->unknown_key);
    rk_buf_deinit(&f->crypt.scratch);
    rk_aead_free(f->aead);
}

/* ---- documents */

static inline const char *json_space(const char *p)
{
    return p + strspn(p, " \n\t,");
}

static inline const char *json_members(const char *p, char close, struct rk_bson_writer *w);

static inline const char *json_value(const char *p, struct rk_bson_writer *w, const char *key)
{
    if (*p == '{' || *p == '[') {
        rk_bson_begin_sub(w, *p == '{' ? RK_BSON_DOCUMENT : RK_BSON_ARRAY, key, strlen(key));
        p = json_members(p + 1, *p == '{' ? '}' : ']', w);
        rk_bson_end(w);
        return p;
    }
    if (*p == '\'') {
        size_t len = strcspn(p + 1, "'");
        rk_bson_put_utf8(w, key, p + 1, len);
        return p + len + 2;
    }
    if (strncmp(p, "null", 4) == 0) {
        rk_bson_put(w, RK_BSON_NULL, key, strlen(key), NULL, 0);
        return p + 4;
    }
    if (strncmp(p, "true", 4) == 0) {
        rk_bson_put_bool(w, key, true);
        return p + 4;
    }
    if (strncmp(p, "false", 5) == 0) {
        rk_bson_put_bool(w, key, false);
        return p + 5;
    }
    if (strncmp(p, "forged", 6) == 0) { /* starts as an envelope, and is none */
        rk_bson_put_binary(w, key, strlen(key), RK_ENVELOPE_SUBTYPE, "RK\xE1\x1E", 4);
        return p + 6;
    }
    if (*p == '/') {
        char regex[64] = {0};
        size_t n = strcspn(p + 1, "/");
        assert(n < sizeof regex - 1);
        memcpy(regex, p + 1, n);
        rk_bson_put(w, RK_BSON_REGEX, key, strlen(key), regex, n + 2);
        return p + n + 2;
    }
    size_t len = strspn(p, "+-.0123456789");
    assert(len > 0);
    if (p[len] == 'L') {
        rk_bson_put_int64(w, key, strtoll(p, NULL, 10));
        return p + len + 1;
    }
    if (memchr(p, '.', len) != NULL) {
        rk_bson_put_double(w, key, strtod(p, NULL));
    } else {
        rk_bson_put_int32(w, key, (int32_t)strtol(p, NULL, 10));
    }
    return p + len;
}

static inline const char *json_members(const char *p, char close, struct rk_bson_writer *w)
{
    char key[128];
    for (unsigned i = 0;; i++) {
        p = json_space(p);
        if (*p == close) {
            return p + 1;
        }
        if (close == ']') {
            (void)snprintf(key, sizeof key, "%u", i);
        } else {
            size_t len = strcspn(p + 1, "'");
            assert(*p == '\'' && len < sizeof key);
            memcpy(key, p + 1, len);
            key[len] = '\0';
            p = json_space(p + len + 2);
            assert(*p == ':');
            p = json_space(p + 1);
        }
        p = json_value(p, w, key);
    }
}

/* Appends the document to buf. */
static inline struct rk_bson_view json_doc(struct rk_buf *buf, const char *json)
{
    struct rk_bson_writer w;
    struct rk_bson_view view = {0};
    size_t start = buf->len;
    rk_bson_writer_init(&w, buf);
    rk_bson_begin(&w);
    (void)json_members(strchr(json, '{') + 1, '}', &w);
    rk_bson_end(&w);
    enum rk_status status = rk_bson_writer_status(&w);
    assert(status == RK_OK);
    (void)status;
    bool ok = rk_bson_view_init(&view, buf->data + start, buf->len - start);
    assert(ok);
    (void)ok;
    return view;
}

/* The element at a dotted path (array indexes included), or false. */
static inline bool find_path(struct rk_bson_view view, const char *path, struct rk_bson_elem *elem)
{
    char key[128];
    for (;;) {
        size_t len = strcspn(path, ".");
        assert(len < sizeof key);
        memcpy(key, path, len);
        key[len] = '\0';
        if (!rk_bson_find(&view, key, elem)) {
            return false;
        }
        if (path[len] == '\0') {
            return true;
        }
        if (!rk_bson_elem_view(elem, &view)) {
            return false;
        }
        path += len + 1;
    }
}

/* Is the element an envelope, under this key? */
static inline bool is_envelope(const struct rk_bson_elem *elem, uint32_t key_id)
{
    struct rk_envelope envelope;
    return elem->type == RK_BSON_BINARY && elem->value[4] == RK_ENVELOPE_SUBTYPE &&
           rk_envelope_parse(elem->value + 5, elem->value_len - 5, &envelope) &&
           envelope.key_id == key_id;
}

static inline bool is_envelope_at(struct rk_bson_view view, const char *path, uint32_t key_id)
{
    struct rk_bson_elem elem;
    return find_path(view, path, &elem) && is_envelope(&elem, key_id);
}

/* rk_document_encrypt of a whole document into out (cleared). */
static inline enum rk_verdict encrypt_doc(struct fixture *f, const struct rk_policy *policy,
                                          struct rk_bson_view view, struct rk_buf *out,
                                          struct rk_error *err)
{
    struct rk_bson_writer w;
    rk_buf_clear(out);
    rk_bson_writer_init(&w, out);
    rk_bson_begin(&w);
    enum rk_verdict verdict =
        rk_document_encrypt(&f->crypt, policy->ns, &policy->root, &view, &w, err);
    rk_bson_end(&w);
    return verdict;
}

static inline enum rk_verdict decrypt_doc(struct fixture *f, enum rk_undecryptable undecryptable,
                                          const struct rk_policy *policy, struct rk_bson_view view,
                                          struct rk_buf *out, struct rk_error *err)
{
    struct rk_bson_writer w;
    rk_buf_clear(out);
    rk_bson_writer_init(&w, out);
    rk_bson_begin(&w);
    enum rk_verdict verdict =
        rk_document_decrypt(&f->crypt, undecryptable, policy->ns, &policy->root, &view, &w, err);
    rk_bson_end(&w);
    return verdict;
}

static inline struct rk_bson_view view_of(const struct rk_buf *buf)
{
    struct rk_bson_view view = {0};
    bool ok = rk_bson_view_init(&view, buf->data, buf->len);
    assert(ok);
    (void)ok;
    return view;
}

#endif
