/* What a consumer of ours reads and says: the offsets of deliveries, and one acknowledgement of them all. The field
   numbers are those of trunkline.api.v1. */
#pragma once
#include "common.h"

/* Of one stream. */
struct deliveries {
    struct bytes rest; /* a message that is not whole */
    uint64_t *offsets; /* not acknowledged yet */
    size_t count, room;
};

void deliveries_feed(struct deliveries *deliveries, const uint8_t *at, size_t count);

/* A SubscribeRequest of the subscription 1 that acknowledges all and gives the credit back; it is good until the next
   call. */
const struct bytes *deliveries_acknowledged(struct deliveries *deliveries);
