/* Command lines: HOST PORT --name value ... */
#pragma once
#include <stdbool.h>

#include "common.h"

enum option_kind { TEXT, COUNT, NUMBER, FLAG };

struct option {
    const char *name;
    enum option_kind kind;
    void *where; /* const char *, uint64_t, double or bool; it holds what is taken without the option */
};

/* Every word must be understood. `options` ends with a name of NULL. */
void options_read(char **words, const struct option *options);
