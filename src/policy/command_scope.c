/*
 * The scope of a rewrite: how paths stand to the policy at hand, and refusals that say so.
 */
#include "command_internal.h"

#include <stdio.h>

#define BUCKETS_PREFIX "system.buckets."

static const struct rk_field anything_field = {.path = "", .algorithm = RK_ALGORITHM_RANDOM};
const struct rk_path_node rk_anything = {.name = "", .field = &anything_field, .hides_paths = true};
const struct rk_path_node rk_anything_flat = {.name = "", .field = &anything_field};

bool rk_scope_is_buckets(const char *coll, size_t coll_len)
{
    size_t prefix = sizeof BUCKETS_PREFIX - 1;
    return coll_len > prefix && memcmp(coll, BUCKETS_PREFIX, prefix) == 0;
}

const struct rk_policy *rk_scope_find(const struct rk_policy_set *set, const char *db,
                                      size_t db_len, const char *coll, size_t coll_len)
{
    if (rk_scope_is_buckets(coll, coll_len)) {
        coll += sizeof BUCKETS_PREFIX - 1;
        coll_len -= sizeof BUCKETS_PREFIX - 1;
    }
    return rk_policy_find(set, db, db_len, coll, coll_len);
}

/* Names in messages: ASCII, so that a cut or invalid sequence never breaks the reply's UTF-8. */
static void print_name(char *out, size_t size, const char *name, size_t len)
{
    size_t n = len < size - 1 ? len : size - 1;
    for (size_t i = 0; i < n; i++) {
        out[i] = name[i] < ' ' || name[i] > '~' ? '?' : name[i];
    }
    out[n] = '\0';
}

struct rk_scope rk_scope_at(const struct rk_scope *scope, const char *coll, uint32_t coll_len)
{
    struct rk_scope at = *scope;
    char db[64];
    char name[RK_SCOPE_NS_MAX - sizeof db];
    at.policy = rk_scope_find(scope->set, scope->db, scope->db_len, coll, coll_len);
    at.aliases = NULL;
    at.moved = false;
    at.whole = coll_len == 0;
    print_name(db, sizeof db, scope->db, scope->db_len);
    print_name(name, sizeof name, coll, coll_len);
    snprintf(at.ns, sizeof at.ns, "%s.%s", db, name);
    return at;
}

bool rk_scope_guarded(const struct rk_scope *scope)
{
    return scope->policy != NULL || scope->vars != NULL ||
           (scope->aliases != NULL && (scope->aliases->n > 0 || scope->aliases->all));
}

void rk_aliases_add(struct rk_aliases *aliases, const char *name, uint32_t len,
                    const struct rk_path_node *node)
{
    if (aliases->n == RK_ALIASES_MAX) {
        aliases->all = true;
        return;
    }
    aliases->at[aliases->n].name = name;
    aliases->at[aliases->n].len = len;
    aliases->at[aliases->n].node = node;
    aliases->n++;
}

bool rk_is_anything(const struct rk_path_node *node)
{
    return node == &rk_anything || node == &rk_anything_flat;
}

bool rk_scope_hides_paths(const struct rk_scope *scope)
{
    for (size_t i = 0; i < rk_policy_set_count(scope->set); i++) {
        if (rk_policy_set_at(scope->set, i)->root.hides_paths) {
            return true;
        }
    }
    return false;
}

/* What a path means that leads (rest: further) from a place where anything may stand. */
static struct rk_path_match relate_anywhere(const struct rk_path_node *node, bool rest)
{
    if (rest && node->hides_paths) {
        return (struct rk_path_match){.relation = RK_PATH_BELOW, .field = &anything_field};
    }
    return (struct rk_path_match){
        .relation = RK_PATH_EXACT, .node = node, .field = &anything_field};
}

/* What path means where name stands for node. */
static struct rk_path_match relate_alias(const char *name, uint32_t name_len,
                                         const struct rk_path_node *node, const char *path,
                                         size_t len)
{
    struct rk_path_match match = {.relation = RK_PATH_UNRELATED};
    size_t common = len < name_len ? len : name_len;
    if (memcmp(path, name, common) != 0) {
        return match;
    }
    if (len < name_len) {
        match.relation = len == 0 || name[len] == '.' ? RK_PATH_ABOVE : RK_PATH_UNRELATED;
        return match;
    }
    if (len > name_len && path[name_len] != '.') {
        return match;
    }
    if (rk_is_anything(node)) {
        return relate_anywhere(node, len > name_len);
    }
    size_t off = len > name_len ? name_len + 1u : len;
    const char *dot = memchr(path + off, '.', len - off);
    size_t first = dot != NULL ? (size_t)(dot - path) - off : len - off;
    if (node->field == NULL && rk_path_is_index(path + off, first)) {
        off += first + (dot != NULL ? 1 : 0);
    }
    return rk_path_relate_from(node, path + off, len - off);
}

