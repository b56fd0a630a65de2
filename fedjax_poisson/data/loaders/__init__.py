"""Named data sets, one module per source: those that ship with the package, and those that users download themselves."""
