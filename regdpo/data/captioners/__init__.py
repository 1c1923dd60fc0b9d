"""Captioners: text files, models here, models behind a server. regdpo/data/captioner_registry.py declares them."""
