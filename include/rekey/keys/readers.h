/*
 * Who reads with a query that was written for the keys of its time, and so would miss what lies
 * under a later one: requests on their way that compare protected fields, and the cursors that such
 * requests opened. A new key stays pending until the finite ones among them are through; the
 * endless ones (change streams, tailable cursors) end before it becomes current, and what comes
 * then from those that lasted too long is no answer any more.
 *
 * An epoch is the time between two keysets of which the later has a key more. Any thread.
 */
#ifndef REKEY_KEYS_READERS_H
#define REKEY_KEYS_READERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct rk_readers;
struct rk_epoch;

/* A place among the readers. Zeroed: none, as for a query that names no ciphertext. */
struct rk_reader {
    struct rk_epoch *epoch;
    bool endless;
    bool outlived; /* a cursor of another instance that it has given up */
};

/*
 * Takes a place for a request whose query was written for the keyset of generation (service.h).
 * False: keys have come since; write it anew for the present ones.
 */
bool rk_readers_enter(struct rk_readers *readers, uint64_t generation, bool endless,
                      struct rk_reader *out);
/* Takes a place for a getMore; none for a cursor that was not kept. Counts as a use of it. */
void rk_readers_enter_cursor(struct rk_readers *readers, int64_t id, uint64_t now_us,
                             struct rk_reader *out);
/* Gives the place back; a zeroed one is fine. */
void rk_readers_leave(struct rk_readers *readers, struct rk_reader *reader);

/* May what this reader was sent lack values? Asked when a reply is there, before it goes on. Also
 * when this instance was silent for so long that others do not wait for it any more. */
bool rk_readers_outdated(struct rk_readers *readers, const struct rk_reader *reader);

/* Keeps the place of reader, which opened the cursor, for as long as that is open. False: there are
 * max of them in use, or no memory. */
bool rk_readers_keep_cursor(struct rk_readers *readers, int64_t id, const struct rk_reader *reader,
                            size_t max, uint64_t now_us);
/* The cursor is closed. */
void rk_readers_forget_cursor(struct rk_readers *readers, int64_t id);

#endif
