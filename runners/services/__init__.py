"""The use cases: rows, commands and machines together. They know no HTTP. `machines/` below them knows no rows."""
