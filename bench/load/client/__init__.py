"""The client that makes the load: a program in C, so that what is measured is the server and not its client.

It speaks gRPC over HTTP/2 frames of its own, and NATS' protocol, in one thread over epoll; any server of either is driven
in the same way. `build` compiles it, `program` runs it on the load's core, and a module for each of its commands says in
Python what to ask and what came of it.
"""
