"""Training to be watched: step by step, nothing kept."""

from collections.abc import Iterator

from busi.config import RunConfig
from busi.dataset.catalog import Catalog
from busi.protocols import Heldout
from busi.training import batches, compiled


def training(config: RunConfig, data: Catalog) -> Iterator[dict[str, float]]:
    """Train the network of a held-out run on its fold, without a store.

    The steps are those of `busi.training.train`; training goes on to the last epoch, whatever the validation part says.

    Yields:
        After every step `step` (from 1), `epoch` (steps so far as a share of an epoch's, 1.0 at the end of the first)
        and `loss` of its batch; at the end of an epoch also `validation_dice`, as `Heldout.measured`.
    """
    protocol, model = Heldout(config, data), compiled(config)
    batch_size = min(config.batch_size, len(protocol.training))
    steps = len(protocol.training) // batch_size
    stream = iter(batches(protocol.training, config, batch_size, first_epoch=1))
    for step in range(1, config.epochs * steps + 1):
        model.reset_metrics()  # or the loss would be the mean over all steps so far
        row = {"step": step, "epoch": step / steps, "loss": float(model.train_on_batch(*next(stream)))}
        yield row if step % steps else row | protocol.measured(model)
