#include <rekey/net/tls.h>

#include <arpa/inet.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

struct rk_tls {
    SSL_CTX *ctx;
    bool server;
    bool verify;
};

/* The innermost reason from OpenSSL's error queue, which is emptied. */
static const char *reason(void)
{
    unsigned long code = ERR_peek_last_error();
    const char *text = code == 0 ? NULL : ERR_reason_error_string(code);
    ERR_clear_error();
    return text != NULL ? text : "unknown TLS failure";
}

static enum rk_status load_identity(SSL_CTX *ctx, const struct rk_tls_config *config,
                                    struct rk_error *err)
{
    const char *key = config->key_file != NULL ? config->key_file : config->cert_file;
    if (SSL_CTX_use_certificate_chain_file(ctx, config->cert_file) != 1) {
        return rk_error_set(err, RK_EINVAL, "TLS certificate file %s: %s", config->cert_file,
                            reason());
    }
    if (SSL_CTX_use_PrivateKey_file(ctx, key, SSL_FILETYPE_PEM) != 1) {
        return rk_error_set(err, RK_EINVAL, "TLS key file %s: %s", key, reason());
    }
    return RK_OK;
}

static enum rk_status load_ca(SSL_CTX *ctx, const struct rk_tls_config *config,
                              struct rk_error *err)
{
    if (config->ca_file != NULL) {
        if (SSL_CTX_load_verify_locations(ctx, config->ca_file, NULL) != 1) {
            return rk_error_set(err, RK_EINVAL, "TLS CA file %s: %s", config->ca_file, reason());
        }
    } else if (SSL_CTX_set_default_verify_paths(ctx) != 1) {
        return rk_error_set(err, RK_EIO, "TLS: no system CA store: %s", reason());
    }
    return RK_OK;
}

static enum rk_status tls_new(const struct rk_tls_config *config, bool server, struct rk_tls **out,
                              struct rk_error *err)
{
    enum rk_status status = RK_OK;
    struct rk_tls *tls = calloc(1, sizeof *tls);
    SSL_CTX *ctx = SSL_CTX_new(server ? TLS_server_method() : TLS_client_method());
    if (tls == NULL || ctx == NULL) {
        status = rk_error_set(err, RK_ENOMEM, "TLS: out of memory");
        goto done;
    }
    (void)SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION);
    (void)SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_IGNORE_UNEXPECTED_EOF);
    /* Idle connections give their record buffers back. */
    (void)SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE |
                                    SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
    if (config->cert_file != NULL) {
        status = load_identity(ctx, config, err);
        if (status != RK_OK) {
            goto done;
        }
    }
    if (config->verify || (!server && config->ca_file != NULL)) {
        status = load_ca(ctx, config, err);
        if (status != RK_OK) {
            goto done;
        }
    }
    if (config->verify) {
        /* Without it no session that came with a client certificate can be resumed. */
        static const unsigned char context[] = "rekey";
        (void)SSL_CTX_set_session_id_context(ctx, context, sizeof context - 1);
        SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | (server ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0),
                           NULL);
    }
    *tls = (struct rk_tls){.ctx = ctx, .server = server, .verify = config->verify};
    *out = tls;
done:
    if (status != RK_OK) {
        SSL_CTX_free(ctx);
        free(tls);
    }
    return status;
}

enum rk_status rk_tls_new_server(const struct rk_tls_config *config, struct rk_tls **out,
                                 struct rk_error *err)
{
    if (config->cert_file == NULL) {
        return rk_error_set(err, RK_EINVAL, "listener TLS needs a certificate (cert_file)");
    }
    return tls_new(config, true, out, err);
}

enum rk_status rk_tls_new_client(const struct rk_tls_config *config, struct rk_tls **out,
                                 struct rk_error *err)
{
    return tls_new(config, false, out, err);
}

void rk_tls_free(struct rk_tls *tls)
{
    if (tls != NULL) {
        SSL_CTX_free(tls->ctx);
        free(tls);
    }
}

