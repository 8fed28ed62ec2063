/* Counts marks in what arrives: a mark is a fixed text and 16 hexadecimal digits behind it, the number of what bears
   it. A mark is found however the pieces are cut, and each is found once. */
#pragma once
#include "common.h"

enum { MARK_TEXT_MAX = 32, NUMBER_DIGITS = 16 };

struct mark {
    char text[MARK_TEXT_MAX];
    size_t length;
};

/* Of one connection: what may be the beginning of a mark. */
struct scan {
    uint8_t kept[MARK_TEXT_MAX + NUMBER_DIGITS];
    size_t length;
};

typedef void mark_found(void *context, uint64_t number);

struct mark mark_of(const char *text);
void scan_feed(struct scan *scan, const struct mark *mark, const uint8_t *at, size_t count, mark_found *found,
               void *context);

void write_number(uint8_t *to, uint64_t number);
