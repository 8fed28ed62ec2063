/* Decodes header blocks (RFC 7541): static and dynamic table, Huffman. A connection has one decoder for all of them. */
#pragma once
#include "common.h"

enum { HPACK_TABLE_BYTES = 4096, HPACK_ENTRY_BYTES = 32, HPACK_ENTRIES_MAX = HPACK_TABLE_BYTES / HPACK_ENTRY_BYTES };

struct header {
    const char *name, *value;
    size_t name_length, value_length;
};

struct hpack {
    struct header entries[HPACK_ENTRIES_MAX]; /* a ring; each has one allocation, which its name begins */
    unsigned newest, count;
    size_t bytes, bytes_max;
};

typedef void header_found(void *context, const struct header *header);

void hpack_open(struct hpack *hpack);
void hpack_close(struct hpack *hpack);

/* Calls `found` with each header. Dies when the block breaks the RFC. */
void hpack_decode(struct hpack *hpack, const uint8_t *block, size_t length, header_found *found, void *context);

/* huffman.c: appends the text. Dies when it is no code. */
void huffman_decode(const uint8_t *at, size_t length, struct bytes *text);
