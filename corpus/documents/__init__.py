"""From files to documents: units, the records in them, joins, and adapters that turn a record into text.

In come complete local files and a source's format and adapter; out go units, and for each the documents in it or the
reason a record is none. Imports acquire, for listings and places of files.
"""
