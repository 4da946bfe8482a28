/*
 * From the registry's records to a keyset: unwraps what is new, keeps what it has. Belongs to the
 * key service's thread; calls block.
 */
#ifndef REKEY_KEYS_LOADER_INTERNAL_H
#define REKEY_KEYS_LOADER_INTERNAL_H

#include <rekey/keys/service.h>

struct rk_key_loader;

/* ---- metrics.c ---- */

/* What the service's thread has counted; any thread reads. */
struct rk_key_figures {
    rk_counter states[RK_KEY_DESTROYED + 1]; /* keys that the registry lists */
    rk_counter loads;
    rk_counter load_failures;
    rk_counter load_us; /* of both */
    rk_counter retired_needed;
    rk_counter reads; /* of the registry */
    rk_counter read_failures;
    rk_counter failing; /* 1: the last read failed */
};

/* The registry was read, or could not be. */
void rk_key_figures_read(struct rk_key_figures *figures, bool ok);
void rk_key_figures_write(const struct rk_key_figures *figures, struct rk_metrics *m);
void rk_keyset_write(const struct rk_keyset *set, struct rk_metrics *m);
/* Why nothing can be written under any key of the set, a constant; NULL: it can. */
const char *rk_keyset_unusable(const struct rk_keyset *set);

/* ---- loader.c ---- */

/* readers: outlives it. */
RK_MUST_CHECK enum rk_status rk_key_loader_new(const struct rk_key_service_config *config,
                                               struct rk_readers *readers,
                                               struct rk_key_loader **out, struct rk_error *err);
void rk_key_loader_free(struct rk_key_loader *loader);

/*
 * Reads the registry. *set is the new keyset, or NULL when nothing changed. A key that does not
 * unwrap is left out (logged once, tried again every negative_cache_ms) and hinders no other. On
 * failure everything stays as it was.
 */
RK_MUST_CHECK enum rk_status rk_key_loader_refresh(struct rk_key_loader *loader,
                                                   struct rk_keyset **set, struct rk_error *err);

/* The last set was not used: the next refresh builds another. */
void rk_key_loader_forget_set(struct rk_key_loader *loader);
/* A current key of a name. */
struct rk_current_key {
    uint32_t id;
    const char *name;
    const struct rk_data_key *key; /* NULL: not loaded */
    bool in_use;                   /* values are written under it already */
    int64_t activated_at_ms;
    uint64_t encryptions;
};
/* The next one, *at starting with 0; false: there is none. What it gives is valid until the next
 * refresh. */
bool rk_key_loader_next_current(const struct rk_key_loader *loader, size_t *at,
                                struct rk_current_key *out);
bool rk_key_loader_has_pending(const struct rk_key_loader *loader, const char *name);
struct rk_registry *rk_key_loader_registry(struct rk_key_loader *loader);
const struct rk_provider *rk_key_loader_provider(const struct rk_key_loader *loader);
const char *rk_key_loader_instance(const struct rk_key_loader *loader); /* NULL: it only reads */

/* Makes a pending key current when all instances have it. */
void rk_key_loader_promote(struct rk_key_loader *loader);

/* A retired key is not loaded until somebody asks for it. True: the next refresh will. */
bool rk_key_loader_want(struct rk_key_loader *loader, uint32_t key_id);

/* Lives as long as the loader. */
struct rk_key_figures *rk_key_loader_figures(struct rk_key_loader *loader);

/* Makes the first key of a name of which the last refresh found none, if that is wanted. True: it
 * is to be refreshed again. False with failure filled, or as it was when nothing was tried. */
bool rk_key_loader_create(struct rk_key_loader *loader, const char *name, struct rk_error *failure);

/* Why the keyset of the last refresh lacks key_id (0: a current key of that name). */
void rk_key_loader_why_not(const struct rk_key_loader *loader, uint32_t key_id, const char *name,
                           struct rk_error *err);

/* ---- presence.c ---- */

/*
 * Tells the registry that this instance lives, which keys it has, and which of them it writes under
 * or is about to, when that is due or has changed. Before the first refresh (no keyset is in use
 * before it was announced), and after every keyset was published (a key must be in use before it
 * counts as loaded).
 */
RK_MUST_CHECK enum rk_status rk_key_loader_announce(struct rk_key_loader *loader,
                                                    struct rk_error *err);
/* Has a current key come that was not announced as written? It must be before the set is used, and
 * the registry be read once more then: whoever finds that nobody writes under a key (life.h) must
 * not have looked in between. */
bool rk_key_loader_unannounced(struct rk_key_loader *loader);
/* The last set is in use: it was published as generation. */
void rk_key_loader_in_use(struct rk_key_loader *loader, uint64_t generation);
/* Looks for whom pending keys wait still; what waits for nobody is announced by the next
 * rk_key_loader_announce. Also learns which cursors others have given up. */
RK_MUST_CHECK enum rk_status rk_key_loader_settle(struct rk_key_loader *loader,
                                                  struct rk_error *err);

#endif
