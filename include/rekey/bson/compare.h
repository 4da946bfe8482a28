/*
 * The order of BSON values as mongod sorts them (MongoDB manual, "Comparison and Sort Order"):
 * canonical type first, then value; numbers of all types by value, NaN before all others and equal
 * to itself; documents element by element (type, then name, then value), the shorter one first;
 * strings byte by byte (the simple collation).
 */
#ifndef REKEY_BSON_COMPARE_H
#define REKEY_BSON_COMPARE_H

#include <rekey/bson/walk.h>

/* Below 0, 0, above 0. Names at the top are not compared. What is malformed inside a document, or
 * nested deeper than mongod takes, is ordered by its bytes. Allocates nothing. */
int rk_bson_compare(const struct rk_bson_elem *a, const struct rk_bson_elem *b);

#endif
