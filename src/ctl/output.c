/* What rekeyctl's commands print (see ctl.h). */
#include <rekey/ctl/ctl.h>

#include <bson/bson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum rk_ctl_exit rk_ctl_fail(const struct rk_error *err)
{
    (void)fprintf(stderr, "rekeyctl: %s\n", err->message);
    switch (err->status) {
    case RK_ESTATE:
        return RK_CTL_STATE;
    case RK_ETIMEOUT:
        return RK_CTL_UNREACHABLE;
    default:
        return RK_CTL_FAILED;
    }
}

enum rk_ctl_exit rk_ctl_usage(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    (void)fprintf(stderr, "rekeyctl: ");
    (void)vfprintf(stderr, format, args);
    (void)fprintf(stderr, "\ntry `rekeyctl --help`\n");
    va_end(args);
    return RK_CTL_USAGE;
}

enum rk_ctl_exit rk_ctl_print_json(const bson_t *doc)
{
    char *text = bson_as_relaxed_extended_json(doc, NULL);
    if (text == NULL) {
        (void)fprintf(stderr, "rekeyctl: the result cannot be written as JSON\n");
        return RK_CTL_FAILED;
    }
    (void)printf("%s\n", text);
    bson_free(text);
    return RK_CTL_OK;
}

const char *rk_ctl_time(int64_t wall_ms, char out[RK_CTL_TIME_LEN])
{
    struct tm utc;
    time_t seconds = (time_t)(wall_ms / 1000);
    if (wall_ms == 0 || gmtime_r(&seconds, &utc) == NULL ||
        strftime(out, RK_CTL_TIME_LEN, "%Y-%m-%dT%H:%M:%SZ", &utc) == 0) {
        (void)snprintf(out, RK_CTL_TIME_LEN, "-");
    }
    return out;
}

/* ---- tables ------------------------------------------------------------------------------- */

struct rk_ctl_table {
    size_t n_columns;
    size_t n_cells; /* row by row, the headers first */
    size_t cap;
    char **cells;
    size_t width[RK_CTL_COLUMNS_MAX];
};

/* Columns that a terminal gives to UTF-8 text, as long as no wide characters are in it. */
static size_t text_width(const char *text)
{
    size_t width = 0;
    for (; *text != '\0'; text++) {
        width += ((unsigned char)*text & 0xC0) != 0x80;
    }
    return width;
}

/* A copy without control characters: names from a database must not steer the terminal. */
static char *printable(const char *text)
{
    char *copy = strdup(text);
    for (char *c = copy; c != NULL && *c != '\0'; c++) {
        if ((unsigned char)*c < 0x20 || *c == 0x7F) {
            *c = '?';
        }
    }
    return copy;
}

static enum rk_status add_cell(struct rk_ctl_table *table, const char *text)
{
    if (table->n_cells == table->cap) {
        size_t wider = table->cap == 0 ? 64 : 2 * table->cap;
        char **grown = realloc(table->cells, wider * sizeof *grown);
        if (grown == NULL) {
            return RK_ENOMEM;
        }
        table->cells = grown;
        table->cap = wider;
    }
    char *copy = printable(text);
    if (copy == NULL) {
        return RK_ENOMEM;
    }
    size_t column = table->n_cells % table->n_columns;
    size_t width = text_width(copy);
    if (width > table->width[column]) {
        table->width[column] = width;
    }
    table->cells[table->n_cells++] = copy;
    return RK_OK;
}

enum rk_status rk_ctl_table_row(struct rk_ctl_table *table, const char *const *cells)
{
    size_t before = table->n_cells;
    for (size_t i = 0; i < table->n_columns; i++) {
        enum rk_status status = add_cell(table, cells[i]);
        if (status != RK_OK) {
            while (table->n_cells > before) {
                free(table->cells[--table->n_cells]);
            }
            return status;
        }
    }
    return RK_OK;
}

enum rk_status rk_ctl_table_new(const char *const *headers, size_t n_columns,
                                struct rk_ctl_table **out)
{
    if (n_columns == 0 || n_columns > RK_CTL_COLUMNS_MAX) {
        return RK_ELIMIT;
    }
    struct rk_ctl_table *table = calloc(1, sizeof *table);
    if (table == NULL) {
        return RK_ENOMEM;
    }
    table->n_columns = n_columns;
    enum rk_status status = rk_ctl_table_row(table, headers);
    if (status != RK_OK) {
        rk_ctl_table_free(table);
        return status;
    }
    *out = table;
    return RK_OK;
}

void rk_ctl_table_print(const struct rk_ctl_table *table)
{
    for (size_t i = 0; i < table->n_cells; i++) {
        size_t column = i % table->n_columns;
        bool last = column + 1 == table->n_columns;
        size_t pad = last ? 0 : table->width[column] - text_width(table->cells[i]) + 2;
        (void)printf("%s%*s%s", table->cells[i], (int)pad, "", last ? "\n" : "");
    }
}

void rk_ctl_table_free(struct rk_ctl_table *table)
{
    if (table == NULL) {
        return;
    }
    for (size_t i = 0; i < table->n_cells; i++) {
        free(table->cells[i]);
    }
    free(table->cells);
    free(table);
}
