/*
 * What the parts of the loader share:
 *
 *   loader.c   the registry, and the keyset that is made of it
 *   entries.c  what is known of every key; loads and drops
 *   presence.c what other instances are told of this one, and for whom it waits
 */
#ifndef REKEY_KEYS_ENTRIES_INTERNAL_H
#define REKEY_KEYS_ENTRIES_INTERNAL_H

#include "loader_internal.h"
#include "newcomers_internal.h"

struct rk_key_entry {
    uint32_t id;
    char *name;
    bool first; /* of its name */
    enum rk_key_state state;
    bool listed;             /* in the registry, at the last look */
    struct rk_data_key *key; /* NULL: is not wanted, or does not unwrap, see failure */
    bool wanted;             /* somebody asked for it, although it is retired */
    bool current;            /* of its name, whether or not it could be loaded; for the log */
    bool loaded;             /* in the set that is in use */
    bool settled;            /* nobody reads without it any more: may be announced as loaded */
    uint64_t epoch;          /* readers.h: it came into use with this one; 0: it never was */
    bool written;            /* current in the set that is in use: values are written under it */
    bool to_be_written;      /* current in the set that was built last */
    bool announced;          /* as written */
    int64_t activated_at_ms;
    uint64_t encryptions;
    struct rk_error failure;
    uint64_t retry_at_us;
};

struct rk_key_loader {
    struct rk_registry *registry;
    struct rk_provider provider;
    uint64_t retry_interval_us;
    bool create_first_key;
    bool create_tenant_keys;
    uint32_t tenants_max;

    const struct rk_legacy_key *legacy; /* the provider's */
    size_t n_legacy;
    bool legacy_loaded;

    struct rk_key_entry *entries; /* every id that the registry ever listed, by rising id */
    size_t n_entries;
    bool published; /* a keyset was handed out */
    bool reachable; /* the registry, at the last look */

    struct rk_readers *readers;
    struct rk_newcomers newcomers;
    uint32_t needed_id; /* the last in the registry that was waited for, and under which values may
                           lie */

    char *instance; /* NULL: not announced */
    uint32_t lease_ms;
    uint32_t cursor_grace_ms;
    uint64_t announce_at_us; /* when the next heartbeat is due */
    uint64_t beat_us;        /* rk_clock_boot_us() just before the last one; 0: none yet */
    uint64_t known_us;       /* and before the last that was older than a look at the registry */
    bool announced;          /* the last set */

    struct rk_key_figures figures;
};

/* ---- entries.c ---- */

enum rk_key_role rk_key_entry_role(const struct rk_key_entry *entry);
/* Brings the entries in line with the records. *changed is set when the keyset has to be rebuilt.
 */
RK_MUST_CHECK enum rk_status rk_key_entries_take(struct rk_key_loader *loader,
                                                 const struct rk_key_record *records, size_t n,
                                                 bool *changed, struct rk_error *err);

/* ---- presence.c ---- */

/* A clean end. */
void rk_key_presence_leave(struct rk_key_loader *loader);

#endif
