/* One thread, one epoll: sources say that they are ready, and what was written in a turn goes out at its end. */
#pragma once
#include <stdbool.h>

#include "common.h"

struct source {
    int fd;
    void (*ready)(struct source *source, uint32_t events);
};

struct wire;

struct loop {
    int epoll;
    struct wire *written; /* those with bytes of this turn */
    uint64_t deadline_ns; /* a turn that begins later gives up */
    bool hurries;         /* somebody has more to write in the next turn: do not wait for events */
};

void loop_open(struct loop *loop, double within_s);
void loop_add(struct loop *loop, struct source *source);
void loop_want(struct loop *loop, struct source *source, uint32_t events);
void loop_turn(struct loop *loop);

/* A clock that calls once. It has the resolution of the kernel's timers, which epoll's own timeout has not. */
struct alarm {
    struct source source;
    void (*rings)(struct alarm *alarm);
};

void alarm_open(struct alarm *alarm, struct loop *loop, void (*rings)(struct alarm *alarm));
void alarm_at(struct alarm *alarm, uint64_t ns);

/* A rate: which of its numbers are due, and when each was. */
struct pace {
    uint64_t began_ns;
    double rate; /* a second */
    uint64_t next;
};

static inline uint64_t pace_due_ns(const struct pace *pace) {
    return pace->began_ns + (uint64_t)((double)pace->next * 1e9 / pace->rate);
}
