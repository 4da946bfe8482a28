#include "number_internal.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define DIGITS 34 /* of a decimal128 */
#define DECIMAL_BIAS 6176

__extension__ typedef unsigned __int128 uint128;

/* Enumerators in their order; zero and finite numbers are told apart by their digits. */
enum kind { NOT_A_NUMBER, NEGATIVE_INFINITY, FINITE, POSITIVE_INFINITY };

struct number {
    enum kind kind;
    bool negative;
    char digits[DIGITS + 1]; /* the first is not 0; padded with '0' on the right; all 0: zero */
    int exponent;            /* of the first digit; of zero: 0 */
};

static void set_digits(struct number *n, const char *digits, size_t len, int exponent)
{
    memset(n->digits, '0', DIGITS);
    if (digits[0] != '0') {
        memcpy(n->digits, digits, len < DIGITS ? len : DIGITS);
        n->exponent = exponent;
    }
}

static bool is_zero(const struct number *n)
{
    return n->digits[0] == '0';
}

static void from_int(struct number *n, int64_t value)
{
    char text[24];
    uint64_t magnitude = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
    int len = snprintf(text, sizeof text, "%" PRIu64, magnitude);
    n->kind = FINITE;
    n->negative = value < 0;
    set_digits(n, text, (size_t)len, len - 1);
}

static void from_double(struct number *n, double value)
{
    if (isnan(value)) {
        n->kind = NOT_A_NUMBER;
    } else if (isinf(value)) {
        n->kind = value < 0 ? NEGATIVE_INFINITY : POSITIVE_INFINITY;
    } else {
        char text[64]; /* d.ddde+123 */
        (void)snprintf(text, sizeof text, "%.*e", DIGITS - 1, fabs(value));
        text[1] = text[0]; /* the point away */
        n->kind = FINITE;
        n->negative = value < 0;
        set_digits(n, text + 1, DIGITS, (int)strtol(text + DIGITS + 2, NULL, 10));
    }
}

static uint128 power_of_ten(int n)
{
    uint128 power = 1;
    while (n-- > 0) {
        power *= 10;
    }
    return power;
}

/* IEEE 754-2008, binary integer decimal. */
static void from_decimal(struct number *n, uint64_t high, uint64_t low)
{
    unsigned combination = (unsigned)(high >> 58) & 0x1F;
    n->negative = high >> 63 != 0;
    if (combination == 0x1F) {
        n->kind = NOT_A_NUMBER;
        return;
    }
    if (combination == 0x1E) {
        n->kind = n->negative ? NEGATIVE_INFINITY : POSITIVE_INFINITY;
        return;
    }
    n->kind = FINITE;
    uint128 coefficient = (uint128)(high & 0x1FFFFFFFFFFFF) << 64 | low;
    int exponent = (int)(high >> 49 & 0x3FFF) - DECIMAL_BIAS;
    if (combination >> 3 == 3 || coefficient >= power_of_ten(DIGITS)) {
        coefficient = 0; /* not canonical: the standard reads it as zero */
    }
    char text[DIGITS];
    size_t at = DIGITS;
    do {
        text[--at] = (char)('0' + (int)(coefficient % 10));
        coefficient /= 10;
    } while (coefficient > 0);
    set_digits(n, text + at, DIGITS - at, exponent + (int)(DIGITS - at) - 1);
}

static void from_elem(struct number *n, const struct rk_bson_elem *elem)
{
    *n = (struct number){0};
    uint64_t bits;
    double value;
    switch (elem->type) {
    case RK_BSON_INT32:
        from_int(n, rk_load_i32(elem->value));
        break;
    case RK_BSON_INT64:
        from_int(n, rk_load_i64(elem->value));
        break;
    case RK_BSON_DOUBLE:
        bits = rk_load_u64(elem->value);
        memcpy(&value, &bits, sizeof value);
        from_double(n, value);
        break;
    default:
        from_decimal(n, rk_load_u64(elem->value + 8), rk_load_u64(elem->value));
        break;
    }
}

static int compare_magnitudes(const struct number *a, const struct number *b)
{
    if (is_zero(a) || is_zero(b)) {
        return (int)is_zero(b) - (int)is_zero(a);
    }
    if (a->exponent != b->exponent) {
        return a->exponent < b->exponent ? -1 : 1;
    }
    return memcmp(a->digits, b->digits, DIGITS);
}

int rk_bson_compare_numbers(const struct rk_bson_elem *a, const struct rk_bson_elem *b)
{
    struct number x;
    struct number y;
    from_elem(&x, a);
    from_elem(&y, b);
    if (x.kind != y.kind) {
        return x.kind < y.kind ? -1 : 1;
    }
    if (x.kind != FINITE) {
        return 0;
    }
    bool x_below = x.negative && !is_zero(&x);
    bool y_below = y.negative && !is_zero(&y);
    if (x_below != y_below) {
        return x_below ? -1 : 1;
    }
    int order = compare_magnitudes(&x, &y);
    return x_below ? -order : order;
}
