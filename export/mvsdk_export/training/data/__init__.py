"""What training reads: sources, sprites, captions, clips, and banks of them."""
