/* What arrives on a connection, frame by frame. Data is handed on as it comes; every other frame once it is whole. */
#include <stdlib.h>
#include <string.h>

#include "h2.h"

enum { SETTING_BYTES = 6, STATUS_DIGITS_MAX = 3, FRAME_MAX_WITHOUT_DATA = 1 << 17 };
enum setting { HEADER_TABLE_SIZE = 1, MAX_CONCURRENT_STREAMS = 3, INITIAL_WINDOW_SIZE = 4, MAX_FRAME_SIZE = 5 };

struct frame {
    uint32_t length, id;
    uint8_t kind, flags;
    const uint8_t *payload;
};

static struct frame head_of(const uint8_t *at) {
    return (struct frame){read_u24(at), read_u32(at + 5) & H2_WINDOW_MAX, at[3], at[4], at + H2_HEAD_BYTES};
}

static bool is(const struct header *header, const char *name, size_t length) {
    return header->name_length == length && memcmp(header->name, name, length) == 0;
}

static int number_of(const struct header *header) {
    int number = 0;
    if (header->value_length == 0 || header->value_length > STATUS_DIGITS_MAX) return UNKNOWN;
    for (size_t at = 0; at < header->value_length; at++) {
        if (header->value[at] < '0' || header->value[at] > '9') return UNKNOWN;
        number = 10 * number + header->value[at] - '0';
    }
    return number;
}

static void on_header(void *context, const struct header *header) {
    struct h2_stream *stream = context;
    if (stream == NULL) return;
    if (is(header, ":status", 7)) stream->http_status = number_of(header);
    else if (is(header, "grpc-status", 11)) stream->grpc_status = number_of(header);
}

static void on_headers(struct h2 *h2, const struct frame *frame) {
    const uint8_t *at = frame->payload, *end = at + frame->length;
    if (frame->kind == H2_HEADERS) {
        h2->block.length = 0;
        h2->block_ends = frame->flags & H2_END_STREAM;
        if (frame->flags & H2_PADDED && at < end) end -= *at++;
        if (frame->flags & H2_PRIORITIZED) at += 5;
        if (at > end) die("headers shorter than their padding");
    }
    bytes_append(&h2->block, at, (size_t)(end - at));
    if (!(frame->flags & H2_END_HEADERS)) return;
    struct h2_stream *stream = h2_find(h2, frame->id); /* if it has ended, the table still learns from its headers */
    hpack_decode(&h2->hpack, h2->block.at, h2->block.length, on_header, stream);
    if (stream && h2->block_ends) h2_end(h2, stream);
}

static void on_setting(struct h2 *h2, unsigned setting, uint32_t value) {
    if (setting == HEADER_TABLE_SIZE) h2->table_is_small = value < HPACK_TABLE_BYTES;
    if (setting == MAX_CONCURRENT_STREAMS) h2->streams_max = value;
    if (setting == MAX_FRAME_SIZE) h2->frame_max = value;
    if (setting != INITIAL_WINDOW_SIZE) return;
    for (uint32_t at = 0; at < h2->slot_count; at++)
        if (h2->slots[at]) h2->slots[at]->window += (int64_t)value - h2->window_initial;
    h2->window_initial = value;
}

static void on_settings(struct h2 *h2, const struct frame *frame) {
    if (frame->flags & H2_ACK) return;
    for (const uint8_t *at = frame->payload; at + SETTING_BYTES <= frame->payload + frame->length; at += SETTING_BYTES)
        on_setting(h2, (unsigned)at[0] << 8 | at[1], read_u32(at + 2));
    h2_frame(h2, H2_SETTINGS, H2_ACK, 0, NULL, 0);
    h2_send_waiting(h2);
    if (h2->ready) return;
    h2->ready = true;
    h2->events->ready(h2);
}

static void on_window_update(struct h2 *h2, const struct frame *frame) {
    if (frame->length != 4) die("a window update of %u bytes", frame->length);
    uint32_t more = read_u32(frame->payload) & H2_WINDOW_MAX;
    struct h2_stream *stream = h2_find(h2, frame->id);
    if (frame->id == 0) h2->window += more;
    else if (stream) stream->window += more;
    h2_send_waiting(h2);
}

