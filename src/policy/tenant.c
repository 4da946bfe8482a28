/* From a document or a filter to the name of a tenant's keys (see tenant.h). */
#include <rekey/policy/tenant.h>

#include "command_internal.h"

#include <stdio.h>

#define UNUSABLE                                                                                   \
    "it holds what names no tenant (a string, a whole number, an ObjectId or a UUID does)"
#define TWO "it is there twice, with different values"

static void forget(const struct rk_policy *policy, struct rk_tenant *out)
{
    *out = (struct rk_tenant){.fields = policy->fields, .n_fields = policy->n_fields};
}

static bool is_plain(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c != '\0' && strchr("_.@+-", c) != NULL);
}

static bool put_text(const char *text, size_t len, char out[RK_TENANT_SIZE])
{
    size_t at = 0;
    for (size_t i = 0; i < len; i++) {
        if (at + 4 > RK_TENANT_SIZE) {
            return false;
        }
        if (is_plain(text[i])) {
            out[at++] = text[i];
        } else {
            at += (size_t)snprintf(out + at, 4, "%%%02X", (unsigned char)text[i]);
        }
    }
    out[at] = '\0';
    return len > 0;
}

static void put_hex(const char *kind, const uint8_t *bytes, size_t len, char out[RK_TENANT_SIZE])
{
    size_t at = (size_t)snprintf(out, RK_TENANT_SIZE, "%s:", kind);
    for (size_t i = 0; i < len; i++) {
        at += (size_t)snprintf(out + at, RK_TENANT_SIZE - at, "%02x", bytes[i]);
    }
}

static bool name_of(const struct rk_bson_elem *value, char out[RK_TENANT_SIZE])
{
    const char *text;
    uint32_t len;
    int64_t number;
    if (value->type == RK_BSON_STRING && rk_bson_elem_utf8(value, &text, &len)) {
        return put_text(text, len, out);
    }
    if (rk_bson_elem_int(value, &number)) {
        (void)snprintf(out, RK_TENANT_SIZE, "int:%lld", (long long)number);
        return true;
    }
    if (value->type == RK_BSON_OID) {
        put_hex("oid", value->value, value->value_len, out);
        return true;
    }
    if (value->type == RK_BSON_BINARY && value->value_len == 21 && value->value[4] == 4) {
        put_hex("uuid", value->value + 5, 16, out);
        return true;
    }
    return false;
}

/* One more value of the path. */
static void take(const struct rk_bson_elem *value, struct rk_tenant *out)
{
    char name[RK_TENANT_SIZE] = "";
    if (!name_of(value, name)) {
        out->problem = UNUSABLE;
    } else if (out->name[0] != '\0' && strcmp(out->name, name) != 0) {
        out->problem = TWO;
    } else {
        memcpy(out->name, name, sizeof name);
    }
}

static void settle(struct rk_tenant *out)
{
    if (out->problem != NULL) {
        out->name[0] = '\0';
    }
}

/* The rest of the path, seen from view. A key that is there twice counts twice, whatever it holds:
 * nobody could tell which one mongod compares. */
static void walk(const struct rk_bson_view *view, const char *path, struct rk_tenant *out)
{
    struct rk_bson_iter iter;
    struct rk_bson_elem elem;
    struct rk_bson_view below;
    size_t len = strcspn(path, ".");
    unsigned n = 0;
    rk_bson_iter_init(&iter, view);
    while (rk_bson_next(&iter, &elem) == RK_BSON_STEP_ELEM) {
        if (elem.key_len != len || memcmp(elem.key, path, len) != 0) {
            continue;
        }
        if (++n > 1) {
            out->problem = TWO;
        } else if (path[len] == '\0') {
            take(&elem, out);
        } else if (elem.type == RK_BSON_DOCUMENT && rk_bson_elem_view(&elem, &below)) {
            walk(&below, path + len + 1, out);
        } else if (elem.type == RK_BSON_ARRAY) {
            out->problem = UNUSABLE;
        }
    }
}

void rk_tenant_of_document(const struct rk_policy *policy, const struct rk_bson_view *doc,
                           struct rk_tenant *out)
{
    forget(policy, out);
    if (policy->tenant != NULL) {
        walk(doc, policy->tenant, out);
        settle(out);
    }
}

static void search(const char *path, const struct rk_bson_view *filter, struct rk_tenant *out,
                   bool *text)
{
    struct rk_bson_iter iter;
    struct rk_bson_iter members;
    struct rk_bson_elem elem;
    struct rk_bson_elem value;
    struct rk_bson_view view;
    rk_bson_iter_init(&iter, filter);
    while (rk_bson_next(&iter, &elem) == RK_BSON_STEP_ELEM) {
        if (rk_bson_key_is(&elem, "$and") && rk_bson_elem_view(&elem, &view)) {
            rk_bson_iter_init(&members, &view);
            while (rk_bson_next(&members, &value) == RK_BSON_STEP_ELEM) {
                if (rk_bson_elem_view(&value, &view)) {
                    search(path, &view, out, text);
                }
            }
        } else if (rk_bson_key_is(&elem, path)) {
            bool operators = rk_elem_is_operators(&elem, &view);
            value = elem;
            if (!operators || rk_bson_find(&view, "$eq", &value)) {
                take(&value, out);
                *text = *text || value.type == RK_BSON_STRING;
            }
        }
    }
}

void rk_tenant_of_filter(const struct rk_policy *policy, const struct rk_bson_view *filter,
                         bool collation, struct rk_tenant *out)
{
    bool text = false;
    forget(policy, out);
    if (policy->tenant != NULL) {
        search(policy->tenant, filter, out, &text);
        if (text && collation) {
            out->problem = "a collation could find other tenants as well";
        }
        settle(out);
    }
}

bool rk_tenant_is(const struct rk_tenant *tenant, const struct rk_bson_elem *value)
{
    char name[RK_TENANT_SIZE] = "";
    return tenant->name[0] != '\0' && name_of(value, name) && strcmp(tenant->name, name) == 0;
}

const char *rk_tenant_key(const struct rk_tenant *tenant, const struct rk_field *field,
                          char buf[RK_KEY_NAME_SIZE])
{
    if (!field->by_tenant) {
        return field->key;
    }
    /* Another policy's tenant says nothing of this field. */
    if (tenant->name[0] == '\0' || field < tenant->fields ||
        field >= tenant->fields + tenant->n_fields) {
        return NULL;
    }
    (void)snprintf(buf, RK_KEY_NAME_SIZE, "%s:%s", field->key, tenant->name);
    return buf;
}
