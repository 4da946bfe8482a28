#include "check.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void check_init(struct check *check, const struct model_store *store,
                const struct check_values *values)
{
    check->store = store;
    check->values = values;
    check->violated = false;
    check->n_ranges = 0;
    check->ids_ever = 0;
    check->ids_always = 0;
    check->sweeps_seen = 0;
    check->splits = 0;
}

void check_fail(struct check *check, const char *format, ...)
{
    va_list args;
    if (!check->violated) {
        check->violated = true;
        va_start(args, format);
        (void)vsnprintf(check->what, sizeof check->what, format, args);
        va_end(args);
    }
}

static const struct rk_bson_elem no_field;

static int64_t number(const struct rk_bson_view *doc, const char *key)
{
    struct rk_bson_elem e = model_field(doc, key);
    int64_t v = 0;
    (void)rk_bson_elem_int(&e, &v);
    return v;
}

static bool is(const struct rk_bson_view *doc, const char *key, const char *text)
{
    struct rk_bson_elem e = model_field(doc, key);
    return e.type == RK_BSON_STRING && strcmp((const char *)e.value + 4, text) == 0;
}

static bool same_field(const struct rk_bson_view *a, const struct rk_bson_view *b, const char *key)
{
    struct rk_bson_elem x = model_field(a, key);
    struct rk_bson_elem y = model_field(b, key);
    return model_same(&x, &y);
}

static const struct model_collection *collection(const struct check *check, const char *name)
{
    for (uint32_t i = 0; i < check->store->n; i++) {
        if (strcmp(check->store->collections[i].name, name) == 0) {
            return &check->store->collections[i];
        }
    }
    return NULL;
}

/* ---- documents */

static bool holds(const struct rk_bson_elem *value, const struct rk_buf *bytes)
{
    return value->value_len == bytes->len && memcmp(value->value, bytes->data, bytes->len) == 0;
}

static bool is_filed(const struct check *check, const struct rk_bson_elem *id)
{
    const struct model_collection *letters = collection(check, "deadLetters");
    for (uint32_t i = 0; letters != NULL && i < letters->n; i++) {
        if (letters->slots[i].committed != NULL) {
            struct rk_bson_view doc = model_doc_view(letters->slots[i].committed);
            struct rk_bson_elem filed = model_field(&doc, "docId");
            if (model_compare(&filed, id) == 0) {
                return true;
            }
        }
    }
    return false;
}

/* Needs nothing any more, or cannot be helped. */
static bool processed(const struct check *check, const struct rk_bson_view *doc)
{
    struct rk_bson_elem id = model_field(doc, "_id");
    struct rk_bson_elem value = model_field(doc, "s");
    int64_t n = number(doc, "n");
    return holds(&value, &check->values->current[n]) ||
           (holds(&value, &check->values->damaged[n]) && is_filed(check, &id));
}

/* From the range's start to its position, or to its end when it is done. */
static void check_swept(struct check *check, const struct rk_bson_view *range)
{
    const struct model_collection *docs = collection(check, "c");
    struct rk_bson_elem start = model_field(range, "startId");
    struct rk_bson_elem end = model_field(range, "endId");
    struct rk_bson_elem position = model_field(range, "position");
    bool done = is(range, "state", "done");
    for (uint32_t i = 0; i < docs->n; i++) {
        if (docs->slots[i].committed == NULL) {
            continue;
        }
        struct rk_bson_view doc = model_doc_view(docs->slots[i].committed);
        struct rk_bson_elem id = model_field(&doc, "_id");
        bool inside = model_compare(&id, &start) >= 0 &&
                      (end.type == RK_BSON_MAXKEY || model_compare(&id, &end) < 0);
        bool passed = done || (position.type != 0 && model_compare(&id, &position) <= 0);
        if (inside && passed && !processed(check, &doc)) {
            check_fail(check, "range %d passed a document that is not processed (slot %u)",
                       (int)number(range, "seq"), i);
        }
    }
}

static void check_document(struct check *check, const struct model_change *change)
{
    if (strcmp(change->actor.instance, "app") == 0) {
        return;
    }
    if (change->before == NULL || change->after == NULL) {
        check_fail(check, "a sweeper inserted or deleted a document");
        return;
    }
    struct rk_bson_view before = model_doc_view(change->before);
    struct rk_bson_view after = model_doc_view(change->after);
    struct rk_bson_elem value = model_field(&after, "s");
    int64_t n = number(&after, "n");
    if (!same_field(&before, &after, "n") || before.len != after.len ||
        !holds(&value, &check->values->current[n])) {
        check_fail(check, "a sweeper changed more than the key");
    }
}

/* ---- ranges */

