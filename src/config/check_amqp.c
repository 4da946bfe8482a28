#include "config_internal.h"

#include <rekey/base/hostport.h>
#include <stdio.h>
#include <string.h>

/* Names of queues have at most 255 bytes (AMQP 0-9-1, shortstr). */
#define PREFIX_MAX 60u
#define SHORT_MAX 255u

static enum rk_status check_addresses(const struct rk_config_amqp *amqp,
                                      const struct rk_config_source *source, struct rk_error *err)
{
    struct rk_hostport at;
    for (unsigned i = 0; i < amqp->addresses_count; i++) {
        char key[64];
        (void)snprintf(key, sizeof key, "amqp.addresses[%u]", i);
        if (!rk_hostport_parse(amqp->addresses[i], &at)) {
            return strchr(amqp->addresses[i], '@') != NULL
                       ? rk_config_refuse(source, err, key,
                                          "must be host:port; the password has its own setting")
                       : rk_config_refuse(source, err, key, "must be host:port, not \"%.100s\"",
                                          amqp->addresses[i]);
        }
    }
    return RK_OK;
}

static enum rk_status check_login(const struct rk_config_amqp *amqp,
                                  const struct rk_config_source *source, struct rk_error *err)
{
    if (amqp->addresses_count == 0) {
        return rk_config_refuse(source, err, "amqp.addresses",
                                "is required with sweep.transport: amqp");
    }
    if (amqp->user == NULL) {
        return rk_config_refuse(source, err, "amqp.user", "is required with sweep.transport: amqp");
    }
    if ((amqp->password_file != NULL) == (amqp->password_env != NULL)) {
        return rk_config_refuse(source, err, "amqp.password_file",
                                "or amqp.password_env is required, one of them: the password "
                                "itself does not belong in this file");
    }
    if (amqp->tls.enabled && amqp->tls.verify && amqp->tls.ca_file == NULL) {
        return rk_config_refuse(source, err, "amqp.tls.ca_file",
                                "is required: only this authority's brokers get the password");
    }
    return RK_OK;
}

enum rk_status rk_config_check_amqp(const struct rk_config_amqp *amqp, bool used,
                                    const struct rk_config_source *source, struct rk_error *err)
{
    size_t len = strlen(amqp->prefix);
    if (len == 0 || len > PREFIX_MAX ||
        strspn(amqp->prefix, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") !=
            len ||
        strncmp(amqp->prefix, "amq.", 4) == 0) {
        return rk_config_refuse(source, err, "amqp.prefix",
                                "must be up to %u letters, digits, dots, dashes and underscores, "
                                "and not begin with \"amq.\", not \"%.100s\"",
                                PREFIX_MAX, amqp->prefix);
    }
    if (strlen(amqp->vhost) > SHORT_MAX) {
        return rk_config_refuse(source, err, "amqp.vhost", "must not be longer than %u bytes",
                                SHORT_MAX);
    }
    if (amqp->reconnect_backoff_ms > amqp->reconnect_backoff_max_ms) {
        return rk_config_refuse(source, err, "amqp.reconnect_backoff_ms",
                                "must not pass amqp.reconnect_backoff_max_ms (%u), not %u",
                                amqp->reconnect_backoff_max_ms, amqp->reconnect_backoff_ms);
    }
    enum rk_status status = check_addresses(amqp, source, err);
    if (status == RK_OK) {
        status = rk_config_check_tls(&amqp->tls, "amqp.tls", false, source, err);
    }
    return status == RK_OK && used ? check_login(amqp, source, err) : status;
}
