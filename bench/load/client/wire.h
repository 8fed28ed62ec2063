/* A connection's bytes, plain or over TLS. What is written is gathered and goes out once a turn. */
#pragma once
#include <stdbool.h>
#include <sys/types.h>

#include "loop.h"

struct address {
    const char *host, *port;
    bool tls;
};

struct tls; /* of OpenSSL, when the program was built with it */

struct wire {
    struct source source; /* first: the loop knows a wire by it */
    struct loop *loop;
    struct tls *tls;
    struct bytes out;
    size_t sent;  /* of `out` */
    bool blocked; /* the socket is full: what is written waits until it is not */
    struct wire *next_written;
    bool listed;
    void (*arrived)(struct wire *wire, const uint8_t *at, size_t count);
};

/* Connects before it returns, the handshake of TLS included. */
void wire_open(struct wire *wire, struct loop *loop, struct address address);
struct bytes *wire_write(struct wire *wire); /* where to append what is to be sent */
void wires_flush(struct loop *loop);

/* tls.c */
struct tls *tls_open(int fd, const char *host);           /* on a socket that blocks */
ssize_t tls_read(struct tls *tls, void *to, size_t room); /* like read() and write(), EAGAIN included */
ssize_t tls_write(struct tls *tls, const void *from, size_t count);