struct rk_path_match rk_scope_relate(const struct rk_scope *scope, const char *path, size_t len)
{
    struct rk_path_match match = {.relation = RK_PATH_UNRELATED};
    const struct rk_aliases *aliases = scope->aliases;
    if ((aliases != NULL && aliases->all) || (scope->policy != NULL && scope->policy->view)) {
        return relate_anywhere(rk_scope_hides_paths(scope) ? &rk_anything : &rk_anything_flat,
                               memchr(path, '.', len) != NULL);
    }
    for (unsigned i = 0; aliases != NULL && i < aliases->n; i++) {
        match =
            relate_alias(aliases->at[i].name, aliases->at[i].len, aliases->at[i].node, path, len);
        if (match.relation != RK_PATH_UNRELATED) {
            return match;
        }
    }
    return scope->policy != NULL ? rk_path_relate(scope->policy, path, len) : match;
}

bool rk_scope_touches(const struct rk_scope *scope, const char *path, size_t len)
{
    return rk_scope_relate(scope, path, len).relation != RK_PATH_UNRELATED;
}

enum rk_verdict rk_refuse(const struct rk_scope *scope, int code, const char *what,
                          const char *path, size_t path_len, const char *advice)
{
    char name[96];
    char op[64];
    if (scope->policy != NULL && scope->policy->view) {
        advice = "this view reads protected fields; give it a policy of its own, in which they "
                 "have the names of the collection's";
    }
    print_name(op, sizeof op, what, strlen(what));
    if (path != NULL) {
        print_name(name, sizeof name, path, path_len);
        rk_error_set_code(scope->err, RK_EREFUSED, code, "%.100s: %s on path \"%s\": %s", scope->ns,
                          op, name, advice);
    } else {
        rk_error_set_code(scope->err, RK_EREFUSED, code, "%.100s: %s: %s", scope->ns, op, advice);
    }
    return RK_VERDICT_REJECT;
}

enum rk_verdict rk_copy_plain(const struct rk_scope *scope, const struct rk_bson_elem *elem,
                              struct rk_bson_writer *w)
{
    rk_bson_copy(w, elem);
    return rk_document_check_plain(scope->ns, elem->start, elem->start + elem->len, scope->err);
}

struct rk_text rk_elem_text(const struct rk_bson_elem *elem)
{
    struct rk_text text = {.at = "", .len = 0};
    if ((elem->type == RK_BSON_STRING || elem->type == RK_BSON_SYMBOL)) {
        (void)rk_bson_elem_utf8(elem, &text.at, &text.len);
    }
    return text;
}

bool rk_text_is(struct rk_text text, const char *other)
{
    return text.len == strlen(other) && memcmp(text.at, other, text.len) == 0;
}

bool rk_elem_is_null(const struct rk_bson_elem *elem)
{
    return elem->type == RK_BSON_NULL;
}

bool rk_elem_is_operators(const struct rk_bson_elem *elem, struct rk_bson_view *view)
{
    struct rk_bson_iter iter;
    struct rk_bson_elem first;
    if (elem->type != RK_BSON_DOCUMENT || !rk_bson_elem_view(elem, view)) {
        return false;
    }
    rk_bson_iter_init(&iter, view);
    return rk_bson_next(&iter, &first) == RK_BSON_STEP_ELEM && first.key[0] == '$';
}

enum rk_verdict rk_rewrite_members(const struct rk_scope *scope, const struct rk_bson_elem *elem,
                                   rk_member_fn *each, void *arg, struct rk_bson_writer *w)
{
    enum rk_verdict verdict = RK_VERDICT_FORWARD;
    struct rk_bson_view array;
    struct rk_bson_view member;
    struct rk_bson_iter iter;
    struct rk_bson_elem item;
    if (elem->type != RK_BSON_ARRAY || !rk_bson_elem_view(elem, &array)) {
        return rk_refuse(scope, RK_CODE_TYPE_MISMATCH, elem->key, NULL, 0, "must be an array");
    }
    rk_bson_begin_sub(w, RK_BSON_ARRAY, elem->key, elem->key_len);
    rk_bson_iter_init(&iter, &array);
    while (rk_bson_next(&iter, &item) == RK_BSON_STEP_ELEM) {
        if (item.type != RK_BSON_DOCUMENT || !rk_bson_elem_view(&item, &member)) {
            return rk_refuse(scope, RK_CODE_TYPE_MISMATCH, elem->key, NULL, 0,
                             "every member must be a document");
        }
        rk_bson_begin_sub(w, RK_BSON_DOCUMENT, item.key, item.key_len);
        verdict = rk_worse(verdict, each(arg, &member, w));
        if (rk_stops(verdict)) {
            return verdict;
        }
        rk_bson_end(w);
    }
    rk_bson_end(w);
    return verdict;
}
