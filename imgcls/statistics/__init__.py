"""Statistics of an evaluation, from labels and probabilities alone: scores, their intervals, and comparisons."""
