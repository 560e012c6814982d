"""Scores of networks and of predictors that need no training, with intervals and tests. Nothing here needs Keras."""
