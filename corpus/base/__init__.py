"""What every room stands on: errors, strict YAML, complete files, locks, numbers, processes. Imports no other room."""
