/*
 * The first look at a file, through libyaml's node tree: unknown and repeated keys, wrong kinds of
 * value, and words and numbers that do not read as such are refused here, because a node still
 * knows its line and libcyaml's own messages do not name the whole key.
 */
#include "config_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#define KEY_MAX 160
#define WORD_MAX 40

struct scan {
    struct rk_config_source *source;
    yaml_document_t *document;
    bool *visited; /* by node: one met twice was reached through an alias */
    struct rk_error *err;
};

static enum rk_status check_node(struct scan *scan, const cyaml_schema_value_t *schema,
                                 const yaml_node_t *node, const char *key);

static enum rk_status add_line(struct scan *scan, const char *key, const yaml_node_t *node)
{
    struct rk_config_source *source = scan->source;
    size_t bytes = (source->n_lines + 1) * sizeof source->lines[0];
    struct rk_config_line *lines = realloc(source->lines, bytes);
    if (lines == NULL) {
        return rk_error_set(scan->err, RK_ENOMEM, "%s: out of memory", source->path);
    }
    source->lines = lines;
    lines[source->n_lines].key = strdup(key);
    lines[source->n_lines].line = node->start_mark.line + 1;
    if (lines[source->n_lines].key == NULL) {
        return rk_error_set(scan->err, RK_ENOMEM, "%s: out of memory", source->path);
    }
    source->n_lines++;
    return RK_OK;
}

/* Levenshtein distance; words longer than WORD_MAX are far from everything. */
static size_t distance(const char *a, const char *b)
{
    size_t row[WORD_MAX + 1];
    size_t a_len = strlen(a);
    size_t b_len = strlen(b);
    if (a_len > WORD_MAX || b_len > WORD_MAX) {
        return WORD_MAX;
    }
    for (size_t j = 0; j <= b_len; j++) {
        row[j] = j;
    }
    for (size_t i = 1; i <= a_len; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= b_len; j++) {
            size_t best = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
            best = row[j] + 1 < best ? row[j] + 1 : best;
            best = row[j - 1] + 1 < best ? row[j - 1] + 1 : best;
            diagonal = row[j];
            row[j] = best;
        }
    }
    return row[b_len];
}

static const cyaml_schema_field_t *find_field(const cyaml_schema_value_t *schema, const char *name)
{
    for (const cyaml_schema_field_t *f = schema->mapping.fields; f->key != NULL; f++) {
        if (strcmp(f->key, name) == 0) {
            return f;
        }
    }
    return NULL;
}

static enum rk_status refuse_unknown(struct scan *scan, const cyaml_schema_value_t *schema,
                                     const char *key, const char *name)
{
    const char *closest = NULL;
    size_t closest_distance = strlen(name) / 3 + 2;
    for (const cyaml_schema_field_t *f = schema->mapping.fields; f->key != NULL; f++) {
        size_t d = distance(name, f->key);
        if (d < closest_distance) {
            closest = f->key;
            closest_distance = d;
        }
    }
    if (closest != NULL) {
        return rk_config_refuse(scan->source, scan->err, key,
                                "there is no such setting; did you mean \"%s\"?", closest);
    }
    return rk_config_refuse(scan->source, scan->err, key, "there is no such setting");
}

/* The text of a scalar that holds no NUL byte, or NULL. */
static const char *scalar_text(const yaml_node_t *node)
{
    if (node->type != YAML_SCALAR_NODE) {
        return NULL;
    }
    const char *text = (const char *)node->data.scalar.value;
    return strlen(text) == node->data.scalar.length ? text : NULL;
}

static bool is_null(const yaml_node_t *node)
{
    const char *text = scalar_text(node);
    return text != NULL && node->data.scalar.style == YAML_PLAIN_SCALAR_STYLE &&
           (text[0] == '\0' || strcmp(text, "~") == 0 || strcmp(text, "null") == 0);
}

static enum rk_status check_pair(struct scan *scan, const cyaml_schema_value_t *schema,
                                 const yaml_node_t *name_node, const yaml_node_t *value,
                                 const char *key)
{
    const char *name = scalar_text(name_node);
    if (name == NULL || strlen(name) > WORD_MAX) {
        return rk_error_set(scan->err, RK_EINVAL, "%s:%zu: %s: not the name of a setting",
                            scan->source->path, name_node->start_mark.line + 1,
                            key[0] != '\0' ? key : "top level");
    }
    char child[KEY_MAX];
    (void)snprintf(child, sizeof child, "%s%s%s", key, key[0] != '\0' ? "." : "", name);
    bool twice = rk_config_source_has(scan->source, child);
    enum rk_status status = add_line(scan, child, name_node);
    if (status != RK_OK) {
        return status;
    }
    if (twice) {
        return rk_error_set(scan->err, RK_EINVAL, "%s:%zu: %s: set twice", scan->source->path,
                            name_node->start_mark.line + 1, child);
    }
    const cyaml_schema_field_t *field = find_field(schema, name);
    if (field == NULL) {
        return refuse_unknown(scan, schema, child, name);
    }
    return check_node(scan, &field->value, value, child);
}

