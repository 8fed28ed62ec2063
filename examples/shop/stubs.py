"""The shop's messages and stubs, compiled from shop.proto when this is imported (needs grpcio-tools)."""

import sys
from pathlib import Path
from typing import Any

import grpc

_HERE = Path(__file__).parent
if str(_HERE) not in sys.path:
    sys.path.append(str(_HERE))

messages: Any
services: Any
messages, services = grpc.protos_and_services("shop.proto")
