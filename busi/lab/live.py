"""Training that can be watched step by step; nothing is stored."""

from collections.abc import Iterator

from busi.config import RunConfig
from busi.dataset.catalog import Catalog
from busi.dataset.parts import load_parts
from busi.training import averaged_weights, compile_network, measure_validation, plan_steps, stream_batches


def training(config: RunConfig, catalog: Catalog) -> Iterator[dict[str, float]]:
    """Train the network of a held-out run on its fold, without a store.

    The steps are those of `busi.training.train`, but training goes on to the last epoch: it does not stop early.

    Yields:
        After every step: `step` (from 1), `epoch` (steps so far divided by the steps of an epoch; 1.0 at the end of
        the first epoch) and `loss` of the step's batch. At the end of an epoch also `validation_dice`, as in the
        history of a run.
    """
    parts = load_parts(config, catalog)
    batch_size, steps = plan_steps(config, len(parts.training))
    model = compile_network(config, planned_steps=steps * config.epochs)
    batches = iter(stream_batches(parts.training, config, batch_size, first_epoch=1))
    for step in range(1, config.epochs * steps + 1):
        images, targets = next(batches)
        # Otherwise the loss would be the mean over all steps so far.
        model.reset_metrics()
        loss = model.train_on_batch(images, targets)
        row = {"step": step, "epoch": step / steps, "loss": float(loss)}
        if step % steps == 0:
            with averaged_weights(model):
                row |= measure_validation(model, parts.validation, config.batch_size)
        yield row
