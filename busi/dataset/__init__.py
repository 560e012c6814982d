"""Data of the study: image folders that are read and verified, phantom images, splits, and arrays for training."""
