"""Named data sets, one module a source: what ships with the package, and what users download themselves."""
