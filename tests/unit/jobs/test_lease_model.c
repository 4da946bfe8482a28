/*
 * The job engine as it is (coordinator, sweepers, planner, ranges, checkpoints, rekeyctl's
 * actions) on a simulated server, clock and scheduler: random interleavings with crashes, zombies,
 * lost answers, elections and foreground writers; lease_model/check.h says what has to hold after
 * every step.
 *
 *   LEASE_MODEL_RUNS=n   that many runs
 *   LEASE_MODEL_FIRST=n  from that seed on, for one of several processes; the first (1) also plants
 *                        mistakes
 *   LEASE_MODEL_SEED=n   that run alone, with every command and log line on standard error
 *   LEASE_MODEL_MUTATION=n   with that mistake of the store's (enum model_mutation)
 *   LEASE_MODEL_DUMP=f   the commands of some runs go to this file (tests/integration/
 *                        test_lease_model.py replays them on a real server)
 */
#include "lease_model/world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

/* AddressSanitizer is slow; ./dev test has the release build make all of them. */
#if defined(__SANITIZE_ADDRESS__)
#define RUNS 1500u
#define SLOW 1
#else
#define RUNS 100000u
#define SLOW 0
#endif
#define MUTANT_RUNS_MAX 40000u

static struct world_tools tools;

static uint64_t setting(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text != NULL ? strtoull(text, NULL, 10) : otherwise;
}

static int set_up(void **state)
{
    (void)state;
    world_tools_init(&tools);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    world_tools_deinit(&tools);
    return 0;
}

static void nothing_goes_wrong(void **state)
{
    (void)state;
    uint64_t runs = setting("LEASE_MODEL_RUNS", RUNS);
    uint64_t first = setting("LEASE_MODEL_FIRST", 1);
    uint64_t complete = 0;
    uint64_t cancelled = 0;
    uint64_t commands = 0;
    uint64_t faults = 0;
    uint64_t splits = 0;
    for (uint64_t seed = first; seed < first + runs; seed++) {
        const struct world_options options = {.seed = seed};
        struct world_result result = world_run(&tools, &options);
        if (result.violated) {
            print_error("LEASE_MODEL_SEED=%llu: %s\n", (unsigned long long)seed, result.what);
            fail();
        }
        complete += result.complete;
        cancelled += result.cancelled;
        commands += result.commands;
        faults += result.faults;
        splits += result.splits;
    }
    print_message(
        "%llu runs (%llu complete, %llu cancelled), %llu commands, %llu faults, %llu splits\n",
        (unsigned long long)runs, (unsigned long long)complete, (unsigned long long)cancelled,
        (unsigned long long)commands, (unsigned long long)faults, (unsigned long long)splits);
    assert_int_equal(complete + cancelled, runs);
    assert_true(complete > cancelled);
    assert_true(faults > runs);
    assert_true(splits > runs / 20);
}

/* A check that cannot fail proves nothing: each mistake of the store has to be found. */
static void mistakes_are_found(void **state)
{
    (void)state;
    static const char *const names[] = {
        [MODEL_NO_EPOCH_FILTER] = "checkpoints of any epoch",
        [MODEL_NO_EPOCH_GROWTH] = "a claim leaves the epoch as it is",
        [MODEL_NO_LEASE_CHECK] = "leases are not looked at",
        [MODEL_NO_STATE_FILTER] = "checkpoints of ranges that are not running",
        [MODEL_NO_ORDER] = "checkpoints of one epoch in any order",
        [MODEL_NO_COMPARE] = "updates of documents that changed since",
        [MODEL_NO_RESUME_POINT] = "the document at the position is read again",
        [MODEL_NO_UNIQUE_SEQ] = "two ranges of the same seq",
        [MODEL_LOCAL_SCANS] = "documents are read before they are safe",
        [MODEL_LOCAL_PLAN] = "the planner reads ranges before they are safe",
        [MODEL_LOCAL_CLOSE] = "a job is closed on ranges before they are safe",
        [MODEL_BLIND_CLOSE] = "running ranges do not count when a job is closed",
        [MODEL_EARLY_PLAN] = "a job counts as cut too early",
        [MODEL_FORGOTTEN_COUNTS] = "what was scanned is not stored",
        [MODEL_FORGOTTEN_SPLIT] = "a claim forgets what was split off",
        [MODEL_FORGOTTEN_CUT] = "a split forgets where cutting stopped",
        [MODEL_ANY_NOTE] = "the note of a later split is removed",
        [MODEL_EARLY_POSITION] = "a claim counts as the work",
    };
    int only = (int)setting("LEASE_MODEL_MUTATION", MODEL_SOUND);
    for (int mutation = MODEL_SOUND + 1; mutation < MODEL_MUTATIONS; mutation++) {
        bool rare = mutation == MODEL_NO_ORDER || mutation == MODEL_ANY_NOTE ||
                    mutation == MODEL_LOCAL_SCANS || mutation == MODEL_LOCAL_PLAN ||
                    mutation == MODEL_LOCAL_CLOSE;
        if (only != MODEL_SOUND ? only != mutation : SLOW && rare) {
            continue; /* rare ones take thousands of runs to show */
        }
        struct world_result result = {0};
        uint64_t seed = 0;
        while (!result.violated && seed < MUTANT_RUNS_MAX) {
            const struct world_options options = {.seed = ++seed,
                                                  .mutation = (enum model_mutation)mutation};
            result = world_run(&tools, &options);
        }
        print_message("%s: %s after %llu runs: %s\n", names[mutation],
                      result.violated ? "found" : "NOT FOUND", (unsigned long long)seed,
                      result.what);
        assert_true(result.violated);
    }
}

static int one_run(uint64_t seed)
{
    const struct world_options options = {
        .seed = seed,
        .mutation = (enum model_mutation)setting("LEASE_MODEL_MUTATION", MODEL_SOUND),
        .verbose = true};
    world_tools_init(&tools);
    struct world_result result = world_run(&tools, &options);
    world_tools_deinit(&tools);
    (void)fprintf(stderr, "%s\n", result.violated ? result.what : "nothing was found");
    return result.violated;
}

static int dump_runs(const char *path)
{
    FILE *file = fopen(path, "wb");
    int status = file == NULL;
    world_tools_init(&tools);
    for (int32_t run = 1; status == 0 && run <= (int32_t)setting("LEASE_MODEL_RUNS", 20); run++) {
        const struct world_options options = {.seed = (uint64_t)run, .run = run, .dump = file};
        status = world_run(&tools, &options).violated;
    }
    world_tools_deinit(&tools);
    return file == NULL || fclose(file) != 0 || status;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_goes_wrong),
        cmocka_unit_test(mistakes_are_found),
    };
    uint64_t seed = setting("LEASE_MODEL_SEED", 0);
    if (seed != 0) {
        return one_run(seed);
    }
    const char *dump = getenv("LEASE_MODEL_DUMP");
    if (dump != NULL) {
        return dump_runs(dump);
    }
    if (setting("LEASE_MODEL_FIRST", 1) != 1) {
        cmocka_set_test_filter("nothing_goes_wrong");
    }
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
