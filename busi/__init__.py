"""Breast ultrasound segmentation on BUSI: a published study trained again, explained and asked anew.

Layers, highest first, of which each imports only from those after it: ``cli``, ``lab``, ``report``, ``mechanisms``,
``plan``, ``study``, ``results``, ``scoring`` and ``training``, ``selection``, ``runs``, ``model``, ``dataset``,
``display`` and ``published``, ``config``. Importing ``busi`` imports none of them, and no Keras backend.

Libraries that take long to import (Keras, scikit-learn, scikit-image) are imported inside the functions that need them,
so that readers of a finished report need not wait for them.
"""

import os

# TensorFlow writes its start-up messages to the file descriptor, past Python's logging, and they would land in
# notebook cells: the switch must be set before anything imports it. TensorFlow 2.21 writes a few lines all the same.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# TensorFlow switches oneDNN's convolutions on by itself only for processors with AVX512_VNNI or wider. With AVX2 alone,
# they make these networks train 1.5 to 2.2 times as fast (docs/training-plan.md).
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
