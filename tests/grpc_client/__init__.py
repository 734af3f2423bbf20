"""A client of the gRPC surface in another language, and tests that use it."""
