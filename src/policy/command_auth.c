/*
 * Authentication passes through, but for MONGODB-X509: it proves who the client is by the TLS
 * connection itself, and the client's ends at Rekey. Passed on, it would make every client the
 * user of Rekey's own certificate.
 */
#include "command_internal.h"

#include <strings.h>

static bool names_x509(const struct rk_bson_view *view)
{
    static const char x509[] = "MONGODB-X509";
    struct rk_bson_iter iter;
    struct rk_bson_elem elem;
    rk_bson_iter_init(&iter, view);
    while (rk_bson_next(&iter, &elem) == RK_BSON_STEP_ELEM) {
        struct rk_text text = rk_elem_text(&elem);
        /* Without case, and however often it stands there: what mongod takes is its affair. */
        if (rk_bson_key_is(&elem, "mechanism") && text.len == sizeof x509 - 1 &&
            strncasecmp(text.at, x509, text.len) == 0) {
            return true;
        }
    }
    return false;
}

bool rk_asks_x509(const struct rk_command_spec *spec, const struct rk_bson_view *view)
{
    struct rk_bson_iter iter;
    struct rk_bson_elem elem;
    struct rk_bson_view inner;
    if (spec == NULL || spec->check != rk_check_x509) {
        return false;
    }
    if (spec->kind != RK_KIND_HELLO) {
        return names_x509(view);
    }
    rk_bson_iter_init(&iter, view);
    while (rk_bson_next(&iter, &elem) == RK_BSON_STEP_ELEM) {
        if (rk_bson_key_is(&elem, "speculativeAuthenticate") && rk_bson_elem_view(&elem, &inner) &&
            names_x509(&inner)) {
            return true;
        }
    }
    return false;
}

enum rk_verdict rk_refuse_x509(struct rk_error *err)
{
    rk_error_set_code(err, RK_EREFUSED, RK_CODE_AUTHENTICATION_FAILED,
                      "MONGODB-X509 cannot pass Rekey, where the TLS connection with the client's "
                      "certificate ends: log in with SCRAM or another SASL mechanism");
    return RK_VERDICT_REJECT;
}

enum rk_verdict rk_check_x509(struct rk_statement *st)
{
    const struct rk_command_spec *spec =
        rk_command_spec_find(st->info->name, strlen(st->info->name));
    return rk_asks_x509(spec, &st->view) ? rk_refuse_x509(st->scope.err) : RK_VERDICT_FORWARD;
}
