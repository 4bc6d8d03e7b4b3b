"""What a build writes down: the record of a unit, of a stream, of a tokenizer, and the manifest of a recipe's mix.

In come counts and fingerprints, out go the JSON files that every later reader checks. Imports the base only.
"""
