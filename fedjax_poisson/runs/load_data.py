"""The data that a configuration names, as `Sites`: a data set that ships, a table, a MedMNIST file, or a file or folder of chest X-rays."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path
from typing import Any

from fedjax_poisson import data
from fedjax_poisson.data.tables.open_table import OpenTable, read_open
from fedjax_poisson.extensions import find, is_path
from fedjax_poisson.runs.config import Config, records_are_public

_NEED_DATA = {
    "pneumonia": "PneumoniaMNIST of MedMNIST v2, https://zenodo.org/records/10519652, as pneumoniamnist.npz",
    "medmnist": "a 2D data set of MedMNIST v2, https://zenodo.org/records/10519652, as FLAG.npz or FLAG_64.npz",
    "covid": "an .npz with images, labels, source, patient and classes, or the folder of the COVID-19 Radiography Database, of COVIDx, of "
    "COVID-QU-Ex, or of class folders (root/[site/]class/*.png)",
}
_COVID_CLASSES = ("no_finding", "covid19")


def load_sites(config: Config) -> data.Sites:
    """The data a configuration names, split among its clients if it asks for some.

    Raises:
      FileNotFoundError: there is no such file or folder; the message says what is expected and where to get it.
      ValueError: the data does not hold what it should; the message names file and row.
    """
    sites = _source_by_name(_table(config) if config.csv is not None else _named(config), config.csv or config.data)
    if config.sites is not None and sites.only is None:
        sites = data.among_sites(sites, data.OneSite(str(config.here), tuple(config.sites)))
    if config.clients is None:
        return sites
    if len(sites.site_names) > 1:
        raise ValueError(
            f"--clients {config.clients} would split the records of {sites.provenance.name} again, but it already has {len(sites.site_names)} sites; "
            "leave --clients out."
        )
    return data.dirichlet(sites, config.clients, config.dirichlet_alpha)


def _source_by_name(sites: data.Sites, path: str | None) -> data.Sites:
    """The data with its file's or folder's name as source: its location on somebody's machine does not belong in a report."""
    if path is None or path not in sites.provenance.source:
        return sites
    source = sites.provenance.source.replace(path, Path(path).name)
    return dataclasses.replace(sites, provenance=dataclasses.replace(sites.provenance, source=source))


def _named(config: Config) -> data.Sites:
    if is_path(config.dataset):
        return _foreign(config)
    if config.dataset not in _NEED_DATA:
        if config.data is not None:
            raise ValueError(
                f"{config.dataset!r} ships with the package and reads no data={config.data!r}; data is for: {', '.join(_NEED_DATA)}."
            )
        options = {"size": config.image_size, "patients": 600} if config.dataset == "xray" else {}
        try:
            return data.load(config.dataset, **options)
        except ValueError as error:
            if config.dataset in data.registry.LOADERS:
                raise
            raise ValueError(f"{error}. With --data FILE there are also: {', '.join(_NEED_DATA)}.") from error
    if config.data is None:
        raise ValueError(f"{config.dataset} is not shipped: give --data PATH, {_NEED_DATA[config.dataset]}.")
    path = Path(config.data)
    if config.dataset == "covid":
        return _covid(path, config.image_size, config.sites_per_patient)
    flag = "pneumoniamnist" if config.dataset == "pneumonia" else None
    return data.from_medmnist(path, flag=flag, validation=config.validation)


def _foreign(config: Config) -> data.Sites:
    """The data that a function of the user's own returns; it gets those of data, image_size and sites_per_patient that it has parameters for."""
    load = find(config.dataset, data.registry.LOADERS, "data set").entry
    offered = {
        "data": None if config.data is None else Path(config.data),
        "image_size": config.image_size,
        "sites_per_patient": config.sites_per_patient,
    }
    taken = {name: value for name, value in offered.items() if name in inspect.signature(load).parameters}
    if config.data is not None and "data" not in taken:
        raise ValueError(f"{config.dataset} takes no argument `data`; leave --data {config.data} out.")
    sites = load(**taken)
    if not isinstance(sites, data.Sites):
        raise ValueError(f"{config.dataset} returned a {type(sites).__name__}; it must return data.Sites.")
    return sites


