/*
 * How large things may be to mongod (6.0; the same since 3.6). Measured against it by
 * tests/integration/test_limits.py.
 */
#ifndef REKEY_WIRE_LIMITS_H
#define REKEY_WIRE_LIMITS_H

/* A stored document; one that is longer is an error of its own in a batch. */
#define RK_DOCUMENT_BYTES_MAX 16777216u
/* Any document of a message; one that is longer fails the command, with code 10334. */
#define RK_OBJECT_BYTES_MAX 16793600u

#endif
