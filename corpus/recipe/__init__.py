"""The recipe: composed of what the rooms below declare (sources, cleaning steps, tokenizers), and its arithmetic.

In comes a YAML file; out go a checked Recipe, the draws of each source, the published reference and the estimate of
what it needs. Imports records, acquire, documents, catalogue, cleaning and tokenization; knows of no stream.
"""
