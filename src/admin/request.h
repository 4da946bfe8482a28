/*
 * The head of an HTTP/1 request (RFC 9112), strictly: CRLF line ends, no folded lines, no control
 * bytes. Of its fields only Authorization is looked at. Views into the bytes that were given.
 */
#ifndef REKEY_ADMIN_REQUEST_H
#define REKEY_ADMIN_REQUEST_H

#include <rekey/wire/frame.h>

struct rk_admin_text {
    const char *data;
    size_t len;
};

struct rk_admin_request {
    struct rk_admin_text method;
    struct rk_admin_text path;  /* without the query */
    struct rk_admin_text token; /* of "Authorization: Bearer"; data NULL: none */
};

/* INCOMPLETE: the head does not end here. What follows the head is not looked at. */
enum rk_parse rk_admin_request_parse(const void *data, size_t len,
                                     struct rk_admin_request *request);

bool rk_admin_text_is(struct rk_admin_text text, const char *wanted);

#endif
