/* What gRPC lays over HTTP/2: messages with a length before each, and a status behind them. */
#pragma once
#include "h2.h"

enum { GRPC_PREFIX_BYTES = 5 };

/* Of one stream: how far the current message has come. */
struct messages {
    uint8_t prefix[GRPC_PREFIX_BYTES];
    unsigned prefix_length;
    uint64_t left;  /* of the message behind the prefix */
    uint64_t count; /* of whole messages */
};

void messages_feed(struct messages *messages, const uint8_t *at, size_t count);

/* A message behind its prefix; it is good until the next call. */
const uint8_t *grpc_message(const uint8_t *body, size_t length, size_t *framed_length);

static inline bool grpc_is_ok(const struct h2_stream *stream) {
    return stream->http_status == 200 && stream->grpc_status == 0 && !stream->reset;
}
