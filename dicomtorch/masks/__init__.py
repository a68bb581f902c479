"""Objects that say which pixels are what: SEG, RTSTRUCT, tables; polygons, placing, reading."""