static void on_reset(struct h2 *h2, const struct frame *frame) {
    struct h2_stream *stream = h2_find(h2, frame->id);
    if (stream == NULL) return;
    stream->reset = true;
    h2_end(h2, stream);
}

static void on_go_away(const struct frame *frame) {
    if (frame->length < 8) die("the server says go away");
    die("the server says go away: error %u %.*s", read_u32(frame->payload + 4), (int)frame->length - 8,
        frame->payload + 8);
}

static void on_frame(struct h2 *h2, const struct frame *frame) {
    switch (frame->kind) {
    case H2_HEADERS:
    case H2_CONTINUATION: on_headers(h2, frame); break;
    case H2_RST_STREAM: on_reset(h2, frame); break;
    case H2_SETTINGS: on_settings(h2, frame); break;
    case H2_PING:
        if (!(frame->flags & H2_ACK)) h2_frame(h2, H2_PING, H2_ACK, 0, frame->payload, frame->length);
        break;
    case H2_GOAWAY: on_go_away(frame); break;
    case H2_WINDOW_UPDATE: on_window_update(h2, frame); break;
    default: break; /* of kinds that are not known, as the RFC wants it */
    }
}

static void begin_data(struct h2 *h2, const struct frame *frame) {
    h2->padding_left = frame->flags & H2_PADDED ? frame->payload[0] : 0;
    if (frame->length < h2->padding_left + !!(frame->flags & H2_PADDED)) die("data shorter than its padding");
    h2->data_left = frame->length - h2->padding_left - !!(frame->flags & H2_PADDED);
    h2->data_id = frame->id;
    h2->data_ends = frame->flags & H2_END_STREAM;
    h2->taken += frame->length;
    h2_window_update(h2, 0, &h2->taken);
    struct h2_stream *stream = h2_find(h2, frame->id);
    if (stream == NULL) return;
    stream->taken += frame->length;
    if (!h2->data_ends) h2_window_update(h2, frame->id, &stream->taken);
}

/* How much of the frame of data it is. */
static size_t take_data(struct h2 *h2, const uint8_t *at, size_t count) {
    size_t data = count < h2->data_left ? count : h2->data_left;
    h2->data_left -= (uint32_t)data;
    size_t padding = count - data < h2->padding_left ? count - data : h2->padding_left;
    h2->padding_left -= (uint32_t)padding;
    struct h2_stream *stream = h2_find(h2, h2->data_id);
    if (stream && data) h2->events->data(h2, stream, at, data);
    if (stream && h2->data_ends && h2->data_left == 0 && h2->padding_left == 0) h2_end(h2, stream);
    return data + padding;
}

/* How much of it was whole. */
static size_t take_frames(struct h2 *h2, const uint8_t *begin, size_t count) {
    const uint8_t *at = begin, *end = begin + count;
    for (;;) {
        if (h2->data_left || h2->padding_left) at += take_data(h2, at, (size_t)(end - at));
        size_t left = (size_t)(end - at);
        if (left < H2_HEAD_BYTES) break;
        struct frame frame = head_of(at);
        if (frame.kind == H2_DATA) {
            bool padded = frame.flags & H2_PADDED;
            if (left < H2_HEAD_BYTES + (size_t)padded) break;
            begin_data(h2, &frame);
            at += H2_HEAD_BYTES + padded;
            if (h2->data_left == 0 && h2->padding_left == 0) take_data(h2, at, 0);
            continue;
        }
        if (frame.length > FRAME_MAX_WITHOUT_DATA) die("a frame of %u bytes that is no data", frame.length);
        if (left < H2_HEAD_BYTES + frame.length) break;
        on_frame(h2, &frame);
        at += H2_HEAD_BYTES + frame.length;
    }
    return (size_t)(at - begin);
}

void h2_receive(struct wire *wire, const uint8_t *at, size_t count) {
    struct h2 *h2 = (struct h2 *)wire;
    if (h2->rest.length == 0) {
        size_t taken = take_frames(h2, at, count);
        bytes_append(&h2->rest, at + taken, count - taken);
        return;
    }
    bytes_append(&h2->rest, at, count);
    bytes_drop(&h2->rest, take_frames(h2, h2->rest.at, h2->rest.length));
    if (h2->rest.length == 0) bytes_free(&h2->rest); /* ten thousand connections keep none */
}