static struct check_range *find_range(struct check *check, const struct rk_bson_view *doc)
{
    struct rk_bson_elem id = model_field(doc, "_id");
    for (uint32_t i = 0; i < check->n_ranges; i++) {
        if (memcmp(check->ranges[i].id, id.value, sizeof check->ranges[i].id) == 0) {
            return &check->ranges[i];
        }
    }
    if (check->n_ranges == CHECK_RANGES_MAX) {
        MODEL_DIE("too many ranges");
    }
    struct check_range *range = &check->ranges[check->n_ranges++];
    memcpy(range->id, id.value, sizeof range->id);
    range->claimed_by = (struct model_actor){0};
    return range;
}

/* What the range gives away, where it still says so. */
static bool note_of(const struct rk_bson_view *range, struct rk_bson_view *note)
{
    struct rk_bson_elem e = model_field(range, "splitOff");
    return e.type != 0 && rk_bson_elem_view(&e, note);
}

struct chain {
    uint32_t n;
    uint32_t done;
    bool to_the_end;
};

/* Follows the committed ranges from MinKey on, and what is to become one. */
static struct chain follow(struct check *check)
{
    const struct model_collection *ranges = collection(check, "jobStatus");
    struct chain chain = {0};
    uint32_t n = 0;
    bool found = true;
    struct rk_bson_elem at = {.type = RK_BSON_MINKEY, .value = (const uint8_t *)""};
    struct rk_bson_elem beyond = {0}; /* the note of the last one */
    struct rk_bson_view note;
    for (uint32_t i = 0; ranges != NULL && i < ranges->n; i++) {
        n += ranges->slots[i].committed != NULL;
    }
    while (found && !chain.to_the_end && n > 0) {
        found = false;
        for (uint32_t i = 0; i < ranges->n && !found; i++) {
            if (ranges->slots[i].committed == NULL) {
                continue;
            }
            struct rk_bson_view doc = model_doc_view(ranges->slots[i].committed);
            struct rk_bson_elem start = model_field(&doc, "startId");
            if (model_compare(&start, &at) == 0) {
                found = true;
                at = model_field(&doc, "endId");
                beyond = note_of(&doc, &note) ? model_field(&note, "endId") : no_field;
                chain.n++;
                chain.done += is(&doc, "state", "done");
            }
        }
        if (!found && beyond.type != 0) {
            found = true;
            at = beyond;
            beyond = no_field;
        }
        chain.to_the_end = at.type == RK_BSON_MAXKEY;
        if (chain.n > n) {
            break;
        }
    }
    if (chain.n != n) {
        check_fail(check, "the ranges overlap, or leave a gap: %u of %u follow each other", chain.n,
                   n);
    }
    return chain;
}

static const char *const counters[] = {"scanned",      "swept",     "alreadyCurrent",
                                       "gone",         "rejected",  "changedAgain",
                                       "deadLettered", "plaintext", "consumerProcessed"};
#define N_COUNTERS (sizeof counters / sizeof counters[0])

static void check_counters(struct check *check, const struct rk_bson_view *before,
                           const struct rk_bson_view *after)
{
    int64_t now[N_COUNTERS];
    for (size_t i = 0; i < N_COUNTERS; i++) {
        now[i] = number(after, counters[i]);
        if (now[i] < number(before, counters[i])) {
            check_fail(check, "the counter %s fell", counters[i]);
        }
    }
    if (now[0] != now[1] + now[2] + now[3] + now[4]) {
        check_fail(check, "range %d: scanned %d, but swept %d, current %d, gone %d, rejected %d",
                   (int)number(after, "seq"), (int)now[0], (int)now[1], (int)now[2], (int)now[3],
                   (int)now[4]);
    }
}

static void check_claim(struct check *check, const struct model_change *change,
                        const struct rk_bson_view *before, const struct rk_bson_view *after)
{
    struct rk_bson_elem lease = model_field(before, "leaseUntil");
    bool expired = is(before, "state", "running") && lease.type == RK_BSON_DATE &&
                   rk_load_i64(lease.value) < change->now_ms;
    if (number(after, "epoch") != number(before, "epoch") + 1) {
        check_fail(check, "the epoch went from %d to %d", (int)number(before, "epoch"),
                   (int)number(after, "epoch"));
    } else if (!expired && !is(before, "state", "pending")) {
        check_fail(check, "a range was claimed before its lease had run out");
    } else if (!is(after, "state", "running") || !is(after, "owner", change->actor.instance)) {
        check_fail(check, "a claim left the range without its owner");
    }
    for (size_t i = 0; i < N_COUNTERS; i++) {
        if (!same_field(before, after, counters[i])) {
            check_fail(check, "a claim changed the counter %s", counters[i]);
        }
    }
    if (!same_field(before, after, "position")) {
        check_fail(check, "a claim moved the position");
    }
    find_range(check, after)->claimed_by = change->actor;
}

