/* The ciphertext format: parsing, sealing, opening. No state; the caller's rk_aead is one thread's.
 */
#include <rekey/crypto/envelope.h>

#include <openssl/crypto.h>
#include <openssl/sha.h>
#include <rekey/bson/walk.h>
#include <string.h>

#define VALUE_DEPTH_MAX 200u

/* Offsets in the header. */
enum {
    AT_VERSION = 4,
    AT_ALGORITHM = 5,
    AT_BSON_TYPE = 6,
    AT_FLAGS = 7,
    AT_KEY_ID = 8,
    AT_FIELD_ID = 12,
    AT_ENCRYPTED_AT = 16,
};

#define FLAG_REMOTE 1u
#define PLACEHOLDER_MAX 17u

/* The subtype and the magic, as they lie next to each other in BSON. */
static const uint8_t mark[] = {RK_ENVELOPE_SUBTYPE, 'R', 'K', 0xE1, 0x1E};
#define MAGIC (mark + 1)
#define MAGIC_LEN (sizeof mark - 1)

/* Bytes of an envelope that are neither header nor ciphertext; 0 for an unknown algorithm. */
static size_t overhead(bool remote, unsigned algorithm)
{
    if (remote) {
        return algorithm == RK_ALGORITHM_RANDOM ? RK_REMOTE_OVERHEAD : 0;
    }
    switch (algorithm) {
    case RK_ALGORITHM_RANDOM:
        return RK_XAES_NONCE_LEN + RK_XAES_TAG_LEN;
    case RK_ALGORITHM_DETERMINISTIC:
        return RK_SIV_TAG_LEN;
    default:
        return 0;
    }
}

bool rk_envelope_parse(const uint8_t *data, size_t len, struct rk_envelope *envelope)
{
    if (len < RK_ENVELOPE_HEADER_LEN || memcmp(data, MAGIC, MAGIC_LEN) != 0 ||
        data[AT_VERSION] != RK_ENVELOPE_VERSION || (data[AT_FLAGS] & ~FLAG_REMOTE) != 0) {
        return false;
    }
    bool remote = data[AT_FLAGS] == FLAG_REMOTE;
    size_t extra = overhead(remote, data[AT_ALGORITHM]);
    uint32_t key_id = rk_load_be32(data + AT_KEY_ID);
    if (extra == 0 || len < RK_ENVELOPE_HEADER_LEN + extra || key_id == 0) {
        return false;
    }
    *envelope = (struct rk_envelope){
        .algorithm = (enum rk_algorithm)data[AT_ALGORITHM],
        .remote = remote,
        .bson_type = data[AT_BSON_TYPE],
        .key_id = key_id,
        .field_id = rk_load_u32(data + AT_FIELD_ID),
        .encrypted_at_s = rk_load_u32(data + AT_ENCRYPTED_AT),
        .data = data,
        .len = len,
    };
    return true;
}

bool rk_envelope_names_key(const uint8_t *data, size_t len, uint32_t *key_id)
{
    *key_id = 0;
    if (len <= AT_VERSION || data[AT_VERSION] != RK_ENVELOPE_VERSION) {
        return len > AT_VERSION;
    }
    *key_id = len >= AT_KEY_ID + 4 ? rk_load_be32(data + AT_KEY_ID) : 0;
    return *key_id != 0;
}

bool rk_envelope_claims(uint8_t subtype, const uint8_t *data, size_t len)
{
    return subtype == RK_ENVELOPE_SUBTYPE && len >= MAGIC_LEN &&
           memcmp(data, MAGIC, MAGIC_LEN) == 0;
}

const uint8_t *rk_envelope_scan(const uint8_t *data, size_t len)
{
    return len < sizeof mark ? NULL : memmem(data, len, mark, sizeof mark);
}

size_t rk_envelope_size(const struct rk_data_key *key, enum rk_algorithm algorithm, size_t len)
{
    return RK_ENVELOPE_HEADER_LEN + overhead(rk_data_key_remote(key) != NULL, algorithm) + len;
}

static bool is_document(const uint8_t *p, size_t len)
{
    struct rk_bson_view view;
    return rk_bson_view_init(&view, p, len) && view.len == len &&
           rk_bson_validate(&view, VALUE_DEPTH_MAX);
}

/*
 * Exactly one well-formed value of a type that can be encrypted, nested documents included. Asked
 * before sealing as well as after opening, so that nothing is sealed that could not be opened.
 */
