#include <rekey/bson/compare.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define LADDER_MAX 64

/* The elements must be in ascending order, every pair of them. Sets the document's length. */
static void check_ascending(uint8_t *doc, size_t len)
{
    struct rk_bson_view view;
    struct rk_bson_iter iter;
    struct rk_bson_elem rungs[LADDER_MAX];
    size_t n = 0;
    rk_store_u32(doc, (uint32_t)len);
    assert_true(rk_bson_view_init(&view, doc, len));
    rk_bson_iter_init(&iter, &view);
    while (n < LADDER_MAX && rk_bson_next(&iter, &rungs[n]) == RK_BSON_STEP_ELEM) {
        n++;
    }
    assert_true(n > 1 && n < LADDER_MAX);
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < n; j++) {
            int order = rk_bson_compare(&rungs[i], &rungs[j]);
            if ((order > 0) - (order < 0) != (i > j) - (i < j)) {
                fail_msg("%s against %s: %d", rungs[i].key, rungs[j].key, order);
            }
        }
    }
}

static void test_types_in_canonical_order(void **state)
{
    (void)state;
    static uint8_t ladder[] = {
        0,    0,   0, 0,                                                  /* its length */
        0xFF, 'a', 0,                                                     /* minKey */
        0x06, 'b', 0,                                                     /* undefined */
        0x0A, 'c', 0,                                                     /* null */
        0x10, 'd', 0, 9,  0, 0, 0,                                        /* number */
        0x02, 'e', 0, 1,  0, 0, 0, 0,                                     /* string */
        0x03, 'f', 0, 5,  0, 0, 0, 0,                                     /* document */
        0x04, 'g', 0, 5,  0, 0, 0, 0,                                     /* array */
        0x05, 'h', 0, 0,  0, 0, 0, 0,                                     /* binary */
        0x07, 'i', 0, 0,  0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,                /* ObjectId */
        0x08, 'j', 0, 0,                                                  /* bool */
        0x09, 'k', 0, 0,  0, 0, 0, 0, 0, 0, 0,                            /* date */
        0x11, 'l', 0, 0,  0, 0, 0, 0, 0, 0, 0,                            /* timestamp */
        0x0B, 'm', 0, 0,  0,                                              /* regex */
        0x0C, 'n', 0, 1,  0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, /* DBPointer */
        0x0D, 'o', 0, 1,  0, 0, 0, 0,                                     /* code */
        0x0F, 'p', 0, 14, 0, 0, 0, 1, 0, 0, 0, 0, 5, 0, 0, 0, 0,          /* code with scope */
        0x7F, 'q', 0,                                                     /* maxKey */
        0,
    };
    check_ascending(ladder, sizeof ladder);
}

static void test_numbers_by_value(void **state)
{
    (void)state;
    static uint8_t ladder[] = {
        0,    0,   0, 0,                                              /* its length */
        0x01, 'a', 0, 0,    0,    0,    0,    0,    0,    0xF8, 0x7F, /* NaN */
        0x01, 'b', 0, 0,    0,    0,    0,    0,    0,    0xF0, 0xFF, /* -infinity */
        0x12, 'c', 0, 0,    0,    0,    0,    0,    0,    0,    0x80, /* int64, the least */
        0x12, 'd', 0, 1,    0,    0,    0,    0,    0,    0,    0x80, /* one more */
        0x10, 'e', 0, 0xFF, 0xFF, 0xFF, 0xFF,                         /* int32 -1 */
        0x01, 'f', 0, 0,    0,    0,    0,    0,    0,    0,    0x80, /* double -0.0 */
        0x01, 'g', 0, 1,    0,    0,    0,    0,    0,    0,    0,    /* the least denormal */
        0x13, 'h', 0, 1,    0,    0,    0,    0,    0,    0,    0,
        0,    0,   0, 0,    0,    0,    0x3E, 0x30,                   /* decimal 0.1 */
        0x01, 'i', 0, 0x9A, 0x99, 0x99, 0x99, 0x99, 0x99, 0xB9, 0x3F, /* double 0.1, a bit more */
        0x10, 'j', 0, 2,    0,    0,    0,                            /* int32 2 */
        0x01, 'k', 0, 0,    0,    0,    0,    0,    0,    0x40, 0x43, /* double 2^53 */
        0x12, 'l', 0, 1,    0,    0,    0,    0,    0,    0x20, 0,    /* int64 2^53 + 1 */
        0x12, 'm', 0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F, /* int64, the greatest */
        0x01, 'n', 0, 0,    0,    0,    0,    0,    0,    0xE0, 0x43, /* double 2^63 */
        0x13, 'o', 0, 1,    0,    0,    0,    0,    0,    0,    0,
        0,    0,   0, 0,    0,    0,    0x8A, 0x30,                   /* decimal 1E+37 */
        0x01, 'p', 0, 0,    0,    0,    0,    0,    0,    0xF0, 0x7F, /* infinity */
        0,
    };
    check_ascending(ladder, sizeof ladder);
}

