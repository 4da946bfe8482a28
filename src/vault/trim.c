#include "trim.h"

#include <stdlib.h>
#include <string.h>

#define PATH_MAX_LEN 300

/* Of "<mount>/<key>:v<version>"; 0: of another transit key. */
static unsigned version_of(const struct rk_transit *transit, const char *kek)
{
    char head[PATH_MAX_LEN];
    int len = snprintf(head, sizeof head, "%s/%s:v", transit->mount, transit->key);
    if (len <= 0 || (size_t)len >= sizeof head || strncmp(kek, head, (size_t)len) != 0) {
        return 0;
    }
    unsigned long version = strtoul(kek + len, NULL, 10);
    return version <= UINT32_MAX ? (unsigned)version : 0;
}

/* The lowest version that is needed; 0: none is. */
static enum rk_status find_lowest(const struct rk_transit *transit, unsigned past,
                                  const struct rk_needed_key *needed, size_t n, unsigned *lowest,
                                  struct rk_error *err)
{
    *lowest = 0;
    for (size_t i = 0; i < n; i++) {
        unsigned version = version_of(transit, needed[i].kek);
        if (version != 0 && needed[i].remote) {
            return rk_error_set(err, RK_ESTATE,
                                "key %u has its values encrypted by %s/%s itself, under versions "
                                "that are not known here",
                                needed[i].id, transit->mount, transit->key);
        }
        if (version != 0 && version <= past) {
            return rk_error_set(err, RK_ESTATE,
                                "key %u is wrapped with version %u of %s/%s: run `rekeyctl keys "
                                "rewrap`, then give this command again",
                                needed[i].id, version, transit->mount, transit->key);
        }
        if (version != 0 && (*lowest == 0 || version < *lowest)) {
            *lowest = version;
        }
    }
    return RK_OK;
}

static enum rk_status read_versions(const struct rk_transit *transit, unsigned *min,
                                    unsigned *latest, struct rk_error *err)
{
    char path[PATH_MAX_LEN];
    json_t *answer = NULL;
    (void)snprintf(path, sizeof path, "%s/keys/%s", transit->mount, transit->key);
    enum rk_status status = rk_vault_read(transit->client, path, &answer, err);
    if (status == RK_OK) {
        const json_t *data = json_object_get(answer, "data");
        json_int_t lower = json_integer_value(json_object_get(data, "min_decryption_version"));
        json_int_t upper = json_integer_value(json_object_get(data, "latest_version"));
        if (lower < 0 || upper < 1 || upper > UINT32_MAX || lower > upper) {
            status = rk_error_set(err, RK_EINVAL, "vault: %s: no versions in the answer", path);
        } else {
            *min = (unsigned)lower;
            *latest = (unsigned)upper;
        }
    }
    json_decref(answer);
    return status;
}

static enum rk_status raise_min(const struct rk_transit *transit, unsigned version,
                                struct rk_error *err)
{
    char path[PATH_MAX_LEN];
    json_t *answer = NULL;
    (void)snprintf(path, sizeof path, "%s/keys/%s/config", transit->mount, transit->key);
    enum rk_status status = rk_vault_call(
        transit->client, path, json_pack("{s:I}", "min_decryption_version", (json_int_t)version),
        &answer, err);
    json_decref(answer);
    return status;
}

enum rk_status rk_transit_trim(const struct rk_transit *transit, const char *past,
                               const struct rk_needed_key *needed, size_t n, char *note,
                               size_t size, struct rk_error *err)
{
    unsigned last = version_of(transit, past);
    unsigned wanted = 0;
    unsigned min = 0;
    unsigned latest = 0;
    if (last == 0) {
        return rk_error_set(err, RK_ESTATE, "it was wrapped with %s, not with %s/%s", past,
                            transit->mount, transit->key);
    }
    enum rk_status status = find_lowest(transit, last, needed, n, &wanted, err);
    if (status == RK_OK) {
        status = read_versions(transit, &min, &latest, err);
    }
    if (status != RK_OK) {
        return status;
    }
    if (wanted == 0) {
        wanted = latest;
    }
    if (wanted <= last) {
        return rk_error_set(err, RK_ESTATE,
                            "version %u is the newest of %s/%s: rotate it in Vault, then give this "
                            "command again",
                            last, transit->mount, transit->key);
    }
    if (min < wanted) { /* never lower what somebody has raised */
        status = raise_min(transit, wanted, err);
        min = wanted;
    }
    if (status == RK_OK) {
        (void)snprintf(note, size, "min_decryption_version of %s/%s is %u", transit->mount,
                       transit->key, min);
    }
    return status;
}
