"""Network, losses, metrics and optimizers. Everything is written in Keras 3 and runs on any of its backends."""