static enum rk_io after_ssl(struct rk_stream *stream, int result, const char *what)
{
    long verify;
    switch (SSL_get_error(stream->tls, result)) {
    case SSL_ERROR_WANT_READ:
        stream->want_write = false;
        return RK_IO_WAIT;
    case SSL_ERROR_WANT_WRITE:
        stream->want_write = true;
        return RK_IO_WAIT;
    case SSL_ERROR_ZERO_RETURN:
        return RK_IO_EOF;
    case SSL_ERROR_SYSCALL:
        (void)snprintf(stream->why, sizeof stream->why, "%s: %s", what,
                       errno != 0 ? strerror(errno) : "connection closed");
        ERR_clear_error();
        return RK_IO_FAIL;
    default:
        verify = SSL_get_verify_result(stream->tls);
        if (verify != X509_V_OK) {
            (void)snprintf(stream->why, sizeof stream->why, "%s: peer certificate refused: %s",
                           what, X509_verify_cert_error_string(verify));
            ERR_clear_error();
        } else {
            (void)snprintf(stream->why, sizeof stream->why, "%s: %s", what, reason());
        }
        return RK_IO_FAIL;
    }
}

static enum rk_io tls_handshake(struct rk_stream *stream)
{
    ERR_clear_error();
    int result = SSL_do_handshake(stream->tls);
    return result == 1 ? RK_IO_OK : after_ssl(stream, result, "TLS handshake");
}

static enum rk_io tls_read(struct rk_stream *stream, void *buf, size_t cap, size_t *n)
{
    ERR_clear_error();
    int result = SSL_read_ex(stream->tls, buf, cap, n);
    return result == 1 ? RK_IO_OK : after_ssl(stream, result, "TLS read");
}

static enum rk_io tls_write(struct rk_stream *stream, const void *buf, size_t len, size_t *n)
{
    ERR_clear_error();
    int result = SSL_write_ex(stream->tls, buf, len, n);
    return result == 1 ? RK_IO_OK : after_ssl(stream, result, "TLS write");
}

static void tls_shutdown_write(struct rk_stream *stream)
{
    ERR_clear_error();
    (void)SSL_shutdown(stream->tls);
    (void)shutdown(stream->fd, SHUT_WR);
}

static bool tls_has_buffered(const struct rk_stream *stream)
{
    return SSL_has_pending(stream->tls) == 1;
}

static void tls_deinit(struct rk_stream *stream)
{
    SSL_free(stream->tls);
    stream->tls = NULL;
}

static const struct rk_stream_ops tls_ops = {
    .handshake = tls_handshake,
    .read = tls_read,
    .write = tls_write,
    .shutdown_write = tls_shutdown_write,
    .has_buffered = tls_has_buffered,
    .deinit = tls_deinit,
};

static bool expect_host(SSL *ssl, const char *host)
{
    unsigned char address[16];
    if (inet_pton(AF_INET, host, address) == 1 || inet_pton(AF_INET6, host, address) == 1) {
        return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host) == 1;
    }
    return SSL_set_tlsext_host_name(ssl, host) == 1 && SSL_set1_host(ssl, host) == 1;
}

enum rk_status rk_stream_init_tls(struct rk_stream *stream, int fd, struct rk_tls *tls,
                                  const char *host)
{
    *stream = (struct rk_stream){.ops = &tls_ops, .fd = fd};
    SSL *ssl = SSL_new(tls->ctx);
    if (ssl == NULL || SSL_set_fd(ssl, fd) != 1 ||
        (host != NULL && tls->verify && !expect_host(ssl, host))) {
        SSL_free(ssl);
        stream->ops = NULL;
        (void)snprintf(stream->why, sizeof stream->why, "TLS: %s", reason());
        return RK_EIO;
    }
    if (tls->server) {
        SSL_set_accept_state(ssl);
    } else {
        SSL_set_connect_state(ssl);
    }
    stream->tls = ssl;
    return RK_OK;
}
