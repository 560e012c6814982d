"""What predictions are worth: scores, the floors that a blind predictor reaches, intervals and tests."""

SCORING = ("metrics", "predictors")
"""The modules that decide what an untrained predictor scores: where they change, it is scored again."""
