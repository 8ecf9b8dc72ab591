"""From brush strokes to probabilities: the teacher."""
