"""NPU-first networks: frames ride in the batch axis and every tensor has rank <= 4."""
