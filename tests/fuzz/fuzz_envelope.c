/*
 * Envelopes and legacy ciphertexts from hostile bytes. The first byte chooses the way in:
 *
 *   0  the rest is an envelope: parse, scan, open
 *   1  algorithm 1 | BSON type 1 | value: what can be sealed must open to the same bytes
 *   2  algorithm 1 | BSON type 1 | bytes: an envelope with a true tag around whatever bytes
 *   3  cipher 1 | encoding 1 | prefix length 1 | BSON type 1 | value: legacy matching and opening
 *   4  cipher 1 | plaintext type 1 | raw: a legacy value of these raw bytes, as binary and as text
 */
#include <rekey/bson/walk.h>
#include <rekey/crypto/envelope.h>
#include <rekey/crypto/legacy.h>

#include <stdlib.h>

#define BYTES_MAX 65536u
#define KEY_ID 1u

static struct rk_aead *aead;
static struct rk_data_key *key;
static struct rk_keyset *keys;
static struct rk_buf sealed;
static struct rk_buf opened;

#define REQUIRE(condition)                                                                         \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    static const uint8_t root[RK_DATA_KEY_LEN] = {1, 2, 3};
    static const struct rk_legacy_key legacy = {"old", root};
    rk_buf_init(&sealed, 2 * BYTES_MAX);
    rk_buf_init(&opened, 2 * BYTES_MAX);
    REQUIRE(rk_aead_new(&aead, NULL) == RK_OK);
    REQUIRE(rk_data_key_new(KEY_ID, root, 7, &key, NULL) == RK_OK);
    const struct rk_keyset_key known = {KEY_ID, RK_KEY_WRITES, RK_KEY_NAME_DEFAULT, key};
    REQUIRE(rk_keyset_new(&known, 1, &legacy, 1, &keys, NULL) == RK_OK);
    return 0;
}

/* Whatever opens is one well-formed value; whatever does not, leaves nothing. */
static void open_envelope(const uint8_t *data, size_t len)
{
    struct rk_envelope envelope;
    uint32_t key_id = 0;
    bool names_key = rk_envelope_names_key(data, len, &key_id);
    if (!rk_envelope_parse(data, len, &envelope)) {
        return;
    }
    REQUIRE(names_key && key_id == envelope.key_id);
    REQUIRE(rk_envelope_claims(RK_ENVELOPE_SUBTYPE, data, len));
    if (rk_envelope_open(aead, rk_keyset_find(keys, envelope.key_id), &envelope, &opened) ==
        RK_OK) {
        uint32_t size = 0;
        REQUIRE(rk_bson_value_size(envelope.bson_type, opened.data, opened.len, &size));
        REQUIRE(size == opened.len);
    } else {
        REQUIRE(opened.len == 0);
    }
}

static void round_trip(const uint8_t *data, size_t len)
{
    if (len < 2) {
        return;
    }
    enum rk_algorithm algorithm = (enum rk_algorithm)data[0];
    size_t value_len = len - 2;
    enum rk_status status =
        rk_envelope_seal(aead, key, algorithm, 5, 6, data[1], data + 2, value_len, &sealed);
    REQUIRE(status == RK_OK || (status == RK_EINVAL && sealed.len == 0));
    if (status == RK_OK) {
        open_envelope(sealed.data, sealed.len);
        REQUIRE(opened.len == value_len && memcmp(opened.data, data + 2, value_len) == 0);
    }
}

/* As someone with the key, but no care for BSON, would seal. */
static void forge(const uint8_t *data, size_t len)
{
    static uint8_t forged[BYTES_MAX + 64];
    if (len < 2 || (data[0] != RK_ALGORITHM_RANDOM && data[0] != RK_ALGORITHM_DETERMINISTIC)) {
        return;
    }
    enum rk_algorithm algorithm = (enum rk_algorithm)data[0];
    const uint8_t header[RK_ENVELOPE_HEADER_LEN] = {'R',     'K', 0xE1, 0x1E, 1, data[0],
                                                    data[1], 0,   0,    0,    0, KEY_ID};
    uint8_t *body = forged + sizeof header;
    memcpy(forged, header, sizeof header);
    if (algorithm == RK_ALGORITHM_RANDOM) {
        memset(body, 0, RK_XAES_NONCE_LEN);
        REQUIRE(rk_aead_xaes_seal(aead, key, body, forged, sizeof header, data + 2, len - 2,
                                  body + RK_XAES_NONCE_LEN) == RK_OK);
    } else {
        REQUIRE(rk_aead_siv_seal(aead, key, forged, sizeof header, data + 2, len - 2, body,
                                 body + RK_SIV_TAG_LEN) == RK_OK);
    }
    open_envelope(forged, rk_envelope_size(key, algorithm, len - 2));
}

