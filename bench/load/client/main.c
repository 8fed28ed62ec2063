/* Load for benchmarks: one thread drives a server of gRPC, or of NATS, as hard as it answers or at a rate.
 *
 *   load-client unary HOST PORT --path PATH ...    calls
 *   load-client fanout HOST PORT ...               one publisher, many subscribers
 *   load-client hold HOST PORT ...                 many connections that mostly wait
 *   load-client hpack BLOCK...                     decodes header blocks, in hexadecimal digits, one after the other
 *
 * Results are lines of JSON on standard output. Whatever is unforeseen ends it with 1 and a line on standard error.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hpack.h"
#include "modes.h"

static void print_header(void *context, const struct header *header) {
    (void)context;
    printf("%.*s: %.*s\n", (int)header->name_length, header->name, (int)header->value_length, header->value);
}

static void hpack(char **blocks) {
    struct hpack decoder;
    hpack_open(&decoder);
    for (; *blocks; blocks++) {
        struct bytes block = {0};
        for (const char *at = *blocks; at[0] && at[1]; at += 2)
            *bytes_extend(&block, 1) = (uint8_t)strtoul((char[]){at[0], at[1], 0}, NULL, 16);
        hpack_decode(&decoder, block.at, block.length, print_header, NULL);
        printf("table: %u entries, %zu bytes\n", decoder.count, decoder.bytes);
        bytes_free(&block);
    }
    hpack_close(&decoder);
}

int main(int count, char **words) {
    static const struct {
        const char *name;
        void (*run)(struct address address, char **words);
    } MODES[] = {{"unary", unary}, {"fanout", fanout}, {"hold", hold}};
    signal(SIGPIPE, SIG_IGN); /* a write that fails says why */
    if (count > 1 && strcmp(words[1], "hpack") == 0) {
        hpack(words + 2);
        return 0;
    }
    for (size_t mode = 0; count >= 4 && mode < sizeof MODES / sizeof *MODES; mode++) {
        if (strcmp(words[1], MODES[mode].name) != 0) continue;
        MODES[mode].run((struct address){.host = words[2], .port = words[3]}, words + 4);
        return fflush(stdout) == 0 ? 0 : 1;
    }
    die("usage: %s unary|fanout|hold HOST PORT [--option value]..., or hpack BLOCK...", words[0]);
}
