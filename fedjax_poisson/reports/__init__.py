"""What a finished run says to people: figures, tables and one HTML page, all made from the files of its folder."""
