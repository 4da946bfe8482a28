/*
 * What the files of rekeyctl's job commands share.
 */
#ifndef REKEY_CTL_JOBS_INTERNAL_H
#define REKEY_CTL_JOBS_INTERNAL_H

#include <bson/bson.h>
#include <rekey/ctl/ctl.h>
#include <rekey/jobs/store.h>
#include <stdio.h>

/* rk_ctl_fail, with "mongod did not do it this time" told apart from "it cannot be done". */
enum rk_ctl_exit rk_ctl_job_fail(const struct rk_error *err);

/* "1,234,567"; returns out. */
#define RK_CTL_NUMBER_LEN 32u
const char *rk_ctl_number(int64_t n, char out[RK_CTL_NUMBER_LEN]);

/* Not complete, failed or cancelled. */
bool rk_ctl_job_goes_on(const struct rk_job *job);
/* Documents a second over the whole life of the job, negative when it has not begun. */
double rk_ctl_job_rate(const struct rk_job *job);

/* One line: namespace, state, bar, documents, rate, time to go. rate < 0: unknown. */
void rk_ctl_print_progress(FILE *out, const struct rk_job *job, double rate_docs_per_s,
                           const char *end);

/* ---- jobs_follow.c */

/* Shows progress until none of the jobs with these ids (NULL: no active job at all) goes on, then
 * how they ended: not complete is a failure. Progress goes to standard error, with watch to
 * standard output; there is none with --json. */
enum rk_ctl_exit rk_ctl_follow(struct rk_ctl *ctl, const char (*ids)[RK_JOB_ID_LEN], size_t n_ids,
                               bool watch);

enum rk_ctl_exit rk_ctl_print_jobs(struct rk_ctl *ctl, const struct rk_job *jobs, size_t n);

/* ---- jobs_dry_run.c: what a job over each of them would do; nothing is started. */
enum rk_ctl_exit rk_ctl_dry_run(struct rk_ctl *ctl, bool encrypt, uint32_t sample,
                                char *const *namespaces, size_t n);

/* ---- throttle.c */

/* Why nothing is swept at present; empty: something may be. size of at least 200 bytes. */
struct rk_sweep_now;
void rk_ctl_sweep_reason(const struct rk_sweep_now *now, char *out, size_t size);

enum rk_ctl_exit rk_ctl_run_status(struct rk_ctl *ctl, int argc, char **argv);
enum rk_ctl_exit rk_ctl_run_jobs(struct rk_ctl *ctl, int argc, char **argv);
enum rk_ctl_exit rk_ctl_run_verify(struct rk_ctl *ctl, int argc, char **argv);
enum rk_ctl_exit rk_ctl_run_dead_letters(struct rk_ctl *ctl, int argc, char **argv);
enum rk_ctl_exit rk_ctl_run_dead_letters_show(struct rk_ctl *ctl, int argc, char **argv);
enum rk_ctl_exit rk_ctl_run_dead_letters_retry(struct rk_ctl *ctl, int argc, char **argv);
enum rk_ctl_exit rk_ctl_run_dead_letters_discard(struct rk_ctl *ctl, int argc, char **argv);

/* ---- jobs_dead_letter.c: fields of an entry; absent ones are "" and 0, keys may have dots */

#define RK_CTL_LETTER_ID_LEN 25u
const char *rk_ctl_letter_id(const bson_t *entry, char out[RK_CTL_LETTER_ID_LEN]);
const char *rk_ctl_letter_text(const bson_t *entry, const char *key);
int64_t rk_ctl_letter_number(const bson_t *entry, const char *key);
int64_t rk_ctl_letter_date(const bson_t *entry, const char *key);
/* "open", "retry asked", "resolved" or "discarded" */
const char *rk_ctl_letter_state(const bson_t *entry);
/* The document's _id as JSON, since it can be of any type; bson_free it. */
char *rk_ctl_letter_doc_id(const bson_t *entry);
/* All but the raw value. */
void rk_ctl_append_letter(bson_t *doc, const bson_t *entry);

#endif