static void check_checkpoint(struct check *check, const struct model_change *change,
                             const struct rk_bson_view *before, const struct rk_bson_view *after)
{
    struct rk_bson_elem old = model_field(before, "position");
    struct rk_bson_elem position = model_field(after, "position");
    struct rk_bson_elem start = model_field(after, "startId");
    struct rk_bson_elem end = model_field(after, "endId");
    struct rk_bson_view note;
    if (!is(before, "state", "running")) {
        check_fail(check, "a checkpoint of a range that was not running");
    }
    if (change->actor.serial != find_range(check, after)->claimed_by.serial) {
        check_fail(check, "a checkpoint of epoch %d by a thread that had not claimed it",
                   (int)number(after, "epoch"));
    }
    if (is(after, "state", "done") && note_of(after, &note)) {
        check_fail(check, "a range was done before what it gave away was a range");
    }
    if (old.type != 0 && (position.type == 0 || model_compare(&position, &old) < 0)) {
        check_fail(check, "the position fell");
    }
    if (position.type != 0 &&
        (model_compare(&position, &start) < 0 ||
         (end.type != RK_BSON_MAXKEY && model_compare(&position, &end) >= 0))) {
        check_fail(check, "the position left the range");
    }
    check_counters(check, before, after);
    check_swept(check, after);
}

/* Are all fields of b but these as they are in a? */
static bool same_but(const struct rk_bson_view *a, const struct rk_bson_view *b,
                     const char *const *keys)
{
    struct rk_bson_iter iter;
    struct rk_bson_elem e;
    rk_bson_iter_init(&iter, b);
    while (rk_bson_next(&iter, &e) == RK_BSON_STEP_ELEM) {
        size_t i = 0;
        while (keys[i] != NULL && strcmp(keys[i], e.key) != 0) {
            i++;
        }
        if (keys[i] == NULL && !same_field(a, b, e.key)) {
            return false;
        }
    }
    return true;
}

static bool is_renewal(const struct rk_bson_view *before, const struct rk_bson_view *after)
{
    static const char *const lease[] = {"leaseUntil", NULL};
    return before->len == after->len && same_but(before, after, lease);
}

static void check_split(struct check *check, const struct model_change *change,
                        const struct rk_bson_view *before, const struct rk_bson_view *after,
                        const struct rk_bson_view *note)
{
    static const char *const changed[] = {"splitOff", "endId", "batchSize", "cutEndId", NULL};
    struct rk_bson_elem position = model_field(before, "position");
    struct rk_bson_elem former = model_field(before, "endId");
    struct rk_bson_elem end = model_field(after, "endId");
    struct rk_bson_elem given = model_field(note, "endId");
    if (position.type == 0) {
        position = model_field(before, "startId");
    }
    check->splits++;
    if (change->actor.serial != find_range(check, after)->claimed_by.serial ||
        !is(before, "state", "running") || !same_but(before, after, changed)) {
        check_fail(check, "a range was split by a thread that did not own it");
    }
    if (model_compare(&end, &position) <= 0 || model_compare(&end, &former) >= 0 ||
        !model_same(&given, &former)) {
        check_fail(check, "a range was not split between its position and its end");
    }
    if (number(after, "batchSize") + number(note, "batchSize") != number(before, "batchSize") ||
        number(note, "seq") >= 0 || number(note, "seq") >= number(before, "seq")) {
        check_fail(check, "what is split off has a wrong seq or number of documents");
    }
}

/* The note may go when there is a range as it says. */
static void check_split_off(struct check *check, const struct rk_bson_view *before,
                            const struct rk_bson_view *after, const struct rk_bson_view *note)
{
    static const char *const changed[] = {NULL};
    static const char *const as_noted[] = {"_id", "seq", "endId", "batchSize"};
    const struct model_collection *ranges = collection(check, "jobStatus");
    struct rk_bson_elem end = model_field(before, "endId");
    bool found = false;
    for (uint32_t i = 0; i < ranges->n && !found; i++) {
        if (ranges->slots[i].committed != NULL) {
            struct rk_bson_view doc = model_doc_view(ranges->slots[i].committed);
            struct rk_bson_elem start = model_field(&doc, "startId");
            /* It may have been split in its turn. */
            bool whole = model_field(&doc, "cutEndId").type == 0;
            found = model_same(&start, &end);
            for (size_t j = 0; found && j < (whole ? 4 : 2); j++) {
                found = same_field(&doc, note, as_noted[j]);
            }
        }
    }
    if (!found || !same_but(before, after, changed)) {
        check_fail(check, "what range %d gave away is lost", (int)number(before, "seq"));
    }
}

