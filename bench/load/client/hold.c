/* Many connections that mostly wait. Each may say something at the beginning, again at intervals, and when standard
 * input wants it. On standard input, a line each: `say FILE`. On standard output, a line each:
 *
 *   {"ready": COUNT}                  all are there, and, where calls were to be ended, answered
 *   {"number": N, "at_ns": TIME}      the mark with this number has arrived as often as expected, on CLOCK_MONOTONIC
 *   {"messages": COUNT, "marks": COUNT}    at the end, which is that of standard input
 *
 * A file of what is said holds records of messages of gRPC, with their prefixes: one for each connection, or one in all.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "grpc.h"
#include "modes.h"
#include "options.h"
#include "records.h"
#include "tally.h"

enum { OPENING_MAX = 64, COMMAND_BYTES_MAX = 4096, NUMBERS_MAX = 1 << 12, LAST_BYTES_MAX = 1 << 16 };

struct held {
    struct h2 h2; /* first */
    struct h2_stream *stream;
    struct messages messages;
    struct scan scan;
    struct bytes last; /* what has come since a message began */
};

static struct {
    const char *path, *say_path, *mark, *last_path;
    uint64_t connections, each;
    double every, within;
    bool end, tls;
} options = {.mark = "<bench-was-here>", .connections = 1, .each = 1, .within = 600};

static struct {
    struct loop loop;
    struct source commands;
    struct alarm next;
    struct held *held;
    struct h2_call call;
    struct records records;
    uint64_t connected, answered;
    struct pace pace;
    struct mark mark;
    struct tally tally;
    bool over;
} run;

static struct records what_to_say(const char *path) {
    struct records records = records_read(path);
    if (records.count != 1 && records.count != options.connections)
        die("%s: not one record for each of %lu connections, nor one for all", path, options.connections);
    return records;
}

static void say(struct held *held, const struct records *records) {
    struct record record = records->all[records->count == 1 ? 0 : held - run.held];
    if (held->stream == NULL) held->stream = h2_begin(&held->h2);
    h2_send(&held->h2, held->stream, record.at, record.length, options.end);
}

static void on_ready(struct h2 *h2) {
    run.connected++;
    if (options.path && options.every == 0) say((struct held *)h2, &run.records);
}

static void on_data(struct h2 *h2, struct h2_stream *stream, const uint8_t *at, size_t count) {
    (void)stream;
    struct held *held = (struct held *)h2;
    if (held->messages.prefix_length == 0) held->last.length = 0;
    if (options.last_path && held->last.length < LAST_BYTES_MAX) bytes_append(&held->last, at, count);
    messages_feed(&held->messages, at, count);
    scan_feed(&held->scan, &run.mark, at, count, tally_found, &run.tally);
}

static void on_ended(struct h2 *h2, struct h2_stream *stream) {
    if (!options.end || !grpc_is_ok(stream))
        die("a stream has ended: HTTP %d, gRPC %d", stream->http_status, stream->grpc_status);
    ((struct held *)h2)->stream = NULL;
    run.answered++;
}

static void on_told(uint64_t number) {
    printf("{\"number\": %lu, \"at_ns\": %lu}\n", number, now_ns());
    fflush(stdout);
}

/* Connections say it in turn, spread evenly over the interval. */
static void on_next(struct alarm *alarm) {
    while (pace_due_ns(&run.pace) <= now_ns()) say(&run.held[run.pace.next++ % options.connections], &run.records);
    alarm_at(alarm, pace_due_ns(&run.pace));
}

static void on_command(char *line) {
    if (strncmp(line, "say ", 4) != 0) die("no command: %s", line);
    struct records records = what_to_say(line + 4);
    for (uint64_t at = 0; at < options.connections; at++) say(&run.held[at], &records);
    records_free(&records);
}

static void on_commands(struct source *source, uint32_t events) {
    static char line[COMMAND_BYTES_MAX];
    static size_t length;
    (void)events;
    ssize_t count = read(source->fd, line + length, sizeof line - length);
    if (count < 0 && errno == EINTR) return;
    if (count <= 0) {
        run.over = true;
        loop_want(&run.loop, source, 0);
        return;
    }
    length += (size_t)count;
    for (char *end; (end = memchr(line, '\n', length)) != NULL;) {
        *end = 0;
        on_command(line);
        length -= (size_t)(end + 1 - line);
        memmove(line, end + 1, length);
    }
    if (length == sizeof line) die("a command does not end");
}

static void connect_all(struct address address) {
    static const struct h2_events events = {on_ready, on_data, on_ended};
    run.call = h2_call_of(options.path ? options.path : "/", &address);
    uint64_t *done = options.end ? &run.answered : &run.connected;
    for (uint64_t asked = 0; *done < options.connections; loop_turn(&run.loop))
        while (asked < options.connections && asked - *done < OPENING_MAX)
            h2_open(&run.held[asked++].h2, &run.loop, address, &run.call, &events);
    printf("{\"ready\": %lu}\n", *done);
    fflush(stdout);
}

static void say_at_intervals(void) {
    run.pace = (struct pace){.began_ns = now_ns(), .rate = (double)options.connections / options.every};
    alarm_open(&run.next, &run.loop, on_next);
    alarm_at(&run.next, run.pace.began_ns);
}

static bool whole(void) {
    for (uint64_t at = 0; at < options.connections; at++)
        if (run.held[at].messages.prefix_length) return false;
    return true;
}

static void print_result(void) {
    uint64_t messages = 0;
    FILE *last = options.last_path ? fopen(options.last_path, "wbe") : NULL;
    for (uint64_t at = 0; at < options.connections; at++) {
        const struct held *held = &run.held[at];
        uint8_t length[4];
        write_u32(length, (uint32_t)held->last.length);
        if (last) fwrite(length, 1, sizeof length, last), fwrite(held->last.at, 1, held->last.length, last);
        messages += held->messages.count;
    }
    if (options.last_path && (last == NULL || fclose(last) != 0)) die("%s cannot be written", options.last_path);
    printf("{\"messages\": %lu, \"marks\": %lu}\n", messages, run.tally.found);
}

static void read_options(char **words) {
    const struct option known[] = {
        {"--path", TEXT, &options.path}, /* without it nothing is said */
        {"--say", TEXT, &options.say_path},
        {"--mark", TEXT, &options.mark},
        {"--last", TEXT, &options.last_path}, /* here goes what each was told last, in records */
        {"--connections", COUNT, &options.connections},
        {"--each", COUNT, &options.each},    /* so often every mark is expected */
        {"--every", NUMBER, &options.every}, /* seconds */
        {"--within", NUMBER, &options.within},
        {"--end", FLAG, &options.end}, /* calls end with what is said first */
        {"--tls", FLAG, &options.tls},
        {NULL, FLAG, NULL},
    };
    options_read(words, known);
    if (!options.path != !options.say_path) die("hold needs both --path and --say, or none");
}

void hold(struct address address, char **words) {
    read_options(words);
    address.tls = options.tls;
    run.mark = mark_of(options.mark);
    run.held = allocated(options.connections, sizeof *run.held);
    if (options.say_path) run.records = what_to_say(options.say_path);
    tally_open(&run.tally, NUMBERS_MAX, options.each, on_told);
    loop_open(&run.loop, options.within);
    run.commands = (struct source){.fd = STDIN_FILENO, .ready = on_commands};
    connect_all(address);
    if (options.every > 0) say_at_intervals();
    loop_add(&run.loop, &run.commands);
    while (!run.over || !whole()) loop_turn(&run.loop);
    print_result();
}
