"""What people are shown: the HTML report of a build, and the tables that the commands print.

In come manifests, records, estimates and plans; out goes text, in which everything from a corpus is escaped. Imports
every room below; no other room imports it.
"""
