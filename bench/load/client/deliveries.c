#include "deliveries.h"

#include <stdlib.h>

#include "grpc.h"

enum { VARINT, FIXED64, LENGTH, FIXED32 = 5 }; /* wire types of protobuf */
enum { RESPONSE_DELIVERIES = 2, DELIVERY_OFFSET = 4 };
enum { REQUEST_ACKNOWLEDGEMENTS = 2, REQUEST_CREDITS = 3, SUBSCRIPTION_ID = 1, OUTCOME = 2, OFFSETS = 3, CREDIT = 2 };
enum { OUTCOME_ACK = 1, THE_SUBSCRIPTION = 1 };

struct field {
    uint64_t number, value; /* of LENGTH: how many bytes are `at` */
    unsigned type;
    const uint8_t *at;
};

static uint64_t read_varint(const uint8_t **at, const uint8_t *end) {
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        if (*at == end) break;
        uint8_t byte = *(*at)++;
        value |= (uint64_t)(byte & 127) << shift;
        if (byte < 128) return value;
    }
    die("protobuf: a varint does not end");
}

static bool next_field(const uint8_t **at, const uint8_t *end, struct field *field) {
    if (*at == end) return false;
    uint64_t tag = read_varint(at, end);
    *field = (struct field){.number = tag >> 3, .type = tag & 7};
    size_t length = field->type == FIXED64 ? 8 : field->type == FIXED32 ? 4 : 0;
    if (field->type == VARINT || field->type == LENGTH) field->value = read_varint(at, end);
    if (field->type == LENGTH) length = field->value;
    if (length > (size_t)(end - *at)) die("protobuf: field %lu does not end", field->number);
    field->at = *at;
    *at += length;
    return true;
}

static void add(struct deliveries *deliveries, uint64_t offset) {
    if (deliveries->count == deliveries->room) {
        deliveries->room = deliveries->room ? 2 * deliveries->room : 64;
        deliveries->offsets = realloc(deliveries->offsets, deliveries->room * sizeof *deliveries->offsets);
        if (deliveries->offsets == NULL) die("out of memory");
    }
    deliveries->offsets[deliveries->count++] = offset;
}

static void read_response(struct deliveries *deliveries, const uint8_t *at, size_t length) {
    struct field response, delivery;
    for (const uint8_t *end = at + length; next_field(&at, end, &response);) {
        if (response.number != RESPONSE_DELIVERIES || response.type != LENGTH) continue;
        uint64_t offset = 0; /* which is not written */
        for (const uint8_t *in = response.at; next_field(&in, response.at + response.value, &delivery);)
            if (delivery.number == DELIVERY_OFFSET) offset = delivery.value;
        add(deliveries, offset);
    }
}

void deliveries_feed(struct deliveries *deliveries, const uint8_t *at, size_t count) {
    struct bytes *rest = &deliveries->rest;
    bytes_append(rest, at, count);
    size_t read = 0;
    while (rest->length - read >= GRPC_PREFIX_BYTES) {
        size_t length = read_u32(rest->at + read + 1);
        if (rest->length - read - GRPC_PREFIX_BYTES < length) break;
        read_response(deliveries, rest->at + read + GRPC_PREFIX_BYTES, length);
        read += GRPC_PREFIX_BYTES + length;
    }
    bytes_drop(rest, read);
}

static void write_varint(struct bytes *to, uint64_t value) {
    for (; value > 127; value >>= 7) *bytes_extend(to, 1) = (uint8_t)(value | 128);
    *bytes_extend(to, 1) = (uint8_t)value;
}

static void write_number_field(struct bytes *to, uint64_t number, uint64_t value) {
    write_varint(to, number << 3 | VARINT);
    write_varint(to, value);
}

static void write_bytes_field(struct bytes *to, uint64_t number, const struct bytes *value) {
    write_varint(to, number << 3 | LENGTH);
    write_varint(to, value->length);
    bytes_append(to, value->at, value->length);
}

const struct bytes *deliveries_acknowledged(struct deliveries *deliveries) {
    static struct bytes offsets, part, request;
    offsets.length = part.length = request.length = 0;
    for (size_t at = 0; at < deliveries->count; at++) write_varint(&offsets, deliveries->offsets[at]);
    write_number_field(&part, SUBSCRIPTION_ID, THE_SUBSCRIPTION);
    write_number_field(&part, OUTCOME, OUTCOME_ACK);
    write_bytes_field(&part, OFFSETS, &offsets);
    write_bytes_field(&request, REQUEST_ACKNOWLEDGEMENTS, &part);
    part.length = 0;
    write_number_field(&part, SUBSCRIPTION_ID, THE_SUBSCRIPTION);
    write_number_field(&part, CREDIT, deliveries->count);
    write_bytes_field(&request, REQUEST_CREDITS, &part);
    deliveries->count = 0;
    return &request;
}
