/*
 * Statements of a write batch that Rekey refuses one by one, as mongod would: the rest of the
 * batch is the server's business.
 *
 * In the forwarded batch each of them is replaced by a statement that every server refuses
 * (command_batch.c), so that order, transactions, retries and the numbers in the reply are the
 * server's own; in the reply its error becomes the one that is kept here (reply.h).
 */
#ifndef REKEY_POLICY_WRITE_ERRORS_H
#define REKEY_POLICY_WRITE_ERRORS_H

#include <rekey/base/buf.h>

struct rk_write_errors;

struct rk_write_error {
    uint32_t index; /* of the statement in its batch */
    int code;
    const char *message; /* valid as long as the errors are */
    size_t message_len;
};

RK_MUST_CHECK enum rk_status rk_write_errors_new(struct rk_write_errors **out);
void rk_write_errors_free(struct rk_write_errors *errors);

/* err is copied. Indexes must rise. RK_ELIMIT: there are too many to be kept. */
RK_MUST_CHECK enum rk_status rk_write_errors_add(struct rk_write_errors *errors, uint32_t index,
                                                 const struct rk_error *err);

/* 0 for NULL. */
size_t rk_write_errors_count(const struct rk_write_errors *errors);
/* False when the statement is not among them. */
bool rk_write_errors_find(const struct rk_write_errors *errors, uint32_t index,
                          struct rk_write_error *out);

#endif
