"""The toolchain: networks, training, quantisation, lowering and verification."""
