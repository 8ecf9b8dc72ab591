"""Teacher-labelled patches of imaging mass cytometry."""
