/* What a message's rewriting needs before and after each pass over it. */
#include <stdio.h>

#include "policy_internal.h"

bool rk_crypt_key_absent(const struct rk_crypt *crypt, uint32_t id)
{
    for (size_t i = 0; i < crypt->n_absent; i++) {
        if (crypt->absent_keys[i] == id) {
            return true;
        }
    }
    return false;
}

enum rk_verdict rk_crypt_hold_name(struct rk_crypt *crypt, const char *name)
{
    crypt->missing_key = 0;
    (void)snprintf(crypt->missing_name, sizeof crypt->missing_name, "%s", name);
    return RK_VERDICT_HOLD;
}

enum rk_verdict rk_crypt_no_tenant(const struct rk_crypt *crypt, const char *ns,
                                   const struct rk_field *field, struct rk_error *err)
{
    const char *problem = crypt->tenant.problem;
    (void)rk_error_set_code(err, RK_EREFUSED, RK_CODE_TENANT,
                            "%s, path \"%s\": keys are chosen by the tenant, which is not known "
                            "here%s%s; compare the policy's tenant field with one value at the top "
                            "level of the filter, or store it in the document",
                            ns, field->path, problem != NULL ? ": " : "",
                            problem != NULL ? problem : "");
    return RK_VERDICT_REJECT;
}

struct rk_crypt_pass rk_crypt_begin(const struct rk_crypt *crypt)
{
    rk_remote_rewind(rk_aead_remote(crypt->aead));
    return (struct rk_crypt_pass){crypt->values_encrypted, crypt->values_decrypted,
                                  crypt->values_old_key};
}

enum rk_verdict rk_crypt_end(struct rk_crypt *crypt, const struct rk_crypt_pass *pass,
                             enum rk_verdict verdict)
{
    bool wanted = rk_remote_wanted(rk_aead_remote(crypt->aead));
    if (verdict != RK_VERDICT_HOLD && !wanted) {
        return verdict;
    }
    /* All of it will be done, and counted, again. */
    crypt->values_encrypted = pass->encrypted;
    crypt->values_decrypted = pass->decrypted;
    crypt->values_old_key = pass->old_key;
    return RK_VERDICT_HOLD;
}
