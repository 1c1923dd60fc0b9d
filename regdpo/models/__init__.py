"""Model families: everything that is particular to one architecture."""
