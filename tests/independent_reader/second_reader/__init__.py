"""A reader of the mvbundle format, version 3, written from its text and golden files alone."""
