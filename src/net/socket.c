#include <rekey/net/socket.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

/* Sockets are made in no time; who holds the lock for longer is no rekeyd. */
#define LOCK_WAIT_MS 5000u
#define LOCK_RETRY_MS 10u

/* Closes fd, keeps errno. */
static int give_up(int fd)
{
    int saved = errno;
    (void)close(fd);
    errno = saved;
    return -1;
}

static int open_tcp(const struct addrinfo *ai, int backlog)
{
    int fd = socket(ai->ai_family, ai->ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return -1;
    }
    const int on = 1;
    const int off = 0;
    /* SO_REUSEADDR: a restart does not wait for old connections. No SO_REUSEPORT: a second rekeyd
     * on the same port would take half of the connections unnoticed. */
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
        (ai->ai_family == AF_INET6 &&
         setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off) != 0) ||
        bind(fd, ai->ai_addr, ai->ai_addrlen) != 0 || listen(fd, backlog) != 0) {
        return give_up(fd);
    }
    return fd;
}

static enum rk_status open_hostport(const char *address, int backlog, struct rk_listen_socket *out,
                                    struct rk_error *err)
{
    struct rk_hostport hp;
    struct addrinfo *list = NULL;
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
                                   .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    if (!rk_hostport_parse(address, &hp)) {
        return rk_error_set(err, RK_EINVAL, "listen address \"%s\" is not host:port", address);
    }
    int failed = getaddrinfo(hp.host, hp.port, &hints, &list);
    if (failed != 0) {
        return rk_error_set(err, RK_EINVAL, "listen address \"%s\": %s", address,
                            gai_strerror(failed));
    }
    for (const struct addrinfo *ai = list; ai != NULL && out->fd < 0; ai = ai->ai_next) {
        out->fd = open_tcp(ai, backlog);
    }
    enum rk_status status = RK_OK;
    if (out->fd < 0) {
        status = rk_error_set(err, RK_EIO, "cannot listen on %s: %s", address, strerror(errno));
    }
    freeaddrinfo(list);
    return status;
}

/* To others, a socket that is bound and does not listen yet looks like one that was left behind:
 * only one process at a time makes sockets in a directory. -1: errno. Closing it unlocks. */
static int lock_directory(const char *path)
{
    char directory[RK_SOCKET_PATH_MAX] = {0};
    const char *slash = strrchr(path, '/');
    memcpy(directory, path, slash == path ? 1 : (size_t)(slash - path));
    int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return -1;
    }
    const struct timespec pause = {.tv_nsec = LOCK_RETRY_MS * 1000000L};
    for (unsigned waited_ms = 0; flock(fd, LOCK_EX | LOCK_NB) != 0; waited_ms += LOCK_RETRY_MS) {
        if (errno != EWOULDBLOCK || waited_ms >= LOCK_WAIT_MS) {
            return give_up(fd);
        }
        (void)nanosleep(&pause, NULL);
    }
    return fd;
}

/* A socket file behind which nobody listens any more, left by a process that was killed. */
static bool is_stale(const struct sockaddr_un *addr)
{
    struct stat file;
    if (lstat(addr->sun_path, &file) != 0 || !S_ISSOCK(file.st_mode)) {
        return false;
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    bool refused = fd >= 0 && connect(fd, (const struct sockaddr *)addr, sizeof *addr) != 0 &&
                   errno == ECONNREFUSED;
    if (fd >= 0) {
        (void)close(fd);
    }
    return refused;
}

static int open_unix(const struct sockaddr_un *addr, int backlog, mode_t mode)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return -1;
    }
    /* The file is made with the socket's mode less the umask: never more open than it is meant. */
    if (fchmod(fd, mode) != 0) {
        return give_up(fd);
    }
    int bound = bind(fd, (const struct sockaddr *)addr, sizeof *addr);
    if (bound != 0 && errno == EADDRINUSE && is_stale(addr)) {
        bound = unlink(addr->sun_path) == 0 || errno == ENOENT
                    ? bind(fd, (const struct sockaddr *)addr, sizeof *addr)
                    : -1;
    }
    if (bound != 0) {
        return give_up(fd);
    }
    if (chmod(addr->sun_path, mode) != 0 || listen(fd, backlog) != 0) {
        int saved = errno;
        (void)unlink(addr->sun_path);
        errno = saved;
        return give_up(fd);
    }
    return fd;
}

static enum rk_status open_path(const char *path, int backlog, mode_t mode,
                                struct rk_listen_socket *out, struct rk_error *err)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    struct stat file;
    if (strlen(path) >= sizeof addr.sun_path) {
        return rk_error_set(err, RK_EINVAL, "socket path \"%s\" is too long", path);
    }
    memcpy(addr.sun_path, path, strlen(path));
    int lock = lock_directory(path);
    int fd = lock < 0 ? -1 : open_unix(&addr, backlog, mode);
    if (fd < 0) {
        int saved = errno;
        if (lock >= 0) {
            (void)close(lock);
        }
        errno = saved;
        return rk_error_set(err, RK_EIO, "cannot listen on %s: %s", path, strerror(errno));
    }
    out->fd = fd;
    if (lstat(path, &file) == 0) {
        memcpy(out->path, path, strlen(path) + 1);
        out->device = file.st_dev;
        out->inode = file.st_ino;
    }
    (void)close(lock);
    return RK_OK;
}

enum rk_status rk_listen_socket_open(const char *address, int backlog, mode_t mode,
                                     struct rk_listen_socket *out, struct rk_error *err)
{
    *out = (struct rk_listen_socket){.fd = -1};
    return rk_address_is_path(address) ? open_path(address, backlog, mode, out, err)
                                       : open_hostport(address, backlog, out, err);
}

void rk_listen_socket_close(struct rk_listen_socket *socket)
{
    struct stat file;
    if (socket->path[0] != '\0' && lstat(socket->path, &file) == 0 &&
        file.st_dev == socket->device && file.st_ino == socket->inode) {
        (void)unlink(socket->path);
    }
    if (socket->fd >= 0) {
        (void)close(socket->fd);
    }
    *socket = (struct rk_listen_socket){.fd = -1};
}

void rk_socket_tune(int fd)
{
    const int on = 1;
    /* A Unix socket has no TCP_NODELAY, and needs none. */
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
}

static void format_unix(int fd, char out[RK_PEER_MAX])
{
    struct ucred who = {0};
    socklen_t len = sizeof who;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len) != 0) {
        (void)snprintf(out, RK_PEER_MAX, "unix");
        return;
    }
    (void)snprintf(out, RK_PEER_MAX, "unix:uid=%u,pid=%d", who.uid, (int)who.pid);
}

void rk_peer_format(int fd, const struct sockaddr_storage *addr, socklen_t len,
                    char out[RK_PEER_MAX])
{
    char host[NI_MAXHOST];
    char port[NI_MAXSERV];
    if (addr->ss_family == AF_UNIX) {
        format_unix(fd, out);
        return;
    }
    if (getnameinfo((const struct sockaddr *)addr, len, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
        (void)snprintf(out, RK_PEER_MAX, "unknown");
        return;
    }
    const char *mapped = "::ffff:";
    if (addr->ss_family == AF_INET6 && strchr(host, '.') != NULL &&
        strncmp(host, mapped, strlen(mapped)) == 0) {
        (void)snprintf(out, RK_PEER_MAX, "%s:%s", host + strlen(mapped), port);
    } else {
        (void)snprintf(out, RK_PEER_MAX, addr->ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host,
                       port);
    }
}
