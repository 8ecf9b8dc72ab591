"""The only opener of files: stacks, panels, tables; atomic writes."""
