#include "tally.h"

void tally_open(struct tally *tally, uint64_t count, uint64_t each, void (*told)(uint64_t number)) {
    if (each == 0 || each > UINT32_MAX) die("each number is expected %lu times", each);
    *tally = (struct tally){.left = allocated(count, sizeof *tally->left), .count = count, .told = told};
    for (uint64_t number = 0; number < count; number++) tally->left[number] = (uint32_t)each;
}

void tally_found(void *context, uint64_t number) {
    struct tally *tally = context;
    if (number >= tally->count) die("what arrives has the number %lu, and there are %lu", number, tally->count);
    if (tally->left[number] == 0) die("number %lu arrives too often", number);
    tally->found++;
    if (--tally->left[number] == 0) tally->told(number);
}
