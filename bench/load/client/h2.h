/* The client's side of HTTP/2 (RFC 9113), as far as gRPC needs it. */
#pragma once
#include "hpack.h"
#include "wire.h"

enum { UNKNOWN = -1 };

struct h2_stream {
    uint32_t id; /* 0: of no call */
    int http_status, grpc_status;
    bool reset;
    int64_t window;       /* what the server takes */
    uint64_t taken;       /* of its window here, since it was last opened wide */
    struct bytes waiting; /* for the server's windows */
    size_t waiting_sent;
    bool waits, waiting_ends;
    struct h2_stream *next;    /* in the list of those that wait, or of those that are free */
    uint64_t number, began_ns; /* the caller's */
};

struct h2;

/* What becomes of what arrives. A connection that is lost ends the program. */
struct h2_events {
    void (*ready)(struct h2 *h2); /* the server's settings are known: calls may begin */
    void (*data)(struct h2 *h2, struct h2_stream *stream, const uint8_t *at, size_t count);
    void (*ended)(struct h2 *h2, struct h2_stream *stream); /* it is gone when this returns */
};

/* The header block of a call. As every gRPC library does, the first call of a connection puts its headers into the
   server's table and all others refer to them; `plain` is for a server whose table is small. */
struct h2_call {
    struct bytes first, later, plain;
};

struct h2 {
    struct wire wire; /* first: the connection is known by it */
    const struct h2_events *events;
    const struct h2_call *call;
    bool ready, called, table_is_small;
    int64_t window;         /* what the server takes over all streams */
    int64_t window_initial; /* ... and of a new one */
    uint32_t frame_max, streams_max;
    uint32_t next_id;
    uint64_t taken;
    struct h2_stream **slots; /* by id, and their number is a power of two: the ids that are open lie close together */
    uint32_t slot_count, open;
    struct h2_stream *free, *waiting, *waiting_last;
    struct hpack hpack;
    struct bytes rest;  /* a frame that is not whole */
    struct bytes block; /* headers that are not whole */
    bool block_ends;
    uint32_t data_left, padding_left; /* of a frame of data that is being read */
    uint32_t data_id;
    bool data_ends;
};

enum h2_kind {
    H2_DATA,
    H2_HEADERS,
    H2_PRIORITY,
    H2_RST_STREAM,
    H2_SETTINGS,
    H2_PUSH_PROMISE,
    H2_PING,
    H2_GOAWAY,
    H2_WINDOW_UPDATE,
    H2_CONTINUATION
};
enum { H2_ACK = 1, H2_END_STREAM = 1, H2_END_HEADERS = 4, H2_PADDED = 8, H2_PRIORITIZED = 32 };
enum { H2_HEAD_BYTES = 9, H2_FRAME_MAX = 16384, H2_WINDOW = 65535, H2_WINDOW_MAX = 0x7fffffff };

struct h2_call h2_call_of(const char *path, const struct address *address);
void h2_open(struct h2 *h2, struct loop *loop, struct address address, const struct h2_call *call,
             const struct h2_events *events);
struct h2_stream *h2_begin(struct h2 *h2);
void h2_send(struct h2 *h2, struct h2_stream *stream, const uint8_t *at, size_t count, bool end);

/* For h2_receive.c. */
void h2_frame(struct h2 *h2, enum h2_kind kind, uint8_t flags, uint32_t id, const void *payload, size_t count);
void h2_window_update(struct h2 *h2, uint32_t id, uint64_t *taken);
struct h2_stream *h2_find(struct h2 *h2, uint32_t id); /* NULL when it has ended */
void h2_end(struct h2 *h2, struct h2_stream *stream);
void h2_send_waiting(struct h2 *h2);
void h2_receive(struct wire *wire, const uint8_t *at, size_t count);
