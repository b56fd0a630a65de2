"""The configuration of a run: one frozen record, read from TOML or the command line and saved with the results."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from pathlib import Path
from typing import Any, Literal

from fedjax_poisson.federated.checkpoints import write_atomic
from fedjax_poisson.runs import config_checks
from fedjax_poisson.runs.recipes import recipe_for

_PUBLIC = ("heart", "thyroid", "xray", "pneumonia", "medmnist")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """The settings of a run: everything that decides the result or the guarantee, but not where results are written.

    Attributes:
      dataset: heart, thyroid or xray, which ship with the package; pneumonia, medmnist or covid, which need data; or module:name of a function of your
        own that returns `Sites`. Ignored when csv is given.
      data: file or folder of images, for pneumonia, medmnist and covid.
      image_size: side in pixels to which images of a folder are resized and at which the phantom (xray) is generated.
      validation: use of a file's official validation images: leave them out ("drop"), or add them to "train" or "test".
      clients: number of sites to split the training records into (Dirichlet over labels); default: the sites of the data.
      dirichlet_alpha: concentration of that split; small values give skewed sites.
      csv: path of your own table.
      label: label column of the table, or several yes/no columns separated by commas (a list in TOML) to learn them all.
      site: site column of the table.
      sites: the sites of a consortium, each of which keeps its own table and names no site in it (`deployment`).
      here: the one of them whose table csv is.
      patient: patient column of the table; makes the patient the privacy unit.
      positive: label value that counts as 1, or several separated by commas (a list in TOML); needed if it is not obvious.
      classes: the values of a label with several, separated by commas (a list in TOML); "other" collects undeclared ones, "from_data" takes those in the
        table (not covered by epsilon).
      label_bounds: public range of a label that is a number: LOW HIGH (a list of two numbers in TOML).
      categorical: public levels of text columns: a table column -> levels in TOML, "from_data" (not covered by epsilon), or "private" (released by a
        noisy histogram on the ledger).
      bounds: public ranges of numeric columns: a table column -> [low, high] in TOML, "from_data" (not covered by epsilon), or "private".
      fill: public values for missing numbers: a table column -> number in TOML; default: the middle of the declared range.
      missing: treatment of missing values: "impute", "indicate" (impute and add an indicator feature), "drop" the record, or "refuse".
      drop: columns to leave out, separated by commas (a list in TOML).
      delimiter: the character between fields; default: detected from the header.
      encoding: text encoding of the table, such as latin-1.
      test_fraction: share of each site's patients that is held out for testing.
      split_seed: seed of that split.
      sites_per_patient: the largest number of sites at which a patient may have records; each multiplies the step in the privacy account.
      min_site_records: sites with fewer records are merged into the site "other".
      epsilon: privacy budget for everything released, including standardisation.
      delta: delta of the budget.
      algorithm: fedsgd protects a record (or patient) and needs few sites; fedavg protects a whole site, and needs 50 of them (`runs.client_level`); or
        module:name of an `AlgorithmEntry` of your own, whose privacy is then its author's claim.
      mechanism: where the noise of the training sums comes from: poisson_embedding, skellam, single_channel (fedavg only), gaussian (in the clear only,
        aggregator plain), or module:name of a `MechanismEntry` of your own, whose privacy is then its author's claim. What is released once (ranges and
        levels, moments, private scores) always takes the Poisson embedding.
      recipe: what decides the settings of the training that are not given: "auto" derives them from public quantities where the model is linear and the
        data a table (`runs.training_recipe`), "fixed" takes constants, as for all other models.
      rounds: number of training releases.
      sampling_rate: probability that a privacy unit takes part in a round; below 1 accounted by Renyi curves.
      adjacency: "zero_out" or "replace_one".
      honest_senders: number of sites that do not collude with the server; default: all but one.
      clip_norm: L2 bound of one unit's gradient.
      coordinate_bound: bound on each coordinate of one unit's gradient.
      total_bound: clamp on each coordinate of one site's summed gradients.
      modulation: modulation depth r of the Poisson embeddings; default: the smallest from 0.05 to 0.3 that the samplers support.
      standardize: "global" or per-"site" means and standard deviations from one private sum, or public "bounds" only, without a release (images).
      standardize_share: share of the budget spent on means and standard deviations.
      standardize_norm: L2 bound of one unit's moment vector.
      largest_site: public bound on the training units of one site; sets the clamps on a site's sums. Default: inferred from the data, with a warning.
      training_units: public number of training units of all sites: it says what accuracy to expect, and scales the step if no moments are released, for
        which it is otherwise inferred from the data, with a warning.
      local_rate: step size of a client's own training (fedavg).
      local_epochs: passes of a client over its records in a round (fedavg).
      batch_size: records of one local step (fedavg); default: all of the client's.
      model: logistic or mlp for tables; for images scattering (a linear model on fixed wavelet features), cnn, small_resnet, resnet18 or
        resnet50 (group normalisation).
      width: width of the model: hidden layers of 2 width and width, channels width and 2 width, or channels of a residual network's stem;
        unused by scattering.
      optimizer: server optimiser, "sgd" or "adam".
      learning_rate: server step size on the estimated mean gradient.
      controller: what decides the noise of each round and when to stop, from past releases alone (`federated.controllers`): "schedule" gives rounds that weigh
        more in the averaged parameters less noise, at the same privacy, "constant" gives all the same, "settle" stops when the training has settled and
        leaves the rest of the budget, "risk" makes rounds cheaper where their sums show no signal. Default: schedule where every unit is in every round.
      momentum: server momentum (of sgd).
      average_share: share of the last rounds whose parameters are averaged; 0 for none.
      aggregator: how sums are encrypted: round (the protocol with a committee), tenseal, plain (not at all), or module:name of a backend of your own, whose
        protection is then its author's claim.
      members: committee of a round, 1 to 20 ("round").
      yardstick: whether to also train the same recipe without privacy and encryption, for comparison (not covered by epsilon).
        Default: only if the records are public.
      nonprivate_rate: step size of the yardstick without privacy (whose gradients are not clipped); default: learning_rate.
      ledger: file of a privacy ledger that several runs on the same data share; default: a separate ledger in the run's folder.
      ledger_epsilon: budget of the shared ledger for all runs together; needed when its file is created.
      public_data: whether the records themselves are public, so that exact facts about them may be shown. Default: true for data sets that ship
        with the package or are published (pneumonia, medmnist), false for your own.
      publish_site_sizes: whether the number of records at each site may be shown although the records are not public.
      evaluation: "clear" scores the model on held-out records in the clear (not covered by epsilon unless they are public), "private" by one release
        after training (two classes; on the ledger, with evaluation_share of the budget), "none" shows no score.
      subgroups: columns whose parts are scored by themselves in the report, separated by commas (a list in TOML): a yes/no column or one with levels by its
        name, a number as NAME>=NUMBER; for public records. Default: what the data set declares.
      evaluation_share: share of the budget spent on private scores.
      seed: None draws all randomness from the operating system; a number makes the run reproducible and not private.
    """

    dataset: str = "heart"
    data: str | None = None
    image_size: int = 64
    validation: Literal["drop", "train", "test"] = "drop"
    clients: int | None = None
    dirichlet_alpha: float = 0.5
    csv: str | None = None
    label: str | list[str] | None = None
    site: str | None = None
    sites: list[str] | None = None
    here: str | None = None
    patient: str | None = None
    positive: str | list[str] | None = None
    classes: str | list[str] | None = None
    label_bounds: list[float] | None = None
    categorical: Literal["from_data", "private"] | dict[str, list[str] | str] | None = None
    bounds: Literal["from_data", "private"] | dict[str, list[float] | str] | None = None
    fill: dict[str, float] | None = None
    missing: Literal["impute", "indicate", "drop", "refuse"] = "impute"
    drop: str | list[str] | None = None
    delimiter: str | None = None
    encoding: str = "utf-8-sig"
    test_fraction: float = 0.34
    split_seed: int = 0
    sites_per_patient: int = 1
    min_site_records: int = 20
    epsilon: float = 1.0
    delta: float = 1e-4
    algorithm: str = "fedsgd"
    mechanism: str = "poisson_embedding"
    recipe: Literal["auto", "fixed"] = "auto"
    rounds: int | None = None
    sampling_rate: float | None = None
    adjacency: Literal["zero_out", "replace_one"] = "zero_out"
    honest_senders: int | None = None
    clip_norm: float | None = None
    coordinate_bound: float | None = None
    total_bound: float | None = None
    modulation: float | None = None
    standardize: Literal["global", "site", "bounds"] = "global"
    standardize_share: float | None = None
    standardize_norm: float | None = None
    largest_site: int | None = None
    training_units: int | None = None
    local_rate: float | None = None
    local_epochs: int | None = None
    batch_size: int | None = None
    model: Literal["logistic", "mlp", "scattering", "cnn", "small_resnet", "resnet18", "resnet50"] = "logistic"
    width: int = 16
    optimizer: Literal["sgd", "adam"] = "sgd"
    learning_rate: float | None = None
    momentum: float | None = None
    average_share: float | None = None
    controller: str | None = None
    aggregator: str = "round"
    members: int = 5
    yardstick: bool | None = None
    nonprivate_rate: float | None = None
    ledger: str | None = None
    ledger_epsilon: float | None = None
    public_data: bool | None = None
    publish_site_sizes: bool = False
    evaluation: Literal["clear", "private", "none"] = "clear"
    subgroups: str | list[str] | None = None
    evaluation_share: float = 0.1
    seed: int | None = None

    def __post_init__(self) -> None:
        for name, value in config_checks.normalised(self).items():
            object.__setattr__(self, name, value)
        config_checks.check(self)


def records_are_public(config: Config) -> bool:
    """Whether exact facts about the records may be shown: if declared so, or for data sets that ship or are published."""
    if config.public_data is not None:
        return config.public_data
    return config.csv is None and config.dataset in _PUBLIC


def read_config(path: str | Path, **overrides: Any) -> Config:
    """Read a TOML file of `Config` fields; overrides win.

    A path of data in the file is relative to the file's folder; one in the overrides is relative to the current folder.

    Raises:
      OSError: the file cannot be read.
      ValueError: the file is not TOML, names an unknown field, or a value has the wrong type or range; the message lists the known fields.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give a TOML file of settings.")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error}); save it as UTF-8.") from error
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path} is not valid TOML: {error}. Correct it there, or restore the file.") from error
    known = [field.name for field in dataclasses.fields(Config)]
    for name in values:
        if name not in known:
            raise ValueError(f"{path} sets {name!r}, which is not a setting; settings are: {', '.join(known)}.")
    for name in ("csv", "data", "ledger"):
        if isinstance(values.get(name), str) and values[name]:
            values[name] = str(path.absolute().parent / Path(values[name]).expanduser())
    given = {**values, **{k: v for k, v in overrides.items() if v is not None}}
    return recipe(given.pop("dataset", "heart"), **given)


def recipe(dataset: str, **settings: Any) -> Config:
    """The settings of a data set's recipe (`recipes`), or of its recipe for the given model, with the given settings overriding it."""
    own = {} if "csv" in settings or not isinstance(dataset, str) else recipe_for(dataset, settings.get("model"))
    return Config(dataset=dataset, **{**own, **settings})


def write_config(config: Config, path: str | Path) -> None:
    """Write the settings as TOML, atomically."""
    write_atomic(Path(path), config_text(config).encode())


def config_text(config: Config, note: str = "") -> str:
    """The settings as TOML (settings that are None are left out: TOML has no null), with a note in a comment."""
    lines, tables = ["# fedjax-poisson run CONFIG.toml repeats this run"], []
    lines += [f"# {note}"] if note else []
    for name, value in dataclasses.asdict(config).items():
        if isinstance(value, dict):
            tables += [
                "",
                f"[{name}]",
                *(f"{json.dumps(column)} = {json.dumps(entry)}" for column, entry in value.items()),
            ]
        elif value is not None:
            lines.append(f"{name} = {json.dumps(value) if isinstance(value, str | bool) else repr(value)}")
    return "\n".join([*lines, *tables]) + "\n"
