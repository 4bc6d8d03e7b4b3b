"""From files to documents: units, the records in them, joins, and adapters that turn a record into text."""
