"""The catalogue: every dataset of the papers, its stand-ins and the evaluation sets, as data in YAML.

In come this folder's files and a recipe's own sources; out go checked Source entries: origin, pinned revision, format,
adapter, licence, gate, published counts. Imports acquire and documents, whose origins and adapters an entry names.
"""
