"""Starts the gRPC server and carries bytes; knows no service."""
