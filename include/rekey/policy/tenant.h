/*
 * Tenants: a policy may choose its keys by a field of the document, so that the values of each
 * tenant lie under keys of its own, named "<key>:<tenant>".
 *
 * Names are made of ASCII that needs no quoting: strings as they are, with bytes other than
 * letters, digits and _.@+- as %XX; "int:5" for whole numbers of any type, which mongod holds
 * equal; "oid:..." and "uuid:..." in hexadecimal digits. Other types name no tenant.
 */
#ifndef REKEY_POLICY_TENANT_H
#define REKEY_POLICY_TENANT_H

#include <rekey/bson/walk.h>
#include <rekey/policy/policy.h>

/* With the longest key, ':' and this a name is no longer than RK_KEY_NAME_SIZE. */
#define RK_TENANT_SIZE (RK_KEY_NAME_SIZE - RK_KEY_BASE_NAME_MAX - 1)

/* Whose the values of one document, or of all that a filter finds, are. Zeroed: not known. */
struct rk_tenant {
    const struct rk_field *fields; /* of the policy that it is for */
    size_t n_fields;
    const char *problem;       /* why there is none although something was given; a constant */
    char name[RK_TENANT_SIZE]; /* empty: not known */
};

/* What the document has at the policy's path. A problem: it has something that names no tenant. */
void rk_tenant_of_document(const struct rk_policy *policy, const struct rk_bson_view *doc,
                           struct rk_tenant *out);
/* What a filter compares the policy's path with, at its top level or in $and: every document that
 * it finds is that tenant's. collation: strings are not compared by their bytes. */
void rk_tenant_of_filter(const struct rk_policy *policy, const struct rk_bson_view *filter,
                         bool collation, struct rk_tenant *out);
/* Would this value name that tenant? */
bool rk_tenant_is(const struct rk_tenant *tenant, const struct rk_bson_elem *value);

/* The name of the field's keys: its own, or made in buf. NULL: the tenant is not known. */
const char *rk_tenant_key(const struct rk_tenant *tenant, const struct rk_field *field,
                          char buf[RK_KEY_NAME_SIZE]);

#endif
