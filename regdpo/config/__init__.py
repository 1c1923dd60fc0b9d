"""The configuration, what each stage reads of it, and its documents."""
