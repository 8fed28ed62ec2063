#include "hpack.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define ENTRY(name, value) {name, value, sizeof name - 1, sizeof value - 1}

static const struct header STATIC[] = {
    ENTRY(":authority", ""),
    ENTRY(":method", "GET"),
    ENTRY(":method", "POST"),
    ENTRY(":path", "/"),
    ENTRY(":path", "/index.html"),
    ENTRY(":scheme", "http"),
    ENTRY(":scheme", "https"),
    ENTRY(":status", "200"),
    ENTRY(":status", "204"),
    ENTRY(":status", "206"),
    ENTRY(":status", "304"),
    ENTRY(":status", "400"),
    ENTRY(":status", "404"),
    ENTRY(":status", "500"),
    ENTRY("accept-charset", ""),
    ENTRY("accept-encoding", "gzip, deflate"),
    ENTRY("accept-language", ""),
    ENTRY("accept-ranges", ""),
    ENTRY("accept", ""),
    ENTRY("access-control-allow-origin", ""),
    ENTRY("age", ""),
    ENTRY("allow", ""),
    ENTRY("authorization", ""),
    ENTRY("cache-control", ""),
    ENTRY("content-disposition", ""),
    ENTRY("content-encoding", ""),
    ENTRY("content-language", ""),
    ENTRY("content-length", ""),
    ENTRY("content-location", ""),
    ENTRY("content-range", ""),
    ENTRY("content-type", ""),
    ENTRY("cookie", ""),
    ENTRY("date", ""),
    ENTRY("etag", ""),
    ENTRY("expect", ""),
    ENTRY("expires", ""),
    ENTRY("from", ""),
    ENTRY("host", ""),
    ENTRY("if-match", ""),
    ENTRY("if-modified-since", ""),
    ENTRY("if-none-match", ""),
    ENTRY("if-range", ""),
    ENTRY("if-unmodified-since", ""),
    ENTRY("last-modified", ""),
    ENTRY("link", ""),
    ENTRY("location", ""),
    ENTRY("max-forwards", ""),
    ENTRY("proxy-authenticate", ""),
    ENTRY("proxy-authorization", ""),
    ENTRY("range", ""),
    ENTRY("referer", ""),
    ENTRY("refresh", ""),
    ENTRY("retry-after", ""),
    ENTRY("server", ""),
    ENTRY("set-cookie", ""),
    ENTRY("strict-transport-security", ""),
    ENTRY("transfer-encoding", ""),
    ENTRY("user-agent", ""),
    ENTRY("vary", ""),
    ENTRY("via", ""),
    ENTRY("www-authenticate", ""),
};
enum { STATIC_COUNT = sizeof STATIC / sizeof *STATIC, INTEGER_SHIFT_MAX = 21 };

/* What of a block is not read yet. */
struct rest {
    const uint8_t *at, *end;
};

void hpack_open(struct hpack *hpack) { *hpack = (struct hpack){.bytes_max = HPACK_TABLE_BYTES}; }

static size_t weight(const struct header *header) {
    return header->name_length + header->value_length + HPACK_ENTRY_BYTES;
}

static void shrink(struct hpack *hpack, size_t bytes_max) {
    while (hpack->bytes > bytes_max) {
        struct header *oldest = &hpack->entries[(hpack->newest + hpack->count - 1) % HPACK_ENTRIES_MAX];
        hpack->bytes -= weight(oldest);
        free((void *)oldest->name);
        hpack->count--;
    }
}

void hpack_close(struct hpack *hpack) { shrink(hpack, 0); }

static void insert(struct hpack *hpack, const struct header *header) {
    char *kept = allocated(header->name_length + header->value_length, 1); /* it may be from an entry that goes now */
    memcpy(kept, header->name, header->name_length);
    memcpy(kept + header->name_length, header->value, header->value_length);
    if (weight(header) > hpack->bytes_max) {
        shrink(hpack, 0);
        free(kept);
        return;
    }
    shrink(hpack, hpack->bytes_max - weight(header));
    hpack->newest = (hpack->newest + HPACK_ENTRIES_MAX - 1) % HPACK_ENTRIES_MAX;
    hpack->entries[hpack->newest] =
        (struct header){kept, kept + header->name_length, header->name_length, header->value_length};
    hpack->bytes += weight(header);
    hpack->count++;
}

static struct header entry(const struct hpack *hpack, size_t index) {
    if (index == 0) die("HPACK: index 0");
    if (index <= STATIC_COUNT) return STATIC[index - 1];
    index -= STATIC_COUNT + 1;
    if (index >= hpack->count) die("HPACK: index %zu of %u", index, hpack->count);
    return hpack->entries[(hpack->newest + index) % HPACK_ENTRIES_MAX];
}

static size_t integer(struct rest *rest, unsigned prefix_bits) {
    size_t prefix = (1u << prefix_bits) - 1, value = *rest->at++ & prefix;
    if (value < prefix) return value;
    for (unsigned shift = 0; shift <= INTEGER_SHIFT_MAX; shift += 7) {
        if (rest->at == rest->end) break;
        uint8_t byte = *rest->at++;
        value += (size_t)(byte & 127) << shift;
        if (!(byte & 128)) return value;
    }
    die("HPACK: an integer does not end");
}

/* Its length; the text is in `texts` when it was coded, for which `text` is NULL, and else where it stands. */
static size_t string(struct rest *rest, struct bytes *texts, const char **text) {
    if (rest->at == rest->end) die("HPACK: no string");
    bool coded = *rest->at & 128;
    size_t length = integer(rest, 7), before = texts->length;
    if (length > (size_t)(rest->end - rest->at)) die("HPACK: a string does not end");
    const uint8_t *begin = rest->at;
    rest->at += length;
    *text = coded ? NULL : (const char *)begin;
    if (!coded) return length;
    huffman_decode(begin, length, texts);
    return texts->length - before;
}

static struct header literal(const struct hpack *hpack, struct rest *rest, size_t index, struct bytes *texts) {
    struct header header = {0};
    bytes_extend(texts, 1), texts->length = 0; /* it has a place, even if nothing comes */
    if (index) header = entry(hpack, index);
    else header.name_length = string(rest, texts, &header.name);
    header.value_length = string(rest, texts, &header.value);
    const char *coded = (const char *)texts->at; /* where it is now that it grows no more */
    if (header.name == NULL) header.name = coded, coded += header.name_length;
    if (header.value == NULL) header.value = coded;
    return header;
}

void hpack_decode(struct hpack *hpack, const uint8_t *block, size_t length, header_found *found, void *context) {
    struct rest rest = {block, block + length};
    static struct bytes texts; /* one thread decodes one block at a time */
    while (rest.at < rest.end) {
        uint8_t first = *rest.at;
        struct header header;
        if (first & 128) {
            header = entry(hpack, integer(&rest, 7));
        } else if (first & 64) {
            header = literal(hpack, &rest, integer(&rest, 6), &texts);
            found(context, &header);
            insert(hpack, &header);
            continue;
        } else if (first & 32) {
            size_t bytes_max = integer(&rest, 5);
            if (bytes_max > HPACK_TABLE_BYTES) die("HPACK: a table of %zu bytes", bytes_max);
            hpack->bytes_max = bytes_max;
            shrink(hpack, bytes_max);
            continue;
        } else {
            header = literal(hpack, &rest, integer(&rest, 4), &texts); /* never indexed, or not this time */
        }
        found(context, &header);
    }
}
