/* Subscribers have a connection each. NATS answers no publish, so publishes go out as fast as the server reads. */
#include "fanout.h"
#include "nats.h"

enum { AHEAD_BYTES_MAX = 1 << 16 }; /* not yet in the socket */

struct subscriber {
    struct nats nats; /* first */
    struct scan scan;
};

static struct {
    struct loop *loop;
    struct address address;
    struct bytes open;
    uint64_t count;
    struct subscriber *subscribers;
    struct nats publisher;
} run;

static void on_ready(struct nats *nats) {
    (void)nats;
    fanout_opened();
}

static void on_payload(struct nats *nats, const uint8_t *at, size_t count) {
    fanout_arrived(&((struct subscriber *)nats)->scan, at, count);
}

static void on_publisher_ready(struct nats *nats) { (void)nats; }

static void on_no_payload(struct nats *nats, const uint8_t *at, size_t count) {
    (void)nats, (void)at, (void)count;
    die("the publisher is told what it publishes");
}

static void open_all(struct loop *loop, struct address address, const struct fanout_options *options) {
    static const struct nats_events events = {on_publisher_ready, on_no_payload};
    static const struct bytes nothing;
    run.loop = loop, run.address = address, run.count = options->subscribers;
    run.open = bytes_of_file(options->open_path);
    run.subscribers = allocated(run.count, sizeof *run.subscribers);
    nats_open(&run.publisher, loop, address, &nothing, &events);
}

static void subscribe(uint64_t subscriber) {
    static const struct nats_events events = {on_ready, on_payload};
    nats_open(&run.subscribers[subscriber].nats, run.loop, run.address, &run.open, &events);
}

static bool may_publish(void) {
    const struct wire *wire = &run.publisher.wire;
    bool may = run.publisher.ready && wire->out.length - wire->sent < AHEAD_BYTES_MAX;
    if (run.publisher.ready && !may && !wire->blocked)
        run.loop->hurries = true; /* there is room after the next write */
    return may;
}

static void publish(struct record body) { bytes_append(wire_write(&run.publisher.wire), body.at, body.length); }

static bool whole(void) {
    for (uint64_t at = 0; at < run.count; at++)
        if (run.subscribers[at].nats.payload_left || run.subscribers[at].nats.end_left) return false;
    return true;
}

static uint64_t messages(void) {
    uint64_t sum = 0;
    for (uint64_t at = 0; at < run.count; at++) sum += run.subscribers[at].nats.messages;
    return sum;
}

const struct protocol FANOUT_NATS = {"nats", open_all, subscribe, may_publish, publish, whole, messages};
