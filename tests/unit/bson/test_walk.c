#include <rekey/bson/walk.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <stdlib.h>

/* One element of every type. */
static const uint8_t all_types[] = {
    0xD1, 0x00, 0x00, 0x00,                                          /* length 209 */
    0x01, 'd',  0,    0,    0,    0,    0,    0,    0,   0xF0, 0x3F, /* double 1.0 */
    0x02, 's',  0,    3,    0,    0,    0,    'h',  'i', 0,          /* string "hi" */
    0x03, 'o',  0,    5,    0,    0,    0,    0,                     /* document {} */
    0x04, 'a',  0,    8,    0,    0,    0,    0x0A, '0', 0,    0,    /* array [null] */
    0x05, 'b',  0,    2,    0,    0,    0,    0x80, 1,   2,          /* binary, subtype 0x80 */
    0x06, 'u',  0,                                                   /* undefined */
    0x07, 'i',  0,    1,    2,    3,    4,    5,    6,   7,    8,    9, 10, 11, 12, /* ObjectId */
    0x08, 't',  0,    1,                                                            /* true */
    0x09, 'D',  0,    1,    0,    0,    0,    0,    0,   0,    0,                   /* date */
    0x0A, 'n',  0,                                                                  /* null */
    0x0B, 'r',  0,    '^',  'x',  0,    'i',  0, /* regex /^x/i */
    0x0C, 'p',  0,    2,    0,    0,    0,    'c',  0,   1,    2,    3, 4,  5,  6,
    7,    8,    9,    10,   11,   12,                             /* ptr */
    0x0D, 'c',  0,    2,    0,    0,    0,    ';',  0,            /* code */
    0x0E, 'y',  0,    1,    0,    0,    0,    0,                  /* symbol "" */
    0x0F, 'w',  0,    15,   0,    0,    0,                        /* code with scope, 15 bytes: */
    2,    0,    0,    0,    ';',  0,                              /*   code */
    5,    0,    0,    0,    0,                                    /*   scope {} */
    0x10, '3',  0,    0xFF, 0xFF, 0xFF, 0xFF,                     /* int32 -1 */
    0x11, 'T',  0,    1,    0,    0,    0,    2,    0,   0,    0, /* timestamp */
    0x12, '6',  0,    0,    0,    0,    0,    0,    0,   0,    0x80, /* int64, the least */
    0x13, 'q',  0,    0,    0,    0,    0,    0,    0,   0,    0,    0, 0,  0,  0,
    0,    0,    0x40, 0x30, /* decimal */
    0xFF, 'm',  0,          /* minKey */
    0x7F, 'M',  0,          /* maxKey */
    0x00,
};

/* Validates a copy of exactly len bytes, so that an over-read is caught. */
static bool valid_exact(const uint8_t *data, size_t len, unsigned depth_max)
{
    struct rk_bson_view view;
    uint8_t *copy = malloc(len + (len == 0));
    assert_non_null(copy);
    memcpy(copy, data, len);
    bool valid = rk_bson_view_init(&view, copy, len) && rk_bson_validate(&view, depth_max);
    free(copy);
    return valid;
}

static void test_walks_every_type(void **state)
{
    (void)state;
    static const struct {
        uint8_t type;
        const char *key;
        uint32_t value_len;
    } expected[] = {
        {RK_BSON_DOUBLE, "d", 8},      {RK_BSON_STRING, "s", 7},    {RK_BSON_DOCUMENT, "o", 5},
        {RK_BSON_ARRAY, "a", 8},       {RK_BSON_BINARY, "b", 7},    {RK_BSON_UNDEFINED, "u", 0},
        {RK_BSON_OID, "i", 12},        {RK_BSON_BOOL, "t", 1},      {RK_BSON_DATE, "D", 8},
        {RK_BSON_NULL, "n", 0},        {RK_BSON_REGEX, "r", 5},     {RK_BSON_DBPOINTER, "p", 18},
        {RK_BSON_CODE, "c", 6},        {RK_BSON_SYMBOL, "y", 5},    {RK_BSON_CODEWSCOPE, "w", 15},
        {RK_BSON_INT32, "3", 4},       {RK_BSON_TIMESTAMP, "T", 8}, {RK_BSON_INT64, "6", 8},
        {RK_BSON_DECIMAL128, "q", 16}, {RK_BSON_MINKEY, "m", 0},    {RK_BSON_MAXKEY, "M", 0},
    };
    struct rk_bson_view view;
    struct rk_bson_iter iter;
    struct rk_bson_elem elem;
    assert_int_equal(all_types[0], sizeof all_types);
    assert_true(rk_bson_view_init(&view, all_types, sizeof all_types));
    assert_true(rk_bson_validate(&view, 2));
    assert_false(rk_bson_validate(&view, 1));
    rk_bson_iter_init(&iter, &view);
    const uint8_t *next = all_types + 4;
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++) {
        assert_int_equal(rk_bson_next(&iter, &elem), RK_BSON_STEP_ELEM);
        assert_int_equal(elem.type, expected[i].type);
        assert_string_equal(elem.key, expected[i].key);
        assert_int_equal(elem.key_len, 1);
        assert_int_equal(elem.value_len, expected[i].value_len);
        assert_ptr_equal(elem.start, next);
        assert_ptr_equal(elem.value, next + 3);
        assert_int_equal(elem.len, 3 + elem.value_len);
        next += elem.len;
    }
    assert_int_equal(rk_bson_next(&iter, &elem), RK_BSON_STEP_END);
    assert_int_equal(rk_bson_next(&iter, &elem), RK_BSON_STEP_END);
}