static void check_range_update(struct check *check, const struct model_change *change)
{
    static const char *const fixed[] = {"_id",   "jobId",     "seq",      "startId",
                                        "endId", "batchSize", "cutEndId", "splitOff"};
    struct rk_bson_view before = model_doc_view(change->before);
    struct rk_bson_view after = model_doc_view(change->after);
    struct rk_bson_view note;
    if (is(&before, "state", "done")) {
        check_fail(check, "a range that was done has changed");
    }
    if (!note_of(&before, &note) && note_of(&after, &note)) {
        check_split(check, change, &before, &after, &note);
        return;
    }
    if (note_of(&before, &note) && model_field(&after, "splitOff").type == 0) {
        check_split_off(check, &before, &after, &note);
        return;
    }
    for (size_t i = 0; i < sizeof fixed / sizeof fixed[0]; i++) {
        if (!same_field(&before, &after, fixed[i])) {
            check_fail(check, "the field %s of a range has changed", fixed[i]);
        }
    }
    if (number(&after, "epoch") != number(&before, "epoch") ||
        (is(&after, "state", "running") && !is(&before, "state", "running")) ||
        !same_field(&before, &after, "owner")) {
        check_claim(check, change, &before, &after);
    } else if (is_renewal(&before, &after)) {
        if (!is(&before, "owner", change->actor.instance) || !is(&before, "state", "running")) {
            check_fail(check, "somebody else's lease was renewed");
        }
    } else if (is(&before, "state", "failed")) {
        if (strcmp(change->actor.instance, "ctl") != 0 || !is(&after, "state", "pending") ||
            !same_field(&before, &after, "position")) {
            check_fail(check, "a failed range was changed by another than rekeyctl resume");
        }
    } else {
        check_checkpoint(check, change, &before, &after);
    }
}

static void check_range(struct check *check, const struct model_change *change)
{
    if (change->after == NULL) {
        check_fail(check, "a range vanished");
    } else if (change->before != NULL) {
        check_range_update(check, change);
    } else {
        struct rk_bson_view doc = model_doc_view(change->after);
        if (!is(&doc, "state", "pending") || number(&doc, "epoch") != 0) {
            check_fail(check, "a new range is not pending");
        }
        (void)find_range(check, &doc);
        (void)follow(check);
    }
}

/* ---- the job */

static void check_totals(struct check *check)
{
    const struct model_collection *ranges = collection(check, "jobStatus");
    int64_t scanned = 0;
    int64_t swept = 0;
    for (uint32_t i = 0; i < ranges->n; i++) {
        if (ranges->slots[i].committed != NULL) {
            struct rk_bson_view doc = model_doc_view(ranges->slots[i].committed);
            scanned += number(&doc, "scanned");
            swept += number(&doc, "swept");
        }
    }
    if (scanned > check->ids_ever || scanned < check->ids_always) {
        check_fail(check, "%d documents were counted; there were %d to %d", (int)scanned,
                   (int)check->ids_always, (int)check->ids_ever);
    }
    if (swept > check->sweeps_seen) {
        check_fail(check, "%d documents count as swept; %d were", (int)swept,
                   (int)check->sweeps_seen);
    }
}

static void check_job(struct check *check, const struct model_change *change)
{
    if (change->before == NULL || change->after == NULL) {
        return;
    }
    struct rk_bson_view before = model_doc_view(change->before);
    struct rk_bson_view after = model_doc_view(change->after);
    struct rk_bson_elem cut = model_field(&after, "planComplete");
    struct chain chain = follow(check);
    if (rk_bson_elem_truthy(&cut) && !chain.to_the_end) {
        check_fail(check, "the job counts as cut, but its ranges do not reach the end");
    }
    if (is(&before, "state", "complete")) {
        check_fail(check, "a complete job has changed");
    }
    if (number(&after, "plannerEpoch") < number(&before, "plannerEpoch")) {
        check_fail(check, "the planner's epoch fell");
    }
    if (is(&before, "state", "cancelled") && !is(&after, "state", "cancelled")) {
        check_fail(check, "a cancelled job came back");
    }
    if (is(&after, "state", "complete")) {
        if (!is(&before, "state", "running") || !chain.to_the_end || chain.done != chain.n) {
            check_fail(check, "the job was closed with %u of %u ranges done", chain.done, chain.n);
        }
        check_totals(check);
    }
}

void check_change(void *arg, const struct model_change *change)
{
    struct check *check = arg;
    if (check->violated) {
        return;
    }
    if (strcmp(change->collection->name, "jobStatus") == 0) {
        check_range(check, change);
    } else if (strcmp(change->collection->name, "jobs") == 0) {
        check_job(check, change);
    } else if (strcmp(change->collection->name, "c") == 0) {
        check_document(check, change);
    }
}
