"""The teacher: brush strokes to probability maps, by a random forest."""
