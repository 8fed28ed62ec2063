/* Deliveries are counted by the marks in them; each published body bears its number, which tells when the last
   subscriber had it. As fast as it goes, measured are deliveries a second from the first publish to the last delivery;
   at a rate, the time from when a body was due to when the last subscriber had all of it. The first repetition only
   warms. */
#include "fanout.h"

#include <stdio.h>
#include <string.h>

#include "body.h"
#include "histogram.h"
#include "modes.h"
#include "options.h"
#include "tally.h"

enum { OPENING_MAX = 64 }; /* at a time: more would fill the server's backlog, and a refused SYN costs a second */

static struct fanout_options options = {
    .protocol = "grpc",
    .placeholder = "@batch-number-16",
    .mark = "<bench-was-here>",
    .subscribers = 1,
    .events = 1,
    .in_flight = 16,
    .bodies = 1,
    .repetitions = 1,
    .within = 600,
};

static struct {
    struct loop loop;
    struct alarm due;
    const struct protocol *protocol;
    struct mark mark;
    struct bodies bodies;
    struct tally tally;
    uint64_t opened, published, told, until; /* bodies: told to all, and those of the repetitions so far */
    struct pace pace;
    uint64_t ended_ns;
    struct histogram latency;
} run;

void fanout_opened(void) { run.opened++; }

void fanout_arrived(struct scan *scan, const uint8_t *at, size_t count) {
    scan_feed(scan, &run.mark, at, count, tally_found, &run.tally);
}

static void on_told(uint64_t number) {
    run.ended_ns = now_ns();
    run.told++;
    if (options.rate == 0) return;
    struct pace then = run.pace;
    then.next = number - (run.until - options.bodies);
    histogram_add(&run.latency, run.ended_ns - pace_due_ns(&then));
}

static void on_due(struct alarm *alarm) { (void)alarm; } /* the turn ends, and what is due is published */

static void publish(void) {
    bool paced = options.rate > 0, allowed = true;
    run.loop.hurries = false;
    while (run.published < run.until && (allowed = run.protocol->may_publish())) {
        if (paced && pace_due_ns(&run.pace) > now_ns()) break;
        run.protocol->publish(body_numbered(&run.bodies, run.published++));
        run.pace.next++;
    }
    if (paced && allowed && run.published < run.until) alarm_at(&run.due, pace_due_ns(&run.pace));
}

static void repeat(uint64_t repetition) {
    run.until += options.bodies;
    run.latency = (struct histogram){0};
    run.pace = (struct pace){.began_ns = now_ns(), .rate = options.rate};
    while (run.told < run.until) {
        publish();
        loop_turn(&run.loop);
    }
    if (repetition == 0) return;
    double seconds = (double)(run.ended_ns - run.pace.began_ns) / 1e9;
    printf("%s{\"rate\": %.1f, ", repetition > 1 ? ", " : "",
           (double)(options.bodies * options.events * options.subscribers) / seconds);
    histogram_print(&run.latency);
    printf("}");
}

static void read_options(char **words) {
    const struct option known[] = {
        {"--protocol", TEXT, &options.protocol},
        {"--subscribe-path", TEXT, &options.subscribe_path},
        {"--publish-path", TEXT, &options.publish_path},
        {"--open", TEXT, &options.open_path}, /* what a subscriber says: a message of gRPC, or lines of NATS */
        {"--body", TEXT, &options.body_path}, /* what is published, in a record */
        {"--placeholder", TEXT, &options.placeholder},
        {"--mark", TEXT, &options.mark},
        {"--subscribers", COUNT, &options.subscribers},
        {"--events", COUNT, &options.events}, /* in a body */
        {"--in-flight", COUNT, &options.in_flight},
        {"--bodies", COUNT, &options.bodies}, /* in a repetition */
        {"--repetitions", COUNT, &options.repetitions},
        {"--rate", NUMBER, &options.rate}, /* bodies a second; without it as fast as it goes */
        {"--within", NUMBER, &options.within},
        {"--acknowledge", FLAG, &options.acknowledge},
        {NULL, FLAG, NULL},
    };
    options_read(words, known);
    if (!options.open_path || !options.body_path) die("fanout needs --open and --body");
    run.protocol = strcmp(options.protocol, "nats") == 0 ? &FANOUT_NATS : &FANOUT_GRPC;
    if (strcmp(options.protocol, run.protocol->name) != 0) die("no protocol: %s", options.protocol);
}

void fanout(struct address address, char **words) {
    read_options(words);
    run.mark = mark_of(options.mark);
    run.bodies = bodies_read(options.body_path, options.placeholder);
    tally_open(&run.tally, options.bodies * (options.repetitions + 1), options.subscribers * options.events, on_told);
    loop_open(&run.loop, options.within);
    alarm_open(&run.due, &run.loop, on_due);
    run.protocol->open(&run.loop, address, &options);
    for (uint64_t asked = 0; run.opened < options.subscribers; loop_turn(&run.loop))
        while (asked < options.subscribers && asked - run.opened < OPENING_MAX) run.protocol->subscribe(asked++);
    while (!run.protocol->may_publish()) loop_turn(&run.loop);
    printf("{\"repetitions\": [");
    for (uint64_t repetition = 0; repetition <= options.repetitions; repetition++) repeat(repetition);
    while (!run.protocol->whole()) loop_turn(&run.loop); /* a mark is not the end of its message */
    printf("], \"deliveries\": %lu, \"messages\": %lu}\n", run.tally.found, run.protocol->messages());
}
