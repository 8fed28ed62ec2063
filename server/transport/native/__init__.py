"""A gRPC server over libnghttp2 on the event loop, for the servicers that grpc.aio would serve."""