static bool is_value(uint8_t type, const uint8_t *value, size_t len)
{
    uint32_t size = 0;
    switch (type) {
    case RK_BSON_UNDEFINED:
    case RK_BSON_NULL:
    case RK_BSON_MINKEY:
    case RK_BSON_MAXKEY:
        return false;
    default:
        break;
    }
    if (!rk_bson_value_size(type, value, len, &size) || size != len) {
        return false;
    }
    switch (type) {
    case RK_BSON_BOOL:
        return value[0] <= 1;
    case RK_BSON_DOCUMENT:
    case RK_BSON_ARRAY:
        return is_document(value, len);
    case RK_BSON_CODEWSCOPE: {
        /* total 4 | string: length 4, bytes | document */
        size_t scope = 8 + (size_t)rk_load_u32(value + 4);
        return is_document(value + scope, len - scope);
    }
    default:
        return true;
    }
}

static void put_header(uint8_t *header, const struct rk_data_key *key, enum rk_algorithm algorithm,
                       uint32_t field_id, uint8_t bson_type)
{
    memcpy(header, MAGIC, MAGIC_LEN);
    header[AT_VERSION] = RK_ENVELOPE_VERSION;
    header[AT_ALGORITHM] = (uint8_t)algorithm;
    header[AT_BSON_TYPE] = bson_type;
    header[AT_FLAGS] = rk_data_key_remote(key) != NULL ? FLAG_REMOTE : 0;
    rk_store_be32(header + AT_KEY_ID, rk_data_key_id(key));
    rk_store_u32(header + AT_FIELD_ID, field_id);
}

/* Writes len + RK_REMOTE_OVERHEAD bytes to body, or promises to. */
static enum rk_status seal_remote(struct rk_remote *remote, const struct rk_data_key *key,
                                  const uint8_t *header, const uint8_t *value, size_t len,
                                  uint8_t *body)
{
    const struct rk_remote_value question = {.op = RK_REMOTE_SEAL,
                                             .key = rk_data_key_remote(key),
                                             .aad = header,
                                             .aad_len = RK_ENVELOPE_HEADER_LEN,
                                             .in = value,
                                             .in_len = len};
    enum rk_remote_answer answer;
    const uint8_t *sealed;
    size_t size;
    enum rk_status status = rk_remote_ask(remote, &question, &answer, &sealed, &size);
    if (status != RK_OK) {
        return status;
    }
    if (answer == RK_REMOTE_PROMISED) {
        memset(body, 0, len + RK_REMOTE_OVERHEAD);
        return RK_OK;
    }
    if (answer == RK_REMOTE_REFUSED || size != len + RK_REMOTE_OVERHEAD) {
        return RK_EIO;
    }
    memcpy(body, sealed, size);
    return RK_OK;
}

enum rk_status rk_envelope_seal(struct rk_aead *aead, const struct rk_data_key *key,
                                enum rk_algorithm algorithm, uint32_t field_id, uint32_t now_s,
                                uint8_t bson_type, const uint8_t *value, size_t len,
                                struct rk_buf *out)
{
    struct rk_remote *remote = rk_aead_remote(aead);
    bool is_remote = rk_data_key_remote(key) != NULL;
    if (overhead(false, algorithm) == 0 || !is_value(bson_type, value, len)) {
        return RK_EINVAL;
    }
    if (is_remote && (algorithm != RK_ALGORITHM_RANDOM || remote == NULL)) {
        return remote == NULL ? RK_ENOKEY : RK_ESTATE;
    }
    size_t size = rk_envelope_size(key, algorithm, len);
    enum rk_status status = rk_buf_reserve(out, size);
    if (status != RK_OK) {
        return status;
    }
    uint8_t *header = out->data + out->len;
    uint8_t *body = header + RK_ENVELOPE_HEADER_LEN;
    put_header(header, key, algorithm, field_id, bson_type);
    if (is_remote) {
        rk_store_u32(header + AT_ENCRYPTED_AT, rk_remote_now_s(remote));
        status = seal_remote(remote, key, header, value, len, body);
    } else if (algorithm == RK_ALGORITHM_RANDOM) {
        rk_store_u32(header + AT_ENCRYPTED_AT, now_s);
        status = rk_aead_random(aead, body, RK_XAES_NONCE_LEN);
        if (status == RK_OK) {
            status = rk_aead_xaes_seal(aead, key, body, header, RK_ENVELOPE_HEADER_LEN, value, len,
                                       body + RK_XAES_NONCE_LEN);
        }
    } else {
        rk_store_u32(header + AT_ENCRYPTED_AT, rk_data_key_activated_at_s(key));
        status = rk_aead_siv_seal(aead, key, header, RK_ENVELOPE_HEADER_LEN, value, len, body,
                                  body + RK_SIV_TAG_LEN);
    }
    if (status == RK_OK) {
        out->len += size;
    }
    return status;
}

