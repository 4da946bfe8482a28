/*
 * What must hold, judged from every change as it commits:
 *   - a range that is done never changes, and none ever vanishes
 *   - a range is shortened by its owner alone, behind its position, with a note of all that it
 *     gives away; the note goes when that is a range, and a range with a note is not done
 *   - the ranges, and what notes say, follow each other without gap and overlap, from MinKey on; to
 * MaxKey when the job counts as cut, and when it is complete
 *   - a claim raises the epoch by one and takes what is pending or whose lease ran out; nothing
 *     else touches the epoch
 *   - within an epoch only the thread that made the claim stores checkpoints, and only while the
 *     range is running; only the owner's process renews
 *   - position and counters never fall, the position stays inside the range
 *   - whatever lies up to the position, or in a range that is done, is under the current key or
 *     stands in deadLetters
 *   - scanned = swept + alreadyCurrent + gone + rejected
 *   - the sweeper changes nothing but the key
 *   - a job is complete only when every range is done, and then never changes again; the documents
 *     scanned are those that were there, each once
 */
#ifndef MODEL_CHECK_H
#define MODEL_CHECK_H

#include "store.h"

#define CHECK_RANGES_MAX 128u
#define CHECK_PLAINTEXTS 32u

struct check_range {
    uint8_t id[12];
    struct model_actor claimed_by;
};

/* The one field's possible values: of plaintext n under the former key, the current one, and
 * damaged. The bytes of the BSON binary. */
struct check_values {
    struct rk_buf former[CHECK_PLAINTEXTS];
    struct rk_buf current[CHECK_PLAINTEXTS];
    struct rk_buf damaged[CHECK_PLAINTEXTS];
};

struct check {
    const struct model_store *store;
    const struct check_values *values;
    bool violated;
    char what[256];
    struct check_range ranges[CHECK_RANGES_MAX];
    uint32_t n_ranges;
    int64_t ids_ever;   /* distinct ids of documents that were ever there */
    int64_t ids_always; /* there from beginning to end; brought up to date by the caller */
    uint64_t splits;
    int64_t sweeps_seen; /* documents that sweepers changed, told by the replies */
};

void check_init(struct check *check, const struct model_store *store,
                const struct check_values *values);
void check_change(void *arg, const struct model_change *change); /* a model_observer_fn */
void check_fail(struct check *check, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
