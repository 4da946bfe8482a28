/*
 * Opening listening sockets and naming peers: TCP over IPv4 and IPv6, and Unix sockets.
 */
#ifndef REKEY_NET_SOCKET_H
#define REKEY_NET_SOCKET_H

#include <rekey/base/hostport.h>
#include <sys/socket.h>
#include <sys/stat.h>

#define RK_PEER_MAX 64u

/* A listening socket, and of a Unix socket the file that it made. */
struct rk_listen_socket {
    int fd;
    char path[RK_SOCKET_PATH_MAX]; /* "": TCP */
    dev_t device;
    ino_t inode;
};

/*
 * address: "host:port", or the path of a Unix socket. Nobody else may listen there: a port is
 * never shared, and a socket file is replaced only when nobody answers behind it; processes that
 * try at once take turns. [::] takes IPv4 as well. mode: permissions of the socket file.
 */
RK_MUST_CHECK enum rk_status rk_listen_socket_open(const char *address, int backlog, mode_t mode,
                                                   struct rk_listen_socket *out,
                                                   struct rk_error *err);
/* Closes it and removes the file, if it still is the one that was made. */
void rk_listen_socket_close(struct rk_listen_socket *socket);

/* TCP_NODELAY and keep-alive where the family has them. */
void rk_socket_tune(int fd);

/* "address:port", an IPv4 address in IPv6 clothing as IPv4; of a Unix socket (fd) the other
 * process: "unix:uid=0,pid=1". */
void rk_peer_format(int fd, const struct sockaddr_storage *addr, socklen_t len,
                    char out[RK_PEER_MAX]);

#endif