static enum rk_status check_mapping(struct scan *scan, const cyaml_schema_value_t *schema,
                                    const yaml_node_t *node, const char *key)
{
    if (node->type != YAML_MAPPING_NODE) {
        return rk_config_refuse(scan->source, scan->err, key,
                                is_null(node) ? "is empty; remove the key or add settings below it"
                                              : "must be a mapping (\"name: value\" lines)");
    }
    for (const yaml_node_pair_t *pair = node->data.mapping.pairs.start;
         pair < node->data.mapping.pairs.top; pair++) {
        enum rk_status status =
            check_pair(scan, schema, yaml_document_get_node(scan->document, pair->key),
                       yaml_document_get_node(scan->document, pair->value), key);
        if (status != RK_OK) {
            return status;
        }
    }
    for (const cyaml_schema_field_t *f = schema->mapping.fields; f->key != NULL; f++) {
        char child[KEY_MAX];
        (void)snprintf(child, sizeof child, "%s%s%s", key, key[0] != '\0' ? "." : "", f->key);
        if ((f->value.flags & CYAML_FLAG_OPTIONAL) == 0 &&
            !rk_config_source_has(scan->source, child)) {
            return rk_config_refuse(scan->source, scan->err, child, "is required and missing");
        }
    }
    return RK_OK;
}

static enum rk_status check_sequence(struct scan *scan, const cyaml_schema_value_t *schema,
                                     const yaml_node_t *node, const char *key)
{
    if (node->type != YAML_SEQUENCE_NODE) {
        return rk_config_refuse(scan->source, scan->err, key,
                                "must be a list (\"- item\" lines, or [] for none)");
    }
    unsigned i = 0;
    for (const yaml_node_item_t *item = node->data.sequence.items.start;
         item < node->data.sequence.items.top; item++, i++) {
        const yaml_node_t *entry = yaml_document_get_node(scan->document, *item);
        char child[KEY_MAX];
        (void)snprintf(child, sizeof child, "%s[%u]", key, i);
        enum rk_status status = add_line(scan, child, entry);
        if (status == RK_OK) {
            status = check_node(scan, schema->sequence.entry, entry, child);
        }
        if (status != RK_OK) {
            return status;
        }
    }
    if (i < schema->sequence.min) {
        return rk_config_refuse(scan->source, scan->err, key, "needs at least %u entry",
                                (unsigned)schema->sequence.min);
    }
    if (i > schema->sequence.max) {
        return rk_config_refuse(scan->source, scan->err, key, "takes at most %u entries",
                                (unsigned)schema->sequence.max);
    }
    return RK_OK;
}

/* A plain decimal number: libcyaml would take "010" for eight and "-1" for a very large number. */
static bool is_number(const char *text)
{
    size_t len = strspn(text, "0123456789");
    return len > 0 && len <= 10 && text[len] == '\0' && (text[0] != '0' || len == 1) &&
           strtoull(text, NULL, 10) <= UINT32_MAX;
}

static enum rk_status check_choice(struct scan *scan, const cyaml_schema_value_t *schema,
                                   const char *text, const char *key)
{
    char words[WORD_MAX * 4] = "";
    size_t used = 0;
    for (uint32_t i = 0; i < schema->enumeration.count; i++) {
        const char *word = schema->enumeration.strings[i].str;
        if (strcmp(text, word) == 0) {
            return RK_OK;
        }
        used +=
            (size_t)snprintf(words + used, sizeof words - used, "%s%s", i > 0 ? ", " : "", word);
    }
    return rk_config_refuse(scan->source, scan->err, key, "must be one of %s, not \"%.*s\"", words,
                            WORD_MAX, text);
}

static enum rk_status check_scalar(struct scan *scan, const cyaml_schema_value_t *schema,
                                   const yaml_node_t *node, const char *key)
{
    const char *text = scalar_text(node);
    if (text == NULL) {
        return rk_config_refuse(scan->source, scan->err, key, "must be a single value");
    }
    if (text[0] == '\0' || is_null(node)) {
        return rk_config_refuse(scan->source, scan->err, key, "has no value");
    }
    if (schema->type == CYAML_UINT && !is_number(text)) {
        return rk_config_refuse(scan->source, scan->err, key,
                                "must be a whole number, not \"%.*s\"", WORD_MAX, text);
    }
    if (schema->type == CYAML_INT && !is_number(text[0] == '-' ? text + 1 : text)) {
        return rk_config_refuse(scan->source, scan->err, key,
                                "must be a whole number, not \"%.*s\"", WORD_MAX, text);
    }
    if (schema->type == CYAML_STRING && strlen(text) > schema->string.max) {
        return rk_config_refuse(scan->source, scan->err, key, "must not be longer than %u bytes",
                                (unsigned)schema->string.max);
    }
    return schema->type == CYAML_ENUM ? check_choice(scan, schema, text, key) : RK_OK;
}

