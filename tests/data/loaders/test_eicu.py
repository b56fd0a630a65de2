"""eICU: tables joined by stay, regions and indicators, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from fedjax_poisson import data
from fedjax_poisson.data.loaders import eicu
from tests.data.helpers import column, shared_file, write_csv


def eicu_folder(root, n=24, **changes):
    outcome = ["Alive", "Expired", ""]
    stays = [
        (
            100 + i,
            f"p{i // 2}",
            i // 2 % 3,
            "> 89" if i == 3 else 40 + i,
            "Female" if i % 2 else "Male",
            outcome[(i % 5) // 2],
        )
        for i in range(n)
    ]
    names = ("patientunitstayid", "uniquepid", "hospitalid", "age", "gender", "hospitaldischargestatus")
    write_csv(root / "patient.csv.gz", names, stays, packed=True)
    physiology = list(eicu._PHYSIOLOGY)
    header = ["patientunitstayid", "intubated", "vent", "dialysis", "meds", *physiology]
    values = [[100 + i, 0, i % 2, 0, -1, *([-1] * len(physiology))] for i in range(n - 2)]
    values[0][header.index("sodium")] = 131
    values[1][header.index("sodium")] = changes.get("sodium", 150)
    write_csv(root / "apacheApsVar.csv", header, values)
    history = ["patientunitstayid", *eicu._HISTORY]
    write_csv(root / "apachePredVar.csv", history, [[100 + i, *([i % 2] * 11)] for i in range(n)])
    write_csv(root / "hospital.csv", ("hospitalid", "region"), [(0, "West"), (1, "South"), (2, "")])
    return root


def test_eicu_joins_its_tables_by_stay(tmp_path):
    sites = data.from_eicu(eicu_folder(tmp_path))
    # 24 stays, two without APACHE variables, those with i % 5 == 4 without an outcome.
    assert len(sites.features) == 22 - 4
    assert sites.site_names == ("hospital 0", "hospital 1", "hospital 2")
    sodium = column(sites, "sodium")
    assert sodium[0] == 131 and sodium[1] == 150 and (sodium[2:] == 140).all()
    assert column(sites, "age")[3] == 90 and column(sites, "meds").sum() == 0
    np.testing.assert_array_equal(sites.labels[:4], [0, 0, 1, 1])
    assert sites.unit == "patient" and sites.warnings == ()


def test_eicu_regions_and_indicators(tmp_path):
    sites = data.from_eicu(eicu_folder(tmp_path), site="region", indicators=True)
    assert sites.site_names == ("South", "West", "unknown")
    np.testing.assert_array_equal(np.flatnonzero(column(sites, "sodium_measured")), [0, 1])


def test_eicu_names_what_is_wrong(tmp_path):
    with pytest.raises(FileNotFoundError, match="eICU Collaborative Research Database"):
        data.from_eicu(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match=r"neither patient\.csv nor patient\.csv\.gz"):
        data.from_eicu(tmp_path)
    with pytest.raises(ValueError, match="line 3: sodium should be a number; saw 'high'"):
        data.from_eicu(eicu_folder(tmp_path, sodium="high"))
    with pytest.raises(ValueError, match="'hospital' or 'region'"):
        data.from_eicu(tmp_path, site="ward")


def test_the_eicu_demo_as_one_file():
    file = shared_file("eicu_demo_apache.csv.gz")
    for site, count in (("hospital", 18), ("region", 7)):
        with pytest.raises(ValueError, match=rf"{count} patients have records at more than 1 site \(up to 2\)"):
            data.from_eicu(file, site=site)
    sites = data.from_eicu(file, sites_per_patient=2)
    assert len(sites.features) == 2205 - 26 and len(sites.site_names) == 186
    assert sites.labels.sum() == 196 and sites.sites_per_unit == 2 and sites.warnings == ()
    assert data.clipped_fraction(sites).max() < 0.005
    assert len(data.from_eicu(file, site="region", sites_per_patient=2).site_names) == 5
