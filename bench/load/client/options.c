#include "options.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void take(const struct option *option, const char *value) {
    char *end = "";
    errno = 0;
    if (option->kind == TEXT) *(const char **)option->where = value;
    if (option->kind == COUNT) *(uint64_t *)option->where = strtoull(value, &end, 10);
    if (option->kind == NUMBER) *(double *)option->where = strtod(value, &end);
    if (*end || errno || *value == '-') die("%s is given '%s'", option->name, value);
}

void options_read(char **words, const struct option *options) {
    for (; *words; words++) {
        const struct option *option = options;
        while (option->name && strcmp(option->name, *words) != 0) option++;
        if (option->name == NULL) die("unknown: %s", *words);
        if (option->kind == FLAG) {
            *(bool *)option->where = true;
            continue;
        }
        if (*++words == NULL) die("%s needs a value", option->name);
        take(option, *words);
    }
}
