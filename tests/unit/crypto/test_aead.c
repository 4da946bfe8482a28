/* XAES-256-GCM and AES-256-SIV against published vectors and against OpenSSL's own SIV. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../../../src/crypto/aead_internal.h"
#include "../../../src/crypto/data_key_internal.h"
#include "hex.h"

#include <openssl/evp.h>
#include <rekey/crypto/aead.h>
#include <stdlib.h>
#include <string.h>

static struct rk_aead *aead;

static int setup(void **state)
{
    (void)state;
    return rk_aead_new(&aead, NULL) == RK_OK ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    rk_aead_free(aead);
    return 0;
}

static struct rk_data_key *raw_key(const uint8_t *xaes, const uint8_t *siv)
{
    static const uint8_t none[RK_SIV_KEY_LEN];
    struct rk_data_key *key = NULL;
    assert_int_equal(
        rk_data_key_new_raw(1, xaes != NULL ? xaes : none, siv != NULL ? siv : none, 0, &key, NULL),
        RK_OK);
    return key;
}

/* c2sp.org/XAES-256-GCM, test vectors. */
static void test_xaes_published(void **state)
{
    (void)state;
    static const struct {
        uint8_t key_byte;
        const char *aad;
        const char *expect;
    } vectors[] = {
        {0x01, "", "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271"},
        {0x03, "c2sp.org/XAES-256-GCM", "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d"},
    };
    const uint8_t *nonce = (const uint8_t *)"ABCDEFGHIJKLMNOPQRSTUVWX";
    const uint8_t *plain = (const uint8_t *)"XAES-256-GCM";
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++) {
        uint8_t secret[RK_XAES_KEY_LEN];
        uint8_t expect[28];
        uint8_t sealed[28];
        uint8_t opened[12];
        const uint8_t *aad = (const uint8_t *)vectors[i].aad;
        size_t aad_len = strlen(vectors[i].aad);
        memset(secret, vectors[i].key_byte, sizeof secret);
        unhex(vectors[i].expect, expect, sizeof expect);
        struct rk_data_key *key = raw_key(secret, NULL);
        assert_int_equal(rk_aead_xaes_seal(aead, key, nonce, aad, aad_len, plain, 12, sealed),
                         RK_OK);
        assert_memory_equal(sealed, expect, sizeof expect);
        assert_int_equal(rk_aead_xaes_open(aead, key, nonce, aad, aad_len, sealed, 12, opened),
                         RK_OK);
        assert_memory_equal(opened, plain, sizeof opened);
        rk_data_key_unref(key);
    }
}

/*
 * The accumulated vector of the same document: keys, nonces, plaintexts and associated data are
 * drawn from an empty SHAKE128, all ciphertexts go into another.
 */
static void test_xaes_accumulated(void **state)
{
    (void)state;
    enum { ITERATIONS = 10000, DRAW_MAX = 32 + 24 + 1 + 255 + 1 + 255 };
    size_t stream_len = (size_t)ITERATIONS * DRAW_MAX;
    uint8_t *stream = malloc(stream_len);
    assert_non_null(stream);
    EVP_MD_CTX *shake = EVP_MD_CTX_new();
    assert_int_equal(EVP_DigestInit_ex(shake, EVP_shake128(), NULL), 1);
    assert_int_equal(EVP_DigestFinalXOF(shake, stream, stream_len), 1);
    assert_int_equal(EVP_DigestInit_ex(shake, EVP_shake128(), NULL), 1);

    const uint8_t *p = stream;
    for (int i = 0; i < ITERATIONS; i++) {
        uint8_t sealed[255 + RK_XAES_TAG_LEN];
        uint8_t opened[255];
        struct rk_data_key *key = raw_key(p, NULL);
        const uint8_t *nonce = p + 32;
        size_t len = p[56];
        const uint8_t *plain = p + 57;
        size_t aad_len = plain[len];
        const uint8_t *aad = plain + len + 1;
        p = aad + aad_len;
        assert_int_equal(rk_aead_xaes_seal(aead, key, nonce, aad, aad_len, plain, len, sealed),
                         RK_OK);
        assert_int_equal(EVP_DigestUpdate(shake, sealed, len + RK_XAES_TAG_LEN), 1);
        assert_int_equal(rk_aead_xaes_open(aead, key, nonce, aad, aad_len, sealed, len, opened),
                         RK_OK);
        assert_memory_equal(opened, plain, len);
        rk_data_key_unref(key);
    }
    uint8_t digest[32];
    uint8_t expect[32];
    unhex("e6b9edf2df6cec60c8cbd864e2211b597fb69a529160cd040d56c0c210081939", expect, 32);
    assert_int_equal(EVP_DigestFinalXOF(shake, digest, sizeof digest), 1);
    assert_memory_equal(digest, expect, sizeof expect);
    EVP_MD_CTX_free(shake);
    free(stream);
}

