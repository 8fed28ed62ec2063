/* Connections, streams and what is sent. */
#include "h2.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SLOTS_MIN = 8, INITIAL_WINDOW_SIZE = 4, SETTING_BYTES = 6, MAX_FRAME_SIZE = 5, TEXT_MAX = 126 };
static const char PREFACE[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
static const uint32_t RECEIVED_FRAME_MAX = (1 << 24) - 1;
static const uint64_t TOP_UP_BYTES = 1 << 30;

static void append_text(struct bytes *to, const char *text) {
    size_t length = strlen(text);
    if (length > TEXT_MAX) die("too long for a header: %s", text);
    *bytes_extend(to, 1) = (uint8_t)length;
    bytes_append(to, text, length);
}

/* Each header, as a literal: `how` is 0x40 for the table, 0 for none; a name's index takes so many bits less. */
static struct bytes literals(const char *path, const char *authority, const struct address *address, bool table) {
    struct bytes block = {0};
    const char *method_and_scheme = address->tls ? "\x83\x87" : "\x83\x86"; /* POST, https or http */
    if (!table) bytes_append(&block, "\x20", 1);                            /* a table of no bytes */
    bytes_append(&block, method_and_scheme, 2);
    bytes_append(&block, table ? "\x44" : "\x04", 1); /* :path */
    append_text(&block, path);
    bytes_append(&block, table ? "\x41" : "\x01", 1); /* :authority */
    append_text(&block, authority);
    bytes_append(&block, table ? "\x5f" : "\x0f\x10", table ? 1 : 2); /* content-type */
    append_text(&block, "application/grpc");
    bytes_append(&block, table ? "\x40" : "\x00", 1);
    append_text(&block, "te");
    append_text(&block, "trailers");
    return block;
}

struct h2_call h2_call_of(const char *path, const struct address *address) {
    char authority[TEXT_MAX + 1];
    if (snprintf(authority, sizeof authority, "%s:%s", address->host, address->port) > TEXT_MAX) die("a long host");
    struct h2_call call = {
        .first = literals(path, authority, address, true),
        .plain = literals(path, authority, address, false),
    };
    bytes_append(&call.later, call.first.at, 2);
    bytes_append(&call.later, "\xc1\xc0\xbf\xbe", 4); /* the four of `first`, the last is the newest */
    return call;
}

void h2_frame(struct h2 *h2, enum h2_kind kind, uint8_t flags, uint32_t id, const void *payload, size_t count) {
    uint8_t *to = bytes_extend(wire_write(&h2->wire), H2_HEAD_BYTES + count);
    write_u32(to, (uint32_t)count << 8 | kind);
    to[4] = flags;
    write_u32(to + 5, id);
    if (count) memcpy(to + H2_HEAD_BYTES, payload, count);
}

void h2_window_update(struct h2 *h2, uint32_t id, uint64_t *taken) {
    if (*taken < TOP_UP_BYTES) return;
    uint8_t more[4];
    write_u32(more, (uint32_t)*taken);
    h2_frame(h2, H2_WINDOW_UPDATE, 0, id, more, sizeof more);
    *taken = 0;
}

void h2_open(struct h2 *h2, struct loop *loop, struct address address, const struct h2_call *call,
             const struct h2_events *events) {
    h2->wire.arrived = h2_receive;
    h2->events = events;
    h2->call = call;
    h2->window = h2->window_initial = H2_WINDOW;
    h2->frame_max = H2_FRAME_MAX;
    h2->streams_max = UINT32_MAX;
    h2->next_id = 1;
    h2->slot_count = SLOTS_MIN;
    h2->slots = allocated(SLOTS_MIN, sizeof(struct h2_stream *));
    hpack_open(&h2->hpack);
    wire_open(&h2->wire, loop, address);
    /* What the server sends is never held up here: windows are as wide as they can be. */
    uint8_t settings[2 * SETTING_BYTES] = {0, INITIAL_WINDOW_SIZE, 0, 0, 0, 0, 0, MAX_FRAME_SIZE}, more[4];
    write_u32(settings + 2, H2_WINDOW_MAX);
    write_u32(settings + SETTING_BYTES + 2, RECEIVED_FRAME_MAX);
    write_u32(more, H2_WINDOW_MAX - H2_WINDOW);
    bytes_append(wire_write(&h2->wire), PREFACE, sizeof PREFACE - 1);
    h2_frame(h2, H2_SETTINGS, 0, 0, settings, sizeof settings);
    h2_frame(h2, H2_WINDOW_UPDATE, 0, 0, more, sizeof more);
}

static struct h2_stream **slot_of(struct h2 *h2, uint32_t id) { return &h2->slots[(id >> 1) & (h2->slot_count - 1)]; }

struct h2_stream *h2_find(struct h2 *h2, uint32_t id) {
    struct h2_stream *stream = *slot_of(h2, id);
    return stream && stream->id == id ? stream : NULL;
}

static void double_slots(struct h2 *h2) {
    struct h2_stream **before = h2->slots;
    uint32_t count = h2->slot_count;
    h2->slots = allocated(2 * (size_t)count, sizeof *h2->slots);
    h2->slot_count = 2 * count;
    for (uint32_t at = 0; at < count; at++)
        if (before[at]) *slot_of(h2, before[at]->id) = before[at];
    free(before);
}

struct h2_stream *h2_begin(struct h2 *h2) {
    if (h2->open == h2->streams_max) die("the server allows %u streams on a connection", h2->streams_max);
    if (h2->next_id > H2_WINDOW_MAX) die("a connection has no more streams");
    struct h2_stream *stream = h2->free;
    if (stream) h2->free = stream->next;
    else stream = allocated(1, sizeof *stream);
    struct bytes waiting = stream->waiting; /* its room is used again */
    waiting.length = 0;
    *stream = (struct h2_stream){.id = h2->next_id, .http_status = UNKNOWN, .grpc_status = UNKNOWN, .waiting = waiting};
    stream->window = h2->window_initial;
    h2->next_id += 2;
    h2->open++;
    while (*slot_of(h2, stream->id)) double_slots(h2);
    *slot_of(h2, stream->id) = stream;
    const struct h2_call *call = h2->call;
    const struct bytes *block = h2->table_is_small ? &call->plain : h2->called ? &call->later : &call->first;
    h2->called = true;
    h2_frame(h2, H2_HEADERS, H2_END_HEADERS, stream->id, block->at, block->length);
    return stream;
}

/* As much as the windows allow; how much that was. */
static size_t send_now(struct h2 *h2, struct h2_stream *stream, const uint8_t *at, size_t count, bool end) {
    size_t sent = 0;
    while (sent < count) {
        int64_t window = h2->window < stream->window ? h2->window : stream->window;
        if (window <= 0) break;
        size_t piece = count - sent < h2->frame_max ? count - sent : h2->frame_max;
        if (piece > (size_t)window) piece = (size_t)window;
        h2->window -= (int64_t)piece;
        stream->window -= (int64_t)piece;
        bool last = sent + piece == count;
        h2_frame(h2, H2_DATA, last && end ? H2_END_STREAM : 0, stream->id, at + sent, piece);
        sent += piece;
    }
    return sent;
}

void h2_send(struct h2 *h2, struct h2_stream *stream, const uint8_t *at, size_t count, bool end) {
    size_t sent = stream->waits ? 0 : send_now(h2, stream, at, count, end);
    if (sent == count) return;
    bytes_append(&stream->waiting, at + sent, count - sent);
    stream->waiting_ends = end;
    if (stream->waits) return;
    stream->waits = true;
    stream->next = NULL;
    if (h2->waiting) h2->waiting_last->next = stream;
    else h2->waiting = stream;
    h2->waiting_last = stream;
}

static void wait_no_more(struct h2 *h2, struct h2_stream *stream) {
    struct h2_stream **link = &h2->waiting, *before = NULL;
    while (*link != stream) before = *link, link = &before->next;
    *link = stream->next;
    if (h2->waiting_last == stream) h2->waiting_last = before;
    stream->waits = false;
    stream->waiting.length = stream->waiting_sent = 0;
}

void h2_send_waiting(struct h2 *h2) {
    for (struct h2_stream *stream = h2->waiting, *next; stream && h2->window > 0; stream = next) {
        next = stream->next;
        size_t left = stream->waiting.length - stream->waiting_sent;
        size_t sent = send_now(h2, stream, stream->waiting.at + stream->waiting_sent, left, stream->waiting_ends);
        stream->waiting_sent += sent;
        if (sent == left) wait_no_more(h2, stream);
    }
}

void h2_end(struct h2 *h2, struct h2_stream *stream) {
    if (stream->waits) wait_no_more(h2, stream);
    *slot_of(h2, stream->id) = NULL;
    h2->open--;
    h2->events->ended(h2, stream);
    stream->id = 0;
    stream->next = h2->free;
    h2->free = stream;
}
