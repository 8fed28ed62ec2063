#include "records.h"

#include <stdlib.h>

enum { LENGTH_BYTES = 4 };

struct records records_read(const char *path) {
    struct records records = {.bytes = bytes_of_file(path)};
    uint8_t *at = records.bytes.at;
    size_t left = records.bytes.length;
    records.all = allocated(left / LENGTH_BYTES + 1, sizeof *records.all);
    while (left) {
        if (left < LENGTH_BYTES || read_u32(at) > left - LENGTH_BYTES) die("%s: a record does not end", path);
        struct record record = {at + LENGTH_BYTES, read_u32(at)};
        records.all[records.count++] = record;
        at = record.at + record.length;
        left -= LENGTH_BYTES + record.length;
    }
    if (records.count == 0) die("%s: no record", path);
    return records;
}

void records_free(struct records *records) {
    free(records->all);
    bytes_free(&records->bytes);
}
