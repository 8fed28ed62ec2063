/* One publisher, many subscribers: what a protocol does (fanout_grpc.c, fanout_nats.c), and the rest (fanout.c). */
#pragma once
#include "mark.h"
#include "records.h"
#include "wire.h"

struct fanout_options {
    const char *protocol, *open_path, *body_path, *placeholder, *mark, *subscribe_path, *publish_path;
    uint64_t subscribers, events, in_flight, bodies, repetitions;
    double rate, within;
    bool acknowledge; /* subscribers acknowledge, and a publisher over NATS waits for JetStream's word */
};

struct protocol {
    const char *name;
    void (*open)(struct loop *loop, struct address address, const struct fanout_options *options);
    void (*subscribe)(uint64_t subscriber); /* it connects and asks; fanout_opened() is called when it is answered */
    bool (*may_publish)(void);              /* there is room; if not, the loop wakes when there is */
    void (*publish)(struct record body);
    bool (*whole)(void);        /* no message is there in part */
    uint64_t (*messages)(void); /* so many have arrived at all subscribers, by the protocol's own framing */
};

extern const struct protocol FANOUT_GRPC, FANOUT_NATS;

void fanout_opened(void);
void fanout_arrived(struct scan *scan, const uint8_t *at, size_t count);
