/*
 * As much of mongod as the job engine needs, in memory: the commands that src/jobs sends, on
 * documents kept as BSON bytes. What it does not know ends the program with a message, so that it
 * is never silently wrong; tests/integration/test_lease_model.py holds its answers against those
 * of a real server.
 *
 * Every document has a latest and a committed version. A write with w: majority commits all before
 * it; others wait in the journal, and model_store_roll_back takes back what is in there, as the
 * election of a member that lacks it would. Changes are told to the observer when they commit.
 */
#ifndef MODEL_STORE_H
#define MODEL_STORE_H

#include <rekey/base/buf.h>
#include <rekey/bson/walk.h>
#include <stdbool.h>
#include <stdint.h>

/* Prints and aborts. */
#define MODEL_DIE(...) model_die(__FILE__, __LINE__, __VA_ARGS__)
_Noreturn void model_die(const char *file, int line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#define MODEL_DOCS_MAX 512u
#define MODEL_COLLECTIONS_MAX 8u
#define MODEL_INDEXES_MAX 4u

struct model_doc {
    uint32_t refs;
    uint32_t len;
    uint8_t data[];
};

struct model_slot {
    struct model_doc *latest;    /* NULL: not there */
    struct model_doc *committed; /* NULL: not there */
};

struct model_index {
    struct model_doc *keys;
    struct model_doc *partial; /* NULL: over all documents */
};

struct model_collection {
    char name[32];
    struct model_slot slots[MODEL_DOCS_MAX]; /* in the order of insertion */
    uint32_t n;
    struct model_index unique[MODEL_INDEXES_MAX]; /* that on _id goes without saying */
    uint32_t n_unique;
};

/* Who sends a command. */
struct model_actor {
    uint64_t serial;      /* of the thread; never used again */
    const char *instance; /* valid as long as the store */
};

/* A document that became committed; before or after is NULL when it was not there. */
struct model_change {
    const struct model_collection *collection;
    const struct model_doc *before;
    const struct model_doc *after;
    struct model_actor actor;
    int64_t now_ms; /* the server's clock when it was applied */
};
typedef void model_observer_fn(void *arg, const struct model_change *change);

/* What a store can be made to get wrong, to see that the test notices it. */
enum model_mutation {
    MODEL_SOUND,
    MODEL_NO_EPOCH_FILTER,  /* checkpoints of any epoch */
    MODEL_NO_EPOCH_GROWTH,  /* a claim leaves the epoch as it is */
    MODEL_NO_LEASE_CHECK,   /* claims of ranges whose lease still runs */
    MODEL_NO_STATE_FILTER,  /* checkpoints of ranges that are not running */
    MODEL_NO_ORDER,         /* checkpoints of one epoch in any order */
    MODEL_NO_COMPARE,       /* updates of documents that changed since they were read */
    MODEL_NO_RESUME_POINT,  /* the document at the position is read once more */
    MODEL_NO_UNIQUE_SEQ,    /* two ranges of the same seq */
    MODEL_LOCAL_SCANS,      /* reads of documents see what is not committed */
    MODEL_LOCAL_PLAN,       /* so does the planner when it reads the last range */
    MODEL_LOCAL_CLOSE,      /* so do those who close a job */
    MODEL_BLIND_CLOSE,      /* running ranges are not counted when a job is closed */
    MODEL_EARLY_PLAN,       /* a job counts as cut before it is */
    MODEL_FORGOTTEN_COUNTS, /* a checkpoint does not store what was scanned */
    MODEL_FORGOTTEN_SPLIT,  /* a claim drops what its predecessor noted */
    MODEL_FORGOTTEN_CUT,    /* where a range was cut is not kept when it is split */
    MODEL_ANY_NOTE,         /* any note is removed, not just the one that is done with */
    MODEL_EARLY_POSITION,   /* a claim stores the range's end as its position */
    MODEL_MUTATIONS
};

struct model_entry {
    struct model_collection *collection;
    struct model_slot *slot;
    struct model_doc *after;
    struct model_actor actor;
    int64_t now_ms;
};

struct model_store {
    struct model_collection collections[MODEL_COLLECTIONS_MAX];
    uint32_t n;
    struct model_entry journal[MODEL_DOCS_MAX];
    uint32_t n_journal;
    enum model_mutation mutation;
    model_observer_fn *observer;
    void *observer_arg;
    uint64_t generated_ids;
    struct rk_buf scratch; /* a document being built */
};

struct model_call {
    const char *db;
    struct rk_bson_view command;
    struct model_actor actor;
    int64_t now_ms;   /* the server's clock */
    bool uncommitted; /* the write concern will not be satisfied */
};

void model_store_init(struct model_store *store, enum model_mutation mutation,
                      model_observer_fn *observer, void *arg);
void model_store_deinit(struct model_store *store);
/* Appends the reply, one document, to reply. */
void model_store_run(struct model_store *store, const struct model_call *call,
                     struct rk_buf *reply);
void model_store_commit(struct model_store *store);
void model_store_roll_back(struct model_store *store);
/* Made when it is not there. */
struct model_collection *model_store_collection(struct model_store *store, const char *name);

struct rk_bson_view model_doc_view(const struct model_doc *doc);
/* slot NULL: a new one. data NULL: deleted. */
void model_store_put(struct model_store *store, struct model_collection *c, struct model_slot *slot,
                     const uint8_t *data, uint32_t len, const struct model_call *call);
void model_store_index(struct model_collection *c, const struct rk_bson_view *keys,
                       const struct rk_bson_elem *partial);
/* Would the document, in place of slot's, break a unique index? */
bool model_store_conflict(const struct model_store *store, const struct model_collection *c,
                          const struct model_slot *slot, const struct rk_bson_view *doc);

/* ---- mutation.c: the store's mistakes */

/* The filter as the mutation has it; copy is scratch space. */
struct rk_bson_view model_mutate_filter(const struct model_store *store,
                                        const struct rk_bson_view *command,
                                        const struct model_collection *c,
                                        const struct rk_bson_view *filter, struct rk_buf *copy);
/* Changes the document that an update made of old. */
void model_mutate_document(const struct model_store *store, const struct rk_bson_view *command,
                           const struct model_collection *c, const struct rk_bson_view *old,
                           struct rk_buf *doc);

/* ---- query.c */

/* Values that an expression computed; those of one evaluation. */
struct model_cells {
    uint8_t cells[64][8];
    uint32_t n;
    int64_t now_ms;
};
/* An aggregation expression. type 0: missing. key and start of the result are not set. */
struct rk_bson_elem model_eval(struct model_cells *cells, const struct rk_bson_elem *expr,
                               const struct rk_bson_view *doc);
bool model_matches(const struct rk_bson_view *filter, const struct rk_bson_view *doc,
                   int64_t now_ms);
/* As an element of the document's top level; type 0: missing. */
struct rk_bson_elem model_field(const struct rk_bson_view *doc, const char *key);
int model_compare(const struct rk_bson_elem *a, const struct rk_bson_elem *b);
bool model_same(const struct rk_bson_elem *a, const struct rk_bson_elem *b); /* byte for byte */

/* ---- update.c */

/* Writes the updated document to out. old NULL: an upsert of what filter says. False: nothing
 * changed. */
bool model_update(const struct rk_bson_elem *update, const struct rk_bson_view *filter,
                  const struct rk_bson_view *old, int64_t now_ms, uint64_t *generated_ids,
                  struct rk_buf *out);

#endif
