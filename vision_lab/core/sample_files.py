"""Files of a run with the losses of its samples: what callbacks write and comparisons read.

Does not import torch.
"""

LOSSES_FILENAME = "sample_losses.csv"
"""A row for each sample, the highest losses first."""

THUMBNAILS_FILENAME = "images/high_losses.jpg"
"""The images of the first rows, as squares in rows."""

NUM_THUMBNAILS = 100
"""Maximum number of images that are drawn."""

THUMBNAIL_COLUMNS = 10
"""Number of images in a row."""
