/* Subscribers have a connection each. NATS answers no publish, so publishes go out as fast as the server reads;
   JetStream answers each, and so many of them are on their way. */
#include "fanout.h"

#include <string.h>

#include "nats.h"

enum { AHEAD_BYTES_MAX = 1 << 16 }; /* not yet in the socket */
static const char REFUSED[] = "\"error\"", ANSWERS[] = "SUB acks 2\r\n"; /* where publishes name `acks` */

struct subscriber {
    struct nats nats; /* first */
    struct scan scan;
};

static struct {
    struct loop *loop;
    struct address address;
    struct bytes open;
    uint64_t count, published, in_flight; /* in_flight is 0 when nothing is acknowledged */
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

/* JetStream's acknowledgement is a message to where its own said. */
static void on_whole(struct nats *nats) {
    static const char ACK[] = " 4\r\n+ACK\r\n";
    if (run.in_flight == 0) return;
    if (nats->reply.length == 0) die("NATS: nothing says where to acknowledge");
    struct bytes *out = wire_write(&nats->wire);
    bytes_append(out, "PUB ", 4);
    bytes_append(out, nats->reply.at, nats->reply.length);
    bytes_append(out, ACK, sizeof ACK - 1);
}

static void on_publisher_ready(struct nats *nats) { (void)nats; }

static void on_answer(struct nats *nats, const uint8_t *at, size_t count) {
    (void)nats;
    if (run.in_flight == 0) die("the publisher is told what it publishes");
    if (memmem(at, count, REFUSED, sizeof REFUSED - 1)) die("JetStream refuses: %.*s", (int)count, (const char *)at);
}

static void open_all(struct loop *loop, struct address address, const struct fanout_options *options) {
    static const struct nats_events events = {on_publisher_ready, on_answer, NULL};
    struct bytes begin = {0};
    if (options->acknowledge) bytes_append(&begin, ANSWERS, sizeof ANSWERS - 1);
    run.in_flight = options->acknowledge ? options->in_flight : 0;
    run.loop = loop, run.address = address, run.count = options->subscribers;
    run.open = bytes_of_file(options->open_path);
    run.subscribers = allocated(run.count, sizeof *run.subscribers);
    nats_open(&run.publisher, loop, address, &begin, &events);
    bytes_free(&begin);
}

static void subscribe(uint64_t subscriber) {
    static const struct nats_events events = {on_ready, on_payload, on_whole};
    nats_open(&run.subscribers[subscriber].nats, run.loop, run.address, &run.open, &events);
}

static bool may_publish(void) {
    const struct wire *wire = &run.publisher.wire;
    if (run.in_flight && run.published - run.publisher.messages >= run.in_flight) return false;
    bool may = run.publisher.ready && wire->out.length - wire->sent < AHEAD_BYTES_MAX;
    if (run.publisher.ready && !may && !wire->blocked)
        run.loop->hurries = true; /* there is room after the next write */
    return may;
}

static void publish(struct record body) {
    bytes_append(wire_write(&run.publisher.wire), body.at, body.length);
    run.published++;
}

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
