/* Requests that are sent many times: templates in which every placeholder is overwritten with the running number.
   Several take turns. */
#pragma once
#include "records.h"

struct bodies {
    struct records templates;
    struct places *places; /* of the placeholders of each */
};

/* `placeholder` has as many characters as a number has digits. */
struct bodies bodies_read(const char *path, const char *placeholder);

/* The one whose turn it is, with this number in it. Its bytes are good until the next call. */
struct record body_numbered(struct bodies *bodies, uint64_t number);
