/*
 * The little that every user of libmongoc in Rekey needs: a client pool with bounded waiting, and
 * libmongoc's errors as ours.
 */
#ifndef REKEY_KEYS_MONGO_H
#define REKEY_KEYS_MONGO_H

#include <rekey/base/status.h>

struct _bson_error_t;
struct _bson_t;
struct _mongoc_client_t;
struct _mongoc_client_pool_t;

/* The server's code for a key that a unique index has already. */
#define RK_MONGO_DUPLICATE_KEY 11000

/* libmongoc for this process, once, in main. Its own log is silenced: it goes to standard error in
 * a format of its own, and whatever matters comes back as an error. */
void rk_mongo_init(void);
void rk_mongo_cleanup(void);

/*
 * A pool for uri. appname is what mongod logs. Options that the uri does not set itself:
 * serverSelectionTimeoutMS, connectTimeoutMS and socketTimeoutMS, so that no call blocks for
 * ever, and heartbeatFrequencyMS (0: libmongoc's own default; at least 500). The uri's password
 * never appears in err.
 */
RK_MUST_CHECK enum rk_status rk_mongo_pool_new(const char *uri, const char *appname,
                                               uint32_t heartbeat_ms,
                                               struct _mongoc_client_pool_t **out,
                                               struct rk_error *err);

/* Does a server answer, and let us in? */
RK_MUST_CHECK enum rk_status rk_mongo_ping(struct _mongoc_client_pool_t *pool,
                                           struct rk_error *err);

/* The primary's clock, which is that of $$NOW and $currentDate. */
RK_MUST_CHECK enum rk_status rk_mongo_now(struct _mongoc_client_t *client, int64_t *now_ms,
                                          struct rk_error *err);

/* Fills *err with "<what>: <libmongoc's message>"; RK_ETIMEOUT when no server could be selected,
 * RK_ESTATE for a duplicate key, RK_EIO otherwise. */
enum rk_status rk_mongo_error(struct rk_error *err, const char *what,
                              const struct _bson_error_t *cause);

/* Appends {readConcern: {level: "majority"}} to opts; a standalone mongod takes it, too. */
void rk_mongo_majority_reads(struct _bson_t *opts);
/* Appends {writeConcern: {w: "majority", wtimeout}} to opts. */
void rk_mongo_majority_writes(struct _bson_t *opts);

#endif
