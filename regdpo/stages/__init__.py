"""One module a stage, named as its rule and its script."""
