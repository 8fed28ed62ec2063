#include "mark.h"

#include <string.h>

struct mark mark_of(const char *text) {
    struct mark mark = {.length = strlen(text)};
    if (mark.length == 0 || mark.length > MARK_TEXT_MAX) die("a mark has 1 to %d characters", MARK_TEXT_MAX);
    memcpy(mark.text, text, mark.length);
    return mark;
}

void write_number(uint8_t *to, uint64_t number) {
    for (int digit = NUMBER_DIGITS - 1; digit >= 0; digit--, number >>= 4)
        to[digit] = (uint8_t)"0123456789abcdef"[number & 15];
}

static uint64_t read_number(const uint8_t *at) {
    uint64_t number = 0;
    for (int digit = 0; digit < NUMBER_DIGITS; digit++) {
        uint8_t one = at[digit];
        unsigned value = one >= '0' && one <= '9' ? one - '0' + 0u : one >= 'a' && one <= 'f' ? one - 'a' + 10u : 16;
        if (value == 16) die("no number behind a mark: '%.16s'", (const char *)at);
        number = number << 4 | value;
    }
    return number;
}

/* Report the whole marks; how many bytes at the end may be the beginning of one. */
static size_t scan_piece(const struct mark *mark, const uint8_t *at, size_t count, mark_found *found, void *context) {
    const uint8_t *end = at + count;
    while (at < end && (at = memchr(at, mark->text[0], (size_t)(end - at))) != NULL) {
        size_t left = (size_t)(end - at);
        size_t known = left < mark->length ? left : mark->length;
        if (memcmp(at, mark->text, known) != 0) {
            at++;
            continue;
        }
        if (left < mark->length + NUMBER_DIGITS) return left;
        found(context, read_number(at + mark->length));
        at += mark->length + NUMBER_DIGITS;
    }
    return 0;
}

void scan_feed(struct scan *scan, const struct mark *mark, const uint8_t *at, size_t count, mark_found *found,
               void *context) {
    while (scan->length && count) { /* at most as long as a mark */
        scan->kept[scan->length++] = *at++;
        count--;
        size_t rest = scan_piece(mark, scan->kept, scan->length, found, context);
        memmove(scan->kept, scan->kept + scan->length - rest, rest);
        scan->length = rest;
    }
    if (scan->length) return;
    scan->length = scan_piece(mark, at, count, found, context);
    memcpy(scan->kept, at + count - scan->length, scan->length);
}
