#include "counts_internal.h"

struct rk_sweep_counts rk_sweep_counts_read(const struct rk_bson_view *doc)
{
    return (struct rk_sweep_counts){
        .scanned = rk_view_int(doc, "scanned"),
        .swept = rk_view_int(doc, "swept"),
        .already_current = rk_view_int(doc, "alreadyCurrent"),
        .gone = rk_view_int(doc, "gone"),
        .rejected = rk_view_int(doc, "rejected"),
        .changed_again = rk_view_int(doc, "changedAgain"),
        .dead_lettered = rk_view_int(doc, "deadLettered"),
        .plaintext = rk_view_int(doc, "plaintext"),
    };
}

void rk_sweep_counts_put(struct rk_bson_writer *w, const struct rk_sweep_counts *counts)
{
    rk_bson_put_int64(w, "consumerProcessed", counts->scanned);
    rk_bson_put_int64(w, "scanned", counts->scanned);
    rk_bson_put_int64(w, "swept", counts->swept);
    rk_bson_put_int64(w, "alreadyCurrent", counts->already_current);
    rk_bson_put_int64(w, "gone", counts->gone);
    rk_bson_put_int64(w, "rejected", counts->rejected);
    rk_bson_put_int64(w, "changedAgain", counts->changed_again);
    rk_bson_put_int64(w, "deadLettered", counts->dead_lettered);
    rk_bson_put_int64(w, "plaintext", counts->plaintext);
}

void rk_sweep_counts_add(struct rk_sweep_counts *into, const struct rk_sweep_counts *more)
{
    into->scanned += more->scanned;
    into->swept += more->swept;
    into->already_current += more->already_current;
    into->gone += more->gone;
    into->rejected += more->rejected;
    into->changed_again += more->changed_again;
    into->dead_lettered += more->dead_lettered;
    into->plaintext += more->plaintext;
}
