/* A file of records: a length in four bytes and as many bytes, again and again. */
#pragma once
#include "common.h"

struct record {
    uint8_t *at;
    size_t length;
};

struct records {
    struct bytes bytes;
    struct record *all;
    uint64_t count;
};

struct records records_read(const char *path);
void records_free(struct records *records);
