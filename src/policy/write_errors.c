/*
 * The errors of a batch: entries of fixed size by rising index, their messages behind each other.
 */
#include <rekey/policy/write_errors.h>
#include <stdio.h>
#include <stdlib.h>

#include "policy_internal.h"

/* mongod takes no longer batches. */
#define ENTRIES_MAX 100000u
/* Of all messages; those that follow each other and are the same count once. */
#define TEXT_BYTES_MAX (4u * 1024u * 1024u)

struct entry {
    uint32_t index;
    int32_t code;
    uint32_t off;
    uint32_t len;
};

struct rk_write_errors {
    struct rk_buf entries;
    struct rk_buf text;
};

enum rk_status rk_write_errors_new(struct rk_write_errors **out)
{
    *out = calloc(1, sizeof **out);
    if (*out == NULL) {
        return RK_ENOMEM;
    }
    rk_buf_init(&(*out)->entries, ENTRIES_MAX * sizeof(struct entry));
    rk_buf_init(&(*out)->text, TEXT_BYTES_MAX);
    return RK_OK;
}

void rk_write_errors_free(struct rk_write_errors *errors)
{
    if (errors != NULL) {
        rk_buf_deinit(&errors->entries);
        rk_buf_deinit(&errors->text);
        free(errors);
    }
}

size_t rk_write_errors_count(const struct rk_write_errors *errors)
{
    return errors != NULL ? errors->entries.len / sizeof(struct entry) : 0;
}

static struct entry entry_at(const struct rk_write_errors *errors, size_t i)
{
    struct entry entry;
    memcpy(&entry, errors->entries.data + i * sizeof entry, sizeof entry);
    return entry;
}

static bool same_text(const struct rk_write_errors *errors, const struct entry *entry,
                      const char *text, size_t len)
{
    return entry->len == len && memcmp(errors->text.data + entry->off, text, len) == 0;
}

enum rk_status rk_write_errors_add(struct rk_write_errors *errors, uint32_t index,
                                   const struct rk_error *err)
{
    size_t n = rk_write_errors_count(errors);
    char message[sizeof err->message];
    (void)snprintf(message, sizeof message, "%s", err->message);
    size_t len = strlen(message);
    rk_reply_make_utf8(message, len);
    struct entry entry = {.len = 0};
    if (n > 0) {
        entry = entry_at(errors, n - 1);
    }
    if (n == 0 || !same_text(errors, &entry, message, len)) {
        entry.off = (uint32_t)errors->text.len;
        entry.len = (uint32_t)len;
        enum rk_status status = rk_buf_append(&errors->text, message, len);
        if (status != RK_OK) {
            return status;
        }
    }
    entry.index = index;
    entry.code = err->code;
    return rk_buf_append(&errors->entries, &entry, sizeof entry);
}

bool rk_write_errors_find(const struct rk_write_errors *errors, uint32_t index,
                          struct rk_write_error *out)
{
    size_t low = 0;
    size_t high = rk_write_errors_count(errors);
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        struct entry entry = entry_at(errors, middle);
        if (entry.index == index) {
            *out = (struct rk_write_error){.index = index,
                                           .code = entry.code,
                                           .message = (const char *)errors->text.data + entry.off,
                                           .message_len = entry.len};
            return true;
        }
        if (entry.index < index) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return false;
}