static void open_legacy(const struct rk_legacy_format *format, uint8_t type, const uint8_t *value,
                        size_t len)
{
    bool matches = rk_legacy_matches(format, type, value, len);
    rk_buf_clear(&opened);
    enum rk_status status = rk_legacy_open(aead, keys, format, type, value, len, &opened);
    REQUIRE(matches || status == RK_EINVAL);
    if (status == RK_OK) {
        uint32_t size = 0;
        REQUIRE(rk_bson_value_size(format->bson_type, opened.data, opened.len, &size));
        REQUIRE(size == opened.len);
    } else {
        REQUIRE(opened.len == 0);
    }
}

static void legacy_value(const uint8_t *data, size_t len)
{
    if (len < 4) {
        return;
    }
    struct rk_legacy_format format = {.cipher = (enum rk_legacy_cipher)(data[0] % 4),
                                      .encoding = (enum rk_legacy_encoding)(data[1] % 4),
                                      .prefix_len = data[2] % (RK_LEGACY_PREFIX_MAX + 2),
                                      .key = (char *)"old",
                                      .bson_type = RK_BSON_STRING};
    open_legacy(&format, data[3], data + 4, len - 4);
}

static void legacy_raw(const uint8_t *data, size_t len)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    if (len < 2) {
        return;
    }
    struct rk_legacy_format format = {.cipher = (enum rk_legacy_cipher)(data[0] % 4),
                                      .key = (char *)"old",
                                      .bson_type = data[1] % 2 ? RK_BSON_STRING : RK_BSON_BINARY};
    const uint8_t *raw = data + 2;
    size_t raw_len = len - 2;

    format.encoding = RK_LEGACY_BINARY;
    REQUIRE(rk_buf_append_u32(&sealed, (uint32_t)raw_len) == RK_OK);
    REQUIRE(rk_buf_append_u8(&sealed, 0) == RK_OK);
    REQUIRE(rk_buf_append(&sealed, raw, raw_len) == RK_OK);
    open_legacy(&format, RK_BSON_BINARY, sealed.data, sealed.len);
    size_t opened_len = opened.len;

    format.encoding = RK_LEGACY_BASE64;
    rk_buf_clear(&sealed);
    REQUIRE(rk_buf_append_u32(&sealed, 0) == RK_OK);
    uint32_t bits = 0;
    unsigned have = 0;
    for (size_t i = 0; i < raw_len; i++) {
        bits = bits << 8 | raw[i];
        for (have += 8; have >= 6; have -= 6) {
            REQUIRE(rk_buf_append_u8(&sealed, (uint8_t)digits[bits >> (have - 6) & 63]) == RK_OK);
        }
    }
    if (have > 0) {
        REQUIRE(rk_buf_append_u8(&sealed, (uint8_t)digits[bits << (6 - have) & 63]) == RK_OK);
    }
    REQUIRE(rk_buf_append_u8(&sealed, 0) == RK_OK);
    rk_store_u32(sealed.data, (uint32_t)sealed.len - 4);
    open_legacy(&format, RK_BSON_STRING, sealed.data, sealed.len);
    REQUIRE(opened.len == opened_len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    if (len < 1 || len > BYTES_MAX) {
        return 0;
    }
    rk_buf_clear(&sealed);
    rk_buf_clear(&opened);
    const uint8_t *rest = data + 1;
    size_t rest_len = len - 1;
    switch (data[0]) {
    case 0: {
        const uint8_t *at = rk_envelope_scan(rest, rest_len);
        REQUIRE(at == NULL ||
                rk_envelope_claims(at[0], at + 1, (size_t)(rest + rest_len - at) - 1));
        open_envelope(rest, rest_len);
        break;
    }
    case 1:
        round_trip(rest, rest_len);
        break;
    case 2:
        forge(rest, rest_len);
        break;
    case 3:
        legacy_value(rest, rest_len);
        break;
    case 4:
        legacy_raw(rest, rest_len);
        break;
    default:
        break;
    }
    return 0;
}
