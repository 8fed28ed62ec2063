/* The client's side of NATS' protocol, as far as subscribing and publishing need it. */
#pragma once
#include "wire.h"

struct nats;

struct nats_events {
    void (*ready)(struct nats *nats); /* the server has read what the connection began with */
    void (*payload)(struct nats *nats, const uint8_t *at, size_t count); /* of messages, as it comes */
    void (*whole)(struct nats *nats); /* a message has ended; `reply` is good until the next */
};

struct nats {
    struct wire wire; /* first: the connection is known by it */
    const struct nats_events *events;
    bool ready;
    struct bytes line;               /* one that is not whole */
    struct bytes reply;              /* where the message wants an answer; empty if nowhere */
    uint64_t payload_left, end_left; /* of a message, and of the line's end behind it */
    uint64_t messages;
};

/* `begin` is sent after CONNECT: subscriptions. */
void nats_open(struct nats *nats, struct loop *loop, struct address address, const struct bytes *begin,
               const struct nats_events *events);