static enum rk_status check_node(struct scan *scan, const cyaml_schema_value_t *schema,
                                 const yaml_node_t *node, const char *key)
{
    bool *visited = &scan->visited[node - scan->document->nodes.start];
    if (*visited) {
        return rk_config_refuse(scan->source, scan->err, key,
                                "aliases (*name) are not supported; write the value out");
    }
    *visited = true;
    switch (schema->type) {
    case CYAML_MAPPING:
        return check_mapping(scan, schema, node, key);
    case CYAML_SEQUENCE:
        return check_sequence(scan, schema, node, key);
    default:
        return check_scalar(scan, schema, node, key);
    }
}

static enum rk_status check_document(struct scan *scan)
{
    const yaml_node_t *root = yaml_document_get_root_node(scan->document);
    if (root == NULL) {
        return rk_error_set(scan->err, RK_EINVAL, "%s: the file is empty; upstream.uri is required",
                            scan->source->path);
    }
    size_t n = (size_t)(scan->document->nodes.top - scan->document->nodes.start);
    scan->visited = calloc(n, sizeof scan->visited[0]);
    if (scan->visited == NULL) {
        return rk_error_set(scan->err, RK_ENOMEM, "%s: out of memory", scan->source->path);
    }
    enum rk_status status = check_node(scan, &rk_config_schema, root, "");
    free(scan->visited);
    return status;
}

static enum rk_status refuse_syntax(const struct rk_config_source *source,
                                    const yaml_parser_t *parser, struct rk_error *err)
{
    size_t line = parser->problem_mark.line;
    const char *context = parser->context != NULL ? parser->context : "";
    return rk_error_set(err, RK_EINVAL, "%s:%zu: not valid YAML: %s%s%s", source->path, line + 1,
                        parser->problem != NULL ? parser->problem : "unreadable",
                        context[0] != '\0' ? " " : "", context);
}

enum rk_status rk_config_source_init(struct rk_config_source *source, const char *path,
                                     const char *text, size_t len, struct rk_error *err)
{
    *source = (struct rk_config_source){.path = path};
    yaml_parser_t parser;
    yaml_document_t document;
    if (!yaml_parser_initialize(&parser)) {
        return rk_error_set(err, RK_ENOMEM, "%s: out of memory", path);
    }
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, len);
    enum rk_status status;
    if (!yaml_parser_load(&parser, &document)) {
        status = refuse_syntax(source, &parser, err);
        yaml_parser_delete(&parser);
        return status;
    }
    struct scan scan = {.source = source, .document = &document, .err = err};
    status = check_document(&scan);
    yaml_document_delete(&document);
    if (status == RK_OK) {
        /* What follows the document must be readable, and nothing. */
        if (!yaml_parser_load(&parser, &document)) {
            status = refuse_syntax(source, &parser, err);
        } else {
            const yaml_node_t *root = yaml_document_get_root_node(&document);
            if (root != NULL) {
                status = rk_error_set(err, RK_EINVAL, "%s:%zu: a second YAML document; one is read",
                                      path, root->start_mark.line + 1);
            }
            yaml_document_delete(&document);
        }
    }
    yaml_parser_delete(&parser);
    if (status != RK_OK) {
        rk_config_source_deinit(source);
    }
    return status;
}

void rk_config_source_deinit(struct rk_config_source *source)
{
    for (size_t i = 0; i < source->n_lines; i++) {
        free(source->lines[i].key);
    }
    free(source->lines);
    *source = (struct rk_config_source){0};
}

static size_t line_of(const struct rk_config_source *source, const char *key, size_t len)
{
    for (size_t i = 0; i < source->n_lines; i++) {
        const char *k = source->lines[i].key;
        if (strncmp(k, key, len) == 0 && k[len] == '\0') {
            return source->lines[i].line;
        }
    }
    return 0;
}

bool rk_config_source_has(const struct rk_config_source *source, const char *key)
{
    return line_of(source, key, strlen(key)) != 0;
}

enum rk_status rk_config_refuse(const struct rk_config_source *source, struct rk_error *err,
                                const char *key, const char *format, ...)
{
    size_t line = 0;
    for (size_t len = strlen(key); len > 0 && line == 0; len--) {
        if (key[len] == '\0' || key[len] == '.' || key[len] == '[') {
            line = line_of(source, key, len);
        }
    }
    char reason[320];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(reason, sizeof reason, format, args);
    va_end(args);
    const char *shown = key[0] != '\0' ? key : "top level";
    if (source->path[0] == '\0') {
        return rk_error_set(err, RK_EINVAL, "%s: %s", shown, reason);
    }
    if (line == 0) {
        return rk_error_set(err, RK_EINVAL, "%s: %s: %s", source->path, shown, reason);
    }
    return rk_error_set(err, RK_EINVAL, "%s:%zu: %s: %s", source->path, line, shown, reason);
}