static void test_every_truncation_is_refused(void **state)
{
    (void)state;
    uint8_t data[sizeof all_types];
    for (size_t n = 0; n < sizeof all_types; n++) {
        /* The length as it was, then one that agrees with the cut. Cut at an element's end with
         * a closing NUL it would be a document, so the last byte is kept from being one. */
        assert_false(valid_exact(all_types, n, 200));
        memcpy(data, all_types, sizeof data);
        rk_store_u32(data, (uint32_t)n);
        if (n >= 5) {
            data[n - 1] = 1;
        }
        assert_false(valid_exact(data, n, 200));
    }
}

/* Any one byte changed to anything: accepted or not, but never read past and always ended. */
static void test_every_byte_changed(void **state)
{
    (void)state;
    static const uint8_t values[] = {0x00, 0x01, 0x03, 0x0F, 0x7F, 0x80, 0xFF};
    uint8_t data[sizeof all_types];
    for (size_t i = 0; i < sizeof all_types; i++) {
        for (size_t j = 0; j < sizeof values; j++) {
            memcpy(data, all_types, sizeof data);
            data[i] = values[j];
            (void)valid_exact(data, sizeof data, 200);
        }
    }
}

static void test_document_lengths(void **state)
{
    (void)state;
    static const uint32_t lengths[] = {0, 1, 4, 6, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF};
    static const uint8_t empty[] = {5, 0, 0, 0, 0};
    static const uint8_t not_closed[] = {5, 0, 0, 0, 1};
    struct rk_bson_view view;
    assert_true(rk_bson_view_init(&view, empty, 5));
    assert_true(rk_bson_view_init(&view, all_types, sizeof all_types));
    assert_true(rk_bson_validate(&view, 200));
    assert_false(rk_bson_view_init(&view, empty, 4));
    assert_false(rk_bson_view_init(&view, not_closed, 5));
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        uint8_t data[5] = {0};
        rk_store_u32(data, lengths[i]);
        assert_false(rk_bson_view_init(&view, data, 5));
    }
    /* What follows a document is not its business. */
    static const uint8_t followed[] = {5, 0, 0, 0, 0, 0xEE, 0xEE};
    assert_true(rk_bson_view_init(&view, followed, sizeof followed));
    assert_int_equal(view.len, 5);
}

