#include "nats.h"

#include <stdlib.h>
#include <string.h>

enum { LINE_BYTES_MAX = 1 << 16, LINE_END_BYTES = 2 };
static const char CONNECT[] =
    "CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true,\"no_responders\":true}\r\n";

static bool begins(const uint8_t *line, size_t length, const char *with) {
    size_t wanted = strlen(with);
    return length >= wanted && memcmp(line, with, wanted) == 0;
}

/* Where the word that ends at `end` begins. */
static size_t word_before(const uint8_t *line, size_t end) {
    while (end && line[end - 1] != ' ') end--;
    return end;
}

/* The third of three words behind MSG, if there are so many. */
static void keep_reply(struct nats *nats, const uint8_t *line, size_t end) {
    size_t words = 0;
    for (size_t at = 0; at < end; at++) words += line[at] == ' ';
    size_t at = word_before(line, end);
    nats->reply.length = 0;
    if (words == 3) bytes_append(&nats->reply, line + at, end - at);
}

/* MSG subject sid [reply-to] #bytes */
static void begin_message(struct nats *nats, const uint8_t *line, size_t length) {
    uint64_t bytes = 0;
    size_t at = word_before(line, length);
    if (at) keep_reply(nats, line, at - 1);
    for (; at < length; at++) {
        if (line[at] < '0' || line[at] > '9') die("NATS: no length: %.*s", (int)length, (const char *)line);
        bytes = 10 * bytes + line[at] - '0';
    }
    nats->payload_left = bytes;
    nats->end_left = LINE_END_BYTES;
}

static void on_line(struct nats *nats, const uint8_t *line, size_t length) {
    if (length && line[length - 1] == '\r') length--;
    if (begins(line, length, "MSG ")) {
        begin_message(nats, line, length);
    } else if (begins(line, length, "PING")) {
        bytes_append(wire_write(&nats->wire), "PONG\r\n", 6);
    } else if (begins(line, length, "PONG")) {
        if (nats->ready) return;
        nats->ready = true;
        nats->events->ready(nats);
    } else if (!begins(line, length, "INFO ") && !begins(line, length, "+OK")) {
        die("NATS: %.*s", (int)length, (const char *)line);
    }
}

/* How much of it belongs to the current message. */
static size_t take_message(struct nats *nats, const uint8_t *at, size_t count) {
    size_t payload = count < nats->payload_left ? count : nats->payload_left;
    nats->payload_left -= payload;
    if (payload) nats->events->payload(nats, at, payload);
    size_t end = count - payload < nats->end_left ? count - payload : nats->end_left;
    nats->end_left -= end;
    if (end && nats->end_left == 0) {
        nats->messages++;
        if (nats->events->whole) nats->events->whole(nats);
    }
    return payload + end;
}

/* How much of it belongs to the current line, which is taken once it is whole. */
static size_t take_line(struct nats *nats, const uint8_t *at, size_t count) {
    const uint8_t *end = memchr(at, '\n', count);
    size_t length = end ? (size_t)(end - at) : count;
    if (end && nats->line.length == 0) {
        on_line(nats, at, length);
        return length + 1;
    }
    bytes_append(&nats->line, at, length);
    if (nats->line.length > LINE_BYTES_MAX) die("NATS: a line does not end");
    if (!end) return length;
    on_line(nats, nats->line.at, nats->line.length);
    nats->line.length = 0;
    return length + 1;
}

static void receive(struct wire *wire, const uint8_t *at, size_t count) {
    struct nats *nats = (struct nats *)wire;
    while (count) {
        bool in_message = nats->payload_left || nats->end_left;
        size_t taken = in_message ? take_message(nats, at, count) : take_line(nats, at, count);
        at += taken;
        count -= taken;
    }
}

void nats_open(struct nats *nats, struct loop *loop, struct address address, const struct bytes *begin,
               const struct nats_events *events) {
    nats->wire.arrived = receive;
    nats->events = events;
    wire_open(&nats->wire, loop, address);
    struct bytes *out = wire_write(&nats->wire);
    bytes_append(out, CONNECT, sizeof CONNECT - 1);
    bytes_append(out, begin->at, begin->length);
    bytes_append(out, "PING\r\n", 6);
}
