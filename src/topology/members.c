#include <rekey/topology/members.h>

#include <netdb.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/un.h>

struct member {
    char *address;
    char *connect;
    char *listen;
    char *advertise;
    struct rk_hostport name; /* of address */
    struct rk_sockaddr resolved[RK_MEMBER_ADDRESSES_MAX];
    size_t n_resolved;
};

struct rk_members {
    pthread_mutex_t lock; /* guards the resolved addresses */
    size_t n;
    struct member member[];
};

enum rk_status rk_members_new(const struct rk_member_spec *specs, size_t n, struct rk_members **out,
                              struct rk_error *err)
{
    struct rk_members *members = calloc(1, sizeof *members + n * sizeof members->member[0]);
    if (members == NULL) {
        return rk_error_set(err, RK_ENOMEM, "out of memory for %zu members", n);
    }
    (void)pthread_mutex_init(&members->lock, NULL);
    members->n = n;
    for (size_t i = 0; i < n; i++) {
        struct member *m = &members->member[i];
        const char *connect = specs[i].connect != NULL ? specs[i].connect : specs[i].address;
        const char *advertise = specs[i].advertise != NULL ? specs[i].advertise : specs[i].listen;
        m->address = strdup(specs[i].address);
        m->connect = strdup(connect);
        m->listen = strdup(specs[i].listen);
        m->advertise = strdup(advertise);
        if (m->address == NULL || m->connect == NULL || m->listen == NULL || m->advertise == NULL) {
            rk_members_free(members);
            return rk_error_set(err, RK_ENOMEM, "out of memory for %zu members", n);
        }
        if (!rk_hostport_parse(m->address, &m->name)) {
            enum rk_status status =
                rk_error_set(err, RK_EINVAL, "member address \"%s\" is not host:port", m->address);
            rk_members_free(members);
            return status;
        }
    }
    *out = members;
    return RK_OK;
}

void rk_members_free(struct rk_members *members)
{
    if (members == NULL) {
        return;
    }
    for (size_t i = 0; i < members->n; i++) {
        free(members->member[i].address);
        free(members->member[i].connect);
        free(members->member[i].listen);
        free(members->member[i].advertise);
    }
    (void)pthread_mutex_destroy(&members->lock);
    free(members);
}

size_t rk_members_count(const struct rk_members *members)
{
    return members->n;
}

const char *rk_members_address(const struct rk_members *members, size_t i)
{
    return members->member[i].address;
}

const char *rk_members_host(const struct rk_members *members, size_t i)
{
    return members->member[i].name.host;
}

const char *rk_members_listen(const struct rk_members *members, size_t i)
{
    return members->member[i].listen;
}

const char *rk_members_advertise(const struct rk_members *members, size_t i)
{
    return members->member[i].advertise;
}

const char *rk_members_map(const struct rk_members *members, const char *address, size_t len)
{
    for (size_t i = 0; i < members->n; i++) {
        const struct member *m = &members->member[i];
        if (strlen(m->address) == len && strncasecmp(m->address, address, len) == 0) {
            return m->advertise;
        }
    }
    return NULL;
}

static size_t socket_path(const char *path, struct rk_sockaddr *out)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    size_t len = strlen(path);
    if (len >= sizeof addr.sun_path) {
        return 0;
    }
    memcpy(addr.sun_path, path, len);
    memcpy(&out->addr, &addr, sizeof addr);
    out->len = sizeof addr;
    return 1;
}

static size_t lookup(const char *address, struct rk_sockaddr out[RK_MEMBER_ADDRESSES_MAX])
{
    struct rk_hostport hp;
    if (rk_address_is_path(address)) {
        return socket_path(address, &out[0]);
    }
    if (!rk_hostport_parse(address, &hp)) {
        return 0;
    }
    const struct addrinfo hints = {
        .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    struct addrinfo *list = NULL;
    if (getaddrinfo(hp.host, hp.port, &hints, &list) != 0) {
        return 0;
    }
    size_t n = 0;
    for (const struct addrinfo *ai = list; ai != NULL && n < RK_MEMBER_ADDRESSES_MAX;
         ai = ai->ai_next) {
        memcpy(&out[n].addr, ai->ai_addr, ai->ai_addrlen);
        out[n].len = ai->ai_addrlen;
        n++;
    }
    freeaddrinfo(list);
    return n;
}

size_t rk_members_resolve(struct rk_members *members)
{
    size_t failed = 0;
    for (size_t i = 0; i < members->n; i++) {
        struct member *m = &members->member[i];
        struct rk_sockaddr found[RK_MEMBER_ADDRESSES_MAX];
        size_t n = lookup(m->connect, found);
        if (n == 0) {
            failed++;
            continue;
        }
        (void)pthread_mutex_lock(&members->lock);
        memcpy(m->resolved, found, n * sizeof found[0]);
        m->n_resolved = n;
        (void)pthread_mutex_unlock(&members->lock);
    }
    return failed;
}

size_t rk_members_sockaddrs(struct rk_members *members, size_t i,
                            struct rk_sockaddr out[RK_MEMBER_ADDRESSES_MAX])
{
    const struct member *m = &members->member[i];
    (void)pthread_mutex_lock(&members->lock);
    size_t n = m->n_resolved;
    memcpy(out, m->resolved, n * sizeof out[0]);
    (void)pthread_mutex_unlock(&members->lock);
    return n;
}
