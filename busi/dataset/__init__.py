"""Data of the study: folders of PNG files, read and verified, phantoms, splits, and arrays ready for training."""
