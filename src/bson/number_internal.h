/* Numbers of all four BSON types as decimal digits, so that any two can be compared. */
#ifndef REKEY_BSON_NUMBER_INTERNAL_H
#define REKEY_BSON_NUMBER_INTERNAL_H

#include <rekey/bson/walk.h>

/* elem: int32, int64, double or decimal128. Doubles are exact to 34 digits, as many as a decimal
 * has; that tells a double from every integer that it does not equal. */
int rk_bson_compare_numbers(const struct rk_bson_elem *a, const struct rk_bson_elem *b);

#endif
