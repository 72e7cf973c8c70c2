"""The signatures of images, and whether they are trusted."""