static void test_malformed_elements(void **state)
{
    (void)state;
#define DOC(...)                                                                                   \
    {                                                                                              \
        (uint8_t)(sizeof((uint8_t[]){__VA_ARGS__})),                                               \
        {                                                                                          \
            __VA_ARGS__                                                                            \
        }                                                                                          \
    }
    static const struct {
        uint8_t len;
        uint8_t elements[28];
    } cases[] = {
        DOC(0x10),                                     /* type without key */
        DOC(0x10, 'a'),                                /* key without end */
        DOC(0x10, 'a', 0, 1, 2, 3),                    /* int32 of three bytes */
        DOC(0x00, 'a', 0),                             /* type 0 */
        DOC(0x14, 'a', 0),                             /* unknown types */
        DOC(0x80, 'a', 0),                             /* */
        DOC(0x08, 'a', 0, 2),                          /* bool that is neither */
        DOC(0x02, 'a', 0, 0, 0, 0, 0, 0),              /* string of length 0 */
        DOC(0x02, 'a', 0, 2, 0, 0, 0, 'x', 'y'),       /* string without NUL */
        DOC(0x02, 'a', 0, 3, 0, 0, 0, 'x', 0),         /* string longer than the rest */
        DOC(0x02, 'a', 0, 255, 255, 255, 255, 'x', 0), /* string of length -1 */
        DOC(0x03, 'a', 0, 4, 0, 0, 0, 0),              /* document of length 4 */
        DOC(0x03, 'a', 0, 7, 0, 0, 0, 0x10, 0),        /* bad element one level down */
        DOC(0x04, 'a', 0, 6, 0, 0, 0, 0),              /* array past the end */
        DOC(0x05, 'a', 0, 2, 0, 0, 0, 0, 1),           /* binary past the end */
        DOC(0x05, 'a', 0, 255, 255, 255, 255, 0),      /* binary of length -1 */
        DOC(0x05, 'a', 0, 0, 0, 0, 0),                 /* binary without subtype */
        DOC(0x0B, 'a', 0, 'x'),                        /* regex without end */
        DOC(0x0B, 'a', 0, 'x', 0, 'i'),                /* options without end */
        DOC(0x0C, 'a', 0, 2, 0, 0, 0, 'c', 0, 1, 2),   /* DBPointer with half an id */
        DOC(0x0F, 'a', 0, 14, 0, 0, 0, 1, 0, 0, 0, 0, 4, 0, 0, 0, 0),          /* scope too short */
        DOC(0x0F, 'a', 0, 15, 0, 0, 0, 1, 0, 0, 0, 0, 5, 0, 0, 0, 0),          /* total too long */
        DOC(0x0F, 'a', 0, 13, 0, 0, 0, 1, 0, 0, 0, 0, 5, 0, 0, 0, 0),          /* total too short */
        DOC(0x0F, 'a', 0, 14, 0, 0, 0, 99, 0, 0, 0, 0, 5, 0, 0, 0, 0),         /* code too long */
        DOC(0x0F, 'a', 0, 16, 0, 0, 0, 1, 0, 0, 0, 0, 7, 0, 0, 0, 0x10, 0, 0), /* bad scope */
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint8_t data[64];
        size_t len = 4u + cases[i].len + 1u;
        rk_store_u32(data, (uint32_t)len);
        memcpy(data + 4, cases[i].elements, cases[i].len);
        data[len - 1] = 0;
        if (valid_exact(data, len, 200)) {
            fail_msg("case %zu was accepted", i);
        }
    }
}

static void test_depth(void **state)
{
    (void)state;
    /* {"": {"": {... }}}: each level is a length, the element's head and, later, a NUL. */
    uint8_t data[300 * 7];
    for (unsigned depth = 1; depth <= 250; depth++) {
        size_t len = (size_t)depth * 5 + (depth - 1) * 2;
        size_t off = 0;
        for (unsigned level = 0; level < depth; level++) {
            rk_store_u32(data + off, (uint32_t)(len - off - level));
            off += 4;
            if (level + 1 < depth) {
                data[off++] = RK_BSON_DOCUMENT;
                data[off++] = 0;
            }
        }
        memset(data + off, 0, depth);
        assert_true(valid_exact(data, len, depth));
        assert_false(valid_exact(data, len, depth - 1));
        assert_int_equal(valid_exact(data, len, 200), depth <= 200);
    }
    /* A scope is a level, too. */
    static const uint8_t scope[] = {22, 0, 0, 0, 0x0F, 'w', 0, 14, 0, 0, 0,
                                    1,  0, 0, 0, 0,    5,   0, 0,  0, 0, 0};
    assert_true(valid_exact(scope, sizeof scope, 2));
    assert_false(valid_exact(scope, sizeof scope, 1));
}

