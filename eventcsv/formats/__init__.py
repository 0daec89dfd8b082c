"""The CSV in other formats, and made of one.

`export` writes a workbook with `xlsx_writer`, Parquet or JSON Lines; a format more is a case of it, and an option of
`eventcsv export`. `import_workbook` makes a CSV of what `xlsx_reader` reads, where `number_format` says which numbers
are dates.
"""