/* What stands for a value of this type until it is known: the least that is well-formed. */
static size_t placeholder(uint8_t type, uint8_t out[PLACEHOLDER_MAX])
{
    memset(out, 0, PLACEHOLDER_MAX);
    switch (type) {
    case RK_BSON_STRING:
    case RK_BSON_CODE:
    case RK_BSON_SYMBOL:
        out[0] = 1;
        return 5;
    case RK_BSON_DOCUMENT:
    case RK_BSON_ARRAY:
        out[0] = 5;
        return 5;
    case RK_BSON_BINARY:
        return 5;
    case RK_BSON_OID:
        return 12;
    case RK_BSON_BOOL:
        return 1;
    case RK_BSON_REGEX:
        return 2;
    case RK_BSON_INT32:
        return 4;
    case RK_BSON_CODEWSCOPE: /* total, "", {} */
        out[0] = 14;
        out[4] = 1;
        out[9] = 5;
        return 14;
    case RK_BSON_DBPOINTER: /* "", twelve bytes */
        out[0] = 1;
        return 17;
    case RK_BSON_DECIMAL128:
        return 16;
    default: /* double, date, timestamp, int64 */
        return 8;
    }
}

static enum rk_status open_remote(struct rk_remote *remote, const struct rk_data_key *key,
                                  const struct rk_envelope *envelope, struct rk_buf *out)
{
    if (remote == NULL) {
        return RK_ENOKEY;
    }
    const struct rk_remote_value question = {
        .op = RK_REMOTE_OPEN,
        .key = rk_data_key_remote(key),
        .aad = envelope->data,
        .aad_len = RK_ENVELOPE_HEADER_LEN,
        .in = envelope->data + RK_ENVELOPE_HEADER_LEN,
        .in_len = envelope->len - RK_ENVELOPE_HEADER_LEN,
    };
    uint8_t stand_in[PLACEHOLDER_MAX];
    enum rk_remote_answer answer;
    const uint8_t *plain;
    size_t len;
    enum rk_status status = rk_remote_ask(remote, &question, &answer, &plain, &len);
    if (status != RK_OK) {
        return status;
    }
    if (answer == RK_REMOTE_PROMISED) {
        return rk_buf_append(out, stand_in, placeholder(envelope->bson_type, stand_in));
    }
    return answer == RK_REMOTE_DONE && is_value(envelope->bson_type, plain, len)
               ? rk_buf_append(out, plain, len)
               : RK_EAUTH;
}

enum rk_status rk_envelope_open(struct rk_aead *aead, const struct rk_data_key *key,
                                const struct rk_envelope *envelope, struct rk_buf *out)
{
    if (key == NULL || rk_data_key_id(key) != envelope->key_id) {
        return RK_ENOKEY;
    }
    if ((rk_data_key_remote(key) != NULL) != envelope->remote) {
        return RK_EAUTH;
    }
    if (envelope->remote) {
        return open_remote(rk_aead_remote(aead), key, envelope, out);
    }
    size_t len = envelope->len - RK_ENVELOPE_HEADER_LEN - overhead(false, envelope->algorithm);
    /* One byte more than the plaintext: room to point at, even for an empty one. */
    enum rk_status status = rk_buf_reserve(out, len + 1);
    if (status != RK_OK) {
        return status;
    }
    const uint8_t *header = envelope->data;
    const uint8_t *body = header + RK_ENVELOPE_HEADER_LEN;
    uint8_t *plain = out->data + out->len;
    if (envelope->algorithm == RK_ALGORITHM_RANDOM) {
        status = rk_aead_xaes_open(aead, key, body, header, RK_ENVELOPE_HEADER_LEN,
                                   body + RK_XAES_NONCE_LEN, len, plain);
    } else {
        status = rk_aead_siv_open(aead, key, header, RK_ENVELOPE_HEADER_LEN, body,
                                  body + RK_SIV_TAG_LEN, len, plain);
    }
    if (status != RK_OK) {
        return status;
    }
    if (!is_value(envelope->bson_type, plain, len)) {
        OPENSSL_cleanse(plain, len);
        return RK_EAUTH;
    }
    out->len += len;
    return RK_OK;
}

uint32_t rk_envelope_field_id(const char *name)
{
    uint8_t digest[SHA256_DIGEST_LENGTH] = {0};
    return SHA256((const uint8_t *)name, strlen(name), digest) != NULL ? rk_load_u32(digest) : 0;
}
