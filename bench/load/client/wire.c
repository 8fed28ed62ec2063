#include "wire.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { READ_BYTES = 1 << 18 };

/* One for all wires: bytes are taken in before the next wire reads, so ten thousand of them need no buffer each. */
static uint8_t arrived[READ_BYTES];

static void flush(struct wire *wire) {
    while (wire->sent < wire->out.length) {
        const uint8_t *from = wire->out.at + wire->sent;
        size_t count = wire->out.length - wire->sent;
        ssize_t sent = wire->tls ? tls_write(wire->tls, from, count) : write(wire->source.fd, from, count);
        if (sent < 0 && (errno == EAGAIN || errno == EINTR)) break;
        if (sent < 0) die("a connection was lost while writing: %s", strerror(errno));
        wire->sent += (size_t)sent;
    }
    bool blocked = wire->sent < wire->out.length;
    if (!blocked) wire->out.length = wire->sent = 0;
    if (blocked == wire->blocked) return;
    wire->blocked = blocked;
    loop_want(wire->loop, &wire->source, blocked ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

static void read_all(struct wire *wire) {
    for (;;) {
        ssize_t count =
            wire->tls ? tls_read(wire->tls, arrived, READ_BYTES) : read(wire->source.fd, arrived, READ_BYTES);
        if (count < 0 && (errno == EAGAIN || errno == EINTR)) return;
        if (count < 0) die("a connection was lost: %s", strerror(errno));
        if (count == 0) die("a connection was lost: the server has hung up");
        wire->arrived(wire, arrived, (size_t)count);
        if (!wire->tls) return; /* what is left wakes the loop again; OpenSSL's own buffer would not */
    }
}

static void ready(struct source *source, uint32_t events) {
    struct wire *wire = (struct wire *)source;
    if (events & EPOLLOUT) flush(wire);
    if (events & ~(uint32_t)EPOLLOUT) read_all(wire);
}

static int connected(struct address address) {
    struct addrinfo wanted = {.ai_socktype = SOCK_STREAM}, *found;
    if (getaddrinfo(address.host, address.port, &wanted, &found) != 0) die("no address: %s", address.host);
    int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0), yes = 1;
    if (fd < 0) die("no socket: %s", strerror(errno));
    if (connect(fd, found->ai_addr, found->ai_addrlen) != 0)
        die("%s:%s: %s", address.host, address.port, strerror(errno));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    freeaddrinfo(found);
    return fd;
}

void wire_open(struct wire *wire, struct loop *loop, struct address address) {
    wire->loop = loop;
    wire->source = (struct source){.fd = connected(address), .ready = ready};
    if (address.tls) wire->tls = tls_open(wire->source.fd, address.host);
    if (fcntl(wire->source.fd, F_SETFL, O_NONBLOCK) != 0) die("a socket blocks");
    loop_add(loop, &wire->source);
}

struct bytes *wire_write(struct wire *wire) {
    if (!wire->listed) {
        wire->listed = true;
        wire->next_written = wire->loop->written;
        wire->loop->written = wire;
    }
    return &wire->out;
}

void wires_flush(struct loop *loop) {
    while (loop->written) {
        struct wire *wire = loop->written;
        loop->written = wire->next_written;
        wire->listed = false;
        if (!wire->blocked) flush(wire);
    }
}
