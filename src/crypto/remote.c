#include <rekey/crypto/remote.h>

#include <assert.h>
#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>

/* Offsets into the bytes of its list's questions; the answers have a buffer of their own, so that
 * adding one moves no question. */
struct value {
    enum rk_remote_op op;
    enum rk_remote_answer answer;
    size_t key;
    size_t aad;
    size_t in;
    size_t end;
    size_t out;
    size_t out_len;
};

/* Questions in the order in which they are asked. */
struct list {
    struct rk_buf asked; /* key NUL | aad | in, of each */
    struct value *values;
    size_t n;
    size_t cap;
    size_t at;     /* the next one of this pass */
    bool promised; /* an answer, in this pass */
};

/* To seal and to open are lists of their own: what is opened in one pass may be what another seals
 * between its openings. */
struct rk_remote {
    uint32_t now_s;
    size_t bytes_max;
    struct list seals;
    struct list opens;
    struct rk_buf answered; /* out, of each that is done */
};

struct rk_remote *rk_remote_new(size_t bytes_max, uint32_t now_s)
{
    struct rk_remote *remote = calloc(1, sizeof *remote);
    if (remote != NULL) {
        remote->now_s = now_s;
        remote->bytes_max = bytes_max;
        rk_buf_init(&remote->seals.asked, bytes_max);
        rk_buf_init(&remote->opens.asked, bytes_max);
        rk_buf_init(&remote->answered, bytes_max);
    }
    return remote;
}

static void list_deinit(struct list *list)
{
    rk_buf_cleanse(&list->asked);
    rk_buf_deinit(&list->asked);
    free(list->values);
}

void rk_remote_free(struct rk_remote *remote)
{
    if (remote != NULL) {
        list_deinit(&remote->seals);
        list_deinit(&remote->opens);
        rk_buf_cleanse(&remote->answered);
        rk_buf_deinit(&remote->answered);
        free(remote);
    }
}

uint32_t rk_remote_now_s(const struct rk_remote *remote)
{
    return remote->now_s;
}

/* ---- passes */

void rk_remote_rewind(struct rk_remote *remote)
{
    if (remote != NULL) {
        remote->seals.at = 0;
        remote->opens.at = 0;
        remote->seals.promised = false;
        remote->opens.promised = false;
    }
}

static size_t bytes_of(const struct rk_remote *remote)
{
    return remote->seals.asked.len + remote->opens.asked.len + remote->answered.len;
}

static enum rk_status grow(struct list *list)
{
    if (list->n < list->cap) {
        return RK_OK;
    }
    size_t cap = list->cap == 0 ? 16 : 2 * list->cap;
    struct value *values = realloc(list->values, cap * sizeof *values);
    if (values == NULL) {
        return RK_ENOMEM;
    }
    list->values = values;
    list->cap = cap;
    return RK_OK;
}

static enum rk_status add(struct rk_remote *remote, struct list *list,
                          const struct rk_remote_value *question)
{
    struct rk_buf *asked = &list->asked;
    size_t key_len = strlen(question->key) + 1;
    size_t len = key_len + question->aad_len + question->in_len;
    enum rk_status status = len > remote->bytes_max - bytes_of(remote) ? RK_ELIMIT : grow(list);
    if (status == RK_OK) {
        status = rk_buf_reserve(asked, len);
    }
    if (status != RK_OK) {
        return status;
    }
    struct value value = {
        .op = question->op,
        .answer = RK_REMOTE_PROMISED,
        .key = asked->len,
        .aad = asked->len + key_len,
        .in = asked->len + key_len + question->aad_len,
        .end = asked->len + len,
    };
    memcpy(asked->data + value.key, question->key, key_len);
    if (question->aad_len > 0) {
        memcpy(asked->data + value.aad, question->aad, question->aad_len);
    }
    if (question->in_len > 0) {
        memcpy(asked->data + value.in, question->in, question->in_len);
    }
    asked->len = value.end;
    list->values[list->n++] = value;
    return RK_OK;
}

static bool same_bytes(const uint8_t *a, size_t a_len, const uint8_t *b, size_t b_len)
{
    return a_len == b_len && (a_len == 0 || memcmp(a, b, a_len) == 0);
}

static bool is_same(const struct list *list, const struct value *value,
                    const struct rk_remote_value *question)
{
    const uint8_t *bytes = list->asked.data;
    return value->op == question->op &&
           strcmp((const char *)bytes + value->key, question->key) == 0 &&
           same_bytes(bytes + value->aad, value->in - value->aad, question->aad,
                      question->aad_len) &&
           same_bytes(bytes + value->in, value->end - value->in, question->in, question->in_len);
}

enum rk_status rk_remote_ask(struct rk_remote *remote, const struct rk_remote_value *question,
                             enum rk_remote_answer *answer, const uint8_t **out, size_t *len)
{
    static const uint8_t nothing = 0; /* to point at */
    struct list *list = question->op == RK_REMOTE_SEAL ? &remote->seals : &remote->opens;
    if (list->at < list->n && !is_same(list, &list->values[list->at], question)) {
        list->n = list->at;
        list->asked.len = list->values[list->at].key;
    }
    if (list->at == list->n) {
        enum rk_status status = add(remote, list, question);
        if (status != RK_OK) {
            return status;
        }
    }
    const struct value *value = &list->values[list->at++];
    *answer = value->answer;
    *out = value->out_len > 0 ? remote->answered.data + value->out : &nothing;
    *len = value->out_len;
    list->promised = list->promised || value->answer == RK_REMOTE_PROMISED;
    return RK_OK;
}

bool rk_remote_wanted(const struct rk_remote *remote)
{
    return remote != NULL && (remote->seals.promised || remote->opens.promised);
}

bool rk_remote_opening(const struct rk_remote *remote)
{
    return remote != NULL && remote->opens.promised;
}

/* ---- answers */

size_t rk_remote_count(const struct rk_remote *remote)
{
    return remote->seals.n + remote->opens.n;
}

static const struct list *list_of(const struct rk_remote *remote, size_t *i)
{
    assert(*i < rk_remote_count(remote));
    if (*i < remote->seals.n) {
        return &remote->seals;
    }
    *i -= remote->seals.n;
    return &remote->opens;
}

bool rk_remote_at(const struct rk_remote *remote, size_t i, struct rk_remote_value *out)
{
    const struct list *list = list_of(remote, &i);
    const struct value *value = &list->values[i];
    const uint8_t *bytes = list->asked.data;
    *out = (struct rk_remote_value){
        .op = value->op,
        .key = (const char *)bytes + value->key,
        .aad = bytes + value->aad,
        .aad_len = value->in - value->aad,
        .in = bytes + value->in,
        .in_len = value->end - value->in,
    };
    return value->answer == RK_REMOTE_PROMISED;
}

enum rk_status rk_remote_put(struct rk_remote *remote, size_t i, const void *out, size_t len)
{
    struct value *value = &list_of(remote, &i)->values[i];
    enum rk_status status = len > remote->bytes_max - bytes_of(remote)
                                ? RK_ELIMIT
                                : rk_buf_append(&remote->answered, out, len);
    if (status == RK_OK) {
        value->out = remote->answered.len - len;
        value->out_len = len;
        value->answer = RK_REMOTE_DONE;
    }
    return status;
}

void rk_remote_refuse(struct rk_remote *remote, size_t i)
{
    list_of(remote, &i)->values[i].answer = RK_REMOTE_REFUSED;
}
