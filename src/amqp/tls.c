/*
 * TLS as upstream.tls has it: chain and host name are checked by OpenSSL during the handshake,
 * before a password is sent. librabbitmq's own check of host names knows no IP addresses and is
 * left out.
 */
#include "link.h"

#include <amqp_ssl_socket.h>
#include <arpa/inet.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

static _Thread_local const char *refusal;

const char *rk_amqp_tls_refusal(void)
{
    return refusal;
}

static int on_certificate(int ok, X509_STORE_CTX *store)
{
    if (ok == 0) {
        refusal = X509_verify_cert_error_string(X509_STORE_CTX_get_error(store));
    }
    return ok;
}

static bool is_ip(const char *host)
{
    struct in_addr four;
    struct in6_addr six;
    return inet_pton(AF_INET, host, &four) == 1 || inet_pton(AF_INET6, host, &six) == 1;
}

static bool expect_host(SSL_CTX *context, const char *host)
{
    X509_VERIFY_PARAM *param = SSL_CTX_get0_param(context);
    X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    return (is_ip(host) ? X509_VERIFY_PARAM_set1_ip_asc(param, host)
                        : X509_VERIFY_PARAM_set1_host(param, host, 0)) == 1;
}

enum rk_status rk_amqp_tls_socket(struct rk_amqp_link *link, const char *host, amqp_socket_t **out,
                                  struct rk_error *err)
{
    const struct rk_config_tls *tls = &link->config->tls;
    refusal = NULL;
    amqp_socket_t *socket = amqp_ssl_socket_new(link->conn);
    if (socket == NULL) {
        return rk_error_set(err, RK_ENOMEM, "out of memory");
    }
    SSL_CTX *context = amqp_ssl_socket_get_context(socket);
    amqp_ssl_socket_set_verify_peer(socket, 0);
    amqp_ssl_socket_set_verify_hostname(socket, 0);
    if (SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) != 1) {
        return rk_error_set(err, RK_EIO, "TLS 1.2 is not to be had");
    }
    if (tls->ca_file != NULL &&
        amqp_ssl_socket_set_cacert(socket, tls->ca_file) != AMQP_STATUS_OK) {
        return rk_error_set(err, RK_EIO, "amqp.tls.ca_file: cannot read %s", tls->ca_file);
    }
    if (tls->cert_file != NULL &&
        amqp_ssl_socket_set_key(socket, tls->cert_file, tls->key_file) != AMQP_STATUS_OK) {
        return rk_error_set(err, RK_EIO, "amqp.tls: cannot read %s and %s, or they do not fit",
                            tls->cert_file, tls->key_file);
    }
    if (tls->verify) {
        if (!expect_host(context, host)) {
            return rk_error_set(err, RK_EINVAL, "amqp.addresses: %s cannot be a host", host);
        }
        SSL_CTX_set_verify(context, SSL_VERIFY_PEER, on_certificate);
    }
    *out = socket;
    return RK_OK;
}
