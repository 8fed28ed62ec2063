/* Subscribers have a connection and a stream each; publishes are unary calls, so many of them on their way. */
#include "deliveries.h"
#include "fanout.h"
#include "grpc.h"

struct subscriber {
    struct h2 h2; /* first */
    struct messages messages;
    struct scan scan;
    struct deliveries deliveries;
    bool opened;
};

static struct {
    struct loop *loop;
    struct address address;
    const struct fanout_options *options;
    struct bytes open;
    struct h2_call subscribe, publish;
    struct subscriber *subscribers;
    struct h2 publisher;
} run;

static void on_ready(struct h2 *h2) {
    size_t count;
    const uint8_t *framed = grpc_message(run.open.at, run.open.length, &count);
    h2_send(h2, h2_begin(h2), framed, count, false);
}

static void acknowledge(struct subscriber *subscriber, struct h2_stream *stream) {
    const struct bytes *said = deliveries_acknowledged(&subscriber->deliveries);
    size_t count;
    const uint8_t *framed = grpc_message(said->at, said->length, &count);
    h2_send(&subscriber->h2, stream, framed, count, false);
}

static void on_data(struct h2 *h2, struct h2_stream *stream, const uint8_t *at, size_t count) {
    struct subscriber *subscriber = (struct subscriber *)h2;
    messages_feed(&subscriber->messages, at, count);
    if (!subscriber->opened && subscriber->messages.count) {
        subscriber->opened = true;
        fanout_opened();
    }
    fanout_arrived(&subscriber->scan, at, count);
    if (!run.options->acknowledge) return;
    deliveries_feed(&subscriber->deliveries, at, count);
    if (subscriber->deliveries.count) acknowledge(subscriber, stream);
}

static void on_subscription_ended(struct h2 *h2, struct h2_stream *stream) {
    (void)h2;
    die("a subscription has ended: HTTP %d, gRPC %d", stream->http_status, stream->grpc_status);
}

static void on_publisher_ready(struct h2 *h2) {
    if (run.options->in_flight > h2->streams_max) die("the server allows %u streams on a connection", h2->streams_max);
}

static void on_answer(struct h2 *h2, struct h2_stream *stream, const uint8_t *at, size_t count) {
    (void)h2, (void)stream, (void)at, (void)count;
}

static void on_published(struct h2 *h2, struct h2_stream *stream) {
    (void)h2;
    if (!grpc_is_ok(stream)) die("a publish was refused: HTTP %d, gRPC %d", stream->http_status, stream->grpc_status);
}

static void open_all(struct loop *loop, struct address address, const struct fanout_options *options) {
    static const struct h2_events events = {on_publisher_ready, on_answer, on_published};
    if (!options->subscribe_path || !options->publish_path) die("gRPC needs --subscribe-path and --publish-path");
    run.loop = loop, run.address = address, run.options = options;
    run.open = bytes_of_file(options->open_path);
    run.subscribe = h2_call_of(options->subscribe_path, &address);
    run.publish = h2_call_of(options->publish_path, &address);
    run.subscribers = allocated(options->subscribers, sizeof *run.subscribers);
    h2_open(&run.publisher, loop, address, &run.publish, &events);
}

static void subscribe(uint64_t subscriber) {
    static const struct h2_events events = {on_ready, on_data, on_subscription_ended};
    h2_open(&run.subscribers[subscriber].h2, run.loop, run.address, &run.subscribe, &events);
}

static bool may_publish(void) { return run.publisher.ready && run.publisher.open < run.options->in_flight; }

static void publish(struct record body) {
    size_t count;
    const uint8_t *framed = grpc_message(body.at, body.length, &count);
    h2_send(&run.publisher, h2_begin(&run.publisher), framed, count, true);
}

static bool whole(void) {
    for (uint64_t at = 0; at < run.options->subscribers; at++)
        if (run.subscribers[at].messages.prefix_length) return false;
    return true;
}

static uint64_t messages(void) {
    uint64_t sum = 0;
    for (uint64_t at = 0; at < run.options->subscribers; at++) sum += run.subscribers[at].messages.count;
    return sum;
}

const struct protocol FANOUT_GRPC = {"grpc", open_all, subscribe, may_publish, publish, whole, messages};
