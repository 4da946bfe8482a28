#include "config_internal.h"

#include <arpa/inet.h>
#include <rekey/base/hostport.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

enum rk_status rk_config_check_tls(const struct rk_config_tls *tls, const char *section,
                                   bool server, const struct rk_config_source *source,
                                   struct rk_error *err)
{
    char key[64];
    if (tls->key_file != NULL && tls->cert_file == NULL) {
        (void)snprintf(key, sizeof key, "%s.key_file", section);
        return rk_config_refuse(source, err, key, "is of no use without cert_file");
    }
    if (!tls->enabled || !server) {
        return RK_OK;
    }
    if (tls->cert_file == NULL) {
        (void)snprintf(key, sizeof key, "%s.cert_file", section);
        return rk_config_refuse(source, err, key, "is required when %s.enabled is true", section);
    }
    if (tls->verify && tls->ca_file == NULL) {
        (void)snprintf(key, sizeof key, "%s.ca_file", section);
        return rk_config_refuse(source, err, key, "is required to verify client certificates");
    }
    return RK_OK;
}

/* Reached by this host's own processes only. */
static bool is_local(const char *address, const struct rk_hostport *at)
{
    struct in_addr four;
    struct in6_addr six;
    if (rk_address_is_path(address) || strcasecmp(at->host, "localhost") == 0) {
        return true;
    }
    if (inet_pton(AF_INET, at->host, &four) == 1) {
        return (ntohl(four.s_addr) >> 24) == 127;
    }
    return inet_pton(AF_INET6, at->host, &six) == 1 && IN6_IS_ADDR_LOOPBACK(&six);
}

enum rk_status rk_config_check_admin(const struct rk_config_admin *admin,
                                     const struct rk_config_source *source, struct rk_error *err)
{
    struct rk_hostport at = {.host = ""};
    if (admin->address == NULL) {
        return RK_OK;
    }
    bool path = rk_address_is_path(admin->address);
    if (path ? strlen(admin->address) >= RK_SOCKET_PATH_MAX
             : !rk_hostport_parse(admin->address, &at)) {
        return rk_config_refuse(source, err, "admin.address",
                                "must be host:port (IPv6 in brackets) or the path of a Unix socket "
                                "of at most %u bytes, not \"%.200s\"",
                                RK_SOCKET_PATH_MAX - 1, admin->address);
    }
    bool local = is_local(admin->address, &at);
    if (!local && !admin->tls.enabled) {
        return rk_config_refuse(source, err, "admin.tls.enabled",
                                "must be true where admin.address is not on the loopback interface "
                                "(%s): the token would be readable on its way",
                                at.host);
    }
    if (!local && admin->token_file == NULL) {
        return rk_config_refuse(source, err, "admin.token_file",
                                "is required where admin.address is not on the loopback interface "
                                "(%s)",
                                at.host);
    }
    return rk_config_check_tls(&admin->tls, "admin.tls", true, source, err);
}
