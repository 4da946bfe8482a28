/*
 * TLS for either side, over OpenSSL: TLS 1.2 and newer, certificates checked against a CA file,
 * and for upstream connections the host name or IP address as well (RFC 6125).
 */
#ifndef REKEY_NET_TLS_H
#define REKEY_NET_TLS_H

#include <rekey/net/stream.h>

struct rk_tls_config {
    const char
        *ca_file; /* NULL: the system's store (upstream), no client certificates (listener) */
    const char *cert_file; /* PEM chain; NULL: none (upstream only) */
    const char *key_file;  /* NULL: cert_file */
    bool verify;           /* upstream: check the server. listener: demand a client certificate */
};

struct rk_tls; /* shared settings of many streams; reference-counted by OpenSSL, thread-safe */

RK_MUST_CHECK enum rk_status rk_tls_new_server(const struct rk_tls_config *config,
                                               struct rk_tls **out, struct rk_error *err);
RK_MUST_CHECK enum rk_status rk_tls_new_client(const struct rk_tls_config *config,
                                               struct rk_tls **out, struct rk_error *err);
void rk_tls_free(struct rk_tls *tls);

/* Takes fd. host: the upstream name or address to send and verify; NULL on the listener's side. */
RK_MUST_CHECK enum rk_status rk_stream_init_tls(struct rk_stream *stream, int fd,
                                                struct rk_tls *tls, const char *host);

#endif
