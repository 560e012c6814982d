"""Outlines of a group whose variants were trained on more than one machine."""

import pandas as pd

from busi import config, results, study

NAME = "heldout/loss"


def add_runs_of_another_machine(parameters, store, variant):
    """Add KLD's scores to the gathered results once more, as those of a variant whose networks are not here."""
    gathered = results.read_results(parameters, NAME).of("KLD")
    configs = study.find_group(parameters, NAME).variants[variant]
    described = {"run": [run.label for run in configs], "name": configs[0].name}
    described["key"] = [store.key(run) for run in configs]
    described["config"] = [run.model_dump_json() for run in configs]
    labels = dict(zip(gathered.runs.run, described["run"], strict=True))
    tables = {name: table.assign(variant=variant, run=table.run.map(labels)) for name, table in gathered.tables.items()}
    tables["runs"] = gathered.runs.assign(variant=variant, **described)
    results.write_results(parameters, NAME, results.join_results([gathered, results.Results(**tables)]))


def test_a_variant_trained_elsewhere_keeps_the_outlines_that_were_traced_there(laboratory):
    loss = config.read_family("loss", laboratory.parameters).model_copy(update={"report": "outlines"})
    variants = loss.heldout_variants
    parameters = loss.model_copy(update={"heldout_variants": {"KLD": variants["KLD"]}})
    here = study.measure_outlines(parameters, NAME)
    assert set(here.variant) == {"KLD"}
    parameters = loss.model_copy(update={"heldout_variants": {name: variants[name] for name in ("KLD", "BCE")}})
    add_runs_of_another_machine(parameters, study.open_store(parameters, laboratory.catalog), "BCE")
    # Nothing has come from there yet.
    pd.testing.assert_frame_equal(study.measure_outlines(parameters, NAME), here)
    [traced] = (parameters.results_path / "outlines" / "heldout").glob("*.csv")
    file = traced.with_name(f"{study.find_group(parameters, NAME).variants['BCE'][0].name}.csv")
    there = traced.read_text(encoding="utf-8").replace("made by", "made there by")
    file.write_text(there, encoding="utf-8")
    both = study.measure_outlines(parameters, NAME)
    assert both.variant.drop_duplicates().tolist() == ["KLD", "BCE"]
    for _, own in both.groupby("variant"):
        pd.testing.assert_frame_equal(own.drop(columns="variant").reset_index(drop=True), here.drop(columns="variant"))
    assert file.read_text(encoding="utf-8") == there
