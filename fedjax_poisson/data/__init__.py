"""Records of several sites: one container, the data sets that ship, loaders for users' data, and partitions."""

from fedjax_poisson.data.images.arrays import from_image_arrays as from_image_arrays
from fedjax_poisson.data.images.arrays import from_image_npz as from_image_npz
from fedjax_poisson.data.images.records import border_only as border_only
from fedjax_poisson.data.images.records import from_image_folder as from_image_folder
from fedjax_poisson.data.loaders.covid_xray import from_covid_qu_ex as from_covid_qu_ex
from fedjax_poisson.data.loaders.covid_xray import from_covid_radiography as from_covid_radiography
from fedjax_poisson.data.loaders.covid_xray import from_covidx as from_covidx
from fedjax_poisson.data.loaders.eicu import from_eicu as from_eicu
from fedjax_poisson.data.loaders.fhir import from_fhir as from_fhir
from fedjax_poisson.data.loaders.medmnist import from_medmnist as from_medmnist
from fedjax_poisson.data.loaders.mimic import from_mimic as from_mimic
from fedjax_poisson.data.tables import local_checks as local_checks
from fedjax_poisson.data.tables.survival import Survival as Survival
from fedjax_poisson.data.tables.survival import from_survival_csv as from_survival_csv
from fedjax_poisson.data.tables.tabular import from_csv as from_csv

from .one_site import OneSite as OneSite
from .one_site import among_sites as among_sites
from .one_site import joined as joined
from .partition import by_site as by_site
from .partition import dirichlet as dirichlet
from .partition import quantity_skew as quantity_skew
from .registry import load as load
from .sites import Padded as Padded
from .sites import Provenance as Provenance
from .sites import Sites as Sites
from .sites import Task as Task
from .sites import clipped_fraction as clipped_fraction
from .sites import describe as describe
from .sites import padded as padded
from .sites import padded_groups as padded_groups
from .sites import padded_rows as padded_rows
from .sites import site_sizes as site_sizes
from .sites import site_split as site_split
from .splitting import split_by_group as split_by_group
