/* The commands of the program. Each gets the address of a server and the words behind it. */
#pragma once
#include "wire.h"

void unary(struct address address, char **words);
void fanout(struct address address, char **words);
void hold(struct address address, char **words);
