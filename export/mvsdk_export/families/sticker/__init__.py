"""sticker: animated stickers from a text prompt."""
