"""A user's delimited text file as `Sites`: reading, typing and encoding of columns, declarations, warnings."""
