/* The code of RFC 7541, appendix B. It is canonical: codes of one length follow each other in the order of their
   symbols, so the lengths say all of it. */
#include <stdbool.h>

#include "hpack.h"

enum { SYMBOLS = 257, END_OF_STRING = 256, CODE_BITS_MAX = 30, PADDING_BITS_MAX = 7 };

static const uint8_t LENGTHS[SYMBOLS] = {
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28,
    28, 28, 28, 6,  10, 10, 12, 13, 6,  8,  11, 10, 10, 8,  11, 8,  6,  6,  6,  5,  5,  5,  6,  6,  6,  6,  6,  6,  6,
    7,  8,  15, 6,  12, 10, 13, 6,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,
    7,  8,  7,  8,  13, 19, 13, 14, 6,  15, 5,  6,  5,  6,  5,  6,  6,  6,  5,  7,  7,  6,  6,  6,  5,  6,  7,  6,  5,
    5,  6,  7,  7,  7,  7,  7,  15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24,
    24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22,
    23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26,
    27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23,
    22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30};

static uint16_t by_code[SYMBOLS];               /* symbols in the order of their codes */
static uint32_t first_code[CODE_BITS_MAX + 2];  /* of a length */
static uint16_t first_place[CODE_BITS_MAX + 2]; /* of its symbol in `by_code` */

static void make_tables(void) {
    static bool made;
    if (made) return;
    made = true;
    uint32_t code = 0;
    uint16_t place = 0;
    for (unsigned bits = 1; bits <= CODE_BITS_MAX; bits++) {
        code <<= 1;
        first_code[bits] = code;
        first_place[bits] = place;
        for (uint16_t symbol = 0; symbol < SYMBOLS; symbol++)
            if (LENGTHS[symbol] == bits) by_code[place++] = symbol, code++;
    }
    first_place[CODE_BITS_MAX + 1] = place;
}

void huffman_decode(const uint8_t *at, size_t length, struct bytes *text) {
    make_tables();
    uint32_t code = 0;
    unsigned bits = 0;
    for (size_t bit = 0; bit < 8 * length; bit++) {
        code = code << 1 | (at[bit / 8] >> (7 - bit % 8) & 1u);
        bits++;
        if (bits > CODE_BITS_MAX) die("HPACK: no Huffman code");
        uint32_t of_length = (uint32_t)(first_place[bits + 1] - first_place[bits]);
        if (code - first_code[bits] >= of_length) continue;
        uint16_t symbol = by_code[first_place[bits] + code - first_code[bits]];
        if (symbol == END_OF_STRING) die("HPACK: the end of a string within it");
        *bytes_extend(text, 1) = (uint8_t)symbol;
        code = bits = 0;
    }
    if (bits > PADDING_BITS_MAX || code != (1u << bits) - 1) die("HPACK: wrong padding");
}
