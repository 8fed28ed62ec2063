/* Who has been told of what: each number is expected so many times, and the last time is reported. */
#pragma once
#include "mark.h"

struct tally {
    uint32_t *left; /* by number */
    uint64_t count; /* of numbers, from 0 on */
    uint64_t found;
    void (*told)(uint64_t number); /* to the last */
};

void tally_open(struct tally *tally, uint64_t count, uint64_t each, void (*told)(uint64_t number));

/* A mark_found. A number that is unknown, or that is found more often than it was expected, ends the program. */
void tally_found(void *tally, uint64_t number);
