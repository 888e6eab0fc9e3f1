"""The protocol's messages: `.proto` files with the published names and numbers, and what protoc makes of them.

To regenerate, in the repository's root, with grpcio-tools 1.62.3 (protoc 25.1) in an environment of its own::

    python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. flight_sql/proto/*.proto

The code of that compiler works with every protobuf from 4.25; a newer compiler ties its code to two major versions
of the library.
"""
