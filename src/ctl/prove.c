#include "prove_internal.h"

#include "jobs_internal.h"

#include <mongoc/mongoc.h>
#include <unistd.h>

struct rk_proof_request rk_ctl_proof_request(const struct rk_ctl *ctl)
{
    const struct rk_config *config = ctl->config;
    return (struct rk_proof_request){
        .state_db = config->upstream.state_db,
        .policies = config->policies,
        .actor = ctl->actor,
        .settings =
            {
                .read_preference = config->verify.read_preference,
                .lease_ms = config->verify.lease_ms,
                .checkpoint_interval_ms = config->verify.checkpoint_interval_ms,
                .batch_docs = config->verify.batch_docs,
                .max_rate = config->verify.max_rate,
                .attempts_max = config->sweep.attempts_max,
                .retry_backoff_ms = config->sweep.retry_backoff_ms,
                .retry_backoff_max_ms = config->sweep.retry_backoff_max_ms,
                .write_timeout_ms = config->sweep.write_timeout_ms,
            },
    };
}

/* One line of standard error, over itself on a terminal. */
static void show_progress(void *arg, const char *ns, int64_t documents, int64_t estimated)
{
    char done[RK_CTL_NUMBER_LEN];
    char all[RK_CTL_NUMBER_LEN];
    (void)arg;
    (void)fprintf(stderr, "\r%s  %s/%s docs\033[K", ns, rk_ctl_number(documents, done),
                  rk_ctl_number(estimated, all));
}

static void show_notice(void *arg, const char *text)
{
    (void)arg;
    (void)fprintf(stderr, "rekeyctl: %s\n", text);
}

enum rk_status rk_ctl_prove(const struct rk_ctl *ctl, mongoc_client_t *client,
                            struct rk_proof_request *request, struct rk_proof *proof,
                            struct rk_error *err)
{
    bool progress = !ctl->json && isatty(STDERR_FILENO) == 1;
    request->progress = progress ? show_progress : NULL;
    request->notice = show_notice;
    enum rk_status status = rk_proof_make(client, request, proof, err);
    if (progress) {
        (void)fputs("\r\033[K", stderr);
    }
    return status;
}