def _covid(path: Path, size: int, sites_per_patient: int) -> data.Sites:
    """One of the layouts in which COVID-19 chest images are published, distinguished by the files present."""
    if path.suffix.lower() == ".npz" or path.is_file():
        return data.from_image_npz(
            path, classes=_COVID_CLASSES, site="source", patient="patient", sites_per_patient=sites_per_patient
        )
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: no such file or folder; covid expects {_NEED_DATA['covid']}.")
    if (path / "train.txt").is_file():
        return data.from_covidx(path, size=size, sites_per_patient=sites_per_patient)
    if (path / "COVID").is_dir():
        return data.from_covid_radiography(path, size=size, classes=("Normal", "COVID"))
    if any(each.is_dir() for each in path.rglob("Train")):
        return data.from_covid_qu_ex(path, size=size, classes=("Normal", "COVID-19"))
    return data.from_image_folder(path, size=size)


def wanted_subgroups(config: Config, sites: data.Sites) -> tuple[str, ...]:
    """Columns whose parts of the test records are scored by themselves: those of the settings, else those that the data declares; of public records only.

    Raises:
      ValueError: the settings name some, and the records are not public or not scored in the clear.
    """
    shown = records_are_public(config) and config.evaluation == "clear"
    if config.subgroups is None:
        return sites.subgroups if shown else ()
    if not shown:
        raise ValueError(
            "subgroups are scored on test records in the clear, and no epsilon covers that: for public records with evaluation='clear' alone "
            "(--public-data declares them public); leave --subgroups out."
        )
    return tuple(_listed(config.subgroups))


def has_open_columns(config: Config) -> bool:
    """Whether ranges or levels of the table's columns are to be released."""

    def word(declared: object) -> bool:
        return declared == "private" or (isinstance(declared, dict) and "private" in declared.values())

    return config.csv is not None and (word(config.bounds) or word(config.categorical))


def load_open_table(config: Config) -> OpenTable:
    """The table of a configuration with open columns, read but not encoded.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the table does not hold what it should; the message names line and remedy.
    """
    return read_open(**_arguments(config))


def check_width(config: Config, features: int, here: int) -> None:
    """Refuse more features than training records: the noise on so many coordinates hides what so few records show.

    Args:
      config: the settings.
      features: F.
      here: training records of the table; of one site's, the public bound on all sites' stands in.
    """
    alone = config.sites is not None and config.largest_site is not None
    records = config.largest_site * len(config.sites) if alone else here  # type: ignore[operator,arg-type]
    if features > records:
        raise ValueError(
            f"{config.csv}: {features:,} features for {records:,} training records: the noise on so many coordinates hides what so few records "
            "show; leave columns out with --drop, or declare fewer levels."
        )


def _table(config: Config) -> data.Sites:
    sites = data.from_csv(**_arguments(config))
    check_width(config, sites.features.shape[1], int(sites.train.sum()))
    return sites


def _arguments(config: Config) -> dict[str, Any]:
    """A table's settings as the arguments of `from_csv` and `read_open`; `Config` has checked them."""
    return {
        "path": config.csv,
        "label": _label(config.label),
        "site": config.site if config.sites is None else data.OneSite(str(config.here), tuple(config.sites)),
        "patient": config.patient,
        "positive": _listed(config.positive) or None,
        "classes": "from_data" if config.classes == "from_data" else _listed(config.classes) or None,
        "label_bounds": config.label_bounds,
        "categorical": config.categorical,
        "bounds": "from_data" if config.bounds is None else config.bounds,
        "missing": config.missing,
        "fill": config.fill,
        "drop": _listed(config.drop),
        "sites_per_patient": config.sites_per_patient,
        "min_site_records": config.min_site_records,
        "test_fraction": config.test_fraction,
        "split_seed": config.split_seed,
        "delimiter": config.delimiter,
        "encoding": config.encoding,
    }


def _label(label: str | list[str] | None) -> str | list[str]:
    """The label's column, or several."""
    names = _listed(label)
    return names[0] if len(names) == 1 else names


def _listed(names: str | list[str] | None) -> list[str]:
    """Names separated by commas, as the command line gives them, or the list of a TOML file."""
    if isinstance(names, str):
        return [name.strip() for name in names.split(",") if name.strip()]
    return list(names or ())