static void test_xaes_altered(void **state)
{
    (void)state;
    uint8_t nonce[RK_XAES_NONCE_LEN] = {7};
    uint8_t aad[3] = {1, 2, 3};
    uint8_t plain[20] = "twenty bytes of text";
    uint8_t sealed[36];
    uint8_t opened[20];
    static const uint8_t zero[20];
    struct rk_data_key *key = raw_key(NULL, NULL);
    assert_int_equal(rk_aead_xaes_seal(aead, key, nonce, aad, 3, plain, 20, sealed), RK_OK);
    for (size_t bit = 0; bit < sizeof sealed * 8; bit++) {
        sealed[bit / 8] ^= (uint8_t)(1u << bit % 8);
        memset(opened, 0xAA, sizeof opened);
        assert_int_equal(rk_aead_xaes_open(aead, key, nonce, aad, 3, sealed, 20, opened), RK_EAUTH);
        assert_memory_equal(opened, zero, sizeof opened);
        sealed[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    for (size_t bit = 0; bit < sizeof nonce * 8; bit++) {
        nonce[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_int_equal(rk_aead_xaes_open(aead, key, nonce, aad, 3, sealed, 20, opened), RK_EAUTH);
        nonce[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    assert_int_equal(rk_aead_xaes_open(aead, key, nonce, aad, 2, sealed, 20, opened), RK_EAUTH);
    assert_int_equal(rk_aead_xaes_open(aead, key, nonce, aad, 3, sealed, 20, opened), RK_OK);
    assert_memory_equal(opened, plain, sizeof plain);
    rk_data_key_unref(key);
}

struct siv_vector {
    const char *key;
    const char *aad;
    const char *tag;
    const char *plain;
    const char *sealed;
};

#define KEY_0_63                                                                                   \
    "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"                             \
    "202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f"

/*
 * AES-SIV with 512-bit keys: RFC 5297's first example under the key that OpenSSL's
 * evpciph_aes_siv.txt widens it to, the others from Wycheproof's aes_siv_cmac_test.json (as found
 * in the same file). "" as associated data is one empty string, not none.
 */
static const struct siv_vector siv_vectors[] = {
    {"fffefdfcfbfaf9f8f7f6f5f4f3f2f1f0f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff"
     "f0f1f2f3f4f5f6f7f8f9fafbfcfdfefffffefdfcfbfaf9f8f7f6f5f4f3f2f1f0",
     "101112131415161718191a1b1c1d1e1f2021222324252627", "724dfb2eaf94dbb19b0ba3a299a0801e",
     "112233445566778899aabbccddee", "f3b05a55498ec2552690b89810e4"},
    {KEY_0_63, "", "6ff5b8ef53fc365606cd3ea047374885", "", ""},
    {KEY_0_63, "", "212e4a8f8b4c66788f3af230fb1c3ada", "3031323334353637", "5ead70c7f066d4df"},
    {KEY_0_63, "", "305d6cf8eeb36a37849710e7d1f72940", "303132333435363738393a3b3c3d3e3f40414243",
     "adfd10a7615d6515b999dbfc5a10f3ae9df5f19a"},
    {KEY_0_63, "", "00000000000000000000000000000000", "8dbfee9580e7e2bc66100a674497f4e1",
     "7ef8aa7e4dd49d9cfa09e9cb574fd90d"},
    {KEY_0_63, "000102030405060708090a0b0c0d0e0f", "ffffffffffffffffffffffffffffffff",
     "404aa73280eb830afde284ba6b18d48a", "0fae016c086fc20546b374c24f3ebad0"},
    {KEY_0_63, "000102030405060708090a0b0c0d0e0f", "ffffffffffffffff7fffffffffffffff",
     "5cabb261dd19c72368c8d40c5aae007d", "134f143f559d862cd39924747e886e27"},
    {"eef6bcf16ef7ae17326a33f22d1406ec1bd3f866505f4b2e4fe8b45bd62ccbd8"
     "5032a9899facf2db0c93a2345cb8892afb74db549781211dd8881a8c8e25c171",
     "e941d15fadebaf4671e0e3d6d835f87bfb1cc7028f149930daa69c3de446c423",
     "b754ecb55c1e124de0c8a973d033bd7f", "", ""},
    {"e2c5662bb18fbb411d0304e4241db073fe60a4704fee290073513038a22b4cd5"
     "42580b2b4edbc37e3de01c0cb61abcad46986cdc491ce9e5ae5af223ff58b953",
     "fab912dec29a34aabfaef176", "1c6969ecb15741a9959b7a8492250e39", "0d", "1a"},
    {"139383f3f82dc78e0b380027f9e5fcd2ed23716404be5c554452e4dc73d23702"
     "6594491820c6b8297185cc1fa84f49a5c7d7cd05c5de090ff1c3397bc2740437",
     "d39da73ffc03ad0a9213ffc7", "a9cf73951cb39823777f35c96c845169",
     "48604944a80fadf50d55b87727934458c8", "476e2ec2317cb6b8dd8b6172fdceabff9d"},
    {"27faf97fb303aa4f2f364edd23997f4c77b8e51ebb8293c59dfb1d24f0fb629f"
     "6c820fc2d91bf48f0035eeec347e37ec4fb0cb36102bcdc5a248c47a2f97eab9",
     "cc94f64e14df90265f7f12a8a0386d0a", "d0016d675b49f11ea873707412d45709",
     "6b1db0f5a43376885002dc98bd556f1dac9b66b66213a9fa6069df995a123384",
     "b7703a028a0cfc312cf61cbe22b91e3cf20b7d4c9308ee15f18b4eba00889284"},
};

static void test_siv_published(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof siv_vectors / sizeof *siv_vectors; i++) {
        const struct siv_vector *v = &siv_vectors[i];
        uint8_t secret[RK_SIV_KEY_LEN];
        uint8_t aad[64];
        uint8_t plain[64];
        uint8_t expect[64];
        uint8_t expect_tag[RK_SIV_TAG_LEN];
        uint8_t sealed[64];
        uint8_t opened[64];
        uint8_t tag[RK_SIV_TAG_LEN];
        assert_int_equal(unhex(v->key, secret, sizeof secret), sizeof secret);
        size_t aad_len = unhex(v->aad, aad, sizeof aad);
        size_t len = unhex(v->plain, plain, sizeof plain);
        unhex(v->sealed, expect, sizeof expect);
        unhex(v->tag, expect_tag, sizeof expect_tag);
        struct rk_data_key *key = raw_key(NULL, secret);
        assert_int_equal(rk_aead_siv_seal(aead, key, aad, aad_len, plain, len, tag, sealed), RK_OK);
        assert_memory_equal(tag, expect_tag, sizeof tag);
        assert_memory_equal(sealed, expect, len);
        assert_int_equal(rk_aead_siv_open(aead, key, aad, aad_len, tag, sealed, len, opened),
                         RK_OK);
        assert_memory_equal(opened, plain, len);
        for (size_t bit = 0; bit < sizeof tag * 8; bit++) {
            tag[bit / 8] ^= (uint8_t)(1u << bit % 8);
            assert_int_equal(rk_aead_siv_open(aead, key, aad, aad_len, tag, sealed, len, opened),
                             RK_EAUTH);
            tag[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
        rk_data_key_unref(key);
    }
}

/* Every length through each path of CMAC and CTR, against OpenSSL's mode in a fresh context. */
static void test_siv_against_openssl(void **state)
{
    (void)state;
    enum { LEN_MAX = 131 };
    uint8_t secret[RK_SIV_KEY_LEN];
    uint8_t plain[LEN_MAX];
    uint8_t sealed[LEN_MAX];
    uint8_t expect[LEN_MAX];
    uint8_t opened[LEN_MAX];
    uint8_t tag[RK_SIV_TAG_LEN];
    uint8_t expect_tag[RK_SIV_TAG_LEN];
    for (size_t i = 0; i < sizeof secret; i++) {
        secret[i] = (uint8_t)(i * 7 + 3);
    }
    for (size_t i = 0; i < sizeof plain; i++) {
        plain[i] = (uint8_t)(i * 13 + 5);
    }
    EVP_CIPHER *siv = EVP_CIPHER_fetch(NULL, "AES-256-SIV", NULL);
    assert_non_null(siv);
    struct rk_data_key *key = raw_key(NULL, secret);
    for (size_t len = 1; len <= LEN_MAX; len++) {
        const uint8_t *aad = plain + 1;
        size_t aad_len = len * 5 % (LEN_MAX - 1) + 1;
        int n = 0;
        EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
        assert_int_equal(EVP_EncryptInit_ex(ctx, siv, NULL, secret, NULL), 1);
        assert_int_equal(EVP_EncryptUpdate(ctx, NULL, &n, aad, (int)aad_len), 1);
        assert_int_equal(EVP_EncryptUpdate(ctx, expect, &n, plain, (int)len), 1);
        assert_int_equal(
            EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, sizeof expect_tag, expect_tag), 1);
        EVP_CIPHER_CTX_free(ctx);

        assert_int_equal(rk_aead_siv_seal(aead, key, aad, aad_len, plain, len, tag, sealed), RK_OK);
        assert_memory_equal(tag, expect_tag, sizeof tag);
        assert_memory_equal(sealed, expect, len);
        assert_int_equal(rk_aead_siv_open(aead, key, aad, aad_len, tag, sealed, len, opened),
                         RK_OK);
        assert_memory_equal(opened, plain, len);
    }
    rk_data_key_unref(key);
    EVP_CIPHER_free(siv);
}

static void test_siv_altered(void **state)
{
    (void)state;
    uint8_t aad[3] = {1, 2, 3};
    uint8_t plain[20] = "twenty bytes of text";
    uint8_t sealed[20];
    uint8_t opened[20];
    uint8_t tag[RK_SIV_TAG_LEN];
    static const uint8_t zero[20];
    struct rk_data_key *key = raw_key(NULL, NULL);
    assert_int_equal(rk_aead_siv_seal(aead, key, aad, 3, plain, 20, tag, sealed), RK_OK);
    for (size_t bit = 0; bit < sizeof sealed * 8; bit++) {
        sealed[bit / 8] ^= (uint8_t)(1u << bit % 8);
        memset(opened, 0xAA, sizeof opened);
        assert_int_equal(rk_aead_siv_open(aead, key, aad, 3, tag, sealed, 20, opened), RK_EAUTH);
        assert_memory_equal(opened, zero, sizeof opened);
        sealed[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    assert_int_equal(rk_aead_siv_open(aead, key, aad, 2, tag, sealed, 20, opened), RK_EAUTH);
    assert_int_equal(rk_aead_siv_open(aead, key, aad, 3, tag, sealed, 19, opened), RK_EAUTH);
    assert_int_equal(rk_aead_siv_open(aead, key, aad, 3, tag, sealed, 20, opened), RK_OK);
    rk_data_key_unref(key);
}

/* Empty plaintext, with and without associated data; pointers may be NULL. */
static void test_empty(void **state)
{
    (void)state;
    uint8_t nonce[RK_XAES_NONCE_LEN] = {9};
    uint8_t tag[16];
    const uint8_t aad[1] = {1};
    struct rk_data_key *key = raw_key(NULL, NULL);
    for (size_t aad_len = 0; aad_len < 2; aad_len++) {
        const uint8_t *with = aad_len > 0 ? aad : NULL;
        assert_int_equal(rk_aead_siv_seal(aead, key, with, aad_len, NULL, 0, tag, NULL), RK_OK);
        assert_int_equal(rk_aead_siv_open(aead, key, with, aad_len, tag, NULL, 0, NULL), RK_OK);
        assert_int_equal(rk_aead_siv_open(aead, key, aad, 1 - aad_len, tag, NULL, 0, NULL),
                         RK_EAUTH);
        tag[15] ^= 1;
        assert_int_equal(rk_aead_siv_open(aead, key, with, aad_len, tag, NULL, 0, NULL), RK_EAUTH);

        assert_int_equal(rk_aead_xaes_seal(aead, key, nonce, with, aad_len, NULL, 0, tag), RK_OK);
        assert_int_equal(rk_aead_xaes_open(aead, key, nonce, with, aad_len, tag, 0, NULL), RK_OK);
        assert_int_equal(rk_aead_xaes_open(aead, key, nonce, aad, 1 - aad_len, tag, 0, NULL),
                         RK_EAUTH);
        tag[0] ^= 1;
        assert_int_equal(rk_aead_xaes_open(aead, key, nonce, with, aad_len, tag, 0, NULL),
                         RK_EAUTH);
    }
    rk_data_key_unref(key);
}

/* More keys than the aead keeps schedules for, in turn: no value may come under another's key. */
static void test_many_keys(void **state)
{
    (void)state;
    enum { KEYS = 9 };
    struct rk_data_key *keys[KEYS];
    uint8_t tags[KEYS][RK_SIV_TAG_LEN];
    uint8_t sealed[KEYS][5];
    uint8_t boxed[KEYS][5 + RK_XAES_TAG_LEN];
    uint8_t nonce[RK_XAES_NONCE_LEN] = {4};
    uint8_t opened[5];
    const uint8_t *plain = (const uint8_t *)"hello";
    for (unsigned i = 0; i < KEYS; i++) {
        uint8_t root[RK_DATA_KEY_LEN] = {(uint8_t)i};
        assert_int_equal(rk_data_key_new(i + 1, root, 0, &keys[i], NULL), RK_OK);
        assert_int_equal(rk_aead_siv_seal(aead, keys[i], NULL, 0, plain, 5, tags[i], sealed[i]),
                         RK_OK);
        assert_int_equal(rk_aead_xaes_seal(aead, keys[i], nonce, NULL, 0, plain, 5, boxed[i]),
                         RK_OK);
    }
    for (unsigned round = 0; round < 200; round++) {
        unsigned i = round * 7 % KEYS;
        unsigned other = (i + 1 + round % (KEYS - 1)) % KEYS;
        assert_int_equal(rk_aead_siv_open(aead, keys[i], NULL, 0, tags[i], sealed[i], 5, opened),
                         RK_OK);
        assert_int_equal(rk_aead_xaes_open(aead, keys[i], nonce, NULL, 0, boxed[i], 5, opened),
                         RK_OK);
        assert_memory_equal(opened, plain, 5);
        assert_int_equal(
            rk_aead_siv_open(aead, keys[other], NULL, 0, tags[i], sealed[i], 5, opened), RK_EAUTH);
        assert_int_equal(rk_aead_xaes_open(aead, keys[other], nonce, NULL, 0, boxed[i], 5, opened),
                         RK_EAUTH);
    }
    for (unsigned i = 0; i < KEYS; i++) {
        rk_data_key_unref(keys[i]);
    }
}

/* Several batches' worth, in uneven draws: no two draws alike. */
static void test_random(void **state)
{
    (void)state;
    enum { DRAWS = 1000 };
    uint8_t *drawn = calloc(DRAWS, RK_XAES_NONCE_LEN);
    uint8_t other[64];
    assert_non_null(drawn);
    for (size_t i = 0; i < DRAWS; i++) {
        assert_int_equal(rk_aead_random(aead, drawn + i * RK_XAES_NONCE_LEN, RK_XAES_NONCE_LEN),
                         RK_OK);
        assert_int_equal(rk_aead_random(aead, other, 1 + i % sizeof other), RK_OK);
        for (size_t j = 0; j < i; j++) {
            assert_memory_not_equal(drawn + i * RK_XAES_NONCE_LEN, drawn + j * RK_XAES_NONCE_LEN,
                                    RK_XAES_NONCE_LEN);
        }
    }
    free(drawn);
}

static void test_too_long(void **state)
{
    (void)state;
    uint8_t byte = 0;
    uint8_t tag[16];
    uint8_t nonce[RK_XAES_NONCE_LEN] = {0};
    size_t len = (size_t)1 << 32;
    struct rk_data_key *key = raw_key(NULL, NULL);
    assert_int_equal(rk_aead_siv_seal(aead, key, NULL, 0, &byte, len, tag, &byte), RK_ELIMIT);
    assert_int_equal(rk_aead_siv_open(aead, key, &byte, len, tag, &byte, 1, &byte), RK_ELIMIT);
    assert_int_equal(rk_aead_xaes_seal(aead, key, nonce, NULL, 0, &byte, len, &byte), RK_ELIMIT);
    rk_data_key_unref(key);
}

/* Seals with both algorithms are counted, never too few; opens are not. */
static void test_seals_are_counted(void **state)
{
    (void)state;
    struct rk_data_key *key = raw_key(NULL, NULL);
    const uint8_t nonce[RK_XAES_NONCE_LEN] = {1};
    uint8_t tag[RK_SIV_TAG_LEN];
    uint8_t out[1 + RK_XAES_TAG_LEN];
    uint8_t opened[1];
    assert_int_equal(rk_data_key_claimed(key), 0);
    for (uint64_t sealed = 0; sealed < 500; sealed += 2) {
        assert_in_range(rk_data_key_claimed(key), sealed, sealed + 64);
        assert_int_equal(rk_aead_siv_seal(aead, key, NULL, 0, (const uint8_t *)"x", 1, tag, out),
                         RK_OK);
        assert_int_equal(rk_aead_xaes_seal(aead, key, nonce, NULL, 0, (const uint8_t *)"x", 1, out),
                         RK_OK);
        assert_int_equal(rk_aead_xaes_open(aead, key, nonce, NULL, 0, out, 1, opened), RK_OK);
    }
    /* Another thread's, which takes leave of its own. */
    uint64_t before = rk_data_key_claimed(key);
    struct rk_aead *other = NULL;
    assert_int_equal(rk_aead_new(&other, NULL), RK_OK);
    assert_int_equal(rk_aead_siv_seal(other, key, NULL, 0, NULL, 0, tag, out), RK_OK);
    assert_true(rk_data_key_claimed(key) > before);
    rk_aead_free(other);
    rk_data_key_unref(key);
}

/* What is forgotten can be used again, and is no longer referenced until then. */
static void test_forgetting(void **state)
{
    (void)state;
    struct rk_data_key *key = raw_key(NULL, NULL);
    uint8_t tag[RK_SIV_TAG_LEN];
    uint8_t again[RK_SIV_TAG_LEN];
    assert_int_equal(rk_aead_siv_seal(aead, key, NULL, 0, NULL, 0, tag, NULL), RK_OK);
    rk_aead_forget(aead, NULL);
    assert_int_equal(rk_aead_siv_seal(aead, key, NULL, 0, NULL, 0, again, NULL), RK_OK);
    assert_memory_equal(tag, again, sizeof tag);
    rk_aead_forget(aead, NULL);
    rk_data_key_unref(key); /* the last reference: the next slot's user finds no trace */
    key = raw_key((const uint8_t *)"0123456789abcdef0123456789abcdef", NULL);
    const uint8_t nonce[RK_XAES_NONCE_LEN] = {1};
    uint8_t out[RK_XAES_TAG_LEN];
    assert_int_equal(rk_aead_xaes_seal(aead, key, nonce, NULL, 0, NULL, 0, out), RK_OK);
    rk_aead_forget(aead, NULL);
    rk_data_key_unref(key);
}

/* A legacy key's schedule is kept: whatever went before, the answer is that of one that is new. */
static void test_cbc_after_others(void **state)
{
    (void)state;
    static const uint8_t keys[2][RK_AES256_KEY_LEN] = {{1}, {2}};
    static const uint8_t ivs[2][RK_CBC_IV_LEN] = {{3}, {4}};
    static const uint8_t text[] = "a block and a bit";
    for (unsigned turn = 0; turn < 64; turn++) {
        const uint8_t *key = keys[turn & 1];
        const uint8_t *iv = ivs[turn >> 1 & 1];
        uint8_t sealed[32];
        uint8_t expected[32];
        uint8_t opened[32 + RK_CBC_IV_LEN];
        size_t len = 0;
        struct rk_aead *fresh = NULL;
        assert_int_equal(rk_aead_new(&fresh, NULL), RK_OK);
        assert_int_equal(rk_aead_cbc_seal(fresh, key, iv, text, sizeof text, expected), RK_OK);
        rk_aead_free(fresh);
        if ((turn & 4) != 0) { /* else the same key opened before */
            assert_int_equal(rk_aead_cbc_seal(aead, key, iv, text, sizeof text, sealed), RK_OK);
            assert_memory_equal(sealed, expected, sizeof expected);
        }
        for (unsigned i = 0; i < 1 + (turn >> 3 & 1); i++) {
            assert_int_equal(
                rk_aead_cbc_open(aead, key, iv, expected, sizeof expected, opened, &len), RK_OK);
            assert_int_equal(len, sizeof text);
            assert_memory_equal(opened, text, sizeof text);
        }
        if ((turn & 16) != 0) {
            rk_aead_forget(aead, NULL);
        }
        if ((turn & 32) != 0) { /* a value that does not open leaves nothing behind */
            expected[15] ^= 1;  /* the padding's last byte */
            assert_int_equal(
                rk_aead_cbc_open(aead, key, iv, expected, sizeof expected, opened, &len), RK_EAUTH);
            assert_int_equal(len, 0);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_xaes_published),   cmocka_unit_test(test_seals_are_counted),
        cmocka_unit_test(test_forgetting),       cmocka_unit_test(test_cbc_after_others),
        cmocka_unit_test(test_xaes_accumulated), cmocka_unit_test(test_xaes_altered),
        cmocka_unit_test(test_siv_published),    cmocka_unit_test(test_siv_against_openssl),
        cmocka_unit_test(test_siv_altered),      cmocka_unit_test(test_empty),
        cmocka_unit_test(test_many_keys),        cmocka_unit_test(test_random),
        cmocka_unit_test(test_too_long),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
