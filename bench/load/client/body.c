#include "body.h"

#include <string.h>

#include "mark.h"

struct places {
    size_t *at;
    size_t count;
};

static struct places places_of(struct record body, const char *placeholder) {
    struct places places = {.at = allocated(body.length / NUMBER_DIGITS + 1, sizeof *places.at)};
    for (size_t at = 0; at < body.length;) {
        const uint8_t *found = memmem(body.at + at, body.length - at, placeholder, NUMBER_DIGITS);
        if (found == NULL) break;
        places.at[places.count] = (size_t)(found - body.at);
        at = places.at[places.count++] + NUMBER_DIGITS;
    }
    return places;
}

struct bodies bodies_read(const char *path, const char *placeholder) {
    if (strlen(placeholder) != NUMBER_DIGITS) die("a placeholder has %d characters", NUMBER_DIGITS);
    struct bodies bodies = {.templates = records_read(path)};
    bodies.places = allocated(bodies.templates.count, sizeof *bodies.places);
    for (uint64_t at = 0; at < bodies.templates.count; at++)
        bodies.places[at] = places_of(bodies.templates.all[at], placeholder);
    return bodies;
}

struct record body_numbered(struct bodies *bodies, uint64_t number) {
    struct record body = bodies->templates.all[number % bodies->templates.count];
    const struct places *places = &bodies->places[number % bodies->templates.count];
    uint8_t digits[NUMBER_DIGITS];
    if (places->count) write_number(digits, number);
    for (size_t place = 0; place < places->count; place++) memcpy(body.at + places->at[place], digits, NUMBER_DIGITS);
    return body;
}
