"""The CSV as a workbook, and back: `export` and `import_workbook`, with a writer and a reader of .xlsx."""
