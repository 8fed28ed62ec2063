/* Calls: each connection keeps its streams busy, or all share a rate. Measured are answers a second in every
   repetition, and how long an answer takes: from the call, or, at a rate, from when the call was due. */
#include <stdio.h>
#include <string.h>

#include "body.h"
#include "grpc.h"
#include "histogram.h"
#include "modes.h"
#include "options.h"

enum { STATUSES = 18, NO_STATUS = 17, SHOWN_BYTES_MAX = 1 << 16 };

/* The answers of one stream after another, so that one of them can be shown. */
struct sample {
    const struct h2_stream *of;
    struct bytes growing, whole;
};

static struct {
    const char *path, *body_path, *placeholder;
    uint64_t connections, streams, repetitions, calls;
    double seconds, warm, rate, within;
} options = {
    .placeholder = "@batch-number-16",
    .connections = 1,
    .streams = 1,
    .repetitions = 1,
    .calls = UINT64_MAX,
    .seconds = 1,
    .warm = 0.5,
    .within = 600,
};

static struct {
    struct loop loop;
    struct alarm repetition, due;
    struct h2 *connections;
    uint64_t ready;
    struct bodies bodies;
    uint64_t asked, answered, failed;
    uint64_t statuses[STATUSES];  /* of the failed; those without a status in the last */
    bool measuring, done, behind; /* behind: calls are due, and wait for a stream */
    uint64_t began_ns, answered_before, repetitions;
    struct pace pace;
    uint64_t next_connection;
    struct histogram latency;
    struct sample sample;
} run;

static void ask(struct h2 *h2, uint64_t began_ns) {
    size_t count;
    struct record body = body_numbered(&run.bodies, run.asked++);
    const uint8_t *framed = grpc_message(body.at, body.length, &count);
    struct h2_stream *stream = h2_begin(h2);
    stream->began_ns = began_ns;
    h2_send(h2, stream, framed, count, true);
}

static void ask_while_free(struct h2 *h2) {
    while (h2->open < options.streams && run.asked < options.calls) ask(h2, now_ns());
}

/* What is due, on connections in turn. When all streams are busy the rest waits for them, and that time counts. */
static void ask_what_is_due(void) {
    uint64_t now = now_ns();
    uint64_t busy = 0;
    while (busy < options.connections && run.asked < options.calls && pace_due_ns(&run.pace) <= now) {
        struct h2 *h2 = &run.connections[run.next_connection++ % options.connections];
        if (h2->open >= options.streams) {
            busy++;
            continue;
        }
        busy = 0;
        ask(h2, pace_due_ns(&run.pace));
        run.pace.next++;
    }
    run.behind = busy == options.connections;
    if (!run.behind && run.asked < options.calls) alarm_at(&run.due, pace_due_ns(&run.pace));
}

static void on_due(struct alarm *alarm) {
    (void)alarm;
    if (!run.done) ask_what_is_due();
}

static void on_repetition(struct alarm *alarm) {
    uint64_t now = now_ns();
    if (run.measuring) {
        double seconds = (double)(now - run.began_ns) / 1e9;
        printf("%s%.1f", run.repetitions++ ? ", " : "", (double)(run.answered - run.answered_before) / seconds);
    }
    run.measuring = true;
    run.began_ns = now;
    run.answered_before = run.answered;
    run.done = run.done || run.repetitions == options.repetitions;
    alarm_at(alarm, now + (uint64_t)(options.seconds * 1e9));
}

static void begin(void) {
    printf("{\"rates\": [");
    uint64_t now = now_ns();
    alarm_at(&run.repetition, now + (uint64_t)(options.warm * 1e9) + 1);
    run.pace = (struct pace){.began_ns = now, .rate = options.rate};
    if (options.rate > 0) ask_what_is_due();
    else
        for (uint64_t at = 0; at < options.connections; at++) ask_while_free(&run.connections[at]);
}