static void test_find_and_read(void **state)
{
    (void)state;
    struct rk_bson_view view;
    struct rk_bson_view sub;
    struct rk_bson_elem elem;
    const char *text = NULL;
    uint32_t len = 0;
    int64_t n = 0;
    assert_true(rk_bson_view_init(&view, all_types, sizeof all_types));
    assert_false(rk_bson_find(&view, "nope", &elem));
    assert_false(rk_bson_find(&view, "", &elem));
    assert_true(rk_bson_find(&view, "s", &elem));
    assert_true(rk_bson_key_is(&elem, "s"));
    assert_false(rk_bson_key_is(&elem, "sx"));
    assert_true(rk_bson_elem_utf8(&elem, &text, &len));
    assert_int_equal(len, 2);
    assert_string_equal(text, "hi");
    assert_false(rk_bson_elem_view(&elem, &sub));
    assert_false(rk_bson_elem_int(&elem, &n));
    assert_false(rk_bson_elem_truthy(&elem));
    assert_true(rk_bson_find(&view, "y", &elem));
    assert_true(rk_bson_elem_utf8(&elem, &text, &len));
    assert_int_equal(len, 0);
    assert_true(rk_bson_find(&view, "b", &elem));
    assert_false(rk_bson_elem_utf8(&elem, &text, &len));
    assert_true(rk_bson_find(&view, "a", &elem));
    assert_true(rk_bson_elem_view(&elem, &sub));
    assert_int_equal(sub.len, 8);
    assert_true(rk_bson_find(&view, "6", &elem));
    assert_true(rk_bson_elem_int(&elem, &n));
    assert_true(n == INT64_MIN);
    assert_true(rk_bson_elem_truthy(&elem));
}

static struct rk_bson_elem number(uint8_t type, const void *value, uint32_t len)
{
    return (struct rk_bson_elem){.type = type, .value = value, .value_len = len};
}

static void test_flags_as_mongod_reads_them(void **state)
{
    (void)state;
    static const uint8_t zero[8] = {0};
    static const uint8_t one[8] = {1, 0, 0, 0, 0, 0, 0, 0};
    static const uint8_t minus_zero[8] = {0, 0, 0, 0, 0, 0, 0, 0x80};
    static const uint8_t one_half[8] = {0, 0, 0, 0, 0, 0, 0xE0, 0x3F};
    static const uint8_t types[] = {RK_BSON_BOOL, RK_BSON_INT32, RK_BSON_INT64, RK_BSON_DOUBLE};
    for (size_t i = 0; i < sizeof types; i++) {
        struct rk_bson_elem off = number(types[i], zero, 8);
        struct rk_bson_elem on = number(types[i], one, 8); /* as a double: the least above 0 */
        assert_false(rk_bson_elem_truthy(&off));
        assert_true(rk_bson_elem_truthy(&on));
    }
    struct rk_bson_elem elem = number(RK_BSON_DOUBLE, minus_zero, 8);
    assert_false(rk_bson_elem_truthy(&elem));
    elem = number(RK_BSON_DOUBLE, one_half, 8);
    assert_true(rk_bson_elem_truthy(&elem));
    elem = number(RK_BSON_NULL, NULL, 0);
    assert_false(rk_bson_elem_truthy(&elem));
}

static void test_integers(void **state)
{
    (void)state;
    static const struct {
        double value;
        bool is_int;
    } doubles[] = {{0, true},
                   {-0.0, true},
                   {-5, true},
                   {9007199254740992.0, true},
                   {9007199254740994.0, false},
                   {1.5, false},
                   {1e300, false},
                   {-1e300, false},
                   {__builtin_nan(""), false},
                   {__builtin_inf(), false}};
    for (size_t i = 0; i < sizeof doubles / sizeof doubles[0]; i++) {
        int64_t n = 77;
        uint64_t bits;
        uint8_t bytes[8];
        memcpy(&bits, &doubles[i].value, sizeof bits);
        rk_store_u64(bytes, bits);
        struct rk_bson_elem elem = number(RK_BSON_DOUBLE, bytes, 8);
        assert_int_equal(rk_bson_elem_int(&elem, &n), doubles[i].is_int);
        assert_true(n == (doubles[i].is_int ? (int64_t)doubles[i].value : 77));
    }
    int64_t n = 0;
    static const uint8_t minus_two[] = {0xFE, 0xFF, 0xFF, 0xFF};
    struct rk_bson_elem elem = number(RK_BSON_INT32, minus_two, 4);
    assert_true(rk_bson_elem_int(&elem, &n));
    assert_true(n == -2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_walks_every_type),
        cmocka_unit_test(test_every_truncation_is_refused),
        cmocka_unit_test(test_every_byte_changed),
        cmocka_unit_test(test_document_lengths),
        cmocka_unit_test(test_malformed_elements),
        cmocka_unit_test(test_depth),
        cmocka_unit_test(test_find_and_read),
        cmocka_unit_test(test_flags_as_mongod_reads_them),
        cmocka_unit_test(test_integers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
