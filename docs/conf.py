"""The documentation site: `sphinx-build -W --keep-going -c docs . build/docs`, from the root of the repository.

The repository is the source folder, so that a page may link to any file of it (a script, a result, another page) by the same relative path that
works in a checkout, and every such link is checked by the build. Notebooks are shown from the outputs that they were saved with; nothing is executed.

Sphinx with furo and myst-nb: each was released within twelve months of this choice (November 2026) and runs on Python 3.11 to 3.14. furo is one style
sheet of 0.3 MB with a dark mode and a layout for phones; sphinx-book-theme does the same on top of another theme of 3 MB. Formulas are drawn while the
site is built, so that no page asks another server for anything.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

import fedjax_poisson  # noqa: E402

project = "fedjax_poisson"
author = "The fedjax_poisson authors"
project_copyright = f"2026, {author}"
release = version = fedjax_poisson.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "site_extensions.command_help",
    "site_extensions.docstrings",
    "site_extensions.formulas",
    "site_extensions.public_names",
]
root_doc = "docs/index"
include_patterns = [
    "docs/**",
    "notebooks/*.ipynb",
    "notebooks/*.md",
    "experiments/**/README.md",
    "examples/**/README.md",
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
]
exclude_patterns = ["build", ".venv", "**.ipynb_checkpoints", "docs/_*"]

# Reading. Slugs as GitHub makes them, so that links to headings hold in both places.
myst_enable_extensions = ["amsmath", "attrs_inline", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4
myst_dmath_double_inline = True
nb_execution_mode = "off"
nb_merge_streams = True
suppress_warnings = ["myst.header"]  # pages that others include may begin below the first level

# The reference.
smartquotes = False  # a prime is no quotation mark
default_role = "py:obj"
add_module_names = False
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_type_aliases = {
    name: name
    for name in ("ArrayLike", "FloatArray", "Array", "Stream", "Cost", "Law", "Charge", "Adjacency", "Task", "PyTree")
}
python_use_unqualified_type_names = True
maximum_signature_line_length = 88
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_attr_annotations = False  # the signature has the types
napoleon_use_rtype = False
toc_object_entries_show_parents = "hide"

# Looks.
html_theme = "furo"
html_title = "fedjax_poisson"
html_math_renderer = "drawn"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_extra_path = ["extra"]  # index.html, which leads to docs/index.html
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {"navigation_with_keys": True}
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

# `sphinx-build -b linkcheck` asks other servers, so it is run by hand.
linkcheck_anchors = False
linkcheck_timeout = 20
