"""The shop's messages and stubs, compiled from shop.proto when this is imported (needs grpcio-tools)."""

import sys
from pathlib import Path

import grpc

_HERE = Path(__file__).parent
if str(_HERE) not in sys.path:
    sys.path.append(str(_HERE))

messages, services = grpc.protos_and_services("shop.proto")
