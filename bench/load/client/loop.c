#include "loop.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "wire.h"

enum { EVENTS_MAX = 256, LOOK_AT_DEADLINE_MS = 500 };

void loop_open(struct loop *loop, double within_s) {
    *loop = (struct loop){.epoll = epoll_create1(EPOLL_CLOEXEC)};
    if (loop->epoll < 0) die("no epoll");
    loop->deadline_ns = now_ns() + (uint64_t)(within_s * 1e9);
}

static void control(struct loop *loop, int how, struct source *source, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = source};
    if (epoll_ctl(loop->epoll, how, source->fd, &event) != 0) die("epoll refuses a descriptor");
}

void loop_add(struct loop *loop, struct source *source) { control(loop, EPOLL_CTL_ADD, source, EPOLLIN); }

void loop_want(struct loop *loop, struct source *source, uint32_t events) {
    control(loop, EPOLL_CTL_MOD, source, events);
}

void loop_turn(struct loop *loop) {
    struct epoll_event events[EVENTS_MAX];
    wires_flush(loop); /* what was written between two turns */
    int count = epoll_wait(loop->epoll, events, EVENTS_MAX, loop->hurries ? 0 : LOOK_AT_DEADLINE_MS);
    if (count < 0 && errno != EINTR) die("epoll fails");
    for (int at = 0; at < count; at++) {
        struct source *source = events[at].data.ptr;
        source->ready(source, events[at].events);
    }
    wires_flush(loop);
    if (now_ns() > loop->deadline_ns) die("it took too long");
}

static void alarm_ready(struct source *source, uint32_t events) {
    (void)events;
    uint64_t times;
    if (read(source->fd, &times, sizeof times) != sizeof times) return; /* set anew meanwhile */
    struct alarm *alarm = (struct alarm *)source;
    alarm->rings(alarm);
}

void alarm_open(struct alarm *alarm, struct loop *loop, void (*rings)(struct alarm *alarm)) {
    alarm->source =
        (struct source){.fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC), .ready = alarm_ready};
    alarm->rings = rings;
    if (alarm->source.fd < 0) die("no timer");
    loop_add(loop, &alarm->source);
}

void alarm_at(struct alarm *alarm, uint64_t ns) {
    struct itimerspec when = {.it_value = {.tv_sec = (time_t)(ns / NS_PER_S), .tv_nsec = (long)(ns % NS_PER_S)}};
    if (timerfd_settime(alarm->source.fd, TFD_TIMER_ABSTIME, &when, NULL) != 0) die("no timer");
}