static void on_ready(struct h2 *h2) {
    if (options.streams > h2->streams_max) die("the server allows %u streams on a connection", h2->streams_max);
    run.ready++;
}

static void on_data(struct h2 *h2, struct h2_stream *stream, const uint8_t *at, size_t count) {
    (void)h2;
    struct sample *sample = &run.sample;
    if (sample->of == NULL) sample->of = stream, sample->growing.length = 0;
    if (sample->of == stream && sample->growing.length < SHOWN_BYTES_MAX) bytes_append(&sample->growing, at, count);
}

static void on_ended(struct h2 *h2, struct h2_stream *stream) {
    bool ok = grpc_is_ok(stream);
    bool known = stream->grpc_status > 0 && stream->grpc_status < NO_STATUS;
    if (ok) run.answered++;
    else run.failed++, run.statuses[known ? stream->grpc_status : NO_STATUS]++;
    if (run.sample.of == stream) {
        run.sample.of = NULL;
        struct bytes growing = run.sample.growing;
        if (ok) run.sample.growing = run.sample.whole, run.sample.whole = growing;
    }
    if (run.measuring && ok) histogram_add(&run.latency, now_ns() - stream->began_ns);
    if (run.answered + run.failed == options.calls) run.done = true;
    if (run.done) return;
    if (options.rate == 0) ask_while_free(h2);
    else if (run.behind) ask_what_is_due();
}

static void print_result(void) {
    printf("], \"asked\": %lu, \"answered\": %lu, \"failed\": %lu, \"statuses\": {", run.asked, run.answered,
           run.failed);
    const char *comma = "";
    for (int status = 0; status < STATUSES; status++) {
        if (run.statuses[status] == 0) continue;
        if (status == NO_STATUS) printf("%s\"none\": %lu", comma, run.statuses[status]);
        else printf("%s\"%d\": %lu", comma, status, run.statuses[status]);
        comma = ", ";
    }
    printf("}, ");
    histogram_print(&run.latency);
    printf(", \"answer\": \"");
    for (size_t at = 0; at < run.sample.whole.length; at++) printf("%02x", run.sample.whole.at[at]);
    printf("\"}\n");
}

static void read_options(struct address *address, char **words) {
    const struct option known[] = {
        {"--path", TEXT, &options.path},
        {"--body", TEXT, &options.body_path}, /* records, which take turns */
        {"--placeholder", TEXT, &options.placeholder},
        {"--connections", COUNT, &options.connections},
        {"--streams", COUNT, &options.streams},
        {"--repetitions", COUNT, &options.repetitions},
        {"--calls", COUNT, &options.calls}, /* so many in all, then it ends */
        {"--seconds", NUMBER, &options.seconds},
        {"--warm", NUMBER, &options.warm},
        {"--rate", NUMBER, &options.rate}, /* a second; without it as fast as answers come */
        {"--within", NUMBER, &options.within},
        {"--tls", FLAG, &address->tls},
        {NULL, FLAG, NULL},
    };
    options_read(words, known);
    if (!options.path || !options.body_path) die("unary needs --path and --body");
    if (options.connections == 0 || options.streams == 0) die("no connections, or no streams");
}

void unary(struct address address, char **words) {
    static const struct h2_events events = {on_ready, on_data, on_ended};
    read_options(&address, words);
    run.bodies = bodies_read(options.body_path, options.placeholder);
    struct h2_call call = h2_call_of(options.path, &address);
    loop_open(&run.loop, options.within);
    alarm_open(&run.repetition, &run.loop, on_repetition);
    alarm_open(&run.due, &run.loop, on_due);
    run.connections = allocated(options.connections, sizeof *run.connections);
    for (uint64_t at = 0; at < options.connections; at++) {
        h2_open(&run.connections[at], &run.loop, address, &call, &events);
        while (run.ready <= at) loop_turn(&run.loop);
    }
    begin();
    while (!run.done) loop_turn(&run.loop);
    print_result();
}
