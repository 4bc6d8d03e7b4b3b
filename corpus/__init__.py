"""Builds pretraining corpora: documented data mixes -> tokenised, packed, counted MDS streams."""

__version__ = "0.1.0"
