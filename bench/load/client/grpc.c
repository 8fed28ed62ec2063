#include "grpc.h"

void messages_feed(struct messages *messages, const uint8_t *at, size_t count) {
    while (count) {
        if (messages->prefix_length < GRPC_PREFIX_BYTES) {
            messages->prefix[messages->prefix_length++] = *at++;
            count--;
            if (messages->prefix_length < GRPC_PREFIX_BYTES) continue;
            messages->left = read_u32(messages->prefix + 1);
        }
        size_t piece = count < messages->left ? count : messages->left;
        messages->left -= piece;
        at += piece;
        count -= piece;
        if (messages->left) continue;
        messages->count++;
        messages->prefix_length = 0;
    }
}

const uint8_t *grpc_message(const uint8_t *body, size_t length, size_t *framed_length) {
    static struct bytes framed;
    framed.length = 0;
    uint8_t *prefix = bytes_extend(&framed, GRPC_PREFIX_BYTES);
    prefix[0] = 0; /* not compressed */
    write_u32(prefix + 1, (uint32_t)length);
    bytes_append(&framed, body, length);
    *framed_length = framed.length;
    return framed.at;
}