static void test_values_of_one_type(void **state)
{
    (void)state;
    static uint8_t ladder[] = {
        0,    0,   0, 0,                                           /* its length */
        0x02, 'a', 0, 2,    0,    0,    0,    'a',  0,             /* "a" */
        0x0E, 'b', 0, 3,    0,    0,    0,    'a',  'b',  0,       /* symbol "ab" */
        0x02, 'c', 0, 2,    0,    0,    0,    0xC3, 0,             /* by unsigned bytes */
        0x03, 'd', 0, 5,    0,    0,    0,    0,                   /* {} */
        0x03, 'e', 0, 8,    0,    0,    0,    0x0A, 'x',  0,    0, /* {x: null} */
        0x03, 'f', 0, 12,   0,    0,    0,    0x10, 'x',  0,    1,    0, 0, 0, 0, /* {x: 1} */
        0x03, 'g', 0, 15,   0,    0,    0,    0x10, 'x',  0,    1,    0, 0, 0, 0x0A,
        'a',  0,   0, /* {x: 1, a: null} */
        0x03, 'h', 0, 12,   0,    0,    0,    0x10, 'y',  0,    0,    0, 0, 0, 0, /* {y: 0} */
        0x05, 'i', 0, 1,    0,    0,    0,    9,    9,                /* binary: length, */
        0x05, 'j', 0, 2,    0,    0,    0,    0,    0,    0,          /*   subtype, */
        0x05, 'k', 0, 2,    0,    0,    0,    1,    0,    0,          /*   bytes */
        0x09, 'l', 0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, /* date before 1970 */
        0x09, 'm', 0, 0,    0,    0,    0,    0,    0,    0,    0,    /* 1970 */
        0x0B, 'n', 0, 'a',  0,    'i',  0,                            /* /a/i */
        0x0B, 'o', 0, 'a',  'a',  0,    0,                            /* /aa/ */
        0,
    };
    check_ascending(ladder, sizeof ladder);
}

static void test_equal_across_types(void **state)
{
    (void)state;
    static uint8_t ones[] = {
        0,    0,   0, 0,                                                           /* its length */
        0x10, 'a', 0, 1,  0, 0, 0,                                                 /* int32 */
        0x12, 'b', 0, 1,  0, 0, 0, 0, 0, 0,    0,                                  /* int64 */
        0x01, 'c', 0, 0,  0, 0, 0, 0, 0, 0xF0, 0x3F,                               /* double */
        0x13, 'd', 0, 1,  0, 0, 0, 0, 0, 0,    0,    0, 0, 0, 0, 0, 0, 0x40, 0x30, /* decimal 1 */
        0x13, 'e', 0, 10, 0, 0, 0, 0, 0, 0,    0,    0, 0, 0, 0, 0, 0, 0x3E, 0x30, /* decimal 1.0 */
        0,
    };
    struct rk_bson_view view;
    struct rk_bson_iter i;
    struct rk_bson_elem a;
    rk_store_u32(ones, sizeof ones);
    assert_true(rk_bson_view_init(&view, ones, sizeof ones));
    rk_bson_iter_init(&i, &view);
    while (rk_bson_next(&i, &a) == RK_BSON_STEP_ELEM) {
        struct rk_bson_iter j;
        struct rk_bson_elem b;
        rk_bson_iter_init(&j, &view);
        while (rk_bson_next(&j, &b) == RK_BSON_STEP_ELEM) {
            assert_int_equal(rk_bson_compare(&a, &b), 0);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_types_in_canonical_order),
        cmocka_unit_test(test_numbers_by_value),
        cmocka_unit_test(test_values_of_one_type),
        cmocka_unit_test(test_equal_across_types),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
