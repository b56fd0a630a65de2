"""The configuration of a run: one frozen record, read from TOML or the command line, written back beside the results."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from pathlib import Path
from typing import Any, Literal

from fedjax_poisson.experiment.checkpoint import write_atomic
from fedjax_poisson.experiment.recipes import recipe_for

_PUBLIC = ("heart", "thyroid", "xray", "pneumonia", "medmnist")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """What a run is. Everything that decides the result or the guarantee is here; where results go is not.

    Attributes:
      dataset: heart, thyroid or xray, which ship; pneumonia, medmnist or covid, which need data. Ignored when csv is given.
      data: file or folder of pictures, for pneumonia, medmnist and covid.
      image_size: side in pixels that pictures of a folder are resized to and the phantom (xray) is made at.
      validation: what becomes of a file's official validation pictures: left out ("drop"), or joined to "train" or "test".
      clients: number of sites to deal the training records to (Dirichlet over labels); default: the sites of the data.
      dirichlet_alpha: concentration of that deal; small is skewed.
      csv: path of a user's own table.
      label: label column of the table.
      site: site column of the table.
      patient: patient column of the table; makes the patient the privacy unit.
      positive: label value that counts as 1, or several separated by commas; needed where it is not obvious.
      categorical: public levels of text columns: a table column -> levels in TOML, or "from_data" (not covered by epsilon).
      bounds: public ranges of numeric columns: a table column -> [low, high] in TOML, or "from_data" (not covered by epsilon).
      drop: columns to leave out, separated by commas.
      min_site_records: a site with fewer records joins the site "other".
      epsilon: privacy budget for everything released, standardisation included.
      delta: delta of the budget.
      rounds: number of training releases.
      sampling_rate: chance of each privacy unit to be in a round.
      adjacency: "zero_out" or "replace_one".
      honest_senders: sites that do not collude with the server; default all but one.
      clip_norm: L2 bound of one unit's gradient.
      coordinate_bound: bound on each coordinate of one unit's gradient.
      modulation: modulation depth r of the Poisson embedding; default: the smallest from 0.05 to 0.3 that the samplers can serve.
      standardize: "global" or "site" means and deviations by one private sum, or public "bounds" only and no release (pictures).
      standardize_share: share of the budget (of its Renyi curve) spent on means and standard deviations.
      standardize_norm: L2 bound of one unit's moment vector.
      largest_site: public bound on the training units of one site; sets the clamps on a site's sums. Default: taken from the data, said.
      training_units: public number of training units of all sites, which scales the step where no moments are released. Default: taken
        from the data, said.
      model: logistic or mlp for tables; for pictures scattering (a linear model on fixed wavelet features), cnn, small_resnet, resnet18 or
        resnet50 (group normalisation).
      width: width of the model: hidden layers 2 width and width, channels width and 2 width, or channels of a residual network's stem;
        scattering has none.
      optimizer: server optimiser, "sgd" or "adam".
      learning_rate: server step size on the estimated mean gradient.
      momentum: server momentum (of sgd).
      average_share: share of the last rounds whose parameters are averaged; 0 for none.
      aggregator: encryption backend, "device", "tenseal" or "plain".
      yardstick: whether to train the same recipe without privacy and encryption beside the run, to compare with (not covered by epsilon).
        Default: only where the records are public.
      nonprivate_rate: step size of the yardstick without privacy (whose gradients are not clipped); default: learning_rate.
      ledger: file of a privacy ledger that several runs on the same data share; default: a ledger of the run's own in its folder.
      ledger_epsilon: budget of the shared ledger for all runs together; needed when its file is made.
      public_data: whether the records themselves are public, so that exact facts about them may be shown. Default: true for data sets that ship
        with the package or are published (pneumonia, medmnist), false for your own.
      publish_site_sizes: whether the numbers of records of each site may be shown although the records are not public.
      evaluation: "clear" scores the model on held-out records in the clear (not covered by epsilon unless they are public), "private" by one release
        after training (two classes; on the ledger, with evaluation_share of the budget), "none" shows no score.
      evaluation_share: share of the budget (of its Renyi curve) spent on private scores.
      seed: None draws all randomness from the operating system; a number makes the run reproducible and not private.
    """

    dataset: str = "heart"
    data: str | None = None
    image_size: int = 64
    validation: Literal["drop", "train", "test"] = "drop"
    clients: int | None = None
    dirichlet_alpha: float = 0.5
    csv: str | None = None
    label: str | None = None
    site: str | None = None
    patient: str | None = None
    positive: str | None = None
    categorical: str | dict[str, list[str]] | None = None
    bounds: str | dict[str, list[float]] | None = None
    drop: str | None = None
    min_site_records: int = 20
    epsilon: float = 1.0
    delta: float = 1e-4
    rounds: int = 20
    sampling_rate: float = 0.5
    adjacency: Literal["zero_out", "replace_one"] = "zero_out"
    honest_senders: int | None = None
    clip_norm: float = 1.0
    coordinate_bound: float = 0.6
    modulation: float | None = None
    standardize: Literal["global", "site", "bounds"] = "global"
    standardize_share: float = 0.25
    standardize_norm: float = 3.0
    largest_site: int | None = None
    training_units: int | None = None
    model: Literal["logistic", "mlp", "scattering", "cnn", "small_resnet", "resnet18", "resnet50"] = "logistic"
    width: int = 16
    optimizer: Literal["sgd", "adam"] = "sgd"
    learning_rate: float = 0.3
    momentum: float = 0.8
    average_share: float = 0.5
    aggregator: Literal["device", "tenseal", "plain"] = "device"
    yardstick: bool | None = None
    nonprivate_rate: float | None = None
    ledger: str | None = None
    ledger_epsilon: float | None = None
    public_data: bool | None = None
    publish_site_sizes: bool = False
    evaluation: Literal["clear", "private", "none"] = "clear"
    evaluation_share: float = 0.1
    seed: int | None = None

    def __post_init__(self) -> None:
        for name, low, high in (
            ("standardize_share", 0, 1),
            ("evaluation_share", 0, 1),
            ("average_share", 0, 1),
            ("momentum", 0, 1),
            ("delta", 0, 1),
        ):
            value = getattr(self, name)
            inside = (
                low < value < high
                if name in ("standardize_share", "evaluation_share", "delta")
                else low <= value <= high
            )
            if not inside:
                raise ValueError(f"{name}={value} must lie between {low} and {high}.")
        if self.ledger_epsilon is not None and self.ledger is None:
            raise ValueError("ledger_epsilon is the budget of a shared ledger; name its file with --ledger FILE.")
        for name in ("epsilon", "learning_rate", "nonprivate_rate", "dirichlet_alpha", "ledger_epsilon"):
            if (value := getattr(self, name)) is not None and value <= 0:
                raise ValueError(f"{name}={value} must be positive.")
        for name, least in (("rounds", 1), ("width", 1), ("clients", 2), ("training_units", 1), ("largest_site", 1)):
            if (value := getattr(self, name)) is not None and value < least:
                raise ValueError(f"{name}={value} must be at least {least}.")
        if self.csv is not None and (self.label is None or self.site is None):
            raise ValueError(
                "A table of your own needs its label and site columns: --csv FILE --label COLUMN --site COLUMN."
            )
        if self.csv is not None and self.data is not None:
            raise ValueError("--csv is a table and --data is pictures: a run has one of them.")
        if self.csv is None:
            only_tables = ("label", "site", "patient", "positive", "categorical", "bounds", "drop")
            given = [name for name in only_tables if getattr(self, name) is not None]
            if given:
                raise ValueError(f"{', '.join(given)} describe a table of your own; give the table with --csv FILE.")
        for column, pair in self.bounds.items() if isinstance(self.bounds, dict) else ():
            if isinstance(pair, str) or len(pair) != 2:
                raise ValueError(
                    f"[bounds] {column} = {pair!r}: give two numbers, [low, high], or leave the column out."
                )
        for name in ("categorical", "bounds"):
            if isinstance(value := getattr(self, name), str) and value != "from_data":
                raise ValueError(
                    f'{name}={value!r}: give "from_data", or a table [{name}] in a TOML file: column = [...].'
                )


def records_are_public(config: Config) -> bool:
    """Whether exact facts about the records may be shown: declared, or a data set that ships or is published."""
    if config.public_data is not None:
        return config.public_data
    return config.csv is None and config.dataset in _PUBLIC


def read_config(path: str | Path, **overrides: Any) -> Config:
    """Read a TOML file of `Config` fields; overrides win.

    Raises:
      ValueError: the file is not TOML, names an unknown field, or a value has the wrong type; the message lists what exists.
    """
    path = Path(path)
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path} is not valid TOML: {error}") from error
    known = {field.name: field for field in dataclasses.fields(Config)}
    for name, value in values.items():
        if name not in known:
            raise ValueError(f"{path} sets {name!r}, which is no setting; settings are: {', '.join(known)}.")
        wanted = str(known[name].type)
        if isinstance(value, int) and not isinstance(value, bool) and "float" in wanted:
            values[name] = float(value)
        elif not _matches(value, wanted):
            raise ValueError(f"{path} sets {name} = {value!r}; expected {wanted}.")
    given = {**values, **{k: v for k, v in overrides.items() if v is not None}}
    return recipe(given.pop("dataset", "heart"), **given)


def recipe(dataset: str, **settings: Any) -> Config:
    """The settings of a data set's own recipe (`recipes`), or of its recipe for the model that is given, changed by what is given."""
    own = {} if "csv" in settings else recipe_for(dataset, settings.get("model"))
    return Config(dataset=dataset, **{**own, **settings})


def write_config(config: Config, path: str | Path) -> None:
    """Write the settings as TOML, whole or not at all."""
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


def _matches(value: Any, wanted: str) -> bool:
    if isinstance(value, dict):
        return "dict" in wanted
    if "Literal" in wanted or wanted.startswith("str"):
        return isinstance(value, str) and ("Literal" not in wanted or f"'{value}'" in wanted.replace('"', "'"))
    if wanted.startswith("bool"):
        return isinstance(value, bool)
    if wanted.startswith("int"):
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, float)
