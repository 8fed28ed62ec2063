/* Times in buckets that are at most 1.6 % wide. */
#pragma once
#include "common.h"

enum { HISTOGRAM_STEPS = 64, HISTOGRAM_BUCKETS = 59 * HISTOGRAM_STEPS };

struct histogram {
    uint64_t counts[HISTOGRAM_BUCKETS];
    uint64_t total, max_ns;
};

void histogram_add(struct histogram *histogram, uint64_t ns);
double histogram_us(const struct histogram *histogram, double quantile); /* upper edge of its bucket; 0 of none */
void histogram_print(const struct histogram *histogram);                 /* as members of a JSON object */
