"""Tools to use and explore networks: prediction, evaluation, export, galleries, small trainings to watch, widgets."""
