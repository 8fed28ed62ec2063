#include "histogram.h"

#include <stdio.h>

/* Below 64 ns a bucket holds one value; above, each power of two is cut into 64 equal ones. */
static unsigned bucket_of(uint64_t ns) {
    if (ns < HISTOGRAM_STEPS) return (unsigned)ns;
    unsigned power = 63u - (unsigned)__builtin_clzll(ns) - 6;
    return (power + 1) * HISTOGRAM_STEPS + (unsigned)((ns >> power) - HISTOGRAM_STEPS);
}

static uint64_t upper_edge(unsigned bucket) {
    if (bucket < HISTOGRAM_STEPS) return bucket;
    unsigned power = bucket / HISTOGRAM_STEPS - 1;
    return ((uint64_t)(bucket % HISTOGRAM_STEPS + HISTOGRAM_STEPS + 1) << power) - 1;
}

void histogram_add(struct histogram *histogram, uint64_t ns) {
    histogram->counts[bucket_of(ns)]++;
    histogram->total++;
    if (ns > histogram->max_ns) histogram->max_ns = ns;
}

double histogram_us(const struct histogram *histogram, double quantile) {
    double wanted = quantile * (double)histogram->total;
    uint64_t seen = 0;
    for (unsigned bucket = 0; bucket < HISTOGRAM_BUCKETS; bucket++) {
        seen += histogram->counts[bucket];
        if (histogram->counts[bucket] && (double)seen >= wanted) {
            uint64_t edge = upper_edge(bucket);
            return (double)(edge < histogram->max_ns ? edge : histogram->max_ns) / 1e3;
        }
    }
    return 0;
}

void histogram_print(const struct histogram *histogram) {
    printf("\"p50_us\": %.3f, \"p99_us\": %.3f, \"max_us\": %.3f", histogram_us(histogram, 0.5),
           histogram_us(histogram, 0.99), (double)histogram->max_ns / 1e3);
}
