"""Events over HTTP: the CloudEvents HTTP binding, in front of the same path that gRPC's Publish takes."""
